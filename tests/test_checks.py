"""The checks of arguments: what passes, in which form, and what the messages say."""

import fractions
import math
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastdl import checks

FLOAT32, FLOAT64, INT64 = (np.dtype(kind) for kind in (np.float32, np.float64, np.int64))

arrays = hnp.arrays(
    st.sampled_from([FLOAT32, FLOAT64]), hnp.array_shapes(min_dims=0, min_side=0, max_side=4)
)


def refused(error, message):
    """The block raises this error with exactly this message."""
    return pytest.raises(error, match=f"^{re.escape(message)}$")


def misaligned(values):
    """A copy of a 1-D array that starts one byte behind a multiple of its item size."""
    buffer = np.zeros(values.nbytes + 1, np.uint8)
    array = buffer[1:].view(values.dtype)
    array[...] = values
    assert not array.flags.aligned
    return array


# --------------------------------------------------------------------------------------- as_array


@pytest.mark.filterwarnings("error")
def test_as_array_turns_what_is_too_large_into_infinity():
    assert checks.as_array("x", [-1e300, 1.0], dtype=FLOAT32).tolist() == [-math.inf, 1.0]


@given(arrays)
def test_as_array_returns_a_contiguous_float_array_itself(array):
    assert checks.as_array("x", array) is array


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6.0).reshape(2, 3).T,
        np.arange(6.0, dtype=np.float32)[::-2],
        np.arange(6.0).astype(">f8"),
        np.arange(6.0).astype(">f4"),
        misaligned(np.arange(3.0)),
        np.float32(2.5),
        [[1.5, 2.0], [0.0, -1.0]],
    ],
    ids=["fortran", "reversed", "big-endian", "big-endian-32", "misaligned", "scalar", "list"],
)
def test_as_array_makes_anything_contiguous_aligned_and_native(value):
    result = checks.as_array("x", value)
    assert result.flags.carray
    assert result.dtype.isnative
    assert result.dtype.itemsize == np.asarray(value).dtype.itemsize
    np.testing.assert_array_equal(result, value)


def test_as_array_drops_subclasses():
    assert type(checks.as_array("x", np.ones((2, 2)).view(np.matrix))) is np.ndarray


@pytest.mark.parametrize("kind", [np.bool_, np.int8, np.uint16, np.int64, np.uint64, int])
def test_as_array_makes_integers_float64(kind):
    result = checks.as_array("x", np.array([0, 1], kind))
    assert result.dtype == FLOAT64
    np.testing.assert_array_equal(result, [0.0, 1.0])


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
@pytest.mark.parametrize("value", [[1, 2], [True, False], [0.5, 2.0], np.float32([1, 2])])
def test_as_array_converts_to_the_dtype_asked_for(value, dtype):
    result = checks.as_array("x", value, dtype=dtype)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, value)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (np.array([1.0, None], object), "object"),
        (None, "object"),
        ([1 + 2j], "complex128"),
        (["1.0"], "<U3"),
        (b"1.0", "|S3"),
        (np.float16([1]), "float16"),
        (np.longdouble([1]), str(np.dtype(np.longdouble))),
        (np.zeros(1, "datetime64[s]"), "datetime64[s]"),
        (np.zeros(1, [("a", float)]), "[('a', '<f8')]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "of",
)
def test_as_array_refuses_other_dtypes(value, dtype):
    with refused(TypeError, f"weights: dtype {dtype} is not float32, float64, integer or bool"):
        checks.as_array("weights", value)


def test_as_array_names_a_ragged_list():
    with pytest.raises(ValueError, match=r"^weights: .*inhomogeneous shape"):
        checks.as_array("weights", [[1.0], [1.0, 2.0]])


@pytest.mark.parametrize("ndim", [0, 1, 3])
def test_as_array_refuses_another_number_of_dimensions(ndim):
    with refused(ValueError, f"x: shape (2, 1) is not {ndim}-D"):
        checks.as_array("x", [[1], [2]], ndim=ndim)


