"""The same work done by other libraries, each in its fastest form that is still that library.

`operations` has single operations, `loops` the training loops of the first two assignments,
`mnist` an epoch of the third's network.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# The module that each library needs, in the order of the tables' columns.
MODULES = {
    "fastdl": "fastdl",
    "fastdl (numba)": "numba",
    "fastdl (reference)": "numpy",
    "NumPy": "numpy",
    "NumPy (tuned)": "numpy",
    "SciPy": "scipy",
    "Numba": "numba",
    "JAX": "jax",
    "PyTorch": "torch",
    "Keras": "keras",
    "scikit-learn": "sklearn",
}


def installed(library):
    return importlib.util.find_spec(MODULES[library]) is not None


# NumPy's global state is seeded with this before a job's results are compared.
SEED = 2


@dataclass(frozen=True)
class Job:
    """A piece of work and how each library does it.

    `libraries` maps a library to a function of the work's size (its number of steps, say), which
    sets everything up when called for the first time and gives comparable results. `agree` takes
    two such results, fastdl's second, and raises where they are not the same. They are compared
    at `check_size`, a size at which rounding has not yet had its way.
    """

    name: str
    libraries: dict[str, Callable]
    size: int
    check_size: int
    agree: Callable

    def run(self, library):
        return self.libraries[library](self.size)

    def check(self, library):
        """Compare with fastdl; after a first run, since imports may draw random numbers too."""
        results = []
        for name in (library, "fastdl"):
            np.random.seed(SEED)
            results.append(self.libraries[name](self.check_size))
        self.agree(*results)
