"""The functions of `ops`: what they accept, what they hand to the kernels, what they refuse.

What the kernels compute is tested elsewhere, against the reference and outside oracles.
"""

import contextlib
import copy
import inspect
import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastdl import backends, ops, reference

pytestmark = pytest.mark.each_build

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)

# ------------------------------------------------------------------------- one good call of each

ELEMENTWISE = ("exp", "log", "log1p", "expm1")
ACTIVATIONS = reference.ACTIVATIONS[1:]  # linear is no function
GRADIENTS = tuple(f"{name}_gradient" for name in ACTIVATIONS)
UPDATES = ("sgd_update", "rmsprop_update", "adam_update")
CROSSENTROPIES = (
    "binary_crossentropy",
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
)
REGRESSIONS = ("mean_squared_error", "mean_absolute_error", "huber", "poisson")
LOSSES = (*CROSSENTROPIES, *REGRESSIONS)


def good_call(name, dtype=FLOAT64):
    """Arguments by keyword, new ones each time, that `ops.<name>` accepts; arrays of one dtype."""
    rng = np.random.default_rng(7)

    def normal(*shape):
        return rng.standard_normal(shape).astype(dtype)

    def bits(*shape):
        return rng.integers(0, 2, shape).astype(dtype)

    if name in (*ELEMENTWISE, *ACTIVATIONS):
        return {"inputs": abs(normal(4, 3))}
    if name in GRADIENTS:
        return {"inputs": normal(4, 3), "grad_outputs": normal(4, 3)}
    if name in LOSSES:
        targets = rng.integers(0, 3, 4) if name.startswith("sparse") else bits(4, 3)
        return {
            "targets": targets,
            "predictions": normal(4, 3),
            "sample_weight": abs(normal(4)),
            **({"from_logits": True} if name in CROSSENTROPIES else {}),
        }
    if name in UPDATES:
        states = {
            "sgd_update": ["velocity"],
            "rmsprop_update": ["mean_square"],
            "adam_update": ["first_moment", "second_moment"],
        }[name]
        return {
            "parameters": normal(4, 3),
            "gradients": normal(4, 3),
            **{state: abs(normal(4, 3)) for state in states},
            **({"step": 3} if name == "adam_update" else {}),
        }
    return {
        "matmul": lambda: {"left": normal(4, 3), "right": normal(3, 2)},
        "dense_forward": lambda: {
            "inputs": normal(4, 3),
            "weights": normal(3, 2),
            "bias": normal(2),
            "activation": "relu",
        },
        "dense_backward": lambda: {
            "inputs": normal(4, 3),
            "weights": normal(3, 2),
            "preactivations": normal(4, 2),
            "outputs": normal(4, 2),
            "grad_outputs": normal(4, 2),
            "activation": "silu",
        },
        "dropout": lambda: {"inputs": normal(4, 3), "rate": 0.5, "seed": 1},
        "permutation": lambda: {"n": 5, "seed": 1},
        "add_penalty": lambda: {
            "parameters": normal(4, 3),
            "gradients": normal(4, 3),
            "l1": 0.1,
            "l2": 0.2,
        },
        "quadratic_features": lambda: {"inputs": normal(4, 3)},
        "logistic_descent": lambda: {
            "inputs": normal(5, 3),
            "targets": bits(5),
            "weights": normal(3),
            "batches": rng.integers(0, 5, (6, 2)),
            "method": "rmsprop",
            "history": True,
        },
        "planar_descent": lambda: {
            "inputs": normal(2, 5),
            "targets": bits(1, 5),
            "networks": [
                {
                    "W1": normal(n_h, 2),
                    "b1": normal(n_h, 1),
                    "W2": normal(1, n_h),
                    "b2": normal(1, 1),
                }
                for n_h in (4, 3)
            ],
            "iterations": 5,
            "cost_every": 2,
        },
    }[name]()


# Arguments that are updated in place, and so must be arrays as the kernels take them.
IN_PLACE = {
    "sgd_update": ("parameters", "velocity"),
    "rmsprop_update": ("parameters", "mean_square"),
    "adam_update": ("parameters", "first_moment", "second_moment"),
    "add_penalty": ("gradients",),
}


def array_arguments(name):
    """The names of the arguments that are arrays of floats and only read."""
    return [
        key
        for key, value in good_call(name).items()
        if isinstance(value, np.ndarray)
        and value.dtype.kind == "f"
        and key not in IN_PLACE.get(name, ())
    ]


def parameters_of(name):
    return inspect.signature(getattr(ops, name)).parameters


WITH_OUT = [name for name in ops.__all__ if "out" in parameters_of(name)]

each_function = pytest.mark.parametrize("name", ops.__all__)
each_dtype = pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64], ids=str)
each_function_with_out = pytest.mark.parametrize("name", WITH_OUT)
each_array = pytest.mark.parametrize(
    ("name", "argument"), [(name, key) for name in ops.__all__ for key in array_arguments(name)]
)
each_updated = pytest.mark.parametrize(
    ("name", "argument"), [(name, key) for name, keys in IN_PLACE.items() for key in keys]
)


def call(name, arguments):
    return getattr(ops, name)(**arguments)


def flat(result):
    """The arrays and numbers in a result."""
    if isinstance(result, (list, tuple)):
        return [leaf for part in result for leaf in flat(part)]
    if isinstance(result, dict):
        return flat(list(result.values()))
    return [] if result is None else [result]


def assert_same(actual, expected):
    for value, wanted in zip(flat(actual), flat(expected), strict=True):
        np.testing.assert_array_equal(value, wanted)


@contextlib.contextmanager
def refused(error, message, arguments):
    """The block raises this error with exactly this message, and changes none of the arguments."""
    before = copy.deepcopy(arguments)
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        yield
    assert_same(arguments, before)


def assert_refused(error, message, name, **changes):
    """A good call with these changes raises this error and changes nothing."""
    arguments = good_call(name) | changes
    with refused(error, message, arguments):
        call(name, arguments)


# -------------------------------------------------------------------------------- documentation


def test_every_public_function_is_exported():
    defined = {
        name
        for name, value in vars(ops).items()
        if inspect.isfunction(value) and value.__module__ == ops.__name__ and name[0] != "_"
    }
    assert defined == set(ops.__all__)


@each_function
def test_docstring_has_each_section_once_and_each_parameter(name):
    doc = inspect.getdoc(getattr(ops, name))
    sections = re.findall(r"^(\w+)\n-+$", doc, re.MULTILINE)
    assert sections == ["Parameters", "Returns", "Raises", "Examples"]
    parameters = doc.split("Parameters\n")[1].split("Returns\n")[0]
    documented = re.findall(r"^(\w+(?:, \w+)*) : ", parameters, re.MULTILINE)
    assert ", ".join(documented).split(", ") == list(parameters_of(name))


@each_function
def test_docstring_has_one_line_that_fits(name):
    lines = inspect.getdoc(getattr(ops, name)).splitlines()
    assert lines[1] == ""
    assert max(map(len, lines)) <= 100


@each_function
def test_function_has_its_name(name):
    assert getattr(ops, name).__name__ == getattr(ops, name).__qualname__ == name


# ------------------------------------------------------------------------------------- good input


@each_function
@each_dtype
def test_result_has_the_dtype_of_the_inputs(name, dtype):
    results = flat(call(name, good_call(name, dtype)))
    if name == "planar_descent":
        assert results.pop().dtype == FLOAT64  # the costs
    for result in results:
        if isinstance(result, np.ndarray):
            assert result.dtype == (np.int64 if name == "permutation" else dtype)
        else:
            assert type(result) is float


@pytest.mark.parametrize(
    ("name", "argument"),
    [(name, key) for name in ops.__all__ if name not in IN_PLACE for key in array_arguments(name)],
)
def test_one_float64_makes_the_result_float64(name, argument):
    arguments = good_call(name, FLOAT32)
    arguments[argument] = arguments[argument].astype(FLOAT64)
    results = [value for value in flat(call(name, arguments)) if isinstance(value, np.ndarray)]
    # As in Keras, the predictions or inputs decide, not what they are held against.
    follows = argument not in ("targets", "sample_weight")
    assert results[0].dtype == (FLOAT64 if follows else FLOAT32)


