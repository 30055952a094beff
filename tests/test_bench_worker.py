"""Contestants in processes of their own (bench/worker.py), on jobs that need no other library."""

import os

import numpy as np
import pytest
from worker import Worker

MODULE = '''
"""Jobs for the tests of the worker."""

import os

import numpy as np
from peers import Job

calls = []


def answer(size):
    """Prints, which must not get in the way of the replies."""
    print("chatter")
    calls.append(size)
    return np.random.random(), np.arange(size), None


def fail(size):
    raise ValueError("a reason of its own")


def leave(size):
    os._exit(3)


def count(size):
    return float(len(calls))


def environment(size):
    return np.array([int(os.environ["GIVEN"])])


def jobs():
    libraries = {"NumPy": answer, "SciPy": fail, "Numba": leave}
    return [
        Job("other", {"NumPy": count}, size=1, check_size=1, agree=None),
        Job("work", libraries, size=2, check_size=3, agree=None, prepare=lambda: calls.append(0)),
        Job("environment", {"NumPy": environment}, size=1, check_size=1, agree=None),
        Job("prepared", {"NumPy": count}, 1, 1, None, prepare=lambda: calls.append(0)),
    ]
'''


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """A function that starts a worker, which ends with the test."""
    (tmp_path / "toy_jobs.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    started = []

    def start(job, library="NumPy", environment=()):
        started.append(Worker("toy_jobs", job, library, dict(environment)))
        return started[-1]

    yield start
    for each in started:
        each.close()


def test_the_first_call_gives_time_and_result_of_the_check(worker):
    seconds, (drawn, numbers, nothing) = worker("work").first()
    assert 0 < seconds < 60
    assert drawn == np.random.RandomState(2).random_sample()
    np.testing.assert_array_equal(numbers, [0, 1, 2])
    assert nothing is None


def test_calls_are_timed_one_by_one_on_average(worker):
    one = worker("other")
    one.first()
    assert 0 < one.time(1000) < 0.01


def test_a_short_call_is_timed_many_times(worker):
    assert worker("other").enough_calls() > 100


def test_preparation_comes_before_the_first_call(worker):
    assert worker("prepared").first()[1] == 1


def test_the_environment_comes_on_top_of_this_one(worker, monkeypatch):
    monkeypatch.setenv("GIVEN", "7")
    assert worker("environment").first()[1] == 7
    assert worker("environment", environment={"GIVEN": "8"}).first()[1] == 8
    assert os.environ["GIVEN"] == "7"


def test_a_failure_says_whose_it_is_and_why(worker):
    with pytest.raises(RuntimeError, match=r"(?s)SciPy on 'work' failed.*a reason of its own"):
        worker("work", "SciPy").first()


def test_a_process_that_ends_by_itself_is_a_failure(worker):
    with pytest.raises(RuntimeError, match="Numba on 'work' failed"):
        worker("work", "Numba").first()


def test_closing_ends_the_process_and_can_be_repeated(worker):
    one = worker("other")
    one.first()
    one.close()
    one.close()
    assert one._process.returncode == 0
