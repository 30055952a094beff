"""What the public functions ask of their arguments: every check of type, shape, layout and value.

Each function takes the argument's name first, for the message, and returns the argument in the
form that the kernels take, or raises an error of the form `name: value breaks the rule`: TypeError
for a wrong type or dtype, ValueError for a wrong value, shape or layout. Nothing is changed, and an
array that is right already is returned as it is, in about a microsecond.
"""

import math
import numbers
import operator
import os
import reprlib
import sys
from collections.abc import Mapping, Set

import numpy as np

_FLOAT64 = np.dtype(np.float64)
_FLOATS = (np.dtype(np.float32), _FLOAT64)
_INT64_MAX = 2**63 - 1


# ----------------------------------------------------------------------------------------- arrays


def as_array(name, value, *, ndim=None, dtype=None):
    """The argument as a C-contiguous array of float32 or float64.

    Parameters
    ----------
    name : str
    value : array_like
        float32 and float64 keep their dtype; integers and bools become float64.
    ndim : int, optional
        The number of dimensions it must have.
    dtype : numpy.dtype, optional
        float32 or float64, to convert to.

    Returns
    -------
    ndarray
        `value` itself, not a copy, where it is such an array already.

    Raises
    ------
    TypeError
        If it holds anything but integers, bools, float32 or float64.
    ValueError
        If it is ragged or has another number of dimensions.

    Examples
    --------
    >>> from fastdl import checks
    >>> checks.as_array("inputs", [[1, 2], [3, 4]]).dtype
    dtype('float64')
    >>> checks.as_array("inputs", [1, 2], ndim=2)
    Traceback (most recent call last):
    ValueError: inputs: shape (2,) is not 2-D
    """
    array = real(name, value)
    if ndim is not None:
        dimensions(name, array, ndim)
    if dtype is None:
        dtype = array.dtype if array.dtype in _FLOATS else _float_for(array.dtype)
    return _contiguous(array, dtype)


def as_arrays(**values):
    """Several arguments as C-contiguous arrays of their common dtype, float32 or float64.

    The dtype is NumPy's promotion of theirs: float32 with float32 or small integers stays float32,
    everything else becomes float64.

    Parameters
    ----------
    **values : array_like
        By the names of the arguments.

    Returns
    -------
    list of ndarray
        In the order given.

    Raises
    ------
    TypeError, ValueError
        As `as_array`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import checks
    >>> pair = checks.as_arrays(inputs=np.ones(3, np.float32), weights=[0.5])
    >>> [array.dtype.name for array in pair]
    ['float64', 'float64']
    """
    arrays = [real(name, value) for name, value in values.items()]
    dtypes = [array.dtype for array in arrays]
    if dtypes[0] not in _FLOATS or dtypes.count(dtypes[0]) < len(dtypes):
        dtypes[0] = _float_for(np.result_type(*dtypes))
    return [_contiguous(array, dtypes[0]) for array in arrays]


def as_like(name, value, other, reference):
    """The argument as a C-contiguous array; its shape and dtype must be those of `reference`.

    Parameters
    ----------
    name : str
    value : array_like
    other : str
        The name of the argument `reference`.
    reference : ndarray

    Raises
    ------
    TypeError
        If the dtype is another.
    ValueError
        If the shape is another.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import checks
    >>> checks.as_like("gradients", np.ones(2), "parameters", np.ones(2, np.float32))
    Traceback (most recent call last):
    TypeError: gradients: dtype float64 does not match parameters, float32
    """
    array = as_array(name, value)
    if array.dtype != reference.dtype:
        raise TypeError(f"{name}: dtype {array.dtype} does not match {other}, {reference.dtype}")
    return matches(name, array, reference.shape, other, reference.shape)


