"""An epoch of the MNIST network: fastdl against the frameworks."""

import pytest
from peers import installed, mnist

JOBS = mnist.jobs()
ROUNDS = 3


@pytest.mark.parametrize(
    ("job", "library"),
    [
        pytest.param(job, library, id=f"{job.name}-{library}")
        for job in JOBS
        for library in job.libraries
        if installed(library)
    ],
)
def bench_epoch(benchmark, record, first_call, job, library):
    mnist.data()
    seconds = first_call(library, lambda: job.run(library))
    job.check(library)
    record(["mnist"], job.name, library, first_call=seconds)
    benchmark.pedantic(job.run, args=(library,), rounds=ROUNDS)