@each_function
def test_integers_are_taken_for_floats(name):
    arguments = good_call(name)
    as_floats = {}
    for key, value in arguments.items():
        if key in array_arguments(name):
            arguments[key] = np.round(value).astype(int)
            as_floats[key] = arguments[key].astype(float)
    expected = arguments | as_floats
    if name in IN_PLACE:
        arguments, expected = copy.deepcopy(arguments), copy.deepcopy(expected)
    assert_same(call(name, arguments), call(name, expected))
    assert_same(arguments, expected)


@each_function
def test_inputs_are_left_alone(name):
    arguments = good_call(name)
    untouched = {key: arguments[key] for key in arguments if key not in IN_PLACE.get(name, ())}
    before = copy.deepcopy(untouched)
    call(name, arguments)
    assert_same(untouched, before)


@each_function
def test_results_share_no_memory_with_arguments(name):
    arguments = good_call(name)
    for result in flat(call(name, arguments)):
        if isinstance(result, np.ndarray):
            assert not any(np.shares_memory(result, value) for value in flat(arguments))


def memory_off_alignment(array):
    buffer = np.zeros(array.nbytes + 1, np.uint8)
    moved = buffer[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


def read_only(array):
    copied = array.copy()
    copied.flags.writeable = False
    return copied


UNUSUAL = {
    "fortran": np.asfortranarray,
    "strided": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
    "reversed": lambda array: array[::-1].copy()[::-1],
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "misaligned": memory_off_alignment,
    "list": np.ndarray.tolist,
    "subclass": lambda array: array.view(np.matrix) if array.ndim == 2 else array,
}


class Contract:
    """The reference backend, after a look at whether what it gets is what kernels assume."""

    def __getattr__(self, operation):
        kernel = getattr(reference, operation)

        def checked(*arguments):
            bound = inspect.signature(kernel).bind(*arguments).arguments
            assert len(bound) == len(inspect.signature(kernel).parameters)
            arrays = {k: v for k, v in bound.items() if isinstance(v, np.ndarray)}
            dtypes = {v.dtype for k, v in arrays.items() if v.dtype.kind == "f" and k != "costs"}
            assert len(dtypes) <= 1
            assert dtypes <= {FLOAT32, FLOAT64}
            for array in arrays.values():
                assert type(array) is np.ndarray
                assert array.flags.c_contiguous
                assert array.flags.aligned
                assert array.dtype in (FLOAT32, FLOAT64, np.int64)
                assert array.dtype.isnative
            for key, value in bound.items():
                if key not in arrays and value is not None:
                    assert type(value) in (int, float, bool), key
            return kernel(*arguments)

        return checked


@each_function
@pytest.mark.parametrize("form", UNUSUAL)
def test_kernels_get_what_they_assume(name, form, monkeypatch):
    with backends.use_backend("reference"):
        expected = call(name, good_call(name))
    arguments = good_call(name)
    for key in array_arguments(name):
        arguments[key] = UNUSUAL[form](arguments[key])
    if name == "planar_descent":
        for network in arguments["networks"]:
            network.update({key: UNUSUAL[form](value) for key, value in network.items()})
    monkeypatch.setattr(ops, "current", Contract)
    assert_same(call(name, arguments), expected)


@pytest.mark.parametrize("backend", backends.BACKENDS)
def test_the_backend_in_use_computes(backend, monkeypatch):
    calls = []
    with backends.use_backend(backend):
        monkeypatch.setattr(backends.current(), "exp", lambda *arrays: calls.append(arrays))
        ops.exp([1.0])
    ops.log([1.0])
    assert len(calls) == 1


# ------------------------------------------------------------------------ elementwise functions

floats = hnp.arrays(
    st.sampled_from([FLOAT32, FLOAT64]),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3),
    elements=st.floats(-8, 8, width=32),
)


@pytest.mark.parametrize("name", ["exp", "tanh", "relu", "gelu", "elu"])
@given(array=floats)
def test_elementwise_functions_take_any_shape(name, array):
    function = getattr(ops, name)
    result = function(array)
    assert result.shape == array.shape
    assert result.dtype == array.dtype
    np.testing.assert_array_equal(
        result, np.array([function([x])[0] for x in array.flat]).reshape(array.shape)
    )


@pytest.mark.parametrize(
    ("name", "oracle"),
    [("exp", math.exp), ("log", math.log), ("log1p", math.log1p), ("expm1", math.expm1)],
)
def test_elementwise_functions_are_what_they_are_called(name, oracle):
    points = [0.25, 1.0, 3.5]
    np.testing.assert_allclose(getattr(ops, name)(points), [*map(oracle, points)], rtol=1e-14)


