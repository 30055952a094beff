"""What bench/conftest.py records of a contestant, in a run of pytest with jobs of its own."""

import json
import os
import subprocess
import sys

import report

# A call of NumPy's does four pieces of the first job, and none of the second as fastdl does it.
BENCH = """
import pytest
from peers import Job
from worker import Worker

Worker.enough_calls = lambda self: 3


def agree(result, expected):
    assert result == expected


def libraries(result):
    return {"fastdl": lambda size: 1.0, "NumPy": lambda size: result}


def jobs():
    return [
        Job("same", libraries(1.0), 1, 1, agree, together={"NumPy": 4}),
        Job("other", libraries(2.0), 1, 1, agree),
    ]


@pytest.mark.parametrize(
    ("job", "library"),
    [
        pytest.param(job, library, id=f"{job.name}-{library}")
        for job, library in zip([*jobs(), jobs()[0]], ["NumPy", "NumPy", "fastdl"])
    ],
)
def bench_job(bench_worker, job, library):
    bench_worker(__name__, job, library, {}, 2)
"""


def test_a_contestant_is_checked_and_its_calls_are_counted_by_pieces(tmp_path):
    (tmp_path / "bench_toy.py").write_text(BENCH)
    (tmp_path / "pytest.ini").write_text("[pytest]\npython_functions = bench_*\n")
    # bench/conftest.py is the one called `conftest` that is found first.
    path = os.pathsep.join([os.path.dirname(report.__file__), str(tmp_path), *sys.path])
    # Nothing is timed in a process that takes itself for one of several workers.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    options = ["-p", "conftest", "-p", "no:cacheprovider", "--benchmark-json=times.json"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-q", "bench_toy.py"],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 failed, 2 passed" in result.stdout, result.stdout
    assert "bench_toy.py::bench_job[other-NumPy]" in result.stdout
    times = json.loads((tmp_path / "times.json").read_text())
    calls = {}
    for each in times["benchmarks"]:
        info = each["extra_info"]
        assert info["tables"] == ["bench_toy"]
        assert info["first_call"] > 0
        assert each["stats"]["rounds"] == 2
        calls[info["row"], info["column"]] = info["calls"]
    assert calls == {("same", "NumPy"): 12, ("same", "fastdl"): 3}
