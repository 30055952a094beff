"""Standardised input: dense rows with a number in each column that most of them share."""

import math

import numpy as np
import pytest
import scipy.sparse

from fastdl import MLP, _engine, _kernels, _sparse, fit_many, optimizers, use_backend
from fastdl.optimizers import SGD, Adam, AdamW, RMSprop

pytestmark = pytest.mark.each_build

# Each element is a shift and what is left of it, which rounds, as does the order of the sums: a few
# units in the last place, carried through some twenty steps.
TOLERANCE = {"float32": {"rtol": 2e-3, "atol": 2e-5}, "float64": {"rtol": 1e-9, "atol": 1e-12}}


@pytest.fixture(autouse=True)
def small_networks_too(monkeypatch):
    monkeypatch.setattr(_engine, "_SHIFTED_UNITS", 1)


def data(rows=203, features=37, seed=0):
    """Standardised rows, a fifth of which was not zero, and classes.

    Column 1 was always zero and stays so, column 2 is always -3, column 3 has no number that is
    frequent, column 4 is still mostly zeros.
    """
    rng = np.random.default_rng(seed)
    X = rng.normal(1, 1, (rows, features))
    X[rng.random(X.shape) >= 0.2] = 0
    X[:, 1] = 0
    deviation = X.std(axis=0)
    X = (X - X.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    X[:, 2] = -3
    X[:, 3] = rng.normal(size=rows)
    X[:, 4] = np.where(rng.random(rows) < 0.2, 1.5, 0)
    return X, rng.integers(0, 3, rows)


def prepared(X, dtype="float64"):
    """What a network is trained on."""
    net = MLP([X.shape[1], 3], dtype=dtype)
    return _engine.without_zeros(net._network, np.ascontiguousarray(X, dtype))[0]


def trained(X, y, backend="cython", arguments=None, **fit):
    # Smooth, unless asked otherwise: rounding decides on which side of a kink a number falls.
    arguments = {"sizes": [37, 40, 3], "activation": "tanh", "dropout": 0.3} | (arguments or {})
    with use_backend(backend):
        net = MLP(**{"seed": 7, "dtype": "float64"} | arguments)
        history = net.fit(X, y, **{"epochs": 2, "batch_size": 32, "verbose": 0} | fit)
    return net, history.history


def assert_close(one, other):
    (net, history), (wanted, wanted_history) = one, other
    tolerance = TOLERANCE[net.dtype.name]
    assert history.keys() == wanted_history.keys()
    for name, values in history.items():
        np.testing.assert_allclose(values, wanted_history[name], **tolerance)
    for array, expected in zip(net.weights, wanted.weights, strict=True):
        np.testing.assert_allclose(array, expected, **tolerance)
    for name, slot in net._state.slots.items():
        np.testing.assert_allclose(slot, wanted._state.slots[name], **tolerance)


def assert_identical(one, other):
    (net, history), (wanted, wanted_history) = one, other
    assert history == wanted_history
    for array, expected in zip(net.weights, wanted.weights, strict=True):
        np.testing.assert_array_equal(array, expected)


# ----------------------------------------------------------------------------- what becomes of rows


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_frequent_numbers_are_left_out(dtype):
    X = data()[0].astype(dtype)
    rows = prepared(X, dtype)
    assert rows.density < 0.25
    assert rows.shifts.dtype == dtype
    assert rows.shifts[[1, 2, 3, 4]].tolist() == [0, -3, 0, 0]
    for column in (0, 5, 36):
        values, counts = np.unique(X[:, column], return_counts=True)
        assert rows.shifts[column] == values[np.argmax(counts)]
    _, entries = np.nonzero(rows.shifts != X)
    np.testing.assert_array_equal(rows.columns[: rows.starts[-1]], entries)
    # Column 2 has no entry, but takes part.
    np.testing.assert_array_equal(rows.live, np.delete(np.arange(37), 1))


def test_rows_come_back():
    X, _ = data()
    rows = prepared(X)
    close = {"rtol": 1e-14, "atol": 1e-14}  # an element is a difference and a sum
    np.testing.assert_allclose(rows.toarray(), X, **close)
    np.testing.assert_allclose(rows.dense, X, **close)
    np.testing.assert_array_equal(rows.toarray()[rows.shifts == X], X[rows.shifts == X])
    order = np.array([7, 0, 202, 7])
    np.testing.assert_allclose(rows.toarray(order), X[order], **close)
    out = np.empty((3, 37))
    assert rows[20:80].toarray(np.array([5, 1, 59]), out=out) is out
    np.testing.assert_allclose(out, X[[25, 21, 79]], **close)
    np.testing.assert_array_equal(rows[20:80].live, rows.live)


def test_zeros_of_both_signs_are_one_number():
    X, _ = data()
    X[:100:2, 4] = -0.0
    assert prepared(X).shifts[4] == 0
    X -= 1
    X[:, 4] += 1
    assert prepared(X).shifts[[0, 4]].astype(bool).tolist() == [True, False]


@pytest.mark.parametrize(
    "change",
    [
        lambda X: np.random.default_rng(0).normal(size=X.shape),
        lambda X: X[:31],
        lambda X: np.where(np.random.default_rng(0).random(X.shape) < 0.3, 2.5 + X, X),
        lambda X: np.random.default_rng(0).integers(1, 3, X.shape),
    ],
    ids=["no number frequent", "few rows", "too many others", "halves"],
)
def test_dense_rows_stay(change):
    X = np.ascontiguousarray(change(data()[0]), np.float64)
    assert prepared(X) is X


def test_what_the_sample_did_not_show_is_found():
    X, _ = data(rows=1000)
    sampled = np.concatenate([_sparse._spread(1000, count) for count in (32, 125)])
    X[np.setdiff1d(np.arange(1000), sampled)] += np.arange(1000 - len(np.unique(sampled)))[:, None]
    assert _sparse.frequent_numbers(X, 0.3) is not None
    assert prepared(X) is X


def test_differences_that_overflow_are_not_taken():
    X, y = data()
    X[:, 5] = np.finfo(np.float64).max
    X[17, 5] *= -1
    assert prepared(X) is X
    X[3, 8] = np.inf
    with pytest.raises(ValueError, match=r"X: inf at index \(3, 8\) is not a finite number"):
        trained(X, y)


def test_mostly_zeros_have_no_shifts():
    X, _ = data()
    X = X - prepared(X).shifts
    assert prepared(X).shifts is None
    assert prepared(X).density < 0.25


@pytest.mark.parametrize(
    ("sizes", "shifted"), [([64, 64, 3], True), ([63, 64, 3], False), ([64, 63, 3], False)]
)
def test_small_first_layers_take_dense_rows(sizes, shifted, monkeypatch):
    monkeypatch.undo()
    X = data(features=sizes[0])[0]
    rows, _ = _engine.without_zeros(MLP(sizes, dtype="float64")._network, X)
    assert isinstance(rows, _sparse.SparseRows) == shifted


def test_other_backends_see_the_rows_as_they_are():
    X, _ = data()
    for backend in ("reference", "numba"):
        with use_backend(backend):
            assert prepared(X) is X


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("shape", [(1, 1), (3, 15), (4, 16), (40, 37), (101, 70)])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_compressed_rows(dtype, threads, shape, share):
    rng = np.random.default_rng(0)
    shifts = rng.choice(np.array([0, -0.4, 3]), shape[1]).astype(dtype)
    X = np.where(rng.random(shape) < share, rng.normal(size=shape), shifts).astype(dtype)
    finite, (starts, columns, values, live) = _kernels.sparse_rows(X, 1.0, threads, shifts)
    assert finite
    row, column = np.nonzero(shifts != X)
    np.testing.assert_array_equal(np.diff(starts), np.bincount(row, minlength=len(X)))
    np.testing.assert_array_equal(columns, [*column, *[0] * 16])
    np.testing.assert_array_equal(values, [*(X - shifts)[row, column], *[0] * 16])
    np.testing.assert_array_equal(live, np.flatnonzero(X.any(axis=0) | (shifts != 0)))


# ----------------------------------------------------------------------------------------- training


@pytest.fixture
def threads(request, monkeypatch):
    monkeypatch.setattr(_engine, "_threads", lambda *_: request.param)


OPTIMIZERS = {
    "sgd": SGD(0.05),
    "nesterov": SGD(0.02, momentum=0.9, nesterov=True),
    "rmsprop": RMSprop(0.01),
    "adam": Adam(0.01),
    "adamw": AdamW(0.01, weight_decay=0.1),
    "clipvalue": SGD(0.1, clipvalue=0.01),
    "clipnorm": Adam(0.01, clipnorm=0.05),
    "global_clipnorm": RMSprop(0.01, global_clipnorm=0.05),
}


@pytest.mark.parametrize("threads", [1, 2, 4], indirect=True)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("penalty", [{}, {"l1": 0.01, "l2": 0.02}], ids=["", "penalised"])
@pytest.mark.usefixtures("threads")
def test_optimizers(optimizer, penalty):
    X, y = data()
    fit = {"arguments": penalty, "optimizer": OPTIMIZERS[optimizer]}
    assert_close(trained(X, y, **fit), trained(X, y, "reference", **fit))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch_size", [1, 7, 32, 100, 203])
@pytest.mark.parametrize("features", [17, 37, 203])
def test_batches_and_features(dtype, batch_size, features):
    X, y = data(features=features)
    arguments = {"sizes": [features, 33, 3], "dtype": dtype}
    fit = {"arguments": arguments, "batch_size": batch_size, "optimizer": SGD(0.01)}
    assert_close(trained(X, y, **fit), trained(X, y, "reference", **fit))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "sizes",
    [[37, 3], [37, 1, 2], [37, 16, 5, 3], [37, 129, 33, 3], [37, 1100, 3]],
)
@pytest.mark.parametrize("activation", ["tanh", "softmax"])
def test_sizes(sizes, dtype, activation):
    X, y = data()
    y = y % sizes[-1]
    arguments = {"sizes": sizes, "dtype": dtype, "activation": activation}
    fit = {"arguments": arguments, "optimizer": SGD(0.01)}
    assert_close(trained(X, y, **fit), trained(X, y, "reference", **fit))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch_size", [1, 7, 32, 100])