FORMULAS = {
    "relu": lambda x: max(x, 0.0),
    "leaky_relu": lambda x: x if x > 0 else 0.2 * x,
    "elu": lambda x: x if x > 0 else math.exp(x) - 1,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": math.tanh,
    "softplus": lambda x: math.log(1 + math.exp(x)),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_activations_are_what_they_are_called(name):
    points = [-2.5, -0.75, 0.0, 0.5, 3.0]
    expected = [FORMULAS[name](x) for x in points]
    np.testing.assert_allclose(getattr(ops, name)(points), expected, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("axis_length", [1, 5])
def test_softmax_acts_on_the_last_axis(axis_length):
    logits = np.random.default_rng(0).normal(size=(2, 3, axis_length)) * 100
    exact = np.exp(logits.astype(np.longdouble) - logits.max(axis=-1, keepdims=True))
    exact /= exact.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(ops.softmax(logits), exact, rtol=1e-13, atol=1e-300)
    np.testing.assert_allclose(ops.log_softmax(logits), np.log(exact), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gradients_are_those_of_the_function_named(name):
    inputs = np.random.default_rng(1).normal(size=(2, 5))
    grad_outputs = np.random.default_rng(2).normal(size=(2, 5))
    function, step = getattr(ops, name), 1e-6
    expected = np.empty_like(inputs)
    for index in np.ndindex(inputs.shape):
        shift = np.zeros_like(inputs)
        shift[index] = step
        difference = function(inputs + shift) - function(inputs - shift)
        expected[index] = (difference * grad_outputs).sum() / (2 * step)
    actual = getattr(ops, f"{name}_gradient")(inputs, grad_outputs)
    np.testing.assert_allclose(actual, expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "parameter", "value", "expected"),
    [
        ("leaky_relu", "negative_slope", 0.5, ([-1.0, 3.0], [0.5, 1.0])),
        ("leaky_relu", "negative_slope", 0, ([0.0, 3.0], [0.0, 1.0])),
        ("elu", "alpha", 2.0, ([2 * math.expm1(-2), 3.0], [2 * math.exp(-2), 1.0])),
    ],
)
def test_slopes_are_passed_on(name, parameter, value, expected):
    inputs = [-2.0, 3.0]
    outputs = getattr(ops, name)(inputs, **{parameter: value})
    gradient = getattr(ops, f"{name}_gradient")(inputs, [1.0, 1.0], **{parameter: value})
    np.testing.assert_allclose([outputs, gradient], expected, rtol=1e-14)


@pytest.mark.parametrize("name", [*ELEMENTWISE, *FORMULAS])
def test_a_scalar_gives_a_scalar(name):
    result = getattr(ops, name)(np.float32(0.5))
    assert type(result) is np.float32
    assert result == getattr(ops, name)(np.float32([0.5]))[0]


@pytest.mark.parametrize("name", FORMULAS)
def test_gradient_of_a_scalar_is_a_scalar(name):
    assert type(getattr(ops, f"{name}_gradient")(0.5, 1.0)) is np.float64


def test_out_without_dimensions_is_returned():
    out = np.zeros(())
    assert ops.exp(0.0, out=out) is out
    assert out == 1


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_refuses_a_scalar(name):
    assert_refused(ValueError, "inputs: shape () is not 1-D or more", name, inputs=1.0)
    assert_refused(
        ValueError,
        "inputs: shape () is not 1-D or more",
        f"{name}_gradient",
        inputs=1.0,
        grad_outputs=1.0,
    )


def test_nan_passes_through_elementwise_functions():
    for name in (*ELEMENTWISE, *ACTIVATIONS):
        assert np.isnan(getattr(ops, name)([[math.nan]])).all(), name


# ---------------------------------------------------------------------------------- the dense layer


@pytest.mark.parametrize("transpose_left", [False, True])
@pytest.mark.parametrize("transpose_right", [False, True])
def test_matmul_transposes(transpose_left, transpose_right):
    left, right = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4)
    product = ops.matmul(
        left.T if transpose_left else left,
        right.T if transpose_right else right,
        transpose_left=transpose_left,
        transpose_right=transpose_right,
    )
    np.testing.assert_array_equal(product, left @ right)


@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_dense_forward_applies_the_activation_named(activation):
    arguments = good_call("dense_forward") | {"activation": activation}
    sums = arguments["inputs"] @ arguments["weights"] + arguments["bias"]
    expected = sums if activation == "linear" else getattr(ops, activation)(sums)
    np.testing.assert_allclose(call("dense_forward", arguments), expected, rtol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu"])
def test_dense_forward_gives_preactivations(activation):
    arguments = good_call("dense_forward") | {"activation": activation}
    sums = arguments["inputs"] @ arguments["weights"] + arguments["bias"]
    preactivations = np.empty_like(sums)
    outputs = call("dense_forward", arguments | {"preactivations": preactivations})
    np.testing.assert_allclose(preactivations, sums, rtol=1e-12)
    np.testing.assert_allclose(outputs, getattr(ops, activation)(sums), rtol=1e-12)


def test_preactivations_may_be_out_where_nothing_needs_them():
    arguments = good_call("dense_forward")
    expected = call("dense_forward", arguments)
    out = np.empty_like(expected)
    assert call("dense_forward", arguments | {"preactivations": out, "out": out}) is out
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("activation", ["silu", "gelu"])
def test_preactivations_may_not_be_out_where_they_are_needed(activation):
    out = np.zeros((4, 2))
    assert_refused(
        ValueError,
        "preactivations: memory of the array of shape (4, 2) overlaps out",
        "dense_forward",
        activation=activation,
        preactivations=out,
        out=out,
    )


def test_preactivations_may_not_be_part_of_out():
    buffer = np.zeros(16)
    assert_refused(
        ValueError,
        "preactivations: memory of the array of shape (4, 2) overlaps out",
        "dense_forward",
        preactivations=buffer[4:12].reshape(4, 2),
        out=buffer[:8].reshape(4, 2),
    )


def test_preactivations_may_not_overlap_inputs():
    buffer = np.zeros((4, 3))
    assert_refused(
        ValueError,
        "preactivations: memory of the array of shape (4, 2) overlaps inputs",
        "dense_forward",
        inputs=buffer,
        preactivations=buffer.reshape(-1)[:8].reshape(4, 2),
    )


@pytest.mark.parametrize("activation", ["leaky_relu", "elu"])
def test_slope_of_a_layer(activation):
    parameter = "negative_slope" if activation == "leaky_relu" else "alpha"
    arguments = good_call("dense_forward") | {"activation": activation}
    sums = arguments["inputs"] @ arguments["weights"] + arguments["bias"]
    function = getattr(ops, activation)
    for slope, expected in ((None, function(sums)), (0.7, function(sums, **{parameter: 0.7}))):
        outputs = call("dense_forward", arguments | {"slope": slope})
        np.testing.assert_allclose(outputs, expected, rtol=1e-12)


@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_dense_backward_is_the_chain_rule(activation):
    arguments = good_call("dense_backward") | {"activation": activation}
    inputs, weights = arguments["inputs"], arguments["weights"]
    sums = inputs @ weights
    if activation == "linear":
        grad_sums = arguments["grad_outputs"]
        outputs = sums
    else:
        grad_sums = getattr(ops, f"{activation}_gradient")(sums, arguments["grad_outputs"])
        outputs = getattr(ops, activation)(sums)
    results = call("dense_backward", arguments | {"preactivations": sums, "outputs": outputs})
    expected = (grad_sums @ weights.T, inputs.T @ grad_sums, grad_sums.sum(axis=0))
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, wanted, rtol=1e-12, atol=1e-14)


def test_dense_backward_does_without_preactivations():
    arguments = good_call("dense_backward") | {"activation": "tanh"}
    expected = call("dense_backward", arguments)
    assert_same(call("dense_backward", arguments | {"preactivations": None}), expected)


@pytest.mark.parametrize("activation", ["silu", "gelu"])
def test_dense_backward_needs_preactivations(activation):
    assert_refused(
        ValueError,
        f"preactivations: None will not do for the activation {activation!r}",
        "dense_backward",
        preactivations=None,
        activation=activation,
    )


def test_dense_backward_writes_where_it_is_told():
    arguments = good_call("dense_backward")
    expected = call("dense_backward", arguments)
    grad_weights = np.empty((3, 2))
    results = call("dense_backward", arguments | {"out": (None, grad_weights, None)})
    assert results[1] is grad_weights
    assert_same(results, expected)


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (np.empty((4, 3)), TypeError, "out: ndarray is not a tuple of three arrays"),
        ((None, None), TypeError, "out: tuple is not a tuple of three arrays"),
        ((None, np.zeros((2, 3)), None), ValueError, "out[1]: shape (2, 3) is not (3, 2)"),
        ((None, None, np.zeros(2, "f4")), TypeError, "out[2]: dtype float32 is not float64"),
    ],
)
def test_dense_backward_checks_where_it_is_told_to_write(out, error, message):
    assert_refused(error, message, "dense_backward", out=out)


def test_dense_backward_does_not_write_twice_to_one_place():
    buffer = np.zeros(12)
    assert_refused(
        ValueError,
        "out[1]: memory of the array of shape (3, 2) overlaps out[0]",
        "dense_backward",
        out=(buffer.reshape(4, 3), buffer[6:].reshape(3, 2), None),
    )


@pytest.mark.parametrize("name", ["dense_forward", "dense_backward"])
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"activation": "swish"},
            ValueError,
            f"'swish' is not one of {', '.join(reference.ACTIVATIONS)}",
        ),
        ({"activation": 1}, TypeError, f"1 is not one of {', '.join(reference.ACTIVATIONS)}"),
    ],
)
def test_unknown_activation_is_refused(name, changes, error, message):
    assert_refused(error, f"activation: {message}", name, **changes)


@pytest.mark.parametrize("name", ["dense_forward", "dense_backward"])
@pytest.mark.parametrize(
    ("activation", "slope", "message"),
    [
        ("elu", -1.0, "slope: -1.0 is not a finite number >= 0"),
        ("leaky_relu", math.nan, "slope: nan is not a finite number >= 0"),
        ("relu", 0.1, "slope: 0.1 has no meaning for the activation 'relu'"),
    ],
)
def test_wrong_slope_is_refused(name, activation, slope, message):
    assert_refused(ValueError, message, name, activation=activation, slope=slope)


# ------------------------------------------------------------------------------------------ losses


@pytest.mark.parametrize("name", ["binary_crossentropy", *REGRESSIONS])
@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 2, 3)])
def test_losses_average_over_all_but_the_first_axis(name, shape):
    rng = np.random.default_rng(3)
    targets, predictions = rng.integers(0, 2, shape), rng.uniform(0.1, 0.9, shape)
    weights = rng.uniform(size=6)
    loss, gradients = getattr(ops, name)(targets, predictions, sample_weight=weights)
    rows = (6, -1)
    wanted, wanted_gradients = getattr(ops, name)(
        targets.reshape(rows), predictions.reshape(rows), sample_weight=weights
    )
    assert loss == wanted
    assert gradients.shape == shape
    np.testing.assert_array_equal(gradients.reshape(rows), wanted_gradients)


LOSS_FORMULAS = {
    "binary_crossentropy": lambda t, p: -(t * np.log(p) + (1 - t) * np.log(1 - p)),
    "mean_squared_error": lambda t, p: (p - t) ** 2,
    "mean_absolute_error": lambda t, p: abs(p - t),
    "huber": lambda t, p: np.where(abs(p - t) <= 1, (p - t) ** 2 / 2, abs(p - t) - 0.5),
    "poisson": lambda t, p: np.exp(p) - t - t * p + t * np.log(t),
}