def test_as_array_accepts_the_number_of_dimensions():
    assert checks.as_array("x", [[1], [2]], ndim=2).shape == (2, 1)


# -------------------------------------------------------------------------------------- as_arrays


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ((np.float32, np.float32), FLOAT32),
        ((np.float64, np.float64), FLOAT64),
        ((np.float32, np.float64), FLOAT64),
        ((np.float32, np.uint8), FLOAT32),
        ((np.bool_, np.float32), FLOAT32),
        ((np.float32, np.int64), FLOAT64),
        ((np.int64, np.int64), FLOAT64),
        ((np.bool_, np.bool_), FLOAT64),
        ((np.uint8, np.int8), FLOAT64),
        ((">f4", ">f4"), FLOAT32),
        ((">f4", np.float32), FLOAT32),
    ],
)
def test_as_arrays_promotes_to_a_common_dtype(kinds, expected):
    results = checks.as_arrays(a=np.ones(2, kinds[0]), b=np.zeros((1, 2), kinds[1]))
    assert [result.dtype for result in results] == [expected, expected]
    assert [result.tolist() for result in results] == [[1, 1], [[0, 0]]]


def test_as_arrays_returns_fitting_arrays_themselves():
    a, b = np.ones(2, np.float32), np.zeros((2, 2), np.float32)
    results = checks.as_arrays(a=a, b=b)
    assert results[0] is a
    assert results[1] is b


def test_as_arrays_names_the_argument():
    with refused(TypeError, "b: dtype complex128 is not float32, float64, integer or bool"):
        checks.as_arrays(a=[1.0], b=[1j])


# ------------------------------------------------------------------------------ as_like, matches


def test_as_like_returns_what_fits():
    array = np.ones(3, np.float32)
    assert checks.as_like("gradients", array, "parameters", np.zeros(3, np.float32)) is array


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (np.ones(3), TypeError, "dtype float64 does not match parameters, float32"),
        (np.ones((3, 1), np.float32), ValueError, "shape (3, 1) does not match parameters (3,)"),
    ],
)
def test_as_like_refuses_what_does_not_fit(value, error, message):
    with refused(error, f"gradients: {message}"):
        checks.as_like("gradients", value, "parameters", np.zeros(3, np.float32))


def test_matches_returns_the_array():
    array = np.ones((2, 3))
    assert checks.matches("x", array, (2, 3), "y", (9,)) is array


# -------------------------------------------------------------------------------------- as_labels


@given(
    st.lists(st.integers(0, 9), max_size=8),
    st.sampled_from(["?", "i1", "u1", ">i4", "i8", "u8", "f4", "f8", ">f8"]),
)
def test_as_labels_keeps_the_values_in_any_dtype(labels, dtype):
    array = np.array(labels, dtype)
    result = checks.as_labels("y", array, classes=10)
    assert result.dtype == INT64
    assert result.flags.carray
    assert result.tolist() == array.astype(float).tolist()


def test_as_labels_returns_fitting_labels_themselves():
    labels = np.array([2, 0, 1])
    assert checks.as_labels("y", labels, classes=3) is labels


def test_as_labels_takes_any_dimension_asked_for():
    assert checks.as_labels("batches", [[1, 2]], classes=3, ndim=2).shape == (1, 2)


@pytest.mark.parametrize(
    ("value", "classes", "message"),
    [
        ([0, 3], 3, "3 at index 1 is not an integer in [0, 2]"),
        ([-1, 0], 3, "-1 at index 0 is not an integer in [0, 2]"),
        (np.int8([0, -5]), 1000, "-5 at index 1 is not an integer in [0, 999]"),
        ([0.5], 3, "0.5 at index 0 is not an integer in [0, 2]"),
        ([1.0, math.nan], 3, "nan at index 1 is not an integer in [0, 2]"),
        ([1.0, math.inf], None, "inf at index 1 is not an integer >= 0"),
        (np.uint64([2**63]), None, "9223372036854775808 at index 0 is not an integer >= 0"),
        ([2.0**63], None, "9.223372036854776e+18 at index 0 is not an integer >= 0"),
        ([0], 0, "0 at index 0 is not an integer in [0, -1]"),
        ([[0]], 3, "shape (1, 1) is not 1-D"),
    ],
)
def test_as_labels_refuses_what_is_no_label(value, classes, message):
    with refused(ValueError, f"y: {message}"):
        checks.as_labels("y", value, classes=classes)