@pytest.mark.parametrize("sizes", [[37, 3], [37, 40, 3], [37, 400, 20, 3]])
def test_threads_give_the_same_bits(dtype, batch_size, sizes, monkeypatch):
    X, y = data()
    arguments = {"sizes": sizes, "dtype": dtype, "activation": "relu"}
    runs = []
    for threads in (1, 2, 3, 4):
        monkeypatch.setattr(_engine, "_threads", lambda *_, threads=threads: threads)
        runs.append(trained(X, y, arguments=arguments, batch_size=batch_size, epochs=1))
    for run in runs[1:]:
        assert_identical(run, runs[0])


def test_few_numbers_are_coded():
    rng = np.random.default_rng(0)
    X = rng.integers(1, 200, (203, 37)).astype(np.float32)
    X[rng.random(X.shape) >= 0.2] = 0
    y = rng.integers(0, 3, 203)
    X = (X - np.float32(33.3)) / np.float32(78.6)
    rows = prepared(X, "float32")
    assert (rows.shifts == X.min()).all()
    assert rows.codes(_kernels, 1) is not None
    fit = {"arguments": {"dtype": "float32"}, "optimizer": SGD(0.01)}
    assert_close(trained(X, y, **fit), trained(X, y, "reference", **fit))


def test_weights_and_validation():
    X, y = data()
    weight = np.linspace(0, 1, len(y))
    other = (*data(rows=90, seed=1), np.linspace(1, 2, 90))
    assert not np.array_equal(prepared(other[0]).shifts, prepared(X).shifts)
    for fit in (
        {"sample_weight": weight, "validation_data": other},
        {"sample_weight": weight, "validation_data": other[:2], "shuffle": False},
        {"class_weight": {1: 2.0}, "validation_split": 0.3},
    ):
        run = trained(X, y, **fit)
        assert_close(run, trained(X, y, "reference", **fit))
        assert "val_loss" in run[1]