@pytest.mark.parametrize("name", LOSS_FORMULAS)
def test_losses_are_what_they_are_called(name):
    rng = np.random.default_rng(3)
    targets, predictions = rng.uniform(size=(5, 2)), rng.uniform(0.1, 0.9, (5, 2))
    weights = rng.uniform(size=5)
    expected = LOSS_FORMULAS[name](targets, predictions).mean(axis=1) @ weights / 5
    loss, _ = getattr(ops, name)(targets, predictions, sample_weight=weights)
    assert loss == pytest.approx(expected, rel=1e-12)


def test_labels_are_one_hot_rows():
    labels = [2, 0, 1, 1]
    predictions = np.random.default_rng(4).uniform(0.1, 0.9, (4, 3))
    sparse = ops.sparse_categorical_crossentropy(labels, predictions)
    assert_same(sparse, ops.categorical_crossentropy(np.eye(3)[labels], predictions))
    probabilities = predictions / predictions.sum(axis=1, keepdims=True)
    expected = -np.log(probabilities[range(4), labels]).mean()
    assert sparse[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", CROSSENTROPIES)
def test_logits_are_not_probabilities(name):
    arguments = good_call(name)
    logits = arguments["predictions"]
    squash = ops.sigmoid if name == "binary_crossentropy" else ops.softmax
    loss, _ = call(name, arguments)
    wanted, _ = call(name, arguments | {"predictions": squash(logits), "from_logits": False})
    assert loss == pytest.approx(wanted, rel=1e-12)


def test_label_smoothing_moves_the_targets():
    targets, logits = np.eye(3)[[2, 0]], np.random.default_rng(5).normal(size=(2, 3))
    smoothed = 0.7 * targets + 0.3 / 3
    expected, _ = ops.categorical_crossentropy(smoothed, logits, from_logits=True)
    actual, _ = ops.categorical_crossentropy(targets, logits, from_logits=True, label_smoothing=0.3)
    assert actual == pytest.approx(expected, rel=1e-12)


def test_delta_is_where_huber_turns_linear():
    loss, gradients = ops.huber([[0.0, 0.0]], [[1.0, 3.0]], delta=2.0)
    assert loss == (0.5 + (2 * 3 - 2)) / 2
    np.testing.assert_array_equal(gradients, [[0.5, 1.0]])


def test_nan_predictions_give_a_nan_loss():
    for name in LOSSES:
        arguments = good_call(name)
        arguments["predictions"][1, 1] = math.nan
        assert math.isnan(call(name, arguments)[0]), name


@pytest.mark.parametrize("name", [loss for loss in LOSSES if not loss.startswith("sparse")])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_targets_must_be_finite(name, bad):
    targets = good_call(name)["targets"]
    targets[2, 1] = bad
    limits = " in [0, 1]" if name in CROSSENTROPIES else " >= 0" if name == "poisson" else ""
    message = f"targets: {bad} at index (2, 1) is not a finite number{limits}"
    assert_refused(ValueError, message, name, targets=targets)


@pytest.mark.parametrize("name", ["binary_crossentropy", "categorical_crossentropy"])
@pytest.mark.parametrize("bad", [-0.5, 1.5])
def test_targets_of_crossentropy_are_probabilities(name, bad):
    targets = good_call(name)["targets"]
    targets[0, 2] = bad
    message = f"targets: {bad} at index (0, 2) is not a finite number in [0, 1]"
    assert_refused(ValueError, message, name, targets=targets)


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        ([0, 1, 2, 3], ValueError, "3 at index 3 is not an integer in [0, 2]"),
        ([0, -1, 2, 0], ValueError, "-1 at index 1 is not an integer in [0, 2]"),
        ([0, 1, 0.5, 0], ValueError, "0.5 at index 2 is not an integer in [0, 2]"),
        ([math.nan, 1, 0, 0], ValueError, "nan at index 0 is not an integer in [0, 2]"),
        ([math.inf, 1, 0, 0], ValueError, "inf at index 0 is not an integer in [0, 2]"),
        ([[0], [1], [2], [0]], ValueError, "shape (4, 1) is not 1-D"),
        ([0, 1, 2], ValueError, "shape (3,) does not match predictions (4, 3)"),
        ([None] * 4, TypeError, "dtype object is not float32, float64, integer or bool"),
        (["a"] * 4, TypeError, "dtype <U1 is not float32, float64, integer or bool"),
    ],
)
def test_labels_must_name_classes(targets, error, message):
    assert_refused(error, f"targets: {message}", "sparse_categorical_crossentropy", targets=targets)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, math.nan, 1.0, 1.0], "nan at index 1 is not a finite number"),
        ([1.0, 1.0, math.inf, 1.0], "inf at index 2 is not a finite number"),
        ([1.0, 1.0], "shape (2,) does not match predictions (4, 3)"),
        ([[1.0]] * 4, "shape (4, 1) does not match predictions (4, 3)"),
    ],
)
def test_sample_weight_is_checked(name, weights, message):
    assert_refused(ValueError, f"sample_weight: {message}", name, sample_weight=weights)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", [(0, 3), (4, 0)])
def test_losses_need_data(name, shape):
    targets = np.empty(shape[:1], int) if name.startswith("sparse") else np.empty(shape)
    message = f"predictions: shape {shape} holds no data"
    assert_refused(ValueError, message, name, targets=targets, predictions=np.empty(shape))


@pytest.mark.parametrize("name", LOSSES)
def test_losses_need_rows(name):
    message = "predictions: shape () is not 1-D or more"
    assert_refused(ValueError, message, name, predictions=0.5)


@pytest.mark.parametrize("name", CROSSENTROPIES[1:])
def test_classes_need_two_dimensions(name):
    message = "predictions: shape (3,) is not 2-D"
    assert_refused(ValueError, message, name, targets=[0, 1, 0], predictions=np.ones(3))


# ---------------------------------------------------------------------------------- random numbers


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 2, 3)])
def test_dropout_takes_the_first_axis_as_rows(shape):
    inputs = np.ones(shape)
    dropped = ops.dropout(inputs, 0.5, seed=1)
    assert dropped.shape == shape
    np.testing.assert_array_equal(
        dropped.reshape(6, -1), ops.dropout(inputs.reshape(6, -1), 0.5, seed=1)
    )


@pytest.mark.parametrize("rate", [0.0, 0.25, 1.0])
def test_dropout_keeps_the_expectation(rate):
    dropped = ops.dropout(np.ones((400, 100)), rate, seed=3)
    kept = dropped != 0
    assert kept.mean() == pytest.approx(1 - rate, abs=0.01)
    np.testing.assert_allclose(dropped[kept], 1 / (1 - rate) if rate < 1 else 0)


@pytest.mark.parametrize("change", [{"seed": 2}, {"step": 1}, {"layer": 1}])
def test_dropout_is_a_function_of_its_numbers(change):
    arguments = {"rate": 0.5, "seed": 1, "step": 0, "layer": 0}
    ones = np.ones((20, 20))
    mask = ops.dropout(ones, **arguments)
    np.testing.assert_array_equal(mask, ops.dropout(ones, **arguments))
    assert not np.array_equal(mask, ops.dropout(ones, **(arguments | change)))


@pytest.mark.parametrize("n", [0, 1, 2, 31])
def test_permutation_permutes(n):
    order = ops.permutation(n, seed=1)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(n))


@pytest.mark.parametrize("change", [{"seed": 2}, {"epoch": 1}])
def test_permutation_is_a_function_of_its_numbers(change):
    arguments = {"n": 50, "seed": 1, "epoch": 0}
    order = ops.permutation(**arguments)
    np.testing.assert_array_equal(order, ops.permutation(**arguments))
    assert not np.array_equal(order, ops.permutation(**(arguments | change)))


# ------------------------------------------------------------------------------- optimizer updates


@pytest.mark.parametrize("name", UPDATES)
def test_updates_return_nothing(name):
    assert call(name, good_call(name)) is None


