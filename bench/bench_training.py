"""Epochs of several networks: fastdl against the frameworks, each in a process of its own."""

import pytest
from conftest import contestants
from peers import training

ROUNDS = 2
# Half a minute of compilation for each setting: here the default one has to do.
ONE_SETTING = {"PyTorch (compiled)"}


CONTESTANTS = list(contestants(training.jobs(), ONE_SETTING))


@pytest.mark.parametrize(("job", "library", "environment"), CONTESTANTS)
def bench_training(bench_worker, job, library, environment):
    bench_worker(training.__name__, job, library, environment, ROUNDS)
