"""Keras with its NumPy backend and nothing else.

That backend imports JAX, for convolutions, pooling and Fourier transforms, and SciPy, for linear
algebra, whether or not anybody asks for these. Where one of them is missing, stand-ins take its
place while Keras is imported: what would need it raises an ImportError when it is called.
"""

import contextlib
import importlib
import importlib.abc
import importlib.util
import os
import sys
import types

from .._optional import optional_import

_NEEDED = ("jax", "scipy")
# Part of Keras, and JAX throughout.
_JAX_BACKEND = "keras.src.backend.jax"


def import_keras():
    """Import Keras; with `KERAS_BACKEND=numpy`, NumPy is all that it needs then.

    Keras's NumPy backend imports JAX and SciPy, which small networks have no use for: what has is
    left out where they are not installed. Once this was called, `import keras` does as well.

    Returns
    -------
    module

    Raises
    ------
    ImportError
        If Keras, or the backend that it is set to, is not installed.

    Examples
    --------
    >>> from fastdl.keras import import_keras
    >>> keras = import_keras()
    >>> keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(3)]).count_params()
    9
    """
    if "keras" in sys.modules or os.environ.get("KERAS_BACKEND") != "numpy":
        return optional_import("keras", extra="keras")
    missing = [name for name in _NEEDED if not _is_installed(name)]
    with _stand_ins(missing):
        return optional_import("keras", extra="keras")


def _is_installed(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False


@contextlib.contextmanager
def _stand_ins(packages):
    """While the block runs, these packages can be imported, but what is in them not be called."""
    if not packages:
        yield
        return
    finder = _Finder(packages)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name, module in sys.modules.items() if isinstance(module, _Missing)]:
            del sys.modules[name]
            package, _, attribute = name.rpartition(".")
            if package in sys.modules:
                vars(sys.modules[package]).pop(attribute, None)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, packages):
        self._packages = packages

    def find_spec(self, name, path=None, target=None):
        package = name.partition(".")[0]
        if "jax" in self._packages and f"{name}.".startswith(f"{_JAX_BACKEND}."):
            package = "jax"
        if package not in self._packages:
            return None
        return importlib.util.spec_from_loader(name, self, origin=package, is_package=True)

    def create_module(self, spec):
        return _Missing(spec.name, spec.origin)

    def exec_module(self, module):
        pass


class _Missing(types.ModuleType):
    """Stands in for a module and for all that is in it."""

    def __init__(self, name, package):
        super().__init__(name)
        self._package = package

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Missing(f"{self.__name__}.{name}", self._package)

    def __call__(self, *arguments, **settings):
        raise ImportError(f"{self.__name__}: needs the package {self._package}")