@pytest.mark.parametrize("value", [["a"], [1j], [None]])
def test_as_labels_refuses_other_dtypes(value):
    with pytest.raises(TypeError, match=r"^y: dtype \S+ is not float32"):
        checks.as_labels("y", value, classes=3)


# --------------------------------------------------------------------------------- finite, nonempty


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
def test_finite_accepts_the_ends_of_the_range(dtype):
    array = np.array([np.finfo(dtype).min, 0, np.finfo(dtype).max], dtype)
    assert checks.finite("x", array) is array


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_finite_names_the_first_bad_element(dtype, bad):
    array = np.array([[0, 1, 2], [3, bad, bad]], dtype)
    with refused(ValueError, f"x: {bad} at index (1, 1) is not a finite number"):
        checks.finite("x", array)


@pytest.mark.parametrize(
    ("bad", "limits", "rule"),
    [
        (1.5, {"low": 0, "high": 1}, "a finite number in [0, 1]"),
        (-0.5, {"low": 0, "high": 1}, "a finite number in [0, 1]"),
        (-0.5, {"low": 0}, "a finite number >= 0"),
        (1.5, {"high": 1}, "a finite number <= 1"),
        (math.nan, {"low": 0, "high": 1}, "a finite number in [0, 1]"),
        (math.inf, {"low": 0}, "a finite number >= 0"),
    ],
)
def test_finite_holds_limits(bad, limits, rule):
    assert checks.finite("x", np.array([0.0, 1.0]), **limits) is not None
    with refused(ValueError, f"x: {bad} at index 2 is not {rule}"):
        checks.finite("x", np.array([0.0, 1.0, bad]), **limits)


def test_finite_and_nonempty_differ_on_no_data():
    empty = np.empty((0, 3))
    assert checks.finite("x", empty, low=0, high=1) is empty
    with refused(ValueError, "x: shape (0, 3) holds no data"):
        checks.nonempty("x", empty)


def test_dimensions_may_be_a_minimum():
    array = np.ones((2, 2))
    assert checks.dimensions("x", array, 1, or_more=True) is array
    with refused(ValueError, "x: shape (2, 2) is not 3-D or more"):
        checks.dimensions("x", array, 3, or_more=True)
    with refused(ValueError, "x: shape (2, 2) is not 1-D"):
        checks.dimensions("x", array, 1)


# ------------------------------------------------------------------------- writable, apart, output


def read_only():
    array = np.ones((2, 3))
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        ([[1.0]], TypeError, "[[1.0]] is not a NumPy array"),
        (None, TypeError, "None is not a NumPy array"),
        (np.ones((2, 3), int), TypeError, "dtype int64 is not float64"),
        (np.ones((2, 3), ">f8"), TypeError, "dtype >f8 is not float64"),
        (np.ones((3, 2)), ValueError, "shape (3, 2) is not (2, 3)"),
        (np.ones((3, 2)).T, ValueError, "strides (8, 16) are not those of C-contiguity"),
        (np.ones((2, 6))[:, ::2], ValueError, "strides (48, 16) are not those of C-contiguity"),
        (read_only(), ValueError, "the array of shape (2, 3) is read-only, not writeable"),
        (
            misaligned(np.ones(6)).reshape(2, 3),
            ValueError,
            "the array of shape (2, 3) is not aligned",
        ),
    ],
)
def test_writable_refuses_what_a_kernel_cannot_write_to(array, error, message):
    with refused(error, f"out: {message}"):
        checks.writable("out", array, shape=(2, 3), dtype=FLOAT64)