def test_sgd_without_velocity():
    parameters = np.float32([1.0, 2.0])
    ops.sgd_update(parameters, np.float32([1.0, -2.0]), learning_rate=0.5)
    np.testing.assert_array_equal(parameters, np.float32([0.5, 3.0]))


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_with_momentum_and_decay(nesterov):
    parameters, velocity = np.array([1.0]), np.array([0.5])
    ops.sgd_update(
        parameters,
        [2.0],
        velocity,
        learning_rate=0.25,
        momentum=0.5,
        nesterov=nesterov,
        weight_decay=0.5,
    )
    assert velocity == 0.5 * 0.5 - 0.25 * 2
    assert parameters == 1 - 0.25 * 0.5 + (
        0.5 * velocity[0] - 0.25 * 2 if nesterov else velocity[0]
    )


def test_rmsprop_options():
    parameters, mean_square = np.array([1.0]), np.array([4.0])
    ops.rmsprop_update(
        parameters,
        [2.0],
        mean_square,
        learning_rate=0.25,
        rho=0.5,
        epsilon=5.0,
        weight_decay=0.5,
    )
    assert mean_square == 0.5 * 4 + 0.5 * 2**2
    assert parameters == pytest.approx(1 - 0.25 * 0.5 - 0.25 * 2 / math.sqrt(4 + 5), rel=1e-15)


def test_adam_options():
    parameters, first, second = np.array([1.0]), np.array([0.5]), np.array([4.0])
    ops.adam_update(
        parameters,
        [2.0],
        first,
        second,
        step=2,
        learning_rate=0.25,
        beta_1=0.5,
        beta_2=0.75,
        epsilon=3.0,
        weight_decay=0.5,
    )
    assert first == 0.5 * 0.5 + 0.5 * 2
    assert second == 0.75 * 4 + 0.25 * 2**2
    rate = 0.25 * math.sqrt(1 - 0.75**2) / (1 - 0.5**2)
    assert parameters == pytest.approx(1 - 0.25 * 0.5 - rate * 1.25 / (2 + 3), rel=1e-15)


def test_penalty_and_its_gradient():
    gradients = np.ones((1, 3))
    assert ops.add_penalty([[2.0, 0.0, -1.0]], gradients, l1=0.5, l2=0.25) == 0.5 * 3 + 0.25 * 5
    np.testing.assert_array_equal(gradients, [[1 + 0.5 + 1.0, 1.0, 1 - 0.5 - 0.5]])


def test_updates_take_any_shape():
    for shape in ((), (0,), (2, 3, 4)):
        parameters = np.ones(shape)
        ops.sgd_update(parameters, np.full(shape, 2.0), learning_rate=0.25)
        np.testing.assert_array_equal(parameters, np.full(shape, 0.5))


@each_updated
@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda array: [1.0], TypeError, "[1.0] is not a NumPy array"),
        (lambda array: array.astype(int), TypeError, "dtype int64 is not {floats}"),
        (lambda array: array.astype(">f8"), TypeError, "dtype >f8 is not {floats}"),
        (lambda array: array.astype(complex), TypeError, "dtype complex128 is not {floats}"),
        (lambda array: array.astype(object), TypeError, "dtype object is not {floats}"),
        (
            np.asfortranarray,
            ValueError,
            "strides (8, 32) are not those of C-contiguity",
        ),
        (
            UNUSUAL["strided"],
            ValueError,
            "strides (48, 16) are not those of C-contiguity",
        ),
        (memory_off_alignment, ValueError, "the array of shape (4, 3) is not aligned"),
        (
            read_only,
            ValueError,
            "the array of shape (4, 3) is read-only, not writeable",
        ),
    ],
)
def test_what_is_updated_must_be_writable(name, argument, spoil, error, message):
    leads = argument == IN_PLACE[name][0]
    message = message.format(floats="float32 or float64" if leads else "float64")
    spoilt = spoil(good_call(name)[argument])
    assert_refused(error, f"{argument}: {message}", name, **{argument: spoilt})


@pytest.mark.parametrize(
    ("name", "argument"),
    [(name, key) for name in UPDATES for key in ("gradients", *IN_PLACE[name][1:])],
)
def test_updates_need_one_shape_and_dtype(name, argument):
    array, state = good_call(name)[argument], argument != "gradients"
    assert_refused(
        ValueError,
        f"{argument}: shape (3, 4) {'is not' if state else 'does not match parameters'} (4, 3)",
        name,
        **{argument: array.reshape(3, 4)},
    )
    assert_refused(
        TypeError,
        f"{argument}: dtype float32 {'is not' if state else 'does not match parameters,'} float64",
        name,
        **{argument: array.astype(np.float32)},
    )


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        (name, first, second)
        for name in UPDATES
        for first, second in itertools.combinations(
            ("gradients", "parameters", *IN_PLACE[name][1:]), 2
        )
    ],
)
def test_updates_need_separate_memory(name, first, second):
    arguments = good_call(name)
    buffer = np.arange(20.0)
    arguments[first] = buffer[:12].reshape(4, 3)
    arguments[second] = buffer[8:].reshape(4, 3)
    message = f"{second}: memory of the array of shape (4, 3) overlaps {first}"
    with refused(ValueError, message, arguments):
        call(name, arguments)


@pytest.mark.parametrize(
    ("name", "argument"),
    [(name, key) for name in ("rmsprop_update", "adam_update") for key in IN_PLACE[name]],
)
def test_updates_need_their_state(name, argument):
    message = f"{argument}: None is not a NumPy array"
    assert_refused(TypeError, message, name, **{argument: None})


def test_momentum_needs_a_velocity():
    message = "velocity: None will not do with a momentum of 0.9"
    assert_refused(ValueError, message, "sgd_update", velocity=None, momentum=0.9)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"parameters": np.ones((3, 4))},
            ValueError,
            "shape (3, 4) does not match gradients (4, 3)",
        ),
        (
            {"parameters": np.ones((4, 3), "f4")},
            TypeError,
            "dtype float32 does not match gradients, float64",
        ),
    ],
)
def test_penalty_needs_one_shape_and_dtype(changes, error, message):
    assert_refused(error, f"parameters: {message}", "add_penalty", **changes)


def test_penalty_needs_separate_memory():
    array = np.ones((4, 3))
    message = "gradients: memory of the array of shape (4, 3) overlaps parameters"
    assert_refused(ValueError, message, "add_penalty", parameters=array[::-1], gradients=array)


# ---------------------------------------------------------------------------------------- features


def test_quadratic_features_of_the_exercise():
    features = ops.quadratic_features([[2.61, -1.28], [-0.59, 2.1]])
    np.testing.assert_allclose(
        features,
        [
            [2.61, -1.28, 6.8121, 1.6384, -3.3408, 1],
            [-0.59, 2.1, 0.3481, 4.41, -1.239, 1],
        ],
        rtol=1e-12,
    )


def test_quadratic_features_of_more_inputs():
    np.testing.assert_array_equal(
        ops.quadratic_features([[2, 3, 5]]), [[2, 3, 5, 4, 9, 25, 6, 10, 15, 1]]
    )


# -------------------------------------------------------------------------------- training loops


def logistic_loop(inputs, targets, weights, batches, method, rate, decay, epsilon):
    """The loop of the exercise, by hand."""
    weights, state, losses, history = weights.astype(float), 0.0, [], []
    for rows in batches:
        p = 1 / (1 + np.exp(-inputs @ weights))
        losses.append(-(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean())
        history.append(weights)
        g = (p[rows] - targets[rows]) @ inputs[rows] / len(rows)
        if method == "sgd":
            weights = weights - rate * g
        elif method == "momentum":
            state = decay * state + rate * g
            weights = weights - state
        else:
            state = decay * state + (1 - decay) * g**2
            weights = weights - rate * g / np.sqrt(state + epsilon)
    return weights, losses, [*history, weights]


@pytest.mark.parametrize("method", reference.DESCENT_METHODS)
def test_logistic_descent_is_the_loop_by_hand(method):
    rng = np.random.default_rng(6)
    inputs, targets = rng.normal(size=(20, 3)), rng.integers(0, 2, 20)
    batches = rng.integers(0, 20, (30, 4))
    start = np.array([0, 0, 1])
    options = {"learning_rate": 0.1, "decay": 0.8, "epsilon": 1e-3}
    results = ops.logistic_descent(
        inputs, targets, start, batches, method=method, history=True, **options
    )
    expected = logistic_loop(inputs, targets, start, batches, method, *options.values())
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, wanted, rtol=1e-10, atol=1e-14)


