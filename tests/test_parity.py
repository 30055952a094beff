"""The compiled backends against the reference, through the table in cases.py and through `ops`."""

import functools
import inspect

import numpy as np
import pytest
from cases import CASES, DTYPES
from hypothesis import given
from hypothesis import strategies as st

from fastdl import backends, ops, reference

pytestmark = pytest.mark.each_build

COMPILED = ("cython", "numba")

each_backend = pytest.mark.parametrize("backend", backends.BACKENDS)
each_compiled = pytest.mark.parametrize("backend", COMPILED)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def kernel(backend, operation):
    with backends.use_backend(backend):
        return getattr(backends.current(), operation)


def arguments_of(case, dtype, size):
    """The same values at every call, in new arrays."""
    return case.make(dtype, size, np.random.default_rng(size))


@functools.cache
def reference_run(name, dtype, size):
    """What the reference returns, and its arguments afterwards."""
    case = next(case for case in CASES if case.name == name)
    arguments = arguments_of(case, dtype, size)
    return kernel("reference", case.operation)(*arguments.values()), arguments


def run_and_compare(backend, case, dtype, size, arguments, compared):
    """Run a kernel; hold the loss and the arrays named in `compared` to the reference's."""
    result = kernel(backend, case.operation)(*arguments.values())
    expected_result, expected = reference_run(case.name, dtype, size)
    tolerance = case.tolerance[dtype]
    assert type(result) is type(expected_result)
    if result is not None:
        tolerance.assert_close(result, expected_result, f"returned loss at {size}")
    for name in compared:
        tolerance.assert_close(arguments[name], expected[name], f"{name} at {size}")


# -------------------------------------------------------------------------------- the table itself


def test_table_covers_every_operation():
    assert {case.operation for case in CASES} == set(backends.OPERATIONS)


def test_table_covers_every_activation():
    for operation in ("activation_forward", "activation_backward", "dense_forward"):
        names = {f"{operation}[{activation}]" for activation in reference.ACTIVATIONS}
        assert names == {case.name for case in CASES if case.operation == operation}


def test_names_in_table_are_unique():
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_table_gives_every_parameter_in_order(case):
    arguments = arguments_of(case, DTYPES[0], case.sizes[1])
    parameters = inspect.signature(kernel("reference", case.operation)).parameters
    assert list(arguments) == list(parameters)


@each_compiled
@pytest.mark.parametrize("operation", backends.OPERATIONS)
def test_same_parameters_in_every_backend(backend, operation):
    signature, wanted = (
        [(parameter.name, parameter.default) for parameter in parameters.values()]
        for parameters in (
            inspect.signature(kernel(name, operation)).parameters for name in (backend, "reference")
        )
    )
    assert signature == wanted


# ----------------------------------------------------------------------------------------- kernels


@each_compiled
@each_dtype
@pytest.mark.parametrize(
    ("case", "size"),
    [
        pytest.param(case, size, id=f"{case}-{case.size_name(size)}")
        for case in CASES
        for size in case.sizes
    ],
)
def test_kernel_equals_reference(backend, dtype, case, size):
    # Two fillings: an element left unwritten shows, also where the right result is NaN.
    for filling in (np.nan, 1e30):
        arguments = arguments_of(case, dtype, size)
        for name in case.outputs:
            array = arguments[name]
            array.fill(filling if array.dtype.kind == "f" else np.iinfo(array.dtype).max)
        run_and_compare(backend, case, dtype, size, arguments, (*case.outputs, *case.in_place))


