"""Which implementation of the operations runs: a table from name to module, and the choice in it.

`FASTDL_BACKEND` names the backend at import, `set_backend` changes it for the process, and
`use_backend` for the duration of a `with` block in one thread or task. The compiled module exists
once per instruction-set level; the best one that the CPU supports is taken, or the one that
`FASTDL_CPU` names.
"""

import contextlib
import contextvars
import importlib
import importlib.util
import os
import sys

BACKENDS = ("reference", "cython", "numba")

# What every backend module defines, with the same parameters (a test compares them).
OPERATIONS = (
    "exp",
    "log",
    "log1p",
    "expm1",
    "tanh",
    "sigmoid",
    "activation_forward",
    "activation_backward",
    "matmul",
    "dense_forward",
    "dense_backward",
    "binary_crossentropy",
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
    "mean_squared_error",
    "mean_absolute_error",
    "huber",
    "poisson",
    "dropout",
    "permutation",
    "sgd_update",
    "rmsprop_update",
    "adam_update",
    "add_penalty",
    "quadratic_features",
    "logistic_descent",
    "planar_descent",
)

# What the compiled module can start in a call (MOST_THREADS in _threads.h).
MOST_THREADS = 64

# Levels of the x86-64 psABI, least first, with NumPy's names of the CPU features each needs
# (AVX512_SKX stands for the F, CD, BW, DQ and VL parts together). Elsewhere there is one build.
CPU_LEVELS = {
    "baseline": (),
    "v3": ("AVX2", "FMA3"),
    "v4": ("AVX2", "FMA3", "AVX512_SKX"),
}


def supported_cpu_levels():
    """The levels that this CPU can run, least first."""
    features = _cpu_features()
    return [
        level
        for level, needed in CPU_LEVELS.items()
        if all(features.get(feature, False) for feature in needed)
    ]


def built_cpu_levels():
    """The levels that the installed package holds a compiled module for, least first."""
    return [
        level
        for level in CPU_LEVELS
        if importlib.util.find_spec(f"{__package__}._kernels_{level}") is not None
    ]


def cpu_level():
    """The level of the compiled module in use."""
    return _load("cython").CPU_LEVEL


def set_backend(name):
    """Choose the backend for the whole process.

    Parameters
    ----------
    name : {"reference", "cython", "numba"}

    Raises
    ------
    ValueError
        If `name` is none of these.
    ImportError
        If the backend's package is not installed, or the compiled module is not built.

    Examples
    --------
    >>> import fastdl
    >>> fastdl.set_backend("cython")
    >>> fastdl.get_backend()
    'cython'
    """
    global _default
    _load(name)
    _default = name


def get_backend():
    """The name of the backend in use here."""
    return _override.get() or _default


@contextlib.contextmanager
def use_backend(name):
    """Choose the backend inside a `with` block, in this thread or task only.

    Parameters
    ----------
    name : {"reference", "cython", "numba"}

    Examples
    --------
    >>> import fastdl
    >>> with fastdl.use_backend("reference"):
    ...     fastdl.get_backend()
    'reference'
    """
    _load(name)
    token = _override.set(name)
    try:
        yield
    finally:
        _override.reset(token)


def current():
    """The module of the backend in use here: the table that `ops` dispatches through."""
    return _modules[_override.get() or _default]


def available_threads():
    """How many threads a kernel may use: OMP_NUM_THREADS, but no more than the process's CPUs.

    Nor more than `use_threads` allows.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    count = min(len(affinity(0)) if affinity else os.cpu_count() or 1, MOST_THREADS)
    # A list is for nested regions: its first number is for the outermost.
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if wanted.isdecimal() and int(wanted):
        count = min(count, int(wanted))
    return min(count, _most_threads.get() or count)


@contextlib.contextmanager
def use_threads(count):
    """Allow no more than `count` threads inside a `with` block, in this thread or task only.

    Parameters
    ----------
    count : int or None
        None allows as many as without the block.

    Raises
    ------
    TypeError
        If it is neither an integer nor None.
    ValueError
        If it is less than 1.

    Examples
    --------
    >>> from fastdl import backends
    >>> with backends.use_threads(1):
    ...     backends.available_threads()
    1
    """
    if count is not None:
        from . import checks  # importing fastdl loads no more than it has to

        count = checks.integer("count", count, low=1)
    token = _most_threads.set(count)
    try:
        yield
    finally:
        _most_threads.reset(token)


def _load(name):
    """The module of a backend, imported when first asked for."""
    if name not in BACKENDS:
        raise ValueError(f"backend: {name!r} is not one of {', '.join(BACKENDS)}")
    if name not in _modules:
        _modules[name] = _IMPORTERS[name]()
    return _modules[name]


def _import_reference():
    return importlib.import_module(f"{__package__}.reference")


def _import_numba():
    try:
        return importlib.import_module(f"{__package__}.jit_kernels")
    except ModuleNotFoundError as error:
        if error.name != "numba":
            raise
        raise ImportError(
            "backend: 'numba' needs the package numba: pip install 'fastdl-kernels[numba]'"
        ) from error


def _import_cython():
    level = _choose_cpu_level()
    module = importlib.import_module(f"{__package__}._kernels_{level}")
    # One name for whichever build runs, so that `fastdl._kernels` is a module like any other.
    sys.modules[f"{__package__}._kernels"] = module
    return module


def _choose_cpu_level():
    supported, built = supported_cpu_levels(), built_cpu_levels()
    if not built:
        raise ImportError(
            "fastdl's compiled module is not built: run 'pip install .' in its source folder, or "
            "set FASTDL_BACKEND=reference to do without"
        )
    forced = os.environ.get("FASTDL_CPU")
    if not forced:
        usable = [level for level in supported if level in built]
        if not usable:
            raise ImportError(
                f"this installation was built for CPU levels {', '.join(built)}, and this CPU "
                f"supports {', '.join(supported)}"
            )
        return usable[-1]
    for rule, levels in (
        ("a level fastdl knows", list(CPU_LEVELS)),
        ("a level this CPU supports", supported),
        ("a level this installation was built for", built),
    ):
        if forced not in levels:
            raise ImportError(f"FASTDL_CPU: {forced!r} is not {rule} ({', '.join(levels)})")
    return forced


def _cpu_features():
    """NumPy's own detection: it also asks whether the operating system saves the registers."""
    try:
        from numpy._core._multiarray_umath import __cpu_features__
    except ImportError:  # NumPy 1
        from numpy.core._multiarray_umath import __cpu_features__
    return __cpu_features__


_IMPORTERS = {
    "reference": _import_reference,
    "cython": _import_cython,
    "numba": _import_numba,
}
_modules = {}
_override = contextvars.ContextVar("fastdl_backend", default=None)
_most_threads = contextvars.ContextVar("fastdl_threads", default=None)
_default = None
try:
    set_backend(os.environ.get("FASTDL_BACKEND") or "cython")
except ValueError as error:
    raise ValueError(f"FASTDL_BACKEND: {error}") from None