def test_logistic_descent_records_what_it_is_told():
    arguments = good_call("logistic_descent")
    weights, losses, history = call("logistic_descent", arguments)
    for record_losses, record_history in itertools.product((False, True), repeat=2):
        results = call(
            "logistic_descent", arguments | {"losses": record_losses, "history": record_history}
        )
        np.testing.assert_allclose(results[0], weights, rtol=1e-12)
        assert (results[1] is None, results[2] is None) == (not record_losses, not record_history)
    assert (losses.shape, history.shape) == ((6,), (7, 3))


def test_logistic_descent_of_no_steps():
    arguments = good_call("logistic_descent") | {"batches": np.empty((0, 4), int)}
    weights, losses, history = call("logistic_descent", arguments)
    np.testing.assert_array_equal(weights, arguments["weights"])
    assert (losses.shape, history.shape) == ((0,), (1, 3))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"inputs": np.ones(5)}, ValueError, "inputs: shape (5,) is not 2-D"),
        ({"inputs": np.ones((0, 3))}, ValueError, "inputs: shape (0, 3) holds no data"),
        ({"weights": np.ones(4)}, ValueError, "weights: shape (4,) does not match inputs (5, 3)"),
        ({"targets": np.ones(4)}, ValueError, "targets: shape (4,) does not match inputs (5, 3)"),
        (
            {"targets": [0, 1, math.nan, 1, 0]},
            ValueError,
            "targets: nan at index 2 is not a finite number in [0, 1]",
        ),
        (
            {"targets": [0, 1, 2, 1, 0]},
            ValueError,
            "targets: 2.0 at index 2 is not a finite number in [0, 1]",
        ),
        (
            {"batches": [[0, 5]]},
            ValueError,
            "batches: 5 at index (0, 1) is not an integer in [0, 4]",
        ),
        (
            {"batches": [[-1, 0]]},
            ValueError,
            "batches: -1 at index (0, 0) is not an integer in [0, 4]",
        ),
        ({"batches": [0, 1]}, ValueError, "batches: shape (2,) is not 2-D"),
        ({"batches": np.empty((3, 0))}, ValueError, "batches: shape (3, 0) holds no data"),
        ({"method": "adam"}, ValueError, "method: 'adam' is not one of sgd, momentum, rmsprop"),
    ],
)
def test_logistic_descent_refuses(changes, error, message):
    assert_refused(error, message, "logistic_descent", **changes)


def test_planar_descent_is_gradient_descent():
    arguments = good_call("planar_descent")
    trained, costs = call("planar_descent", arguments)
    x, y, rate, m = arguments["inputs"], arguments["targets"], 1.2, 5
    for network, result, cost in zip(arguments["networks"], trained, costs, strict=True):
        w1, b1, w2, b2 = network.values()
        recorded = []
        for iteration in range(5):
            a1 = np.tanh(w1 @ x + b1)
            a2 = 1 / (1 + np.exp(-(w2 @ a1 + b2)))
            if iteration % 2 == 0:
                recorded.append(-(y * np.log(a2) + (1 - y) * np.log(1 - a2)).sum() / m)
            dz2 = a2 - y
            dz1 = (w2.T @ dz2) * (1 - a1**2)
            w2, b2 = w2 - rate * dz2 @ a1.T / m, b2 - rate * dz2.mean(axis=1, keepdims=True)
            w1, b1 = w1 - rate * dz1 @ x.T / m, b1 - rate * dz1.mean(axis=1, keepdims=True)
        np.testing.assert_allclose(cost, recorded, rtol=1e-10)
        assert list(result) == ["W1", "b1", "W2", "b2"]
        for value, wanted in zip(result.values(), (w1, b1, w2, b2), strict=True):
            np.testing.assert_allclose(value, wanted, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weight", ["W1", "b1", "W2", "b2"])
@pytest.mark.parametrize("size", [30, 74, 76, 149, 151, 1e4, 1e30])
@pytest.mark.parametrize("n_x", [2, 3])
def test_planar_descent_where_exponents_are_large(dtype, weight, size, n_x):
    rng = np.random.default_rng(0)
    inputs = rng.uniform(-1, 1, (n_x, 40)).astype(dtype)
    network = {"W1": (4, n_x), "b1": (4, 1), "W2": (1, 4), "b2": (1, 1)}
    network = {name: rng.uniform(-1, 1, shape).astype(dtype) for name, shape in network.items()}
    network[weight][-1, 0] = size
    targets = rng.integers(0, 2, (1, 40))
    results = {}
    for backend in ("reference", "cython"):
        with backends.use_backend(backend):
            results[backend] = ops.planar_descent(inputs, targets, [network], iterations=3)
    (expected,), expected_costs = results["reference"]
    (trained,), costs = results["cython"]
    tolerance = 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(costs, expected_costs, rtol=tolerance)
    for name, value in expected.items():
        np.testing.assert_allclose(trained[name], value, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["inputs", "W1", "b1", "W2", "b2"])
def test_planar_descent_of_nan(name):
    rng = np.random.default_rng(0)
    arrays = {"inputs": (2, 40), "W1": (4, 2), "b1": (4, 1), "W2": (1, 4), "b2": (1, 1)}
    arrays = {key: rng.uniform(-1, 1, shape) for key, shape in arrays.items()}
    arrays[name][0, 0] = np.nan
    inputs = arrays.pop("inputs")
    targets = rng.integers(0, 2, (1, 40))
    with backends.use_backend("reference"), np.errstate(invalid="ignore"):
        (expected,), _ = ops.planar_descent(inputs, targets, [arrays], iterations=1)
    (trained,), _ = ops.planar_descent(inputs, targets, [arrays], iterations=1)
    for key, wanted in expected.items():
        np.testing.assert_array_equal(np.isnan(trained[key]), np.isnan(wanted))


@pytest.mark.parametrize("work", [1, 300, 1000])
@pytest.mark.parametrize(("iterations", "cost_every"), [(17, 1), (17, 5), (20, 5), (7, 40)])
def test_planar_descent_in_several_calls(monkeypatch, work, iterations, cost_every):
    arguments = good_call("planar_descent")
    arguments |= {"iterations": iterations, "cost_every": cost_every}
    whole = call("planar_descent", arguments)
    monkeypatch.setattr(ops, "_PLANAR_WORK", {})
    monkeypatch.setattr(ops, "_LEAST_PLANAR_WORK", work)
    assert_same(call("planar_descent", arguments), whole)


def test_planar_descent_with_one_cost():
    arguments = good_call("planar_descent") | {"iterations": 4}
    expected = call("planar_descent", arguments | {"cost_every": 4})
    assert_same(call("planar_descent", arguments | {"cost_every": 2**63 - 1}), expected)


@pytest.mark.parametrize("backend", backends.BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_slope_of_gelu_where_squares_overflow(backend, dtype):
    x = np.array([-1, -1e-3, 1e-3, 1], dtype) * np.finfo(dtype).max
    with backends.use_backend(backend), np.errstate(over="ignore", invalid="ignore"):
        slopes = ops.gelu_gradient(x, np.ones_like(x))
    np.testing.assert_array_equal(slopes, [0, 0, 1, 1])


def test_planar_descent_of_no_iterations():
    arguments = good_call("planar_descent") | {"iterations": 0}
    trained, costs = call("planar_descent", arguments)
    assert_same(trained, arguments["networks"])
    assert costs.shape == (2, 0)


def planar_networks(i=0, **changes):
    """The networks of the good call, with changes in one of them; None takes an entry away."""
    networks = good_call("planar_descent")["networks"]
    networks[i] = {k: v for k, v in (networks[i] | changes).items() if v is not None}
    return networks


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"inputs": np.ones(5)}, ValueError, "inputs: shape (5,) is not 2-D"),
        ({"inputs": np.ones((2, 0))}, ValueError, "inputs: shape (2, 0) holds no data"),
        ({"targets": np.ones(5)}, ValueError, "targets: shape (5,) is not 2-D"),
        ({"targets": np.ones((0, 5))}, ValueError, "targets: shape (0, 5) holds no data"),
        (
            {"targets": np.ones((1, 4))},
            ValueError,
            "targets: shape (1, 4) does not match inputs (2, 5)",
        ),
        (
            {"targets": [[0, 1, math.nan, 1, 0]]},
            ValueError,
            "targets: nan at index (0, 2) is not a finite number in [0, 1]",
        ),
        (
            {"targets": [[0, 1, 2, 1, 0]]},
            ValueError,
            "targets: 2.0 at index (0, 2) is not a finite number in [0, 1]",
        ),
        ({"networks": {}}, TypeError, "networks: dict is not a list of dicts"),
        ({"networks": []}, ValueError, "networks: the empty list holds nothing to train"),
        ({"networks": [None]}, TypeError, "networks[0]: NoneType is not a dict"),
        (
            {"networks": planar_networks(1, W2=None)},
            ValueError,
            "networks[1]: the key 'W2' is missing",
        ),
        (
            {"networks": planar_networks(1, W1=np.ones(3))},
            ValueError,
            "networks[1]['W1']: shape (3,) is not 2-D",
        ),
        (
            {"networks": planar_networks(1, W1=np.ones((0, 2)))},
            ValueError,
            "networks[1]['W1']: shape (0, 2) holds no data",
        ),
        (
            {"networks": planar_networks(0, W1=np.ones((4, 3)))},
            ValueError,
            "networks[0]['W1']: shape (4, 3) does not match a network of sizes (2, 4, 1)",
        ),
        (
            {"networks": planar_networks(0, b1=np.ones(4))},
            ValueError,
            "networks[0]['b1']: shape (4,) does not match a network of sizes (2, 4, 1)",
        ),
        (
            {"networks": planar_networks(0, W2=np.ones((1, 3)))},
            ValueError,
            "networks[0]['W2']: shape (1, 3) does not match a network of sizes (2, 4, 1)",
        ),
        (
            {"networks": planar_networks(0, b2=np.ones((2, 1)))},
            ValueError,
            "networks[0]['b2']: shape (2, 1) does not match a network of sizes (2, 4, 1)",
        ),
        (
            {"networks": planar_networks(0, b2=[[None]])},
            TypeError,
            "networks[0]['b2']: dtype object is not float32, float64, integer or bool",
        ),
    ],
)
def test_planar_descent_refuses(changes, error, message):
    assert_refused(error, message, "planar_descent", **changes)


