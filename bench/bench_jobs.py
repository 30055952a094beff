"""Training, predictions, Keras's models and estimators, each library in a process of its own."""

import pytest
from peers import contestants, estimators, keras_models, predict, training

ROUNDS = {training: 2, predict: 5, keras_models: 2, estimators: 2}
# Half a minute of compilation for each setting: here the default one has to do.
ONE_SETTING = {"PyTorch (compiled)"}


@pytest.mark.parametrize(
    ("suite", "job", "library", "environment"),
    [
        pytest.param(suite, job, library, environment, id=f"{job.name}-{label}")
        for suite in ROUNDS
        for job in suite.jobs()
        for label, library, environment in contestants(job, ONE_SETTING)
    ],
)
def bench_job(bench_worker, suite, job, library, environment):
    bench_worker(suite.__name__, job, library, environment, ROUNDS[suite])