def as_labels(name, value, *, classes=None, ndim=1):
    """The argument as an int64 array of labels or indices: integers from 0 to `classes` - 1.

    Parameters
    ----------
    name : str
    value : array_like
        Integers, bools, or floats without a fraction.
    classes : int, optional
        The number of classes; without it any integer >= 0 will do.
    ndim : int, default 1
        The number of dimensions it must have.

    Returns
    -------
    ndarray of int64, C-contiguous

    Raises
    ------
    TypeError
        If it holds anything but integers, bools, float32 or float64.
    ValueError
        If a label is NaN, has a fraction or is out of range, or `ndim` is another.

    Examples
    --------
    >>> from fastdl import checks
    >>> checks.as_labels("labels", [0, 2, 1.0], classes=3)
    array([0, 2, 1])
    >>> checks.as_labels("labels", [0, 3], classes=3)
    Traceback (most recent call last):
    ValueError: labels: 3 at index 1 is not an integer in [0, 2]
    """
    array = dimensions(name, real(name, value), ndim)
    highest = _INT64_MAX if classes is None else classes - 1
    if array.size:
        # Python's numbers compare exactly, also uint64, and floats beyond 2**53.
        valid = array.min().item() >= 0 and array.max().item() <= highest
        if valid and array.dtype.kind == "f":
            valid = (array == np.trunc(array)).all()
        if not valid:
            rule = _interval("an integer", 0, None if classes is None else highest)
            position = next(
                position
                for position, label in enumerate(array.ravel().tolist())
                if not (0 <= label <= highest and label == int(label))
            )
            raise ValueError(f"{name}: {_element(array, position)} is not {rule}")
    return _contiguous(array, np.dtype(np.int64))


def finite(name, array, *, low=None, high=None):
    """The argument, an array of floats, if none of them is NaN, infinite or out of [low, high].

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import checks
    >>> checks.finite("targets", np.array([[0.0, 1.0], [np.nan, 0.0]]))
    Traceback (most recent call last):
    ValueError: targets: nan at index (1, 0) is not a finite number
    """
    if array.size:
        lowest = -sys.float_info.max if low is None else low
        highest = sys.float_info.max if high is None else high
        # NaN comes through min and max and fails both comparisons.
        if not (lowest <= array.min().item() and array.max().item() <= highest):
            wide = array.astype(np.float64)  # the largest float64 has no place in float32
            position = np.argmin((wide >= lowest) & (wide <= highest))
            rule = _interval("a finite number", low, high)
            raise ValueError(f"{name}: {_element(array, position)} is not {rule}")
    return array


def nonempty(name, array):
    """The argument, an array, if it has any elements."""
    if 0 in array.shape:
        raise ValueError(f"{name}: shape {array.shape} holds no data")
    return array


def dimensions(name, array, ndim, *, or_more=False):
    """The argument, an array, if it has `ndim` dimensions, or also if it has more."""
    if array.ndim != ndim and not (or_more and array.ndim > ndim):
        raise ValueError(f"{name}: shape {array.shape} is not {ndim}-D{' or more' * or_more}")
    return array


def matches(name, array, shape, other, other_shape):
    """The argument, an array, if it has `shape`, as the argument called `other` demands.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import checks
    >>> checks.matches("weights", np.ones((783, 10)), (784, 10), "inputs", (32, 784))
    Traceback (most recent call last):
    ValueError: weights: shape (783, 10) does not match inputs (32, 784)
    """
    if array.shape != shape:
        raise ValueError(f"{name}: shape {array.shape} does not match {other} {other_shape}")
    return array


# --------------------------------------------------------------------------------- arrays to write


