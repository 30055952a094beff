"""Prediction: a row at once, a few, or many in blocks, all to the same bits."""

import copy
import pickle

import numpy as np
import pytest

import fastdl
from fastdl import MLP, _engine, backends, use_backend
from fastdl.optimizers import SGD

pytestmark = pytest.mark.each_build

ACTIVATIONS = (
    "linear", "relu", "leaky_relu", "elu", "sigmoid", "tanh", "softplus", "silu", "gelu",
    "softmax", "log_softmax",
)  # fmt: skip

# Widths below, at and beyond a vector and the vectors that a row adds up at once.
SIZES = (
    [1, 2], [2, 4, 1], [5, 1, 2], [11, 3], [7, 129, 33, 5], [300, 17, 16, 2], [40, 300, 7],
    [900, 128, 64, 10],
)  # fmt: skip

# Rounding of sums in another order; outputs are of the size of 1.
TOLERANCE = {"float32": {"rtol": 1e-4, "atol": 1e-5}, "float64": {"rtol": 1e-11, "atol": 1e-13}}


def network(sizes, **arguments):
    """A network whose biases are not zero."""
    net = MLP(sizes, **{"seed": 1} | arguments)
    rng = np.random.default_rng(2)
    for array in net.weights:
        array += rng.normal(scale=0.05, size=array.shape)
    return net


def rows(net, count, density=1.0):
    rng = np.random.default_rng(3)
    X = rng.normal(size=(count, net.sizes[0])).astype(net.dtype)
    X[rng.random(X.shape) >= density] = 0
    return X


def one_by_one(net, X):
    return np.concatenate([net.predict(X[row : row + 1]) for row in range(len(X))])


@pytest.fixture
def only_directly(monkeypatch):
    """Nothing may go the general way."""

    def refuse(*arguments):
        raise AssertionError("went the general way")

    monkeypatch.setattr(MLP, "_predict", refuse)


@pytest.fixture
def only_generally(monkeypatch):
    """Nothing may go directly to the kernel."""
    monkeypatch.setattr(_engine.Network, "predict_few", lambda network, X, out: None)


# --------------------------------------------------------------------------------- the same values


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation, dtype):
    net = network([11, 50, 20, 3], activation=activation, dtype=dtype)
    X = rows(net, 13, density=0.5)
    with use_backend("reference"):
        expected = net.predict(X)
    np.testing.assert_allclose(net.predict(X), expected, **TOLERANCE[dtype])
    np.testing.assert_array_equal(one_by_one(net, X), net.predict(X))


@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", SIZES)
def test_shapes(sizes, dtype, density):
    net = network(sizes, dtype=dtype)
    X = rows(net, 211, density)
    many = net.predict(X)
    with use_backend("reference"):
        np.testing.assert_allclose(many, net.predict(X), **TOLERANCE[dtype])
    np.testing.assert_array_equal(one_by_one(net, X), many)


@pytest.mark.parametrize("density", [0.1, 1.0])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 12, 31, 32, 33, 95, 96, 97, 193])
def test_any_number_of_rows_gives_the_same_bits(count, density):
    net = network([70, 40, 10])
    X = rows(net, 200, density)
    np.testing.assert_array_equal(net.predict(X[:count]), net.predict(X)[:count])


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("density", [0.1, 1.0])
def test_any_number_of_threads_gives_the_same_bits(density, threads, monkeypatch):
    net = network([70, 140, 10])
    X = rows(net, 200, density)
    monkeypatch.setattr(_engine, "_threads", lambda *_: 1)
    alone = net.predict(X)
    monkeypatch.setattr(_engine, "_threads", lambda *_: threads)
    np.testing.assert_array_equal(net.predict(X), alone)