# --------------------------------------------------------------------------- arrays of a wrong kind


@each_array
@pytest.mark.parametrize(
    "dtype", ["object", "complex64", "complex128", "<U32", "float16", "datetime64[s]"]
)
def test_other_dtypes_are_refused(name, argument, dtype):
    array = np.zeros(good_call(name)[argument].shape).astype(int).astype(dtype)
    message = f"{argument}: dtype {dtype} is not float32, float64, integer or bool"
    assert_refused(TypeError, message, name, **{argument: array})


@each_array
def test_ragged_lists_are_refused(name, argument):
    arguments = good_call(name) | {argument: [[1.0], [1.0, 2.0]]}
    with pytest.raises(ValueError, match=rf"^{argument}: .*inhomogeneous shape"):
        call(name, arguments)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("matmul", {"left": np.ones(3)}, "left: shape (3,) is not 2-D"),
        ("matmul", {"right": np.ones((3, 2, 1))}, "right: shape (3, 2, 1) is not 2-D"),
        ("matmul", {"right": np.ones((4, 2))}, "right: shape (4, 2) does not match left (4, 3)"),
        ("matmul", {"transpose_left": True}, "right: shape (3, 2) does not match left (4, 3)"),
        ("matmul", {"transpose_right": True}, "right: shape (3, 2) does not match left (4, 3)"),
        ("dense_forward", {"inputs": np.ones(3)}, "inputs: shape (3,) is not 2-D"),
        ("dense_forward", {"weights": np.ones(3)}, "weights: shape (3,) is not 2-D"),
        (
            "dense_forward",
            {"weights": np.ones((783, 10)), "inputs": np.ones((32, 784))},
            "weights: shape (783, 10) does not match inputs (32, 784)",
        ),
        ("dense_forward", {"bias": np.ones(3)}, "bias: shape (3,) does not match weights (3, 2)"),
        (
            "dense_forward",
            {"bias": np.ones((1, 2))},
            "bias: shape (1, 2) does not match weights (3, 2)",
        ),
        (
            "dense_forward",
            {"preactivations": np.ones((2, 4))},
            "preactivations: shape (2, 4) is not (4, 2)",
        ),
        ("dense_backward", {"inputs": np.ones(3)}, "inputs: shape (3,) is not 2-D"),
        (
            "dense_backward",
            {"weights": np.ones((2, 2))},
            "weights: shape (2, 2) does not match inputs (4, 3)",
        ),
        *(
            (
                "dense_backward",
                {argument: np.ones((4, 1))},
                f"{argument}: shape (4, 1) does not match inputs @ weights (4, 2)",
            )
            for argument in ("preactivations", "outputs", "grad_outputs")
        ),
        (
            "dense_backward",
            {"activation": "relu", "preactivations": None, "outputs": np.ones((4, 1))},
            "outputs: shape (4, 1) does not match inputs @ weights (4, 2)",
        ),
        *(
            (
                loss,
                {"targets": np.zeros((4, 1))},
                "targets: shape (4, 1) does not match predictions (4, 3)",
            )
            for loss in LOSSES
            if not loss.startswith("sparse")
        ),
        *(
            (
                gradient,
                {"grad_outputs": np.ones((3, 4))},
                "grad_outputs: shape (3, 4) does not match inputs (4, 3)",
            )
            for gradient in GRADIENTS
        ),
        ("dropout", {"inputs": 1.0}, "inputs: shape () is not 1-D or more"),
        ("quadratic_features", {"inputs": np.ones(3)}, "inputs: shape (3,) is not 2-D"),
    ],
)
def test_shapes_that_disagree_are_refused(name, changes, message):
    assert_refused(ValueError, message, name, **changes)


# ---------------------------------------------------------------------------------------- scalars

AT_LEAST_0 = (">= 0", (-0.1, -1))
ABOVE_0 = ("> 0", (0.0, -1))
FROM_0_TO_1 = ("in [0, 1]", (-0.1, 1.1))
FROM_0_BELOW_1 = ("in [0, 1)", (-0.1, 1.0))

NUMBERS = {
    **{
        (name, "learning_rate"): AT_LEAST_0
        for name in (*UPDATES, "logistic_descent", "planar_descent")
    },
    **{(name, "weight_decay"): AT_LEAST_0 for name in UPDATES},
    **{(name, "label_smoothing"): FROM_0_TO_1 for name in CROSSENTROPIES},
    ("sgd_update", "momentum"): FROM_0_TO_1,
    ("rmsprop_update", "rho"): FROM_0_TO_1,
    ("rmsprop_update", "epsilon"): AT_LEAST_0,
    ("adam_update", "beta_1"): FROM_0_BELOW_1,
    ("adam_update", "beta_2"): FROM_0_BELOW_1,
    ("adam_update", "epsilon"): AT_LEAST_0,
    ("add_penalty", "l1"): AT_LEAST_0,
    ("add_penalty", "l2"): AT_LEAST_0,
    ("huber", "delta"): ABOVE_0,
    ("dropout", "rate"): FROM_0_TO_1,
    ("logistic_descent", "decay"): FROM_0_TO_1,
    ("logistic_descent", "epsilon"): AT_LEAST_0,
    **{(f"leaky_relu{end}", "negative_slope"): AT_LEAST_0 for end in ("", "_gradient")},
    **{(f"elu{end}", "alpha"): AT_LEAST_0 for end in ("", "_gradient")},
}
WORD, INT64 = 2**32 - 1, 2**63 - 1
INTEGERS = {
    ("adam_update", "step"): (1, INT64),
    ("dropout", "seed"): (0, 2**64 - 1),
    ("dropout", "step"): (0, WORD),
    ("dropout", "layer"): (0, WORD - 1),
    ("permutation", "n"): (0, WORD),
    ("permutation", "seed"): (0, 2**64 - 1),
    ("permutation", "epoch"): (0, WORD),
    ("planar_descent", "iterations"): (0, INT64),
    ("planar_descent", "cost_every"): (1, INT64),
}
BOOLEANS = {
    ("matmul", "transpose_left"),
    ("matmul", "transpose_right"),
    *((name, "from_logits") for name in CROSSENTROPIES),
    ("sgd_update", "nesterov"),
    ("logistic_descent", "losses"),
    ("logistic_descent", "history"),
}


