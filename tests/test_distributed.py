"""Training on a Dask cluster: what it equals, and that nothing is lost with a worker."""

import os
import signal

import numpy as np
import pytest

from fastdl import MLP, Callback, EarlyStopping, callbacks, distributed
from fastdl.optimizers import Adam

da = pytest.importorskip("dask.array")
dask_distributed = pytest.importorskip("distributed")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

RNG = np.random.default_rng(0)
ROWS = 600
X = RNG.normal(size=(ROWS, 6)).astype(np.float32)
Y = (X[:, 0] > X[:, 1]).astype(np.int64) + (X[:, 2] > 0)
WEIGHT = RNG.uniform(size=ROWS).astype(np.float32)

MODES = pytest.mark.parametrize("average_every", [None, 3])


@pytest.fixture(scope="module")
def client(processes_not_measured):
    """Two worker processes."""
    with (
        dask_distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        dask_distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def one_worker():
    """One worker in this process."""
    with dask_distributed.Client(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0"
    ) as client:
        yield client


def net(dropout=0.2, **settings):
    return MLP([6, 8, 3], dropout=dropout, seed=3, **settings)


def trained(client, network=None, chunks=(200, 100, 150, 150), data=(X, Y), **settings):
    network = network or net()
    settings = {"epochs": 2, "batch_size": 60, "parts": 2, "verbose": 0} | settings
    history = distributed.fit(
        network, da.from_array(data[0], chunks=(chunks, -1)), data[1], client, **settings
    )
    network.history = history.history
    return network


def assert_same(network, other):
    for array, expected in zip(network.weights, other.weights, strict=True):
        np.testing.assert_array_equal(array, expected)
    assert network.history == other.history
    assert network.iterations == other.iterations


def assert_close(network, other):
    for array, expected in zip(network.weights, other.weights, strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-3, atol=1e-5)
    for name, values in other.history.items():
        assert network.history[name] == pytest.approx(values, rel=1e-4)


def in_one_process(**settings):
    network = net(dropout=0, l2=0.01)
    network.history = network.fit(X, Y, epochs=3, verbose=0, **settings).history
    return network


def test_whole_batches_give_what_one_process_does(one_worker):
    network = trained(
        one_worker,
        net(dropout=0, l2=0.01),
        epochs=3,
        batch_size=ROWS,
        parts=3,
        sample_weight=WEIGHT,
        optimizer=Adam(0.01),
    )
    assert_close(
        network,
        in_one_process(batch_size=ROWS, sample_weight=WEIGHT, optimizer=Adam(0.01), shuffle=False),
    )


def test_one_part_takes_the_steps_that_one_process_does(one_worker):
    for average_every, batch_size in ((4, 50), (None, 50), (1000, 70)):
        network = trained(
            one_worker,
            net(dropout=0, l2=0.01),
            epochs=3,
            batch_size=batch_size,
            parts=1,
            shuffle=False,
            average_every=average_every,
        )
        if average_every or ROWS % batch_size == 0:
            assert_close(network, in_one_process(batch_size=batch_size, shuffle=False))


@MODES
def test_workers_change_nothing(client, one_worker, average_every):
    network = trained(client, average_every=average_every)
    assert_same(network, trained(one_worker, average_every=average_every))
    steps = {None: 20, 3: 10}[average_every]
    assert network.iterations == steps
    assert network.history["accuracy"][1] > network.history["accuracy"][0] > 0.2


class Kill(Callback):
    """Kills workers after some rounds."""

    def __init__(self, client, rounds, workers):
        self.client, self.rounds, self.workers = client, rounds, workers

    def on_train_batch_end(self, batch, logs=None):
        self.rounds -= 1
        if self.rounds == 0:
            for pid in list(self.client.run(os.getpid).values())[: self.workers]:
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("workers", [1, 2])
@MODES
def test_the_death_of_workers_changes_nothing(client, one_worker, average_every, workers):
    settings = {"epochs": 2, "average_every": average_every}
    network = trained(client, callbacks=[Kill(client, 3, workers)], **settings)
    assert_same(network, trained(one_worker, **settings))
    client.wait_for_workers(2, timeout=30)


@MODES
def test_tasks_that_no_worker_takes_are_given_again(one_worker, monkeypatch, average_every):
    total, stuck = distributed._Cluster._total, []

    def once_to_nobody(cluster, *arguments):
        if stuck:
            return total(cluster, *arguments)
        stuck.append(one_worker.submit(abs, 1, workers=["tcp://127.0.0.1:9"], pure=False))
        return stuck[0]

    expected = trained(one_worker, average_every=average_every)
    monkeypatch.setattr(distributed, "_PATIENCE", 0.05)
    monkeypatch.setattr(distributed._Cluster, "_total", once_to_nobody)
    assert_same(trained(one_worker, average_every=average_every), expected)
    assert len(stuck) == 1


@MODES
def test_a_training_goes_on_from_a_checkpoint(one_worker, tmp_path, average_every):
    path = tmp_path / "run.safetensors"
    whole = trained(one_worker, epochs=2, average_every=average_every)
    kept = [callbacks.Checkpoint(path)]
    trained(one_worker, epochs=1, average_every=average_every, callbacks=kept)
    again = trained(
        one_worker,
        MLP([6, 8, 3], dropout=0.2),
        epochs=2,
        average_every=average_every,
        resume_from=path,
    )
    assert_same(again, whole)
    with pytest.raises(ValueError, match=r"rows: .* is not the checkpoint's \[300, 300\]"):
        trained(one_worker, epochs=2, resume_from=path, average_every=average_every, parts=3)


@MODES
def test_checkpoints_are_of_whole_epochs(one_worker, tmp_path, average_every, monkeypatch):
    monkeypatch.setattr("fastdl.distributed._PROGRESS_INTERVAL", 0.0)
    checkpoint = callbacks.Checkpoint(tmp_path / "run.safetensors", seconds=0)
    settings = {"average_every": average_every}

    class Break(Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_end(self, batch, logs=None):
            if (self.epoch, batch) == (1, 1):
                raise KeyError("the end")

    whole = trained(one_worker, epochs=3, **settings)
    with pytest.raises(KeyError, match="the end"):
        trained(one_worker, epochs=3, callbacks=[checkpoint, Break()], **settings)
    network = MLP([6, 8, 3], dropout=0.2)
    assert_same(
        trained(one_worker, network, epochs=3, resume_from=checkpoint.path, **settings), whole
    )


def test_callbacks_and_validation(one_worker):
    stop = EarlyStopping(patience=1, min_delta=10.0, restore_best_weights=True)
    network = trained(one_worker, epochs=9, validation_data=(X, Y), callbacks=[stop])
    assert len(network.history["val_loss"]) == 2
    assert network.evaluate(X, Y)["loss"] == pytest.approx(network.history["val_loss"][0])


def test_dealt_chunks_are_about_the_same():
    sizes = [50, 200, 120, 30, 100]
    parts = distributed._dealt(sizes, 2)
    assert parts == [[0, 1], [2, 3, 4]]
    assert distributed._dealt([10], 1) == [[0]]


def test_few_chunks_are_divided(one_worker):
    network = trained(one_worker, chunks=(ROWS,), parts=4)
    assert network.iterations == 20


ROWS_OF_X = da.from_array(X, chunks=(100, 3))
ERRORS = [
    (TypeError, "model: 5 is not a fastdl.MLP", {"model": 5}),
    (TypeError, "client: None is not a dask.distributed.Client", {"client": None}),
    (TypeError, "X: ndarray is not a dask.array.Array", {"X": X}),
    (ValueError, "y: 10 rows are not the 600 of X", {"y": Y[:10]}),
    (ValueError, "X: shape .* is not rows of 6", {"X": ROWS_OF_X[:, 1:]}),
    (ValueError, "X: its chunks are of unknown size", {"X": ROWS_OF_X[ROWS_OF_X[:, 0] > 0]}),
    (ValueError, "X: nan at index", {"X": ROWS_OF_X * np.nan}),
    (ValueError, "parts: 601 are more than the 600 rows", {"parts": 601, "average_every": 1}),
    (ValueError, "batch_size: 32 rows are not one for each of the 33 parts", {"parts": 33}),
    (ValueError, "average_every: 0 is not an integer >= 1", {"average_every": 0}),
]


@pytest.mark.parametrize(("error", "message", "wrong"), ERRORS, ids=lambda value: None)
def test_bad_input(one_worker, error, message, wrong):
    arguments = {"model": net(), "X": ROWS_OF_X, "y": Y, "client": one_worker, "verbose": 0}
    with pytest.raises(error, match=message):
        distributed.fit(**arguments | wrong)