def test_blocks_of_uneven_density():
    net = network([200, 30, 3])
    X = rows(net, 300)
    X[::12] = 0  # all rows that a guess of the density may look at
    np.testing.assert_array_equal(one_by_one(net, X), net.predict(X))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_given_as_their_nonzeros(dtype):
    net = network([90, 140, 10], dtype=dtype)
    X = rows(net, 211, density=0.2)
    kernels = backends.current()
    out = np.empty((211, 10), dtype)
    layout = net._network.prediction_layout(net._network.output_code)
    rows_without, _ = _engine.without_zeros(net._network, X)
    kernels.infer(*layout, *_engine._dense_and_sparse(rows_without, kernels), out, 2)
    np.testing.assert_array_equal(out, net.predict(X))


def test_inputs_that_are_not_finite():
    net = network([20, 30, 3], activation="tanh")
    X = rows(net, 40, density=0.2)
    X[::3, 5], X[1::3, 7] = np.nan, np.inf
    many = net.predict(X)
    assert np.isnan(many[::3]).all()
    assert np.isfinite(many[1]).all()
    np.testing.assert_array_equal(one_by_one(net, X), many)


@pytest.mark.parametrize("output", ["linear", "softmax", "sigmoid"])
def test_outputs(output):
    net = network([6, 9, 4], output_activation=output)
    X = rows(net, 3)
    with use_backend("reference"):
        expected, probabilities = net.predict(X), net.predict_proba(X)
    np.testing.assert_allclose(net.predict(X), expected, **TOLERANCE["float32"])
    np.testing.assert_allclose(net.predict_proba(X), probabilities, **TOLERANCE["float32"])


# ---------------------------------------------------------------------------- what goes directly


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count", [1, 5, 32])
@pytest.mark.usefixtures("only_directly")
def test_plain_rows_go_directly(count, dtype):
    net = network([20, 30, 3], dtype=dtype)
    X, out = rows(net, count), np.empty((count, 3), dtype)
    assert net.predict(X, out=out) is out
    fresh = net.predict(X)
    assert fresh.flags.owndata
    np.testing.assert_array_equal(fresh, out)


@pytest.mark.usefixtures("only_directly")
def test_rows_that_are_read_only():
    net = network([20, 30, 3])
    X = rows(net, 1)
    expected = net.predict(X)
    X.flags.writeable = False
    np.testing.assert_array_equal(net.predict(X), expected)


def test_arrays_side_by_side():
    net = network([4, 4])
    memory = np.arange(24, dtype=np.float32).reshape(6, 4)
    expected = net.predict(memory[2:4].copy())
    np.testing.assert_array_equal(net.predict(memory[2:4], out=memory[4:]), expected)
    np.testing.assert_array_equal(net.predict(memory[2:4], out=memory[:2]), expected)


def unaligned(array):
    memory = np.empty(array.nbytes + 1, np.uint8)[1:]
    memory[:] = np.frombuffer(array.tobytes(), np.uint8)
    return memory.view(array.dtype).reshape(array.shape)


CONVERTED = {
    "strided": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    "Fortran": np.asfortranarray,
    "float64": lambda X: X.astype(np.float64),
    "other byte order": lambda X: X.astype(X.dtype.newbyteorder()),
    "unaligned": unaligned,
    "list": lambda X: X.tolist(),
    "image": lambda X: X.reshape(len(X), 4, 5),
    "masked": np.ma.asarray,
}


@pytest.mark.parametrize("kind", CONVERTED)
def test_other_rows_are_converted(kind):
    net = network([20, 30, 3])
    X = rows(net, 2)
    np.testing.assert_array_equal(net.predict(CONVERTED[kind](X)), net.predict(X))


def test_networks_too_large_or_too_deep():
    for sizes in ([2100, 2000, 2], [3, *[2] * 70]):
        net = network(sizes)
        X = rows(net, 1)
        with use_backend("reference"):
            expected = net.predict(X)
        np.testing.assert_allclose(net.predict(X), expected, rtol=1e-3, atol=1e-5)