def test_writable_without_dtype_takes_both_floats_only():
    for dtype in (FLOAT32, FLOAT64):
        array = np.ones(2, dtype)
        assert checks.writable("x", array) is array
    with refused(TypeError, "x: dtype int64 is not float32 or float64"):
        checks.writable("x", np.ones(2, int))


def test_apart_sees_shared_memory_not_bounds():
    data = np.zeros((4, 4))
    column, other = data[:, 0], data[1:2, 1:].reshape(-1)
    assert np.may_share_memory(other, column)
    assert checks.apart("out", other, {"inputs": column}) is other
    with refused(ValueError, "out: memory of the array of shape (3,) overlaps b"):
        checks.apart("out", other, {"inputs": column, "skipped": None, "b": data[:, 2]})


def test_apart_sees_through_buffers():
    data = np.zeros(4)
    with refused(ValueError, "out: memory of the array of shape (4,) overlaps inputs"):
        checks.apart("out", data, {"inputs": memoryview(data)[2:]})


def test_output_allocates():
    result = checks.output("out", None, shape=(2, 3), dtype=FLOAT32, inputs={})
    assert (result.shape, result.dtype, result.flags.carray) == ((2, 3), FLOAT32, True)


def test_output_returns_what_was_given():
    out = np.empty((2, 3))
    inputs = {"inputs": np.ones((2, 3))}
    assert checks.output("out", out, shape=(2, 3), dtype=FLOAT64, inputs=inputs) is out


def test_output_refuses_overlap():
    data = np.zeros(6)
    with refused(ValueError, "out: memory of the array of shape (4,) overlaps inputs"):
        checks.output("out", data[:4], shape=(4,), dtype=FLOAT64, inputs={"inputs": data[2:]})


# ---------------------------------------------------------------------------------------- scalars


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**60), 2**60))
def test_number_returns_the_float(value):
    result = checks.number("x", value)
    assert type(result) is float
    assert result == float(value)


@pytest.mark.parametrize(
    "value", [0.5, np.float32(0.5), np.float16(0.5), np.array(0.5), fractions.Fraction(1, 2)]
)
def test_number_takes_every_kind_of_real_number(value):
    assert checks.number("x", value, low=0, high=1) == 0.5


@pytest.mark.parametrize(
    ("limits", "inside", "outside", "rule"),
    [
        ({"low": 0}, [0, 7], [-0.1, -sys.float_info.min], ">= 0"),
        ({"low": 0, "low_open": True}, [sys.float_info.min], [0, -1], "> 0"),
        ({"high": 1}, [1, -9], [1.5], "<= 1"),
        ({"high": 1, "high_open": True}, [0.5], [1], "< 1"),
        ({"low": 0, "high": 1}, [0, 0.5, 1], [-0.5, 1.5], "in [0, 1]"),
        ({"low": 0, "high": 1, "high_open": True}, [0], [1, -1], "in [0, 1)"),
        ({"low": 0, "high": 1, "low_open": True}, [1], [0, 2], "in (0, 1]"),
    ],
)
def test_number_holds_its_limits(limits, inside, outside, rule):
    for value in inside:
        assert checks.number("rate", value, **limits) == value
    for value in (*outside, math.nan, math.inf, -math.inf):
        with refused(ValueError, f"rate: {value} is not a finite number {rule}"):
            checks.number("rate", value, **limits)


@pytest.mark.parametrize("value", [None, "0.1", 1j, True, np.True_, [0.1], np.array([0.1]), b"1"])
def test_number_refuses_what_is_no_number(value):
    with refused(TypeError, f"rate: {value!r} is not a finite number >= 0"):
        checks.number("rate", value, low=0)


def test_number_refuses_an_integer_beyond_the_floats():
    with refused(ValueError, "rate: inf is not a finite number"):
        checks.number("rate", 10**400)


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), np.array(3)])
def test_integer_takes_every_kind_of_integer(value):
    result = checks.integer("n", value, low=3, high=3)
    assert type(result) is int
    assert result == 3