def writable(name, array, *, shape=None, dtype=None):
    """The argument, if it is an array that a kernel can write to: C-contiguous and writeable.

    Parameters
    ----------
    name : str
    array : ndarray
    shape : tuple of int, optional
        The shape it must have.
    dtype : numpy.dtype, optional
        The dtype it must have; without it float32 or float64.

    Raises
    ------
    TypeError
        If it is no ndarray or has another dtype.
    ValueError
        If it has another shape, is not C-contiguous, or is read-only.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import checks
    >>> checks.writable("out", np.empty(3), shape=(2,))
    Traceback (most recent call last):
    ValueError: out: shape (3,) is not (2,)
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: {reprlib.repr(array)} is not a NumPy array")
    if array.dtype != dtype if dtype is not None else array.dtype not in _FLOATS:
        raise TypeError(f"{name}: dtype {array.dtype} is not {dtype or 'float32 or float64'}")
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name}: shape {array.shape} is not {shape}")
    if not array.flags.carray:
        if not array.flags.c_contiguous:
            raise ValueError(f"{name}: strides {array.strides} are not those of C-contiguity")
        fault = "not aligned" if array.flags.writeable else "read-only, not writeable"
        raise ValueError(f"{name}: the array of shape {array.shape} is {fault}")
    return array


def apart(name, array, others):
    """The argument, an array to write to, if it shares no memory with the arrays in `others`.

    Parameters
    ----------
    name : str
    array : ndarray
    others : dict of str to array_like
        The other arguments by name, as the caller gave them; None is passed over.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import checks
    >>> data = np.zeros(4)
    >>> checks.apart("out", data[1:], {"inputs": data[:3]})
    Traceback (most recent call last):
    ValueError: out: memory of the array of shape (3,) overlaps inputs
    """
    for other, value in others.items():
        if value is not None and np.shares_memory(array, value):
            raise ValueError(f"{name}: memory of the array of shape {array.shape} overlaps {other}")
    return array


def output(name, out, *, shape, dtype, inputs):
    """A new array for a result where `out` is None; otherwise `out`, `writable` and `apart`.

    Parameters
    ----------
    name : str
    out : ndarray or None
    shape : tuple of int
    dtype : numpy.dtype
    inputs : dict of str to array_like
        What `out` must not share memory with, by name, as the caller gave it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import checks
    >>> checks.output("out", np.empty(3), shape=(3,), dtype=np.dtype(np.float32), inputs={})
    Traceback (most recent call last):
    TypeError: out: dtype float64 is not float32
    """
    if out is None:
        return np.empty(shape, dtype)
    return apart(name, writable(name, out, shape=shape, dtype=dtype), inputs)


# ---------------------------------------------------------------------------------------- scalars


def number(name, value, *, low=None, high=None, low_open=False, high_open=False):
    """The argument as a finite float between `low` and `high` (each included unless open).

    Examples
    --------
    >>> from fastdl import checks
    >>> checks.number("rate", 1, low=0, high=1)
    1.0
    >>> checks.number("learning_rate", -0.1, low=0)
    Traceback (most recent call last):
    ValueError: learning_rate: -0.1 is not a finite number >= 0
    """
    scalar = value[()] if isinstance(value, np.ndarray) and value.ndim == 0 else value
    if type(scalar) is not float and (
        isinstance(scalar, bool) or not isinstance(scalar, numbers.Real)
    ):
        rule = _interval("a finite number", low, high, low_open, high_open)
        raise TypeError(f"{name}: {reprlib.repr(value)} is not {rule}")
    try:
        result = float(scalar)
    except OverflowError:  # an integer that no float holds
        result = scalar = math.inf
    if not (
        math.isfinite(result)
        and (low is None or low < result or (low == result and not low_open))
        and (high is None or result < high or (high == result and not high_open))
    ):
        rule = _interval("a finite number", low, high, low_open, high_open)
        raise ValueError(f"{name}: {scalar} is not {rule}")
    return result


def integer(name, value, *, low=None, high=None):
    """The argument as an int from `low` to `high`, both included; what int64 holds is enough.

    Examples
    --------
    >>> from fastdl import checks
    >>> checks.integer("batch_size", 0, low=1)
    Traceback (most recent call last):
    ValueError: batch_size: 0 is not an integer >= 1
    """
    try:
        result = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        result = None
    if result is None:
        rule = _interval("an integer", low, high)
        raise TypeError(f"{name}: {reprlib.repr(value)} is not {rule}")
    if high is None and result > _INT64_MAX:
        high = _INT64_MAX  # for those alone who meet it
    if (low is not None and result < low) or (high is not None and result > high):
        rule = _interval("an integer", low, high)
        raise ValueError(f"{name}: {reprlib.repr(result)} is not {rule}")
    return result


def seed(name, value):
    """The argument as the seed of the counter-based generator: an int in [0, 2**64)."""
    return integer(name, value, low=0, high=2**64 - 1)


def random_state(name, value):
    """What draws as after `np.random.seed(value)`, value in [0, 2**32); None: the global state."""
    if value is None:
        return np.random
    return np.random.RandomState(integer(name, value, low=0, high=2**32 - 1))


def boolean(name, value):
    """The argument as True or False; nothing else is taken for one of them."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: {reprlib.repr(value)} is not True or False")
    return bool(value)