@each_compiled
@each_dtype
@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernel_touches_nothing_but_its_outputs(backend, dtype, case):
    # Margins of NaN (integers: the least number) on both sides of each array: a kernel that reads
    # there spoils its result. Their odd length takes the array off the alignment of every vector.
    margin = 65
    written = (*case.outputs, *case.in_place)
    for size in case.sizes:
        arguments = arguments_of(case, dtype, size)
        buffers = {}
        for name, value in arguments.items():
            if isinstance(value, np.ndarray):
                fence = np.nan if value.dtype.kind == "f" else np.iinfo(value.dtype).min
                buffers[name] = np.pad(value.reshape(-1), margin, constant_values=fence)
                arguments[name] = buffers[name][margin:-margin].reshape(value.shape)
        before = {name: buffer.copy() for name, buffer in buffers.items()}
        run_and_compare(backend, case, dtype, size, arguments, written)
        for name, buffer in buffers.items():
            if name in written:
                buffer[margin:-margin] = before[name][margin:-margin]
            np.testing.assert_array_equal(buffer, before[name], f"{name} at {size}")


@each_compiled
@each_dtype
@pytest.mark.parametrize(
    ("case", "written", "read"),
    [
        pytest.param(case, *pair, id=f"{case}-{'-is-'.join(pair)}")
        for case in CASES
        for pair in case.aliases
    ],
)
def test_kernel_takes_one_array_for_two(backend, dtype, case, written, read):
    # Where both are written, as in a forward pass that keeps no preactivations, the second counts.
    compared = [name for name in case.outputs if name != written or read not in case.outputs]
    for size in case.sizes:
        arguments = arguments_of(case, dtype, size)
        arguments[written] = arguments[read]
        run_and_compare(backend, case, dtype, size, arguments, compared)


@each_backend
@each_dtype
@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.operation in ("activation_backward", "dense_backward")],
    ids=str,
)
def test_gradient_needs_preactivations_for_silu_and_gelu_only(backend, dtype, case):
    size = case.sizes[3]
    arguments = arguments_of(case, dtype, size)
    unneeded = "inputs" if case.operation == "activation_backward" else "preactivations"
    if arguments["activation"] not in (reference.SILU, reference.GELU):
        arguments[unneeded][...] = np.nan
    run_and_compare(backend, case, dtype, size, arguments, case.outputs)


# --------------------------------------------------------------- the same random numbers for all


words = st.integers(0, 2**32 - 1)
seeds = st.integers(0, 2**64 - 1)


@each_compiled
@given(
    shape=st.tuples(st.integers(0, 20), st.integers(1, 40)),
    rate=st.floats(0, 1),
    seed=seeds,
    step=words,
    layer=words,
)
def test_dropout_masks_are_the_same(backend, shape, rate, seed, step, layer):
    inputs = np.ones(shape)
    masks = []
    for name in (backend, "reference"):
        masks.append(np.empty(shape))
        kernel(name, "dropout")(inputs, rate, seed, step, layer, masks[-1])
    np.testing.assert_array_equal(*masks)


@each_compiled
@given(n=st.integers(0, 300), seed=seeds, epoch=words)
def test_permutations_are_the_same(backend, n, seed, epoch):
    orders = []
    for name in (backend, "reference"):
        orders.append(np.empty(n, np.int64))
        kernel(name, "permutation")(seed, epoch, orders[-1])
    np.testing.assert_array_equal(*orders)


# -------------------------------------------------------------------------- layouts, through `ops`


def strided(array):
    """A view with gaps, and with the first axis backwards."""
    spread = np.zeros([2 * n for n in array.shape], array.dtype)
    view = spread[tuple(slice(None, None, 2) for _ in array.shape)][::-1]
    view[...] = array
    return view


def read_only(array):
    copy = array.copy()
    copy.flags.writeable = False
    return copy


LAYOUTS = {"F": np.asfortranarray, "strided": strided, "read-only": read_only}


def updated(update, states, **options):
    """An in-place update as a function of the gradients that returns all it has changed."""

    def function(gradients):
        arrays = [np.full(gradients.shape, 0.5, gradients.dtype) for _ in range(1 + states)]
        update(arrays[0], gradients, *arrays[1:], **options)
        return arrays

    return function


def penalised(parameters):
    gradients = np.zeros(parameters.shape, parameters.dtype)
    return ops.add_penalty(parameters, gradients, l1=0.1, l2=0.2), gradients