def test_every_scalar_is_listed():
    names = {
        (name, parameter.name)
        for name in ops.__all__
        for parameter in parameters_of(name).values()
        if isinstance(parameter.default, (bool, int, float))
        or parameter.name in ("rate", "seed", "step", "n")
    }
    assert names == {*NUMBERS, *INTEGERS, *BOOLEANS}


@pytest.mark.parametrize(
    ("name", "argument", "value", "rule"),
    [
        (*key, value, rule)
        for key, (rule, values) in NUMBERS.items()
        for value in (*values, math.nan, math.inf, -math.inf, np.float32(math.nan))
    ],
)
def test_numbers_out_of_range_are_refused(name, argument, value, rule):
    message = f"{argument}: {value} is not a finite number {rule}"
    assert_refused(ValueError, message, name, **{argument: value})


@pytest.mark.parametrize(("name", "argument"), NUMBERS)
@pytest.mark.parametrize("value", [None, "0.1", True, 1j, [0.1]])
def test_numbers_of_a_wrong_type_are_refused(name, argument, value):
    message = f"{argument}: {value!r} is not a finite number {NUMBERS[name, argument][0]}"
    assert_refused(TypeError, message, name, **{argument: value})


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [(*key, value) for key, (low, high) in INTEGERS.items() for value in (low - 1, high + 1)],
)
def test_integers_out_of_range_are_refused(name, argument, value):
    low, high = INTEGERS[name, argument]
    message = f"{argument}: {value} is not an integer in [{low}, {high}]"
    assert_refused(ValueError, message, name, **{argument: value})


@pytest.mark.parametrize(("name", "argument"), INTEGERS)
@pytest.mark.parametrize("value", [None, "1", True, 1.0, math.nan, [1]])
def test_integers_of_a_wrong_type_are_refused(name, argument, value):
    low, high = INTEGERS[name, argument]
    message = f"{argument}: {value!r} is not an integer in [{low}, {high}]"
    assert_refused(TypeError, message, name, **{argument: value})


@pytest.mark.parametrize(("name", "argument"), sorted(BOOLEANS))
@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_flags_are_true_or_false(name, argument, value):
    message = f"{argument}: {value!r} is not True or False"
    assert_refused(TypeError, message, name, **{argument: value})


# --------------------------------------------------------------------------------------------- out


def good_out(name, arguments):
    """An array that `out` may be, for these arguments."""
    result = call(name, copy.deepcopy(arguments))
    result = result[1] if name in LOSSES else result
    empty = [np.zeros_like(array) for array in flat(result)]
    return tuple(empty) if isinstance(result, tuple) else empty[0]


@each_function_with_out
@each_dtype
def test_out_is_filled_and_returned(name, dtype):
    arguments = good_call(name, dtype)
    out, expected = good_out(name, arguments), call(name, arguments)
    result = call(name, arguments | {"out": out})
    returned = result[1:] if name in LOSSES else flat(result)
    assert len(returned) == len(flat(out))
    assert all(a is b for a, b in zip(returned, flat(out), strict=True))
    assert_same(result, expected)


def spoil_out(name, spoil):
    """A good call whose `out`, or the first array in it, is changed, and the name of that."""
    arguments = good_call(name)
    out = good_out(name, arguments)
    if isinstance(out, tuple):
        return arguments | {"out": (spoil(out[0]), *out[1:])}, "out[0]", out[0]
    return arguments | {"out": spoil(out)}, "out", out


@each_function_with_out
@pytest.mark.parametrize("kind", [np.complex128, np.object_, np.float16, ">i8", ">f8"])
def test_out_of_another_dtype_is_refused(name, kind):
    arguments, label, out = spoil_out(name, lambda array: array.astype(kind))
    message = f"{label}: dtype {np.dtype(kind)} is not {out.dtype}"
    with refused(TypeError, message, arguments):
        call(name, arguments)


@each_function_with_out
def test_out_of_another_shape_is_refused(name):
    arguments, label, out = spoil_out(name, lambda array: np.zeros((7, 1), array.dtype))
    with refused(ValueError, f"{label}: shape (7, 1) is not {out.shape}", arguments):
        call(name, arguments)


@each_function_with_out
def test_read_only_out_is_refused(name):
    arguments, label, out = spoil_out(name, read_only)
    message = f"{label}: the array of shape {out.shape} is read-only, not writeable"
    with refused(ValueError, message, arguments):
        call(name, arguments)


@each_function_with_out
def test_out_that_is_not_contiguous_is_refused(name):
    arguments, label, out = spoil_out(name, UNUSUAL["strided"])
    strides = UNUSUAL["strided"](out).strides
    message = f"{label}: strides {strides} are not those of C-contiguity"
    with refused(ValueError, message, arguments):
        call(name, arguments)


@each_function_with_out
def test_out_that_is_no_array_is_refused(name):
    arguments, label, _ = spoil_out(name, lambda array: [1.0])
    with refused(TypeError, f"{label}: [1.0] is not a NumPy array", arguments):
        call(name, arguments)


@pytest.mark.parametrize(
    ("name", "argument"),
    [(name, key) for name in WITH_OUT for key in array_arguments(name)],
)
def test_out_that_overlaps_an_input_is_refused(name, argument):
    arguments, label, out = spoil_out(name, lambda array: array)
    array = arguments[argument]
    # The end of the input is the beginning of the output.
    buffer = np.zeros(array.size + out.size - 1)
    shared = buffer[: array.size].reshape(array.shape)
    shared[...] = array
    out = buffer[array.size - 1 :].reshape(out.shape)
    arguments[argument] = shared
    arguments["out"] = (out, None, None) if label == "out[0]" else out
    message = f"{label}: memory of the array of shape {out.shape} overlaps {argument}"
    with refused(ValueError, message, arguments):
        call(name, arguments)


def test_out_may_not_be_an_input_that_would_be_copied():
    array = np.zeros((3, 3))
    message = "out: memory of the array of shape (3, 3) overlaps inputs"
    assert_refused(ValueError, message, "exp", inputs=array.T, out=array)


# ---------------------------------------------------------------------------------- empty batches


@pytest.mark.parametrize(
    "name", [*ELEMENTWISE, *ACTIVATIONS, *GRADIENTS, "dropout", "quadratic_features"]
)
def test_no_rows_give_no_rows(name):
    arguments = good_call(name)
    columns = call(name, arguments).shape[1]
    for key in array_arguments(name):
        arguments[key] = arguments[key][:0]
    assert call(name, arguments).shape == (0, columns)


@pytest.mark.parametrize("activation", reference.ACTIVATIONS)
def test_layers_take_no_rows(activation):
    forward, backward = (
        {
            key: value[:0] if key not in ("weights", "bias", "activation") else value
            for key, value in (good_call(name) | {"activation": activation}).items()
            if key != "activation"
        }
        | {"activation": activation}
        for name in ("dense_forward", "dense_backward")
    )
    assert call("dense_forward", forward).shape == (0, 2)
    grad_inputs, grad_weights, grad_bias = call("dense_backward", backward)
    assert grad_inputs.shape == (0, 3)
    np.testing.assert_array_equal(grad_weights, np.zeros((3, 2)))
    np.testing.assert_array_equal(grad_bias, np.zeros(2))


def test_products_over_nothing_are_zero():
    product = ops.matmul(np.ones((2, 0)), np.ones((0, 3)))
    np.testing.assert_array_equal(product, np.zeros((2, 3)))