def sequence(name, value, of):
    """The argument as a list of what it holds, which the words in `of` say.

    Examples
    --------
    >>> from fastdl import checks
    >>> checks.sequence("callbacks", 3, "callbacks")
    Traceback (most recent call last):
    TypeError: callbacks: 3 is not a sequence of callbacks
    """
    try:
        if isinstance(value, (str, bytes, Set, Mapping)):
            raise TypeError  # of letters, or in no order
        return list(value)
    except TypeError:
        raise TypeError(f"{name}: {reprlib.repr(value)} is not a sequence of {of}") from None


def path(name, value):
    """The argument as the path of a file, a str."""
    try:
        return os.fsdecode(value)
    except TypeError:
        raise TypeError(f"{name}: {reprlib.repr(value)} is not a path") from None


def functions(**values):
    """Refuse arguments that can't be called."""
    for name, value in values.items():
        if not callable(value):
            raise TypeError(f"{name}: {value!r} is not a function")


def choice(name, value, allowed):
    """The argument, if it is one of the strings in `allowed`.

    Examples
    --------
    >>> from fastdl import checks
    >>> checks.choice("method", "adma", ("sgd", "adam"))
    Traceback (most recent call last):
    ValueError: method: 'adma' is not one of sgd, adam
    """
    if not isinstance(value, str) or value not in allowed:
        error = ValueError if isinstance(value, str) else TypeError
        raise error(f"{name}: {reprlib.repr(value)} is not one of {', '.join(allowed)}")
    return value


# ---------------------------------------------------------------------------------------- helpers


def array(name, value):
    """The argument as an array of any dtype, all of whose elements count."""
    try:
        array = np.asarray(value)
    except ValueError as error:  # ragged nested sequences
        raise ValueError(f"{name}: {error}") from error
    if array is not value and isinstance(value, np.ndarray) and np.ma.is_masked(value):
        raise ValueError(f"{name}: {np.ma.count_masked(value)} of its elements are masked")
    return array


def real(name, value):
    """The argument as an array of numbers that float64 can take, not yet converted."""
    given = array(name, value)
    if given.dtype.char not in "fd" and given.dtype.kind not in "biu":
        raise TypeError(f"{name}: dtype {given.dtype} is not float32, float64, integer or bool")
    return given


def _float_for(dtype):
    """float32 for float32 of either byte order, float64 for everything else."""
    return _FLOATS[0] if dtype.char == "f" else _FLOAT64


def _contiguous(array, dtype):
    if array.dtype == dtype:
        array = np.asarray(array, order="C")
    else:
        with np.errstate(over="ignore"):  # infinite now, for `finite` to refuse or a kernel to take
            array = np.asarray(array, dtype=dtype, order="C")
    return array if array.flags.aligned else array.copy()


def _element(array, position):
    """Value and index of one element, for a message: `3 at index (1, 0)`."""
    index = tuple(map(int, np.unravel_index(position, array.shape)))
    value = array[index].item()
    return f"{value} at index {index[0] if len(index) == 1 else index}"


def _interval(kind, low, high, low_open=False, high_open=False):
    """The rule in words: `a finite number >= 0`, `an integer in [1, 9]`."""
    if low is None and high is None:
        return kind
    if high is None:
        return f"{kind} {'>' if low_open else '>='} {low}"
    if low is None:
        return f"{kind} {'<' if high_open else '<='} {high}"
    return f"{kind} in {'(' if low_open else '['}{low}, {high}{')' if high_open else ']'}"