BAD_CALLS = {
    "one dimension": lambda X, out: (X[0], None),
    "another width": lambda X, out: (np.ones((2, 19), X.dtype), None),
    "complex": lambda X, out: (X.astype(complex), None),
    "out too short": lambda X, out: (X, out[:1].copy()),
    "out too wide": lambda X, out: (X, np.empty((2, 4), out.dtype)),
    "out flat": lambda X, out: (X, out.ravel()),
    "out float64": lambda X, out: (X, out.astype(np.float64)),
    "out a list": lambda X, out: (X, out.tolist()),
    "out strided": lambda X, out: (X, np.empty((2, 6), out.dtype)[:, ::2]),
    "out unaligned": lambda X, out: (X, unaligned(out)),
    "out read-only": lambda X, out: (X, np.broadcast_to(out, out.shape)),
    "out in X": lambda X, out: (X, X.ravel()[34:].reshape(2, 3)),
    "X in out": lambda X, out: (X, X.ravel()[:6].reshape(2, 3)),
}


@pytest.mark.parametrize("kind", BAD_CALLS)
def test_errors_are_those_of_the_general_way(kind, request):
    net = network([20, 30, 3])
    X, out = BAD_CALLS[kind](rows(net, 2), np.zeros((2, 3), np.float32))
    before = copy.deepcopy((X, out))
    with pytest.raises((TypeError, ValueError)) as raised:
        net.predict(X, out=out)
    np.testing.assert_array_equal(X, before[0])
    if out is not None:
        np.testing.assert_array_equal(out, before[1])
    request.getfixturevalue("only_generally")
    with pytest.raises(raised.type) as expected:
        net.predict(X, out=out)
    assert str(raised.value) == str(expected.value)


# ------------------------------------------------------------------- whose weights, whose kernels


def general(net, X):
    """What the weights that `net` shows make of X."""
    with use_backend("reference"):
        return net.predict(X)


def saved(net, folder):
    pytest.importorskip("safetensors")
    net.save(folder / "net.safetensors")
    return fastdl.load(folder / "net.safetensors")


TWINS = {
    "deepcopy": lambda net, folder: copy.deepcopy(net),
    "copy": lambda net, folder: net.copy(),
    "pickle": lambda net, folder: pickle.loads(pickle.dumps(net)),
    "load": saved,
}


@pytest.mark.parametrize("kind", TWINS)
def test_a_twin_has_its_own_weights(kind, tmp_path):
    net = network([20, 30, 3])
    X = rows(net, 1)
    first = net.predict(X)
    twin = TWINS[kind](net, tmp_path)
    np.testing.assert_array_equal(twin.predict(X), first)
    twin.set_weights([-array for array in twin.weights])
    np.testing.assert_allclose(twin.predict(X), general(twin, X), rtol=1e-5)
    assert not np.allclose(twin.predict(X), first)
    np.testing.assert_array_equal(net.predict(X), first)


CHANGES = {
    "set_weights": lambda net, X: net.set_weights([2 * array for array in net.weights]),
    "in place": lambda net, X: net.weights[0].__imul__(2),
    "fit": lambda net, X: net.fit(X, [0, 1, 2], optimizer=SGD(1.0), verbose=0),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_it_sees_weights_change(kind):
    net = network([20, 30, 3])
    X = rows(net, 3)
    before = net.predict(X[:1])
    CHANGES[kind](net, X)
    after = net.predict(X[:1])
    assert not np.allclose(after, before)
    np.testing.assert_allclose(after, general(net, X[:1]), rtol=1e-4)


def test_a_network_that_is_gone():
    net = network([20, 30, 3])
    X = rows(net, 1)
    expected = net.predict(X)
    predictor = net._network._predictors[backends.current()]
    del net
    np.testing.assert_array_equal(predictor(X, None), expected)


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_other_backends_use_their_own_kernels(backend, monkeypatch):
    if backend == "numba":
        pytest.importorskip("numba")
    net = network([20, 30, 3])
    X = rows(net, 1)
    expected = net.predict(X)
    calls = []
    with use_backend(backend):
        dense_forward = backends.current().dense_forward
        monkeypatch.setattr(
            backends.current(),
            "dense_forward",
            lambda *arguments: (calls.append(1), dense_forward(*arguments)),
        )
        np.testing.assert_allclose(net.predict(X), expected, **TOLERANCE["float32"])
    assert len(calls) == 2
    np.testing.assert_array_equal(net.predict(X), expected)
    assert len(calls) == 2
