"""A network's answers for one row and for many, each library in a process of its own."""

import pytest
from peers import contestants, predict

ROUNDS = 5


@pytest.mark.parametrize(
    ("job", "library", "environment"),
    [
        pytest.param(job, library, environment, id=f"{job.name}-{label}")
        for job in predict.jobs()
        for label, library, environment in contestants(job)
    ],
)
def bench_predict(bench_worker, job, library, environment):
    bench_worker(predict.__name__, job, library, environment, ROUNDS)
