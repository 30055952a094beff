"""A network's answers for one row and for many, each library in a process of its own."""

import pytest
from conftest import contestants
from peers import predict

ROUNDS = 5


@pytest.mark.parametrize(("job", "library", "environment"), list(contestants(predict.jobs())))
def bench_predict(bench_worker, job, library, environment):
    bench_worker(predict.__name__, job, library, environment, ROUNDS)
