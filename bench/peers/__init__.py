"""The same work done by other libraries, each in its fastest form that is still that library.

`operations` has single operations, `loops` the training loops of the first two assignments,
`training` epochs of networks on the training engine, `predict` what they answer, `keras_models`
Keras's own models, `searches` the best of many networks, `estimators` scikit-learn's and those that
take their place.
"""

import functools
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from fastdl import backends

# The module that each contestant needs, in the order of the tables' columns.
MODULES = {
    "fastdl": "fastdl",
    "fastdl (1 thread)": "fastdl",
    "fastdl (v3)": "fastdl",
    "fastdl (numba)": "numba",
    "fastdl (reference)": "numpy",
    "NumPy": "numpy",
    "NumPy (tuned)": "numpy",
    "SciPy": "scipy",
    "Numba": "numba",
    "Numba (loops)": "numba",
    "JAX": "jax",
    "PyTorch": "torch",
    "PyTorch (compiled)": "torch",
    "ONNX Runtime": "onnxruntime",
    "ONNX Runtime (bound)": "onnxruntime",
    "Keras": "keras",
    "Keras (tuned)": "keras",
    "Keras (call)": "keras",
    "Keras (JAX)": "keras",
    "scikit-learn": "sklearn",
    "scikit-learn (2 processes)": "sklearn",
}

# By the names that OpenMP, OpenBLAS, XLA and TensorFlow read when they load.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NPROC": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
}

# What a contestant's process has to find in its environment.
ENVIRONMENTS = {
    "fastdl (1 thread)": ONE_THREAD,
    "fastdl (v3)": {"FASTDL_CPU": "v3"},
    "PyTorch (compiled)": {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"},  # a first call is the first
    "Keras (JAX)": {"KERAS_BACKEND": "jax"},
}

# Peers whose threads may help or hinder: they run with one and with all, and the better one counts.
# "Keras" is not among them: it stands for what people run.
THREADED = {
    "NumPy",
    "NumPy (tuned)",
    "JAX",
    "PyTorch",
    "PyTorch (compiled)",
    "ONNX Runtime",
    "ONNX Runtime (bound)",
    "Keras (tuned)",
    "Keras (call)",
    "Keras (JAX)",
    "scikit-learn",
}

# NumPy's global state is seeded with this before a job's results are compared.
SEED = 2


def ours(library):
    return library.startswith("fastdl")


def installed(library):
    if library == "fastdl (v3)" and "v3" not in backends.supported_cpu_levels():
        return False
    return importlib.util.find_spec(MODULES[library]) is not None


def settings(library):
    """(suffix of the label, environment) of each way in which a library is timed."""
    environment = ENVIRONMENTS.get(library, {})
    yield "", environment
    if library in THREADED and backends.available_threads() > 1:
        yield ", 1 thread", environment | ONE_THREAD


@dataclass(frozen=True)
class Job:
    """A piece of work and how each library does it.

    `libraries` maps a library to a function of the work's size (its number of steps, say), which
    sets everything up when called for the first time and gives comparable results. `agree` takes
    two such results, fastdl's second, and raises where they are not the same. They are compared
    at `check_size`, a size at which rounding has not yet had its way. `prepare` is called once
    before anything is timed. Of the libraries in `together` a call does so many pieces of work at
    once, and its time is divided by their number.
    """

    name: str
    libraries: dict[str, Callable]
    size: int
    check_size: int
    agree: Callable
    prepare: Callable = lambda: None
    together: Mapping[str, int] = field(default_factory=dict)

    def call(self, library):
        """What is timed, as a function of no arguments."""
        return functools.partial(self.libraries[library], self.size * self.pieces(library))

    def pieces(self, library):
        """How many pieces of work a call does."""
        return self.together.get(library, 1)

    def run(self, library):
        return self.call(library)()

    def result(self, library):
        """What is compared; after `run` in one process, since imports may draw random numbers."""
        np.random.seed(SEED)
        return self.libraries[library](self.check_size)

    def check(self, library):
        """Compare with fastdl."""
        self.agree(self.result(library), self.result("fastdl"))


def contestants(job, one_setting=()):
    """(label, library, environment) of each setting of a job's libraries that are installed.

    Those named in `one_setting` come with their first one only.
    """
    for library in filter(installed, job.libraries):
        for suffix, environment in settings(library):
            yield library + suffix, library, environment
            if library in one_setting:
                break
