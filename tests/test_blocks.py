"""Training on rows that come block by block: which rows, in which order, and the same results."""

import os
import signal
import threading
import time

import numpy as np
import pytest

from fastdl import MLP, Blocks, EarlyStopping, callbacks
from fastdl.blocks import Ahead

RNG = np.random.default_rng(0)
X = RNG.normal(size=(1000, 6)).astype(np.float32)
Y = (X[:, 0] > X[:, 1]).astype(np.int64) + (X[:, 2] > 0)
WEIGHT = RNG.uniform(size=1000)


def net(**settings):
    return MLP([6, 8, 3], dropout=0.2, seed=3, **settings)


def trained(*arguments, network=None, epochs=3, batch_size=32, **settings):
    network = network or net()
    network.fit(*arguments, epochs=epochs, batch_size=batch_size, verbose=0, **settings)
    return network


def assert_same(network, other):
    for array, expected in zip(network.weights, other.weights, strict=True):
        np.testing.assert_array_equal(array, expected)
    assert network.iterations == other.iterations
    assert network._network.epochs == other._network.epochs


def numbered(rows, **settings):
    numbers = np.arange(rows)
    return Blocks(numbers[:, np.newaxis], numbers, **settings)


# ------------------------------------------------------------------------------- which rows, when


@pytest.mark.parametrize("rows", [1, 31, 96, 1000])
@pytest.mark.parametrize("batch_size", [1, 32, 2000])
@pytest.mark.parametrize("buffer_rows", [1, 60, 5000])
def test_every_row_is_taken_once_with_its_target(rows, batch_size, buffer_rows):
    taken = []
    blocks = numbered(rows, block_rows=7, buffer_rows=buffer_rows)

    def prepare(X, y, sample_weight, names):
        taken.append(np.column_stack([X[:, 0], y]))

    pieces = list(blocks.pieces(prepare, np.dtype(np.float32), 3, [0], batch_size))
    steps = [-(-len(rows) // batch_size) for rows in taken]
    assert [piece.steps for piece in pieces] == steps
    assert [piece.start for piece in pieces] == [sum(steps[:i]) for i in range(len(steps))]
    assert all(len(rows) % batch_size == 0 for rows in taken[:-1])
    together = np.concatenate(taken)
    np.testing.assert_array_equal(together[:, 0], together[:, 1])
    np.testing.assert_array_equal(np.sort(together[:, 0]), np.arange(rows))


def windows(blocks, number=0, seed=3, batch_size=1):
    """The rows of each piece and its key."""
    pieces = blocks.pieces(
        lambda X, *_: X[:, 0].astype(int).tolist(), np.dtype(np.float32), seed, [number], batch_size
    )
    return [(piece.data, piece.key) for piece in pieces]


def test_the_order_is_a_function_of_seed_and_epoch():
    blocks = numbered(500, block_rows=20, buffer_rows=60)
    assert windows(blocks) == windows(blocks)
    assert windows(blocks) != windows(blocks, number=1)
    assert windows(blocks) != windows(blocks, seed=4)
    rows, keys = zip(*windows(blocks, number=None), strict=True)
    assert [row for window in rows for row in window] == list(range(500))
    assert set(keys) == {None}


def test_blocks_are_mixed_and_shuffles_differ():
    rows, keys = zip(*windows(numbered(600, block_rows=20, buffer_rows=60)), strict=True)
    for window in rows:
        assert len(window) == 60
        assert len({row // 20 for row in window}) == 3
    first = [window[0] // 20 for window in rows]
    assert first != sorted(first)
    assert len(set(keys)) == 10


def test_rows_of_a_buffer_are_trained_on_in_another_order():
    X = np.eye(60, dtype=np.float32)
    y = np.arange(60.0)
    settings = {"epochs": 1, "batch_size": 20}
    trainings = [
        trained(*arguments, network=MLP([60, 1], loss="mse", seed=3), **settings, shuffle=shuffle)
        for arguments in ((X, y), (Blocks(X, y, block_rows=20, buffer_rows=20),))
        for shuffle in (True, False)
    ]
    assert_same(trainings[1], trainings[3])
    assert (trainings[0].weights[0] != trainings[1].weights[0]).any()
    assert (trainings[2].weights[0] != trainings[3].weights[0]).any()


@pytest.mark.parametrize("first", [0, 1, 3, 4, 9, 15])
@pytest.mark.parametrize("buffer_rows", [10, 64, 100])
def test_a_pass_goes_on_from_any_step(first, buffer_rows):
    blocks = numbered(500, block_rows=10, buffer_rows=buffer_rows)

    def steps(first):
        pieces = blocks.pieces(
            lambda X, *_: X[:, 0].tolist(), np.dtype(np.float32), 3, [5], 32, first
        )
        return {
            piece.start + step: piece.data[32 * step : 32 * step + 32]
            for piece in pieces
            for step in range(piece.steps)
        }

    whole, rest = steps(0), steps(first)
    assert first in rest
    assert rest == {step: rows for step, rows in whole.items() if step in rest}
    assert max(rest) == max(whole) == 15


def test_only_blocks_that_are_needed_are_read(tmp_path):
    class Counted:
        shape, dtype, ndim, reads = (500, 1), np.dtype(np.float32), 2, 0

        def __len__(self):
            return 500

        def __getitem__(self, rows):
            self.reads += 1
            return np.arange(500, dtype=np.float32)[rows, np.newaxis]

    source = Counted()
    blocks = Blocks(source, np.zeros(500), block_rows=50, buffer_rows=50)
    list(blocks.pieces(lambda *_: None, np.dtype(np.float32), 3, [0], 25, first=14))
    assert source.reads == 3


# ------------------------------------------------------------------------------------ where from


def written(folder, files=3):
    for index, rows in enumerate(np.array_split(np.arange(1000), files)):
        np.save(folder / f"X_{index}.npy", X[rows])
        np.save(folder / f"y_{index}.npy", Y[rows])
    return folder


def memmap(path, array):
    np.save(path, array)
    return np.load(path, mmap_mode="r")


def test_what_fits_the_buffer_trains_as_in_memory(tmp_path):
    expected = trained(X, Y)
    assert_same(trained(str(written(tmp_path))), expected)
    assert_same(trained(memmap(tmp_path / "all.npy", X), Y), expected)
    assert_same(trained(Blocks(X, Y, block_rows=10)), expected)
    assert_same(trained([(X, Y)]), expected)


def test_all_sources_give_the_same_training(tmp_path):
    size = {"block_rows": 40, "buffer_rows": 120}
    expected = trained(Blocks(X, Y, WEIGHT, **size))
    rows = memmap(tmp_path / "all.npy", np.vstack([X[:3], X]))[3:]
    targets = memmap(tmp_path / "targets.npy", Y)
    assert_same(trained(Blocks(rows, targets, WEIGHT, **size)), expected)
    np.save(tmp_path / "weights.npy", WEIGHT)
    files = [tmp_path / "X0.npy", tmp_path / "X1.npy"]
    np.save(files[0], X[:400])
    np.save(files[1], X[400:])
    assert_same(trained(Blocks(files, Y, tmp_path / "weights.npy", **size)), expected)
    assert_same(trained(Blocks(tmp_path / "X?.npy", targets, WEIGHT, **size)), expected)


def test_an_iterable_gives_its_blocks_in_its_order():
    def blocks():
        for start in range(0, 1000, 40):
            yield X[start : start + 40], Y[start : start + 40], WEIGHT[start : start + 40]

    expected = trained(Blocks(blocks, buffer_rows=120))
    assert_same(trained(Blocks(list(blocks()), buffer_rows=120)), expected)
    unshuffled = trained(X, Y, sample_weight=WEIGHT, shuffle=False)
    assert_same(trained(Blocks(blocks, buffer_rows=120), shuffle=False), unshuffled)
    assert_same(
        trained(blocks(), shuffle=False, epochs=1),
        trained(X, Y, sample_weight=WEIGHT, shuffle=False, epochs=1),
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.float64, ">f4", np.bool_])
def test_rows_of_other_dtypes_become_the_networks(tmp_path, dtype):
    images = RNG.integers(0, 2, size=(300, 2, 3)).astype(dtype)
    rows = memmap(tmp_path / "rows.npy", images)
    blocks = Blocks(rows, Y[:300], block_rows=30, buffer_rows=90)
    again = Blocks(images.astype(np.float32), Y[:300], block_rows=30, buffer_rows=90)
    assert_same(trained(blocks), trained(again))


def test_memmaps_that_a_file_does_not_hold_in_rows(tmp_path):
    expected = trained(Blocks(X, Y, block_rows=40, buffer_rows=120))
    rows = memmap(tmp_path / "wide.npy", np.hstack([X, X]))[:, :6]
    assert_same(trained(Blocks(rows, Y, block_rows=40, buffer_rows=120)), expected)
    np.save(tmp_path / "zeros.npy", np.zeros_like(X))
    rows = np.load(tmp_path / "zeros.npy", mmap_mode="c")
    rows[...] = X
    assert_same(trained(Blocks(rows, Y, block_rows=40, buffer_rows=120)), expected)


def test_sparse_blocks():
    sparse = pytest.importorskip("scipy.sparse")
    dense = X * (RNG.uniform(size=X.shape) < 0.2)
    parts = [slice(start, start + 50) for start in range(0, 1000, 50)]
    blocks = [(sparse.csr_matrix(dense[part]), Y[part]) for part in parts]
    expected = trained(Blocks([(dense[part], Y[part]) for part in parts], buffer_rows=120))
    assert_same(trained(Blocks(blocks, buffer_rows=120)), expected)


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {f"x{i}": X[:, i] for i in range(6)} | {"label": Y, "weight": WEIGHT}
    parquet.write_table(pyarrow.table(columns), tmp_path / "all.parquet", row_group_size=40)
    size = {"block_rows": 40, "buffer_rows": 120}
    expected = trained(Blocks(X, Y, WEIGHT, **size))
    blocks = Blocks(tmp_path, "label", "weight", buffer_rows=120)
    assert blocks.rows == 1000
    assert_same(trained(blocks), expected)
    lists = pyarrow.FixedSizeListArray.from_arrays(X.reshape(-1), 6)
    table = pyarrow.table({"x": lists, "label": Y, "weight": WEIGHT})
    parquet.write_table(table, tmp_path / "lists.parquet", row_group_size=40)
    blocks = Blocks(tmp_path / "lists.parquet", "label", "weight", buffer_rows=120)
    assert_same(trained(blocks), expected)
    with pytest.raises(ValueError, match=r"y: 'labels' is not one of the columns"):
        Blocks(tmp_path / "all.parquet", "labels")
    with pytest.raises(TypeError, match=r"y: name the column"):
        net().fit(tmp_path / "all.parquet")


def test_the_index_of_a_data_frame_is_no_feature(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame(X, columns=list("abcdef")).assign(label=Y)
    for name, index in {"none": None, "range": "n", "named": "n", "unnamed": None}.items():
        rows = frame if name in ("none", "range") else frame.set_index(np.arange(1000) % 7)
        rows.rename_axis(index).to_parquet(tmp_path / f"{name}.parquet")
        MLP([6, 3]).fit(tmp_path / f"{name}.parquet", "label", verbose=0)
    MLP([7, 7]).fit(tmp_path / "named.parquet", "n", verbose=0)


def test_parquet_files_that_are_none(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "text.parquet").write_text("text")
    with pytest.raises(ValueError, match=r"X: .*text\.parquet: Parquet"):
        Blocks(tmp_path / "text.parquet", "label")
    with pytest.raises(TypeError, match="sample_weight: name the column"):
        Blocks(tmp_path / "text.parquet", "label", WEIGHT)


def test_parquet_targets_that_are_lists(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {f"x{i}": X[:, i] for i in range(6)}
    one_hot = pyarrow.FixedSizeListArray.from_arrays(np.eye(3)[Y].reshape(-1), 3)
    table = pyarrow.table(columns | {"label": one_hot, "weight": WEIGHT})
    parquet.write_table(table, tmp_path / "all.parquet", row_group_size=40)
    network = MLP([6, 8, 3], loss="categorical_crossentropy", seed=3)
    blocks = Blocks(tmp_path / "all.parquet", "label", "weight", buffer_rows=120)
    found = trained(blocks, network=network)
    network = MLP([6, 8, 3], seed=3)
    labels = Blocks(X, Y, WEIGHT, block_rows=40, buffer_rows=120)
    np.testing.assert_allclose(
        found.weights[0], trained(labels, network=network).weights[0], rtol=1e-4, atol=1e-6
    )
    with pytest.raises(ValueError, match="sample_weight: column 'label' is no number for each row"):
        trained(Blocks(tmp_path / "all.parquet", "weight", "label"), network=MLP([6, 1]))


@pytest.mark.parametrize("lists", [[[1.0, 2, 3, 4], [5], [6]], [[1.0, 2], None, [3, 4]], [[]] * 3])
def test_parquet_lists_that_differ_in_length(tmp_path, lists):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    column = pyarrow.array(lists, pyarrow.list_(pyarrow.float64()))
    parquet.write_table(pyarrow.table({"x": column, "y": [0, 1, 0]}), tmp_path / "all.parquet")
    with pytest.raises(ValueError, match="X: the lists of column 'x' differ in length"):
        Blocks(tmp_path / "all.parquet", "y")


def test_parquet_files_whose_lists_have_other_lengths(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    for name, rows in {"a": np.ones((50, 3)), "b": np.ones((50, 1))}.items():
        column = pyarrow.array(rows.tolist())
        table = pyarrow.table({"x": column, "y": np.zeros(50, np.int64)})
        parquet.write_table(table, tmp_path / f"{name}.parquet")
    blocks = Blocks(tmp_path, "y", buffer_rows=60)
    with pytest.raises(
        ValueError, match=r"X: row group 0 of .*b.parquet has 1 features, the first"
    ):
        trained(blocks, network=MLP([3, 1]))


WIDE = np.random.default_rng(1).normal(size=(3000, 200)).astype(np.float32)


def direct_pieces(path, offset=0, block_rows=400, **settings):
    """Rows of a file in its order, read in turn, and how many blocks were read directly, or not."""
    rows = memmap(path, WIDE)[offset:]
    blocks = Blocks(rows, np.arange(len(rows)), block_rows=block_rows, buffer_rows=800)
    pieces = blocks.pieces(
        lambda X, y, *_: (X.copy(), y),
        np.dtype(np.float32),
        3,
        [None],
        70,
        in_turn=True,
        **settings,
    )
    X, y = (np.concatenate(parts) for parts in zip(*(piece.data for piece in pieces), strict=True))
    np.testing.assert_array_equal(y, np.arange(len(rows)))
    np.testing.assert_array_equal(X, rows)


@pytest.fixture
def filled(monkeypatch):
    """What came of each direct read."""
    from fastdl import _direct

    found, finish = [], _direct.Reads.finish

    def noted(self):
        results = finish(self)
        found.extend(results)
        return results

    monkeypatch.setattr(_direct.Reads, "finish", noted)
    monkeypatch.setattr("fastdl.blocks._MOST_WAITED", np.inf)
    return found


@pytest.mark.parametrize("offset", [0, 3])
def test_direct_reads_give_the_files_rows(tmp_path, filled, offset):
    direct_pieces(tmp_path / "rows.npy", offset)
    assert len(filled) == 7  # 400 rows end a sector; the last block is too short


@pytest.mark.parametrize("result", [-22, 1000])  # refused, cut short
def test_rows_that_direct_reads_leave_are_read_as_usual(tmp_path, filled, monkeypatch, result):
    from fastdl import _direct

    end = _direct._Read.end

    def spoiled(self, _):
        self._bytes[...] = 255
        return end(self, result)

    monkeypatch.setattr(_direct._Read, "end", spoiled)
    direct_pieces(tmp_path / "rows.npy")
    assert filled
    assert not any(filled)


def test_more_blocks_than_may_be_under_way(tmp_path, filled, monkeypatch):
    monkeypatch.setattr("fastdl._direct.DEPTH", 2)
    monkeypatch.setattr("fastdl._direct._LEAST_BYTES", 1)
    direct_pieces(tmp_path / "rows.npy", block_rows=160)
    assert len(filled) == 2 * 4  # of four windows of five blocks, and the rest as usual


@pytest.mark.parametrize("call", ["io_submit", "io_getevents"])
def test_an_interrupt_leaves_no_reads_to_others(tmp_path, monkeypatch, call):
    from fastdl import _direct

    path = tmp_path / "rows.npy"
    memmap(path, WIDE)
    reads, real = _direct.Reads(), _direct.Reads._call
    if reads._context is None or (file := _direct._open(path)) is None:
        pytest.skip("the system has no direct reads")
    os.close(file)
    out = np.zeros(1 << 18, np.uint8)
    out = out[-out.ctypes.data % _direct.SECTOR :][: 1 << 17]

    def interrupted(self, name, *arguments):
        result = real(self, name, *arguments)
        if name == call:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(_direct.Reads, "_call", interrupted)
    spare = list(_direct._spare)

    def read():
        reads.begin([(path, 0, out)])
        reads.finish()

    with pytest.raises(KeyboardInterrupt):
        read()
    monkeypatch.undo()
    reads.close()
    assert _direct._spare == spare


def test_systems_without_direct_reads_read_as_usual(tmp_path, filled, monkeypatch):
    monkeypatch.setattr("fastdl._direct._system", lambda: None)
    direct_pieces(tmp_path / "rows.npy")
    assert filled
    assert not any(filled)


def test_contexts_of_direct_reads_are_used_again():
    from fastdl import _direct

    first, second = _direct.Reads(), _direct.Reads()
    if first._context is None:
        pytest.skip("the system has no direct reads")
    assert first._context.value != second._context.value
    contexts = [first._context, second._context]
    first.close()
    second.close()
    again = [_direct.Reads(), _direct.Reads()]
    assert {reads._context.value for reads in again} == {each.value for each in contexts}
    for reads in again:
        reads.close()


def test_a_disk_that_is_too_slow_is_read_through_the_cache(tmp_path, filled, monkeypatch):
    monkeypatch.setattr("fastdl.blocks._MOST_WAITED", -1.0)
    direct_pieces(tmp_path / "rows.npy")
    assert not filled


# ---------------------------------------------------------------------------- training and scores


def test_what_joblib_maps_into_memory_is_trained_on_as_an_array(tmp_path, monkeypatch):
    monkeypatch.setattr("fastdl.blocks._BUFFER_BYTES", 1000)
    monkeypatch.setattr("fastdl.blocks._BLOCK_BYTES", 500)
    folder = tmp_path / "joblib_memmapping_folder_1_ab_cd"
    folder.mkdir()
    weights = []
    for place in (tmp_path, folder):
        rows = np.memmap(place / "rows", np.float32, "w+", shape=X.shape)
        rows[:] = X
        weights.append([net().fit(rows, Y, verbose=0).history, net().fit(X, Y, verbose=0).history])
    assert weights[0][0] != weights[0][1]  # read block by block
    assert weights[1][0] == weights[1][1]


def test_validation_and_evaluation_by_blocks():
    network = net()
    blocks = Blocks(X, Y, block_rows=40, buffer_rows=120)
    history = network.fit(blocks, validation_data=blocks, verbose=0).history
    scores = network.evaluate(X, Y)
    assert network.evaluate(blocks) == pytest.approx(scores)
    assert history["val_loss"][0] == pytest.approx(scores["loss"])
    assert history["val_accuracy"][0] == pytest.approx(scores["accuracy"])


def test_class_weights_by_blocks():
    size = {"block_rows": 40, "buffer_rows": 120}
    weights = np.where(Y == 1, 2.0, 1.0)
    assert_same(
        trained(Blocks(X, Y, **size), class_weight={1: 2.0}), trained(Blocks(X, Y, weights, **size))
    )


@pytest.mark.parametrize("backend", ["reference", "cython"])
def test_hooks_of_steps_change_nothing(backend):
    import fastdl

    class Steps(callbacks.Callback):
        def __init__(self):
            self.seen = []

        def on_train_batch_end(self, batch, logs=None):
            self.seen.append(batch)

    steps = Steps()
    blocks = Blocks(X, Y, block_rows=40, buffer_rows=120)
    with fastdl.use_backend(backend):
        assert_same(trained(blocks, callbacks=[steps]), trained(blocks))
    assert steps.seen == [*range(32)] * 3


def test_the_bar_without_a_known_number_of_steps(capsys):
    net().fit(Blocks(lambda: [(X, Y)]), epochs=2)
    assert capsys.readouterr().out.count("32/32") == 2
    assert callbacks.ProgressBar.line(7, None, 0.7, {}, ended=False).startswith("7/Unknown - 1s")


def test_reading_ends_with_the_training():

    def blocks():
        yield X[:500], Y[:500]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        trained(Blocks(blocks, buffer_rows=100))
    assert not [thread for thread in threading.enumerate() if "blocks" in thread.name]


def test_what_is_read_ahead_sees_the_callers_backend():
    import fastdl
    from fastdl import backends

    def name():
        yield backends.get_backend()

    with fastdl.use_backend("reference"):
        ahead = Ahead(name(), threading.Event())
        assert ahead.take() == "reference"
        ahead.close()


def test_blocks_may_be_empty():
    empty = X[:0], Y[:0]
    network = trained(lambda: iter([empty, (X, Y), empty]), shuffle=False)
    assert_same(network, trained(lambda: iter([(X, Y)]), shuffle=False))


def test_a_list_of_paths(tmp_path):
    paths = []
    for number, rows in enumerate([X[:300], X[300:]]):
        paths.append(tmp_path / f"{number}.npy")
        np.save(paths[-1], rows)
    assert_same(trained(paths, Y), trained(Blocks(paths, Y)))


# ----------------------------------------------------------------------------------- broken off


@pytest.mark.parametrize("pause", [0.01, 5])
def test_ctrl_c_does_not_wait_for_a_source(pause):
    waiting = threading.Event()

    def blocks():
        for _ in range(int(20 / pause)):
            yield X[:100], Y[:100]
            waiting.wait(pause)

    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        trained(blocks)
    waiting.set()
    timer.join()
    assert time.monotonic() - begun < 3


class BreakError(Exception):
    pass


class BreakAfter(callbacks.Callback):
    """Writes a checkpoint after some step and breaks off a little later."""

    def __init__(self, checkpoint, steps, hook):
        self.checkpoint, self.steps, self.hook = checkpoint, steps, hook

    def on_train_batch_end(self, batch, logs=None):
        if self.model.iterations == self.steps + 3:
            raise BreakError
        self.reach("end")

    def on_train_batch_begin(self, batch, logs=None):
        self.reach("begin")

    def reach(self, hook):
        if (self.model.iterations, hook) == (self.steps, self.hook):
            self.checkpoint.write()


def sources():
    blocks = Blocks(X, Y, block_rows=40, buffer_rows=120)
    return {
        "arrays": (X, Y),
        "blocks": (blocks,),
        "iterable": (Blocks([(X[i : i + 90], Y[i : i + 90]) for i in range(0, 1000, 90)]),),
    }


@pytest.mark.parametrize("source", sources())
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(
    ("steps", "hook"), [(5, "begin"), (31, "begin"), (45, "begin"), (45, "end"), (70, "begin")]
)
def test_a_training_goes_on_to_the_same_end(tmp_path, source, shuffle, steps, hook):
    arguments = sources()[source]
    path = tmp_path / "run.safetensors"
    whole, broken = net(), net()
    settings = {"epochs": 4, "batch_size": 32, "shuffle": shuffle, "verbose": 0}
    stopping = {"monitor": "loss", "patience": 1, "restore_best_weights": True}
    history = whole.fit(*arguments, callbacks=[EarlyStopping(**stopping)], **settings)
    checkpoint = callbacks.Checkpoint(path)
    with pytest.raises(BreakError):
        broken.fit(
            *arguments,
            callbacks=[checkpoint, EarlyStopping(**stopping), BreakAfter(checkpoint, steps, hook)],
            **settings,
        )
    resumed = MLP([6, 8, 3], dropout=0.2)
    again = resumed.fit(
        *arguments, resume_from=path, callbacks=[EarlyStopping(**stopping)], **settings
    )
    assert_same(resumed, whole)
    assert again.history == history.history
    assert again.epoch == history.epoch
    for slot, expected in zip(
        resumed._state.slots.values(), whole._state.slots.values(), strict=True
    ):
        np.testing.assert_array_equal(slot, expected)


def test_a_training_that_was_stopped_stays_stopped(tmp_path):
    path = tmp_path / "run.safetensors"
    stop = {"monitor": "loss", "min_delta": 10.0, "restore_best_weights": True}
    kept = [EarlyStopping(**stop), callbacks.Checkpoint(path)]
    first = trained(X, Y, epochs=9, callbacks=kept)
    again = trained(X, Y, epochs=9, callbacks=[EarlyStopping(**stop)], resume_from=path)
    assert_same(again, first)


def test_callbacks_of_one_class_keep_weights_of_their_own(tmp_path):
    path = tmp_path / "run.safetensors"

    def stopping():
        monitors = ("accuracy", "min"), ("loss", "min")  # the best is the first, and the last one
        return [
            EarlyStopping(monitor, mode=mode, patience=9, restore_best_weights=True)
            for monitor, mode in monitors
        ]

    kept = stopping()
    trained(X, Y, epochs=3, callbacks=[*kept, callbacks.Checkpoint(path)])
    again = stopping()
    trained(X, Y, epochs=3, callbacks=again, resume_from=path)
    assert kept[0].best_epoch != kept[1].best_epoch
    for one, other in zip(kept, again, strict=True):
        assert one.best_epoch == other.best_epoch
        for array, expected in zip(other.best_weights, one.best_weights, strict=True):
            np.testing.assert_array_equal(array, expected)


def test_a_learning_rate_that_was_lowered_stays_lowered(tmp_path):
    path = tmp_path / "run.safetensors"
    lower = {"monitor": "loss", "min_delta": 10.0, "patience": 1}
    whole = trained(X, Y, epochs=6, callbacks=[callbacks.ReduceLROnPlateau(**lower)])
    kept = [callbacks.ReduceLROnPlateau(**lower), callbacks.Checkpoint(path)]
    trained(X, Y, epochs=3, callbacks=kept)
    kept[0] = callbacks.ReduceLROnPlateau(**lower)
    again = trained(X, Y, epochs=6, callbacks=kept, resume_from=path)
    assert again.learning_rate == whole.learning_rate < 1e-4
    assert_same(again, whole)


def test_checkpoints_within_an_epoch(tmp_path, monkeypatch):
    from fastdl import network

    monkeypatch.setattr(network, "_PROGRESS_INTERVAL", 0.0)
    checkpoint = callbacks.Checkpoint(tmp_path / "run.safetensors", epochs=100, seconds=0)
    blocks = Blocks(X, Y, block_rows=40, buffer_rows=120)
    whole = trained(blocks, callbacks=[checkpoint])
    assert_same(trained(blocks, resume_from=checkpoint.path), whole)


WRONG = {
    "batch_size: 16 is not the checkpoint's 32": {"batch_size": 16},
    "shuffle: False is not the checkpoint's True": {"shuffle": False},
    "optimizer: SGD": {"optimizer": "sgd"},
    r"callbacks: \['EarlyStopping'\] are not the checkpoint's \[\]": {
        "callbacks": [EarlyStopping()]
    },
    "initial_epoch: the checkpoint": {"initial_epoch": 1},
    "resume_from: .* holds another network": {"network": MLP([6, 4, 3])},
}


@pytest.mark.parametrize("message", WRONG)
def test_another_training_is_not_resumed(tmp_path, message):
    path = tmp_path / "run.safetensors"
    trained(X, Y, epochs=1, callbacks=[callbacks.Checkpoint(path)])
    network = WRONG[message].get("network", net())
    weights = network.get_weights()
    with pytest.raises(ValueError, match=message):
        trained(X, Y, **{"network": network, "resume_from": path} | WRONG[message])
    for array, expected in zip(network.weights, weights, strict=True):
        np.testing.assert_array_equal(array, expected)


def test_rows_in_memory_do_not_go_on_where_blocks_ended(tmp_path):
    path = tmp_path / "run.safetensors"
    blocks = Blocks(X, Y, block_rows=40, buffer_rows=120)
    trained(blocks, epochs=1, callbacks=[callbacks.Checkpoint(path)])
    with pytest.raises(ValueError, match="block_rows: None is not the checkpoint's 40"):
        trained(X, Y, resume_from=path)


def test_a_saved_network_is_no_checkpoint(tmp_path):
    path = tmp_path / "net.safetensors"
    net().save(path)
    with pytest.raises(ValueError, match=r"resume_from: .* is a network, but not a Checkpoint's"):
        trained(X, Y, resume_from=path)


# ------------------------------------------------------------------------------------ bad input


ERRORS = [
    ((X,), TypeError, "y: an array of rows needs targets"),
    ((5,), TypeError, "X: 5 gives no blocks, and there is no y"),
    (([1, 2],), TypeError, r"X: block 0 is not a tuple \(X, y\)"),
    (([],), ValueError, "X: there are no blocks with rows"),
    (([(X, Y[1:])],), ValueError, r"y in block 0: shape \(999,\) does not match X \(1000, 6\)"),
    (([(X, Y), (X[:, 1:], Y)],), ValueError, "X in block 1: 5 features are not the 6 of those"),
    (([(X[:, 0], Y)],), ValueError, r"X in block 0: shape \(1000,\) is not rows of features"),
    (([(X * np.nan, Y)],), ValueError, "X in block 0: nan at index"),
    (([(X, Y + 5)],), ValueError, "y in block 0: "),
    (([(X, Y), (X, Y, WEIGHT)],), ValueError, "sample_weight.*: some blocks have it"),
    ((Blocks(X, Y), Y), TypeError, "y: the Blocks hold it"),
    ((Blocks(X[:, 1:], Y),), ValueError, "X: rows of 5 features are not rows of 6"),
    ((iter([(X, Y)]),), ValueError, "X: an iterator gives its blocks once, not for 3 epochs"),
    (("nowhere/X*.npy", Y), FileNotFoundError, r"X: no .npy or .parquet file at nowhere/X\*.npy"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), ERRORS, ids=lambda value: None)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match=message):
        trained(*arguments)


def test_bad_parts():
    for message, arguments, settings in (
        ("y: 999 rows are not the 1000 of X", (X, Y[1:]), {}),
        ("X: there are no rows", (X[:0], Y[:0]), {}),
        (r"X: shape \(1000,\) is not rows of features", (Y, Y), {}),
        ("block_rows: 0 is not an integer >= 1", (X, Y), {"block_rows": 0}),
        ("buffer_rows: 0 is not an integer >= 1", (X, Y), {"buffer_rows": 0}),
    ):
        with pytest.raises(ValueError, match=message):
            Blocks(*arguments, **settings)
    with pytest.raises(TypeError, match="block_rows: the blocks of an iterable are what it gives"):
        Blocks([(X, Y)], block_rows=5)
    with pytest.raises(TypeError, match="X: dtype complex64 is not"):
        Blocks(X.astype(np.complex64), Y)
    with pytest.raises(ValueError, match="validation_split: rows that are streamed"):
        trained(Blocks(X, Y, buffer_rows=9), validation_split=0.5)