@pytest.mark.parametrize(
    ("value", "limits", "rule"),
    [
        (-1, {"low": 0}, "an integer >= 0"),
        (6, {"high": 5}, "an integer <= 5"),
        (6, {"low": 0, "high": 5}, "an integer in [0, 5]"),
        (2**63, {"low": 0}, "an integer in [0, 9223372036854775807]"),
    ],
)
def test_integer_holds_its_limits(value, limits, rule):
    with refused(ValueError, f"n: {value} is not {rule}"):
        checks.integer("n", value, **limits)


@pytest.mark.parametrize("value", [None, "3", 3.0, True, np.True_, [3], np.array(3.0)])
def test_integer_refuses_what_is_no_integer(value):
    with refused(TypeError, f"n: {value!r} is not an integer"):
        checks.integer("n", value)


@pytest.mark.parametrize("value", [0, 2**64 - 1, np.uint64(2**64 - 1)])
def test_seed_takes_64_bits(value):
    assert checks.seed("seed", value) == int(value)


@pytest.mark.parametrize("value", [-1, 2**64])
def test_seed_refuses_more(value):
    with refused(ValueError, f"seed: {value} is not an integer in [0, 18446744073709551615]"):
        checks.seed("seed", value)


def test_random_state_draws_as_after_a_seed():
    before = np.random.get_state()
    np.random.seed(7)
    expected = np.random.random(3)
    np.random.set_state(before)
    np.testing.assert_array_equal(checks.random_state("seed", 7).random_sample(3), expected)
    assert checks.random_state("seed", None) is np.random


@pytest.mark.parametrize("value", [(1, 2), [1, 2], range(1, 3), np.array([1, 2]), iter([1, 2])])
def test_sequence_gives_a_list(value):
    assert checks.sequence("sizes", value, "integers") == [1, 2]


@pytest.mark.parametrize("value", [None, 3, "12", b"12", {1, 2}, {1: 2}, np.array(3)])
def test_sequence_refuses_what_has_no_order(value):
    with refused(TypeError, f"sizes: {value!r} is not a sequence of integers"):
        checks.sequence("sizes", value, "integers")


def test_path_gives_text():
    assert checks.path("path", Path("a") / "b") == os.path.join("a", "b")
    assert checks.path("path", b"a") == "a"


def test_path_refuses_numbers():
    with refused(TypeError, "path: 3 is not a path"):
        checks.path("path", 3)


@pytest.mark.parametrize("check", [checks.array, checks.real, checks.as_array])
def test_masked_values_do_not_count_as_numbers(check):
    values = np.ma.masked_invalid([1.0, np.nan, 3.0])
    with refused(ValueError, "x: 1 of its elements are masked"):
        check("x", values)
    np.testing.assert_array_equal(check("x", np.ma.masked_invalid([1.0, 3.0])), [1, 3])


@pytest.mark.parametrize("value", [True, False, np.True_, np.False_])
def test_boolean_takes_booleans(value):
    assert checks.boolean("flag", value) is bool(value)


@pytest.mark.parametrize("value", [0, 1, "no", None, np.array(True)])
def test_boolean_takes_nothing_else(value):
    with refused(TypeError, f"flag: {value!r} is not True or False"):
        checks.boolean("flag", value)


def test_choice_returns_what_is_allowed():
    assert checks.choice("method", "adam", ("sgd", "adam")) == "adam"


@pytest.mark.parametrize(
    ("value", "error"), [("Adam", ValueError), ("", ValueError), (None, TypeError), (1, TypeError)]
)
def test_choice_names_what_is_allowed(value, error):
    with refused(error, f"method: {value!r} is not one of sgd, adam"):
        checks.choice("method", value, ("sgd", "adam"))


def test_messages_shorten_long_values():
    with refused(TypeError, "rate: 'xxxxxxxxxxxx...xxxxxxxxxxxxx' is not a finite number"):
        checks.number("rate", "x" * 1000)