def logistic(*arrays):
    return ops.logistic_descent(*arrays, method="rmsprop", history=True)


def planar(inputs, targets, *network):
    networks = [dict(zip(("W1", "b1", "W2", "b2"), network, strict=True))]
    (trained,), costs = ops.planar_descent(inputs, targets, networks, iterations=5, cost_every=2)
    return *trained.values(), costs


def public_calls(dtype):
    """Each public function by name, with arrays to call it with."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.standard_normal(shape).astype(dtype)

    def bits(*shape):
        return rng.integers(0, 2, shape).astype(dtype)

    calls = {
        name: (getattr(ops, name), [normal(5, 7)])
        for name in ("exp", "expm1", *reference.ACTIVATIONS[1:])
    }
    calls |= {
        f"{name}_gradient": (getattr(ops, f"{name}_gradient"), [normal(5, 7), normal(5, 7)])
        for name in reference.ACTIVATIONS[1:]
    }
    calls |= {
        "log": (ops.log, [normal(5, 7) ** 2]),
        "log1p": (ops.log1p, [normal(5, 7) ** 2]),
        "matmul": (ops.matmul, [normal(5, 7), normal(7, 9)]),
        "dense_forward": (ops.dense_forward, [normal(5, 7), normal(7, 9), normal(9)]),
        "dense_backward": (
            ops.dense_backward,
            [normal(5, 7), normal(7, 9), normal(5, 9), normal(5, 9), normal(5, 9)],
        ),
        "binary_crossentropy": (
            functools.partial(ops.binary_crossentropy, from_logits=True),
            [bits(5, 7), normal(5, 7)],
        ),
        "categorical_crossentropy": (
            functools.partial(ops.categorical_crossentropy, from_logits=True),
            [bits(5, 7), normal(5, 7)],
        ),
        "sparse_categorical_crossentropy": (
            functools.partial(ops.sparse_categorical_crossentropy, from_logits=True),
            [rng.integers(0, 7, 5), normal(5, 7)],
        ),
        "mean_squared_error": (ops.mean_squared_error, [normal(5, 7), normal(5, 7)]),
        "mean_absolute_error": (ops.mean_absolute_error, [normal(5, 7), normal(5, 7)]),
        "huber": (ops.huber, [normal(5, 7), normal(5, 7)]),
        "poisson": (ops.poisson, [bits(5, 7), normal(5, 7)]),
        "dropout": (functools.partial(ops.dropout, rate=0.5, seed=1), [normal(5, 7)]),
        "sgd_update": (updated(ops.sgd_update, 1, momentum=0.9), [normal(5, 7)]),
        "rmsprop_update": (updated(ops.rmsprop_update, 1), [normal(5, 7)]),
        "adam_update": (updated(ops.adam_update, 2, step=1), [normal(5, 7)]),
        "add_penalty": (penalised, [normal(5, 7)]),
        "quadratic_features": (ops.quadratic_features, [normal(5, 7)]),
        "logistic_descent": (
            logistic,
            [normal(5, 3), bits(5), normal(3), rng.integers(0, 5, (6, 4))],
        ),
        "planar_descent": (
            planar,
            [normal(2, 5), bits(1, 5), normal(4, 2), normal(4, 1), normal(1, 4), normal(1, 1)],
        ),
    }
    return calls


def test_public_calls_are_all_that_take_arrays():
    assert {*public_calls(DTYPES[0]), "permutation"} == set(ops.__all__)


@each_backend
@each_dtype
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", public_calls(DTYPES[0]))
def test_layout_makes_no_difference(backend, dtype, layout, name):
    function, arrays = public_calls(dtype)[name]
    with backends.use_backend(backend):
        expected = function(*arrays)
        actual = function(*map(LAYOUTS[layout], arrays))
    if isinstance(expected, np.ndarray):
        expected, actual = [expected], [actual]
    for value, wanted in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(value, wanted)
