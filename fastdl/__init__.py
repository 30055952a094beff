"""Small dense neural networks on the CPU, trained by compiled kernels on NumPy arrays."""

import importlib

from . import backends
from .backends import get_backend, set_backend, use_backend

__version__ = "0.1.0"

# Name -> module that defines it (None: the name is itself a module), imported when first used.
_LAZY = {
    "ops": None,
    "datasets": None,
    "distributed": None,
    "MLP": "network",
    "load": "network",
    "fit_many": "_many",
    "sweep": "_sweep",
    "Blocks": "blocks",
    "Callback": "callbacks",
    "EarlyStopping": "callbacks",
    "History": "callbacks",
}

__all__ = ["__version__", "backends", "get_backend", "set_backend", "use_backend", *_LAZY]


def __getattr__(name):
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _LAZY[name]
    module = importlib.import_module(f".{home or name}", __name__)
    value = module if home is None else getattr(module, name)
    globals()[name] = value
    return value


def __dir__():
    return sorted(set(globals()) | set(_LAZY))
