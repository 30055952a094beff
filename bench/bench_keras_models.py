"""Keras models as people run them, by Keras and by fastdl, each in a process of its own."""

import pytest
from peers import contestants, keras_models

ROUNDS = 2


@pytest.mark.parametrize(
    ("job", "library", "environment"),
    [
        pytest.param(job, library, environment, id=f"{job.name}-{label}")
        for job in keras_models.jobs()
        for label, library, environment in contestants(job)
    ],
)
def bench_keras_models(bench_worker, job, library, environment):
    bench_worker(keras_models.__name__, job, library, environment, ROUNDS)
