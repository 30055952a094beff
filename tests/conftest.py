"""Settings that all tests share. Which tests run on which build: EACH_BUILD in the Makefile."""

import itertools
import os
import signal

# Before NumPy loads: the figures drawn in tests need no screen, and BLAS no second thread.
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest
from hypothesis import settings

# A shell has what it starts in the background ignore Ctrl-C, which some tests press.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("fastdl", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("fastdl")


def pytest_report_header():
    """Which copy of fastdl, and which build of its kernels, the tests are about."""
    import fastdl
    from fastdl import _kernels

    build = "debug build" if _kernels.DEBUG else "build"
    return f"fastdl: {fastdl.__path__[0]}, {build} for CPU level {_kernels.CPU_LEVEL}"


@pytest.fixture(autouse=True)
def trained_by_several_threads(monkeypatch):
    """FASTDL_TEST_THREADS=2: every training takes so many threads, however small it is."""
    if count := int(os.environ.get("FASTDL_TEST_THREADS", "0")):
        from fastdl import _engine

        monkeypatch.setattr(_engine, "_threads", lambda *_: count)


@pytest.fixture
def ctrl_c_in_third_call(monkeypatch):
    """Press Ctrl-C within the third call of the compiled engine.

    At any other time it may break into coverage's own code, which then never lets go of its lock:
    what has to survive that trains in a process that isn't measured (`robustness.py`).
    """
    from fastdl import _engine

    steps, calls = _engine._compiled_steps, itertools.count(1)

    def interrupted(*arguments):
        if next(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return steps(*arguments)

    monkeypatch.setattr(_engine, "_compiled_steps", interrupted)


@pytest.fixture(scope="module")
def keras_in_double():
    """Keras, whose layers are float64 meanwhile."""
    keras = pytest.importorskip("keras")
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    yield keras
    keras.config.set_floatx(before)


@pytest.fixture(scope="module")
def processes_not_measured():
    """Coverage would leave a file of each process that is killed, or outlives the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("COV"):
                patch.delenv(name)
        yield
