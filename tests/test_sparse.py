"""Sparse input: matrices of scipy.sparse, and dense arrays that are mostly zeros."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from fastdl import MLP, _engine, _kernels, _sparse, use_backend
from fastdl._sparse import Entries, SparseRows
from fastdl.optimizers import Adam

pytestmark = pytest.mark.each_build

FORMATS = ["csr", "csc", "coo", "bsr", "lil", "dok", "dia"]


def data(rows=90, features=33, density=0.2, seed=0):
    """An array that is mostly zeros, some rows and a column entirely, and labels."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, features)).astype(np.float32)
    X[rng.random(X.shape) >= density] = 0
    if density < 1:
        X[[0, rows // 2, -1]] = 0
        X[:, features // 2] = 0
    return X, rng.integers(0, 3, rows)


def trained(X, y, backend="cython", dtype="float32", **fit):
    with use_backend(backend):
        net = MLP([X.shape[1], 40, 3], dropout=0.3, seed=1, dtype=dtype)
        fit = {"epochs": 2, "batch_size": 20, "optimizer": Adam(0.01), "verbose": 0} | fit
        history = net.fit(X, y, **fit)
    return net, history.history


def assert_identical(one, other):
    (net, history), (wanted, wanted_history) = one, other
    assert history == wanted_history
    for array, expected in zip(net.weights, wanted.weights, strict=True):
        np.testing.assert_array_equal(array, expected)


# ----------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", ["matrix", "array"])
@pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")
def test_fit_takes_every_format(form, kind):
    X, y = data()
    matrix = getattr(scipy.sparse, f"{form}_{kind}")(X)
    assert_identical(trained(matrix, y), trained(X, y))


@pytest.mark.parametrize("backend", ["reference", "cython", "numba"])
@pytest.mark.parametrize("density", [0.2, 1.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_fit_is_that_of_the_dense_array(backend, density, dtype, shuffle):
    X, y = data(density=density)
    matrix = scipy.sparse.csr_matrix(X)
    fit = {"backend": backend, "dtype": dtype, "shuffle": shuffle}
    assert_identical(trained(matrix, y, **fit), trained(X, y, **fit))


def test_fit_close_to_that_of_the_dense_kernels(monkeypatch):
    X, y = data()
    net, _ = trained(scipy.sparse.csr_matrix(X), y, dtype="float64")
    monkeypatch.setattr(_engine, "SPARSE_DENSITY", 0)
    wanted, _ = trained(X, y, dtype="float64")
    for array, expected in zip(net.weights, wanted.weights, strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("backend", ["reference", "cython"])
def test_validation_and_weights(backend):
    X, y = data()
    matrix, weight = scipy.sparse.csr_matrix(X), np.linspace(0, 1, len(y))
    for fit in ({"validation_split": 0.3}, {"class_weight": {1: 2.0}}):
        fit = {"backend": backend, **fit}
        assert_identical(trained(matrix, y, **fit), trained(X, y, **fit))
    both = [
        trained(rows, y, backend, sample_weight=weight, validation_data=(rows[:40], y[:40]))
        for rows in (matrix, X)
    ]
    assert_identical(*both)
    assert "val_loss" in both[0][1]


def test_networks_too_deep_for_the_engine():
    X, y = data()
    nets = [MLP([33, *[3] * 64, 3], seed=0) for _ in range(2)]
    for net, rows in zip(nets, (scipy.sparse.csr_matrix(X), X), strict=True):
        net.fit(rows, y, verbose=0)
    np.testing.assert_array_equal(nets[0].weights[0], nets[1].weights[0])


@pytest.mark.parametrize(("rows", "features"), [(1, 33), (1, 1), (50, 1), (7, 16), (40, 200)])
@pytest.mark.parametrize("density", [0.0, 0.2])
@pytest.mark.parametrize("backend", ["reference", "cython"])
def test_shapes(rows, features, density, backend):
    X, y = data(max(rows, 3), features, density)
    X, y = X[:rows], y[:rows]
    matrix = scipy.sparse.csr_array(X)
    assert_identical(trained(matrix, y, backend), trained(X, y, backend))


# ------------------------------------------------------------------------------------------- scores


@pytest.mark.parametrize("backend", ["reference", "cython", "numba"])
def test_scores_and_predictions(backend):
    X, y = data(rows=1100)
    matrix = scipy.sparse.csr_matrix(X)
    weight = np.linspace(0, 1, len(y))
    net = MLP([33, 40, 3], seed=1, l2=0.01, dtype="float64")
    with use_backend(backend):
        np.testing.assert_array_equal(net.predict(matrix), net.predict(X))
        np.testing.assert_array_equal(net.predict_proba(matrix), net.predict_proba(X))
        assert net.evaluate(matrix, y) == net.evaluate(X, y)
        np.testing.assert_allclose(net.predict(matrix[5:6]), net.predict(X[5:6]), rtol=1e-12)
        for rows in (200, 1100):  # one part, several parts
            loss, arrays = net.gradients(matrix[:rows], y[:rows], weight[:rows])
            wanted_loss, wanted = net.gradients(X[:rows], y[:rows], weight[:rows])
            assert loss == pytest.approx(wanted_loss, rel=1e-12)
            for array, expected in zip(arrays, wanted, strict=True):
                np.testing.assert_allclose(array, expected, rtol=1e-9, atol=1e-12)


def test_predict_no_rows_and_into_an_array():
    X, _ = data()
    net, matrix = MLP([33, 3], seed=0), scipy.sparse.csr_matrix(X)
    assert net.predict(matrix[:0]).shape == (0, 3)
    out = np.empty((90, 3), np.float32)
    assert net.predict(matrix, out=out) is out
    np.testing.assert_array_equal(out, net.predict(X))


def test_nan_comes_through_predict_as_from_an_array():
    X, _ = data()
    X[2, 3] = np.nan
    net = MLP([33, 3], seed=0)
    for rows in (X, scipy.sparse.csr_matrix(X)):
        assert np.isnan(net.predict(rows)).any(axis=1).tolist() == [b == 2 for b in range(90)]


@pytest.mark.parametrize("backend", ["reference", "cython"])
def test_rows_are_made_dense_a_batch_at_a_time(backend, monkeypatch):
    X, y = data(rows=1100)
    matrix = scipy.sparse.csr_matrix(X)
    sizes, toarray = [], _sparse.SparseRows.toarray

    def recorded(self, *arguments, **keywords):
        dense = toarray(self, *arguments, **keywords)
        sizes.append(len(dense))
        return dense

    monkeypatch.setattr(_sparse.SparseRows, "toarray", recorded)
    net, _ = trained(matrix, y, backend, epochs=1)
    with use_backend(backend):
        assert sizes == ([20] * 55 if backend == "reference" else [])
        sizes.clear()
        net.evaluate(matrix, y)
        net.predict(matrix)
        assert sizes == ([512, 512, 76] * 2 if backend == "reference" else [])
        sizes.clear()
        net.gradients(matrix, y)
        assert sizes == [512, 512, 76]


# ----------------------------------------------------------------------------- matrices of any kind


def rows_of(matrix, dtype="float32"):
    return _sparse.as_rows("X", matrix, matrix.shape[1], np.dtype(dtype))


def assert_canonical(rows):
    """What the kernels rely on."""
    starts, columns, values, live = rows.arrays
    assert [array.dtype.name for array in (starts, columns, live)] == ["int64", "int32", "int32"]
    assert len(columns) == len(values) == starts[-1] + 16
    assert not columns[starts[-1] :].any()
    assert not values[starts[-1] :].any()
    assert values[: starts[-1]].all()
    for start, stop in itertools.pairwise(starts):
        assert (np.diff(columns[start:stop]) > 0).all()
    np.testing.assert_array_equal(live, np.flatnonzero(rows.toarray().any(axis=0)))


ENTRIES = st.integers(1, 6).flatmap(
    lambda features: st.tuples(
        st.just(features),
        st.lists(
            st.lists(st.tuples(st.integers(0, features - 1), st.integers(-2, 2)), max_size=8),
            max_size=6,
        ),
    )
)


@given(
    entries=ENTRIES,
    dtype=st.sampled_from(["float32", "float64", ">f8", "int8", "bool", "uint16"]),
    indices=st.sampled_from([np.int32, np.int64]),
)
def test_any_csr_becomes_what_its_toarray_gives(entries, dtype, indices):
    features, lists = entries
    flat = [entry for row in lists for entry in row]
    columns = np.array([column for column, _ in flat], indices)
    values = np.array([value for _, value in flat], np.int64).astype(dtype)
    starts = np.cumsum([0, *map(len, lists)]).astype(indices)
    matrix = scipy.sparse.csr_matrix((values, columns, starts), shape=(len(lists), features))
    given_arrays = [matrix.data, matrix.indices, matrix.indptr]
    before = [array.copy() for array in given_arrays]
    for array in given_arrays:
        array.flags.writeable = False
    rows = rows_of(matrix)
    for array, old in zip(given_arrays, before, strict=True):
        np.testing.assert_array_equal(array, old)
    assert_canonical(rows)
    dense = scipy.sparse.csr_matrix(tuple(before), shape=matrix.shape).toarray()
    np.testing.assert_array_equal(rows.toarray(), dense.astype(np.float32))


def test_entries_behind_the_last_row_are_not_there():
    matrix = scipy.sparse.csr_matrix(np.eye(3, dtype=np.float32))
    matrix.data = np.append(matrix.data, [np.float32(np.nan)])
    matrix.indices = np.append(matrix.indices, [99])
    np.testing.assert_array_equal(rows_of(matrix).toarray(), np.eye(3))


def test_values_too_small_for_float32_are_zeros():
    rows = rows_of(scipy.sparse.csr_matrix([[1e-60, 2.0, 1e-40]]))
    assert_canonical(rows)
    np.testing.assert_array_equal(rows.toarray(), np.float32([[0, 2, 1e-40]]))


def test_parts_of_rows():
    X, _ = data()
    rows = rows_of(scipy.sparse.csr_matrix(X))
    order = np.array([7, 0, 89, 7, 45])
    np.testing.assert_array_equal(rows.toarray(order), X[order])
    for start, stop in [(0, 90), (3, 20), (20, None), (80, 200), (5, 5)]:
        part = rows[start:stop]
        assert part.shape == (len(part), 33) == X[start:stop].shape
        assert part.values is rows.values
        np.testing.assert_array_equal(part.toarray(), X[start:stop])
        np.testing.assert_array_equal(part[1:].toarray(), X[start:stop][1:])
        np.testing.assert_array_equal(part.live, np.flatnonzero(X[start:stop].any(axis=0)))
    np.testing.assert_array_equal(rows[2:30].toarray(np.array([5, 1])), X[[7, 3]])


# ------------------------------------------------------------------------------------------ refused


def csr(indptr=(0, 1, 2, 4), indices=(0, 1, 0, 2), values=(1.0, 2.0, 3.0, 4.0), shape=(3, 3)):
    """What looks like a CSR matrix, without SciPy's checks."""
    matrix = SimpleNamespace(shape=shape, format="csr")
    matrix.indptr, matrix.indices, matrix.data = map(np.array, (indptr, indices, values))
    matrix.tocsr = lambda: matrix
    return matrix


def test_what_looks_like_a_csr_matrix_is_one():
    np.testing.assert_array_equal(rows_of(csr()).toarray(), [[1, 0, 0], [0, 2, 0], [3, 0, 4]])


@pytest.mark.parametrize(
    ("matrix", "error", "message"),
    [
        (csr(shape=(3, 4)), ValueError, r"X: shape \(3, 4\) is not rows of 3 features, as"),
        (csr(shape=(3,)), ValueError, r"X: shape \(3,\) is not rows of 3 features"),
        (csr(shape=(4, 3)), ValueError, r"X.indptr: shape \(4,\) is not \(5,\)"),
        (csr(indptr=[[0, 1, 2, 4]]), ValueError, r"X.indptr: shape \(1, 4\) is not 1-D"),
        (csr(indptr=(0, 2, 1, 4)), ValueError, "X.indptr: not a sequence that rises from 0"),
        (csr(indptr=(1, 1, 2, 4)), ValueError, "X.indptr: not a sequence that rises from 0"),
        (csr(indptr=(0, -1, 2, 4)), ValueError, "X.indptr: -1 at index 1 is not an integer >= 0"),
        (csr(indptr=(0, 1, 2, 5)), ValueError, "X.indptr: 5 entries are not in .* which hold 4"),
        (csr(values=(1.0, 2.0)), ValueError, "X.indptr: 4 entries are not in .* which hold 2"),
        (csr(indices=(0, 1, 0, 3)), ValueError, r"X.indices: 3 at index 3 is not .* in \[0, 2\]"),
        (csr(indices=(0, -1, 0, 2)), ValueError, r"X.indices: -1 at index 1 is not .* in \[0, 2\]"),
        (csr(values=(1j, 2, 3, 4)), TypeError, "X: dtype complex128 is not float32, float64"),
        (csr(values=(1, None, 3, 4)), TypeError, "X: dtype object is not float32, float64"),
        (csr(values=(1.0, 2.0, 3.0, np.nan)), ValueError, r"X: nan at index \(2, 2\) is not"),
        (csr(values=(1.0, -np.inf, np.nan, 0)), ValueError, r"X: -inf at index \(1, 1\) is not"),
        (csr(indptr=[0], shape=(0, 3)), ValueError, r"X: shape \(0, 3\) holds no data"),
    ],
)
def test_refused(matrix, error, message):
    net = MLP([3, 2], seed=0)
    before = net.get_weights()
    with pytest.raises(error, match=message):
        net.fit(matrix, [0, 1, 1], verbose=0)
    with pytest.raises(error, match=message):
        net.evaluate(matrix, [0, 1, 1])
    assert net.optimizer is None
    for array, old in zip(net.weights, before, strict=True):
        np.testing.assert_array_equal(array, old)


def test_the_name_of_validation_data():
    X, y = data()
    matrix = scipy.sparse.csr_matrix(X)
    matrix.data[0] = np.inf
    net = MLP([33, 3])
    with pytest.raises(ValueError, match=r"validation_data\[0\]: inf at index \(1, "):
        net.fit(X, y, validation_data=(matrix, y), verbose=0)


def test_more_features_than_columns_can_count():
    matrix = scipy.sparse.csr_matrix((1, 2**31))
    with pytest.raises(ValueError, match="X: 2147483648 features are more than 2147483647"):
        rows_of(matrix)


# ------------------------------------------------------------------- dense rows that are compressed


def special(dtype):
    """Numbers near zero, and the largest."""
    info = np.finfo(dtype)
    return np.array([0, -0.0, info.smallest_subnormal, -info.tiny, info.max, -info.max, 1], dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("shape", [(1, 1), (3, 15), (4, 16), (40, 37), (101, 70)])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_compressed_rows(dtype, threads, shape, share):
    rng = np.random.default_rng(0)
    X = rng.choice(special(dtype), shape)
    X[rng.random(shape) >= share] = 0
    X[-(shape[0] // 3) :] *= share == 1  # rows without an entry at the end of a thread's share
    finite, (starts, columns, values, live) = _kernels.sparse_rows(X, 1.0, threads)
    assert finite
    row, column = np.nonzero(X)
    np.testing.assert_array_equal(np.diff(starts), np.bincount(row, minlength=len(X)))
    np.testing.assert_array_equal(columns, [*column, *[0] * 16])
    np.testing.assert_array_equal(values, [*X[row, column], *[0] * 16])
    np.testing.assert_array_equal(live, np.unique(column))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [(0, 0), (20, 16), (100, 69)])
def test_what_is_not_finite_is_found(dtype, value, at):
    X = np.resize(special(dtype), (101, 70))
    assert _kernels.sparse_rows(X, 0.0, 2) == (True, None)
    X[at] = value
    for threads, density in itertools.product([1, 3], [0.0, 1.0]):
        assert _kernels.sparse_rows(X, density, threads) == (False, None)
    net = MLP([70, 3], dtype=dtype)
    with pytest.raises(ValueError, match=rf"X: -?(nan|inf) at index \({at[0]}, {at[1]}\)"):
        net.fit(X, np.zeros(101, int), verbose=0)
    assert net.optimizer is None


def test_large_arrays_are_compressed_by_several_threads(monkeypatch):
    X, y = data(rows=3000, features=300)
    used, sparse_rows = [], _kernels.sparse_rows

    def recorded(inputs, density, threads):
        used.append(threads)
        return sparse_rows(inputs, density, threads)

    monkeypatch.setattr(_kernels, "sparse_rows", recorded)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    one = trained(X, y, epochs=1)
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("fastdl.backends.available_threads", lambda: 8)
    monkeypatch.setattr(_engine, "_threads", lambda *_: 1)
    assert_identical(trained(X, y, epochs=1), one)
    assert used == [1, 3]


# ------------------------------------------------------------------------------ values by numbers


def coded(values, threads, features=1000):
    """The codes of these values, none of them 0: given without zeros, and as dense rows."""
    rows = -(-len(values) // 50)
    starts = np.minimum(np.arange(rows + 1) * 50, len(values))
    columns = (np.arange(len(values)) % 50).astype(np.int32)
    X = np.zeros((rows, features), values.dtype)
    X[np.arange(len(values)) // 50, columns] = values
    behind = np.zeros(16, values.dtype)  # which all kernels may read
    given = _kernels.codes_of(
        np.concatenate([columns, behind.astype(np.int32)]),
        np.concatenate([values, behind]),
        features,
        threads,
    )
    dense = _kernels.coded_rows(X, 1.0, threads)
    if dense is not None:
        np.testing.assert_array_equal(dense[0], starts)
        np.testing.assert_array_equal(dense[1], np.arange(min(50, len(values))))
        dense = dense[2]
    return columns, given, dense


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("different", [0, 1, 254, 255])
def test_codes_of_few_values(dtype, threads, different):
    rng = np.random.default_rng(0)
    values = rng.choice(rng.normal(size=different), 20_000) if different else np.empty(0)
    values = values.astype(dtype)
    columns, *both = coded(values, threads)
    for positions, codes, table in both:
        np.testing.assert_array_equal(table[codes], values)
        np.testing.assert_array_equal(positions, columns)
        assert table[0] == 0
        assert (codes > 0).all()


def test_parts_of_rows_share_codes_of_all():
    X, _ = data()
    X = np.sign(X)
    rows = rows_of(scipy.sparse.csr_matrix(X))
    first, last = rows[:30], rows[30:]
    codes = first.codes(_kernels, 1)
    assert last.codes(_kernels, 1) is codes
    np.testing.assert_array_equal(codes[2][codes[1]], X[X != 0])
    coded = SparseRows(rows.starts, Entries(codes=codes), X.shape[1])
    np.testing.assert_array_equal(coded[30:].toarray(), X[30:])
    assert coded[:30].columns is coded[30:].columns


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("rare", [1, 40, 200, 254])
def test_codes_of_values_that_no_look_finds(threads, rare):
    values = np.ones(100_000, np.float32)
    places = np.linspace(1, len(values) - 2, rare).astype(int) | 1
    values[places] = np.arange(rare, dtype=np.float32) + 2
    _, *both = coded(values, threads)
    for _, codes, table in both:
        np.testing.assert_array_equal(table[codes], values)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("different", [256, 257, 5000])
def test_too_many_values_have_no_codes(threads, different):
    for values in (np.arange(10_000) % different + 1, np.sort(np.arange(10_000) % different + 1)):
        assert coded(values.astype(np.float32), threads)[1:] == (None, None)


def test_too_many_features_have_no_codes():
    values = np.ones(100, np.float32)
    assert None not in coded(values, 1, features=1 << 16)[1:]
    assert coded(values, 1, features=(1 << 16) + 1)[1:] == (None, None)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("shape", [(1, 1), (3, 15), (4, 16), (40, 37), (101, 70)])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shifted", [False, True])
def test_codes_of_dense_rows_are_those_of_their_nonzeros(dtype, threads, shape, share, shifted):
    rng = np.random.default_rng(0)
    X = rng.choice(special(dtype)[:-3] if shifted else special(dtype), shape)
    X[rng.random(shape) >= share] = 0
    shifts = [X[0] * (rng.random(shape[1]) < 0.3)] if shifted else []
    _, (starts, columns, values, live) = _kernels.sparse_rows(X, 1.0, threads, *shifts)
    codes = _kernels.coded_rows(X, 1.0, threads, *shifts)
    np.testing.assert_array_equal(codes[0], starts)
    np.testing.assert_array_equal(codes[1], live)
    positions, numbers, table = codes[2]
    np.testing.assert_array_equal(positions, columns[:-16])
    np.testing.assert_array_equal(table[numbers], values[:-16])
    rows = SparseRows(codes[0], Entries(codes=codes[2]), shape[1], live, *shifts)
    assert rows.dtype == dtype
    for array, expected in zip(rows.arrays, (starts, columns, values, live), strict=True):
        np.testing.assert_array_equal(array, expected, strict=True)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [(0, 0), (20, 16), (100, 69)])
def test_what_is_not_finite_has_no_code(value, at):
    X = np.resize(np.arange(5, dtype=np.float32), (101, 70))
    assert _kernels.coded_rows(X, 1.0, 2) is not None
    X[at] = value
    assert _kernels.coded_rows(X, 1.0, 2) is None


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("full", [slice(0, 10), slice(20, 60), slice(90, 100)])
def test_dense_rows_that_are_not_sparse_have_no_codes(threads, full):
    X = np.zeros((100, 64), np.float32)
    X[:, 7] = 1
    assert _kernels.coded_rows(X, 0.1, threads) is not None
    X[full] = 2
    assert _kernels.coded_rows(X, 0.05, threads) is None
    assert _kernels.coded_rows(X, 1.0, threads) is not None


def test_rows_of_which_a_thread_has_no_room_for_its_own_have_no_codes():
    X = np.zeros((100, 64), np.float32)
    X[:, 7] = 1
    X[:10] = 2  # 11.4 % of all, 21.3 % of the first half
    assert _kernels.coded_rows(X, 0.11, 1) is None
    assert _kernels.coded_rows(X, 0.12, 1) is not None
    assert _kernels.coded_rows(X, 0.12, 2) is None
    net, same = (MLP([64, 40, 3], seed=0, dtype="float32") for _ in range(2))
    net.fit(X, np.arange(100) % 3, epochs=2, verbose=0)
    same.fit(scipy.sparse.csr_matrix(X), np.arange(100) % 3, epochs=2, verbose=0)
    for one, other in zip(net.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_memory_for_codes_rows_are_taken_in_two_passes(monkeypatch):
    X, y = data()
    X = np.sign(X)
    wanted = trained(X, y)

    def empty(shape, dtype):
        if dtype in (np.uint8, np.uint16):
            raise MemoryError
        return np.zeros(shape, dtype)

    with monkeypatch.context() as patch:
        patch.setattr(np, "empty", empty)
        assert _kernels.coded_rows(X, 1.0, 1) is None
    assert_identical(trained(X, y), wanted)


def test_values_that_lead_to_one_place_get_others():
    # Two of these values lead to one place of the first table, which the first value alone decides.
    values = np.random.default_rng(0).normal(size=255)
    X = np.zeros((4000, 8))
    X[:, 3] = values[0]
    X[np.linspace(1, 3998, 254).astype(int) | 1, 3] = values[1:]
    for threads in (1, 2):
        _, _, (_, codes, table) = _kernels.coded_rows(X, 0.2, threads)
        np.testing.assert_array_equal(table[codes], X[:, 3])
