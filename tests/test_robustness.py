"""The same bits wherever a training runs, a sound state after Ctrl-C, no memory left behind.

`make soak` does more of the same.
"""

import concurrent.futures
import os
import random
import sys
import threading

import joblib
import numpy as np
import pytest
import robustness
from robustness import digits_digest, digits_digest_elsewhere, in_forked_child, sparse_digits

import fastdl
from fastdl import _engine, backends

# Processes of joblib outlive the tests.
pytestmark = [pytest.mark.each_build, pytest.mark.usefixtures("processes_not_measured")]

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


@pytest.fixture(scope="module")
def digits():
    return sparse_digits(200)


@pytest.fixture
def threads(monkeypatch):
    """Sets how many threads every training of this process takes."""
    return lambda count: monkeypatch.setattr(_engine, "_threads", lambda *_: count)


@pytest.fixture(scope="module")
def wanted(digits):
    """The bits of one thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_engine, "_threads", lambda *_: 1)
        return digits_digest(*digits)


def test_other_seeds_give_other_bits(digits, wanted):
    assert digits_digest(*digits, seed=1) != wanted


@pytest.mark.parametrize("count", [2, 3, 4])
def test_any_number_of_threads(count, digits, wanted, threads):
    threads(count)
    assert digits_digest(*digits) == wanted


@posix
@pytest.mark.parametrize("count", [1, 3])
def test_a_forked_child(count, digits, wanted, threads):
    threads(count)
    digits_digest(*digits)  # no thread of it is left, nor needed in the child
    assert in_forked_child(digits_digest, *digits) == wanted


@posix
def test_a_child_forked_while_others_train(digits, wanted, threads):
    threads(2)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        others = [pool.submit(digits_digest, *digits) for _ in range(4)]
        assert in_forked_child(digits_digest, *digits) == wanted
        assert {other.result() for other in others} == {wanted}


@posix
@pytest.mark.parametrize("sizes", [(2, 4, 1), (64, 64, 8), (64, 2048, 8)])
def test_threads_whose_stacks_have_little_memory(sizes):
    def train():
        threading.stack_size(1 << 17)
        net = fastdl.MLP(sizes, output_activation="linear", loss="mse", dtype="float64", seed=0)
        X = np.ones((300, sizes[0]))
        settings = {"batch_size": 32, "verbose": 0}
        thread = threading.Thread(target=net.fit, args=(X, X[:, : sizes[-1]]), kwargs=settings)
        thread.start()
        thread.join()
        return "trained"

    assert in_forked_child(train) == "trained"


def test_joblib_processes(digits, wanted):
    train = joblib.delayed(digits_digest_elsewhere)
    with joblib.Parallel(n_jobs=2, backend="loky") as parallel:
        assert set(parallel(train(*digits, count) for count in (1, 2, 3))) == {wanted}


@pytest.mark.parametrize("backend", backends.BACKENDS)
def test_networks_that_joblib_maps_train_on_memory_of_their_own(tmp_path, backend):
    X, y = np.random.default_rng(0).normal(size=(40, 6)), np.arange(40) % 3
    net = fastdl.MLP([6, 8, 3], seed=0)
    net.fit(X, y, verbose=0)
    path = tmp_path / "net.joblib"
    joblib.dump(net, path)
    before = path.read_bytes()
    for mode in ("r", "r+"):
        mapped = joblib.load(path, mmap_mode=mode)
        with backends.use_backend(backend):
            mapped.fit(X, y, verbose=0)
        assert (mapped.weights[0] != net.weights[0]).any()
    assert path.read_bytes() == before


def test_joblib_threads(digits, wanted, threads):
    threads(2)
    parallel = joblib.Parallel(n_jobs=3, backend="threading")
    assert set(parallel(joblib.delayed(digits_digest)(*digits) for _ in range(6))) == {wanted}


def test_eight_python_threads(digits, wanted, threads):
    threads(2)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        runs = [pool.submit(digits_digest, *digits) for _ in range(8)]
        assert {run.result() for run in runs} == {wanted}


@posix
@pytest.mark.parametrize("case", robustness.INTERRUPTED)
def test_ctrl_c_leaves_a_completed_step(case):
    delays = random.Random(case)
    for _ in range(2):
        stop, _ = robustness.interrupt(case, delays.uniform(0, 0.4))
        assert robustness.faults(case, stop) == []


def test_faults_of_an_interrupted_training_are_seen():
    sound = robustness.Stop(0.0, 4, 4, True, robustness.replayed_digest("planar", 4), True)
    assert robustness.faults("planar", sound) == []
    for name, value in {
        "iterations": 5, "optimizer_iterations": 3, "finite": False, "digest": "",
        "handler_restored": False,
    }.items():  # fmt: skip
        assert robustness.faults("planar", robustness.dataclasses.replace(sound, **{name: value}))


@linux
@pytest.mark.parametrize("kind", ["reuse", "fresh"])
def test_fits_leave_no_memory_behind(kind):
    assert robustness.memory_left(4000, kind) < 1000