def test_a_matrix_that_is_not_sparse():
    X, y = data()
    assert_identical(trained(scipy.sparse.csr_matrix(X), y), trained(X, y))


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", [[37, 3], [37, 130, 3]])
@pytest.mark.usefixtures("threads")
def test_predictions(dtype, sizes):
    X = data(rows=1100)[0].astype(dtype)
    rows, net = prepared(X, dtype), MLP(sizes, seed=1, dtype=dtype)
    assert rows.shifts is not None
    for count in (1, 33, 1100):
        out = np.empty((count, 3), dtype)
        _engine.predict(net._network, rows[:count], net._network.output_code, out)
        with use_backend("reference"):
            wanted = net.predict(X[:count])
        np.testing.assert_allclose(out, wanted, **TOLERANCE[dtype])


def test_scores():
    X, y = data()
    net = MLP([37, 40, 3], seed=1, l2=0.01, dtype="float64")
    scores, (loss, arrays) = net.evaluate(X, y), net.gradients(X, y)
    with use_backend("reference"):
        wanted, (wanted_loss, wanted_arrays) = net.evaluate(X, y), net.gradients(X, y)
    assert scores == pytest.approx(wanted, rel=1e-12)
    assert loss == pytest.approx(wanted_loss, rel=1e-12)
    for array, expected in zip(arrays, wanted_arrays, strict=True):
        np.testing.assert_allclose(array, expected, **TOLERANCE["float64"])


