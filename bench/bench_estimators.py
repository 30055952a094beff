"""Fits of scikit-learn's perceptron and of fastdl's, each in a process of its own."""

import pytest
from peers import contestants, estimators

ROUNDS = 2


@pytest.mark.parametrize(
    ("job", "library", "environment"),
    [
        pytest.param(job, library, environment, id=f"{job.name}-{label}")
        for job in estimators.jobs()
        for label, library, environment in contestants(job)
    ],
)
def bench_estimators(bench_worker, job, library, environment):
    bench_worker(estimators.__name__, job, library, environment, ROUNDS)
