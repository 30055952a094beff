"""Trainings under trying circumstances, for the tests and, in larger numbers, for tools/soak.py.

Run as a program, it is the child that such a check needs to itself:

    python robustness.py interrupted CASE   trains until SIGINT, then prints a Stop as JSON
    python robustness.py memory FITS KIND   prints how many kB of memory so many fits leave behind
"""

import dataclasses
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from fastdl import MLP, Callback, _engine
from fastdl.optimizers import SGD, Adam


def digest(net):
    """SHA-256 of the parameters."""
    return hashlib.sha256(b"".join(array.tobytes() for array in net.weights)).hexdigest()


def sparse_digits(rows, features=784, seed=0):
    """As many zeros as in MNIST: X (rows, features) float32, labels (rows,)."""
    rng = np.random.default_rng(seed)
    X = rng.random((rows, features), np.float32)
    X[rng.random(X.shape) >= 0.19] = 0
    return X, rng.integers(0, 10, rows)


# -------------------------------------------------------------------------------- the same bits

DIGITS = {"sizes": [784, 128, 64, 10], "dropout": 0.3}
DIGITS_FIT = {"epochs": 3, "batch_size": 32, "optimizer": Adam(1e-3), "verbose": 0}


def digits_digest(X, y, seed=0):
    """What a network for digits learns in three epochs."""
    net = MLP(**DIGITS, seed=seed)
    net.fit(X, y, **DIGITS_FIT)
    return digest(net)


def digits_digest_elsewhere(X, y, threads):
    """The same in a process of its own, where the number of threads is still to be set."""
    _engine._threads = lambda *_: threads
    return digits_digest(X, y)


def in_forked_child(function, *arguments):
    """What a function that returns text returns in a child made by fork."""
    if os.environ.get("FASTDL_TEST_FORKS") == "0":
        import pytest  # tools/soak.py does without

        pytest.skip("FASTDL_TEST_FORKS is 0")
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writer, function(*arguments).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, encoding="ascii") as pipe:
        result = pipe.read()
    os.waitpid(child, 0)
    return result


# ------------------------------------------------------------------------------------ interrupts


def _digits():
    return *sparse_digits(3000), DIGITS, {"batch_size": 32, "optimizer": Adam(1e-3)}


def _wide():
    X = np.random.default_rng(0).normal(size=(1024, 784)).astype(np.float32)
    arguments = {"sizes": [784, 2048, 2048, 10]}
    return X, np.arange(len(X)) % 10, arguments, {"batch_size": 128, "optimizer": Adam(1e-4)}


def _planar():
    X = np.random.default_rng(0).normal(size=(400, 2))
    arguments = {"sizes": [2, 4, 1], "activation": "tanh"}
    return (
        X,
        (X[:, 0] * X[:, 1] > 0).astype(int),
        arguments,
        {"batch_size": 400, "optimizer": SGD(0.1)},
    )


# Name -> function that gives X, y, arguments of MLP, arguments of fit.
INTERRUPTED = {"digits": _digits, "wide": _wide, "planar": _planar}


@dataclasses.dataclass
class Stop:
    """How a training ended that Ctrl-C was pressed in."""

    ended: float  # on the monotonic clock
    iterations: int
    optimizer_iterations: int
    finite: bool
    digest: str
    handler_restored: bool


def _train_until_interrupted(case):
    X, y, arguments, fit = INTERRUPTED[case]()
    net = MLP(**arguments, seed=1)
    # A shell has what it starts in the background ignore Ctrl-C, and so do the children of that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        # The parent may not press before somebody catches it.
        print("ready", flush=True)
        net.fit(X, y, epochs=10**9, verbose=0, **fit)
    except KeyboardInterrupt:
        ended = time.monotonic()
    return Stop(
        ended,
        net.iterations,
        net._state.iterations if net.optimizer else 0,
        all(bool(np.isfinite(array).all()) for array in net.weights),
        digest(net),
        signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    )


def interrupt(case, delay):
    """Press Ctrl-C in a training after `delay` seconds: its Stop, and the seconds that it took."""
    with subprocess.Popen(
        [sys.executable, __file__, "interrupted", case], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "ready\n"
        time.sleep(delay)
        pressed = time.monotonic()
        child.send_signal(signal.SIGINT)
        try:
            stop = Stop(**json.loads(child.communicate(timeout=60)[0]))
        finally:
            child.kill()  # it would go on for ever
    return stop, stop.ended - pressed


class _StopAt(Callback):
    def __init__(self, iterations):
        self.iterations = iterations

    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training = self.model.iterations == self.iterations


def replayed_digest(case, iterations):
    """The parameters of an undisturbed training after exactly so many steps."""
    X, y, arguments, fit = INTERRUPTED[case]()
    net = MLP(**arguments, seed=1)
    epochs, steps = divmod(iterations, math.ceil(len(X) / fit["batch_size"]))
    if epochs:
        net.fit(X, y, epochs=epochs, verbose=0, **fit)
    if steps:
        net.fit(X, y, callbacks=[_StopAt(iterations)], verbose=0, **fit)
    return digest(net)


def faults(case, stop):
    """What is wrong with the state that an interrupted training was left in."""
    wrong = []
    if not stop.finite:
        wrong.append("parameters are not finite")
    if stop.iterations != stop.optimizer_iterations:
        wrong.append(
            f"{stop.iterations} steps of the network, {stop.optimizer_iterations} of its optimizer"
        )
    if stop.digest != replayed_digest(case, stop.iterations):
        wrong.append(f"parameters are not those after {stop.iterations} steps")
    if not stop.handler_restored:
        wrong.append("the signal's handler was not restored")
    return wrong


# ---------------------------------------------------------------------------------------- memory


def _resident():
    """Resident memory of this process, kB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError("/proc/self/status: no line VmRSS")


def _memory_left(fits, kind):
    """kB that one-step fits leave behind, with one network or with a fresh one each time."""
    X = np.random.default_rng(0).normal(size=(8, 2))
    y = (X[:, 0] > 0).astype(int)
    net = MLP([2, 4, 1], seed=0)

    def fit_many_times(count):
        nonlocal net
        for _ in range(count):
            if kind == "fresh":
                net = MLP([2, 4, 1], seed=0)
            net.fit(X, y, verbose=0)

    fit_many_times(1000)
    before = _resident()
    fit_many_times(fits)
    return _resident() - before


def memory_left(fits, kind):
    """The same, measured in a process that does nothing else."""
    child = subprocess.run(
        [sys.executable, __file__, "memory", str(fits), kind],
        stdout=subprocess.PIPE, check=True, text=True,
    )  # fmt: skip
    return int(child.stdout)


def main(command, *arguments):
    if command == "interrupted":
        print(json.dumps(dataclasses.asdict(_train_until_interrupted(*arguments))))
    elif command == "memory":
        print(_memory_left(int(arguments[0]), arguments[1]))
    else:
        raise SystemExit(f"{command!r}: neither interrupted nor memory")


if __name__ == "__main__":
    main(*sys.argv[1:])