def test_many_networks_as_one(monkeypatch):
    monkeypatch.setattr(_engine, "_SHIFTED_UNITS", 20)  # which divides the widths
    X, y = data()
    networks = [MLP([37, width, 3], dropout=0.2, seed=width) for width in (5, 40, 33)]
    fit = {"epochs": 2, "validation_split": 0.25, "verbose": 0}
    histories = fit_many(networks, X, y, threads=2, **fit)
    for net, history in zip(networks, histories, strict=True):
        alone = MLP(net.sizes, dropout=0.2, seed=net.sizes[1])
        assert_identical((net, history.history), (alone, alone.fit(X, y, **fit).history))


def descent(w, g, learning_rate, t):
    return w - learning_rate * g


def test_an_optimizer_with_an_engine_of_numba_that_knows_no_shifts():
    X, y = data()
    custom = optimizers.Custom(descent, learning_rate=0.05)
    fit = {"validation_split": 0.25}
    run = trained(X, y, optimizer=custom, **fit)
    assert_close(run, trained(X, y, "reference", optimizer=SGD(0.05), **fit))


@pytest.mark.parametrize("backend", ["reference", "cython", "numba"])
def test_a_backend_chosen_meanwhile(backend):
    X, _ = data()
    rows, net = prepared(X), MLP([37, 3], seed=1, dtype="float64")
    wanted = net.predict(X)
    out = np.empty_like(wanted)
    with use_backend(backend):
        _engine.predict(net._network, rows, net._network.output_code, out)
    np.testing.assert_allclose(out, wanted, **TOLERANCE["float64"])


def test_a_step_by_hand():
    """One layer, plain descent, all rows at once: the formula itself."""
    X, y = data()
    net = MLP([37, 3], seed=1, dtype="float64")
    weights, bias = (array.copy() for array in net.weights)
    net.fit(X, y, epochs=1, batch_size=len(X), optimizer=SGD(0.5), verbose=0)
    logits = X @ weights + bias
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    errors = (shares - np.eye(3)[y]) / len(X)
    loss = -math.fsum(np.log(shares[np.arange(len(y)), y])) / len(y)
    np.testing.assert_allclose(net.weights[0], weights - 0.5 * X.T @ errors, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(net.weights[1], bias - 0.5 * errors.sum(axis=0), atol=1e-14)
    assert net.evaluate(X, y)["loss"] < loss
