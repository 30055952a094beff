"""The training loops of the first two assignments: fastdl against the same loop elsewhere."""

import pytest
from peers import installed, loops

JOBS = loops.jobs()


@pytest.mark.parametrize(
    ("job", "library"),
    [
        pytest.param(job, library, id=f"{job.name}-{library}")
        for job in JOBS
        for library in job.libraries
        if installed(library)
    ],
)
def bench_loop(benchmark, record, first_call, job, library):
    seconds = first_call(library, lambda: job.run(library))
    job.check(library)
    record(["loops"], job.name, library, first_call=seconds)
    benchmark(job.run, library)
