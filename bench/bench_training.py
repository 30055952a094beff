"""Epochs of several networks: fastdl against the frameworks, each in a process of its own."""

import pytest
from peers import contestants, training

ROUNDS = 2
# Half a minute of compilation for each setting: here the default one has to do.
ONE_SETTING = {"PyTorch (compiled)"}


@pytest.mark.parametrize(
    ("job", "library", "environment"),
    [
        pytest.param(job, library, environment, id=f"{job.name}-{label}")
        for job in training.jobs()
        for label, library, environment in contestants(job, ONE_SETTING)
    ],
)
def bench_training(bench_worker, job, library, environment):
    bench_worker(training.__name__, job, library, environment, ROUNDS)
