"""Many networks at once: what each would have become alone, errors, interruption, the bar."""

import collections.abc
import io
import os
import re
import signal
import sys
import threading

import numpy as np
import pytest

import fastdl
from fastdl import MLP, Blocks, Callback, EarlyStopping, _engine, activations, backends, fit_many
from fastdl.optimizers import SGD, Adam, RMSprop
from fastdl.schedules import ExponentialDecay

pytestmark = pytest.mark.each_build

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 6))
Y = np.argmax(X[:, :3] + 0.3 * RNG.normal(size=(60, 3)), axis=1)


def bits(net):
    return [array.tobytes() for array in net.get_weights()]


def state_of(net):
    slots = {} if net._state is None else net._state.slots
    return [
        *bits(net),
        *(slot.tobytes() for slot in slots.values()),
        net.optimizer,
        net.iterations,
        net._network.epochs,
    ]


def record_of(history):
    return history.epoch, history.history


def watcher(**hooks):
    """A callback with these functions of (callback, number or logs, ...) as its hooks."""
    return type("Watcher", (Callback,), hooks)()


VARIANTS = {
    "width": ({"sizes": [6, 33, 3]}, {}),
    "depth": ({"sizes": [6, 9, 5, 3], "activation": "gelu"}, {}),
    "dropout": ({"dropout": 0.5}, {}),
    "float64": ({"dtype": "float64"}, {}),
    "penalty": ({"l2": 1e-3}, {}),
    "sgd": ({}, {"optimizer": SGD(0.1, momentum=0.9)}),
    "clipped": ({}, {"optimizer": RMSprop(0.01, clipnorm=0.1)}),
    "schedule": ({}, {"optimizer": Adam(ExponentialDecay(0.02, 10, 0.9))}),
    "batches": ({}, {"batch_size": 7, "epochs": 9}),
    "full batch": ({}, {"batch_size": 60, "epochs": 40}),
    "early stopping": (
        {"seed": 3},
        {
            "epochs": 200,
            "optimizer": Adam(0.05),
            "early_stopping": EarlyStopping(patience=3, restore_best_weights=True),
        },
    ),
    "loss": ({"loss": "mse"}, {}),
}
DEFAULTS = {"epochs": 5, "batch_size": 20, "optimizer": "adam", "early_stopping": None}


def network(arguments=None):
    return MLP(**{"sizes": [6, 12, 3], "activation": "tanh", "seed": 0} | (arguments or {}))


def sweep(names, **common):
    """Networks of these variants and their histories."""
    networks = [network(VARIANTS[name][0]) for name in names]
    fits = [DEFAULTS | VARIANTS[name][1] for name in names]
    settings = {setting: [fit[setting] for fit in fits] for setting in DEFAULTS}
    return networks, fit_many(networks, X, np.eye(3)[Y], **settings, verbose=0, **common)


@pytest.mark.parametrize("validation", [{}, {"validation_split": 0.25}])
def test_each_is_as_if_alone(validation):
    names = [name for name in VARIANTS if validation or name != "early stopping"]
    networks, histories = sweep(names, **validation)
    for name, net, history in zip(names, networks, histories, strict=True):
        arguments, fit = VARIANTS[name]
        fit = DEFAULTS | fit
        stopping = fit.pop("early_stopping")
        alone = network(arguments)
        expected = alone.fit(
            X, np.eye(3)[Y], **fit, **validation, callbacks=stopping and [stopping], verbose=0
        )
        assert record_of(history) == record_of(expected), name
        assert state_of(net) == state_of(alone), name


def test_early_stopping_stops_each_by_itself():
    _, histories = sweep(["early stopping", "width"], validation_split=0.25)
    assert 4 <= len(histories[0].epoch) < 200
    assert len(histories[1].epoch) == 5


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_any_number_of_threads_gives_the_same(threads):
    networks, histories = sweep(VARIANTS, validation_split=0.25, threads=threads)
    expected, expected_histories = sweep(VARIANTS, validation_split=0.25)
    assert [state_of(net) for net in networks] == [state_of(net) for net in expected]
    assert list(map(record_of, histories)) == list(map(record_of, expected_histories))


def test_a_second_call_goes_on():
    whole, parts = ([network({"dropout": 0.5}) for _ in range(2)] for _ in range(2))
    fit_many(whole, X, Y, epochs=6, verbose=0)
    fit_many(parts, X, Y, epochs=4, verbose=0)
    fit_many(parts, X, Y, epochs=2, verbose=0)
    assert [state_of(net) for net in parts] == [state_of(net) for net in whole]


def test_one_early_stopping_serves_all_by_copies():
    stopping = EarlyStopping("loss", patience=2)
    fit_many(
        [network({"seed": seed}) for seed in range(3)], X, Y, early_stopping=stopping, verbose=0
    )
    assert stopping.model is None


def test_weights_of_rows_and_classes():
    for weights in ({"sample_weight": RNG.random(60)}, {"class_weight": {0: 2.0, 2: 0.5}}):
        net, alone = network(), network()
        fit_many([net], X, Y, shuffle=False, verbose=0, **weights)
        alone.fit(X, Y, shuffle=False, verbose=0, **weights)
        assert state_of(net) == state_of(alone)


def test_rows_of_each_ones_own():
    weights = RNG.random(60)
    rows = [range(40), [5, 5, 59, 0, 7, 8], np.arange(60)[::-1], range(40)]
    networks = [network({"dropout": 0.5}) for _ in rows]
    histories = fit_many(networks, X, Y, rows=rows, sample_weight=weights, epochs=3, verbose=0)
    for net, history, own in zip(networks, histories, rows, strict=True):
        own, alone = np.asarray(own), network({"dropout": 0.5})
        expected = alone.fit(X[own], Y[own], sample_weight=weights[own], epochs=3, verbose=0)
        assert state_of(net) == state_of(alone)
        assert record_of(history) == record_of(expected)


def test_rows_that_are_made_when_asked_for():
    class Folds(collections.abc.Sequence):
        def __len__(self):
            return 8

        def __getitem__(self, index):
            if index >= 8:
                raise IndexError
            return np.arange(index, index + 40).astype(np.int32)

    networks = [network() for _ in range(8)]
    fit_many(networks, X, Y, rows=Folds(), epochs=1, verbose=0)
    for index, net in enumerate(networks):
        alone = network()
        alone.fit(X[index : index + 40], Y[index : index + 40], epochs=1, verbose=0)
        assert state_of(net) == state_of(alone)


def test_rows_of_sparse_matrices():
    sparse = pytest.importorskip("scipy.sparse")
    rare = X * (X > 1)
    nets, dense = ([network() for _ in range(2)] for _ in range(2))
    rows = [range(40), range(20, 60)]
    fit_many(nets, sparse.csr_matrix(rare), Y, rows=rows, verbose=0)
    fit_many(dense, rare, Y, rows=rows, verbose=0)
    assert list(map(state_of, nets)) == list(map(state_of, dense))


def test_those_with_the_same_rows_share_their_data(monkeypatch):
    shapes = []
    prepare = MLP._training_data
    monkeypatch.setattr(
        MLP,
        "_training_data",
        lambda self, X, *given: (shapes.append(X.shape), prepare(self, X, *given))[1],
    )
    first, second = np.arange(40), np.arange(50)
    fit_many([network() for _ in range(4)], X, Y, rows=[first, second, first, first], verbose=0)
    assert shapes == [(40, 6), (50, 6)]


# ----------------------------------------------------------------------------------------- threads


def test_networks_train_side_by_side():
    meeting = threading.Barrier(2, timeout=60)
    meet = watcher(on_train_begin=lambda self, logs: meeting.wait())
    both = [[meet], [watcher(on_train_begin=lambda self, logs: meeting.wait())]]
    fit_many([network(), network()], X, Y, callbacks=both, threads=2, verbose=0)
    assert not meeting.broken


def test_what_takes_longest_begins_first():
    order = []

    def note(number):
        return [watcher(on_train_begin=lambda self, logs: order.append(number))]

    networks = [network({"sizes": [6, width, 3]}) for width in (5, 50, 20)]
    callbacks = [note(number) for number in range(3)]
    fit_many(networks, X, Y, epochs=[1, 1, 100], callbacks=callbacks, threads=1, verbose=0)
    assert order == [2, 1, 0]


def test_each_network_has_one_thread_of_the_engine(monkeypatch):
    def refuse(network, rows):
        raise AssertionError("a network asked for threads")

    monkeypatch.setattr(_engine, "_threads", refuse)
    fit_many([network(), network()], X, Y, validation_split=0.25, verbose=0)


def test_zeros_are_looked_for_once(monkeypatch):
    calls = []
    kernels = backends.current()
    look = kernels.sparse_rows
    monkeypatch.setattr(
        kernels, "sparse_rows", lambda *given: (calls.append(given), look(*given))[1]
    )
    networks = [network({"seed": seed}) for seed in range(5)]
    fit_many(networks, X * (X > 1), Y, validation_split=0.25, verbose=0)
    assert [inputs.shape for inputs, *_ in calls] == [(60, 6)]


@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_the_callers_backend_trains(backend):
    seen = []
    callbacks = [[watcher(on_train_begin=lambda self, logs: seen.append(fastdl.get_backend()))]]
    with fastdl.use_backend(backend):
        net, alone = network({"dropout": 0.5}), network({"dropout": 0.5})
        fit_many([net], X, Y, epochs=2, callbacks=callbacks, verbose=0)
        alone.fit(X, Y, epochs=2, verbose=0)
    assert seen == [backend]
    assert state_of(net) == state_of(alone)


@pytest.mark.parametrize("backend", ["cython", "numba", "reference"])
def test_functions_of_ones_own_by_numba(backend):
    half = activations.Custom(lambda z: 0.5 * z, lambda z, a: 0.5, name="half")
    variants = [({"activation": half}, {}), ({"activation": half, "dropout": 0.5}, {}), ({}, {})]
    with fastdl.use_backend(backend):
        networks, alone = ([network(arguments) for arguments, _ in variants] for _ in range(2))
        fit_many(networks, X * (X > 1), Y, epochs=2, threads=2, verbose=0)
        for net, other in zip(networks, alone, strict=True):
            other.fit(X * (X > 1), Y, epochs=2, verbose=0)
            assert state_of(net) == state_of(other)


# ------------------------------------------------------------------------------------------ errors


class Shared(Callback):
    def __repr__(self):
        return "Shared()"


SHARED = Shared()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"networks": []}, ValueError, r"networks: \[\] holds none"),
        (
            {"networks": network()},
            TypeError,
            r"networks: MLP\(.*\) is not a sequence of fastdl.MLP",
        ),
        ({"networks": ["net"]}, TypeError, r"networks\[0\]: 'net' is not a fastdl.MLP"),
        ({"networks": [network()] * 2}, ValueError, r"networks: MLP\(.*\) is there twice"),
        ({"epochs": 0}, ValueError, r"epochs: 0 is not an integer >= 1"),
        ({"epochs": [1, 2]}, ValueError, r"epochs: 2 values for 3 networks"),
        ({"epochs": b"abc"}, TypeError, r"epochs: b'abc' is not an integer >= 1"),
        ({"epochs": np.array(0)}, ValueError, r"epochs: 0 is not an integer >= 1"),
        ({"epochs": [1, 2.0, 3]}, TypeError, r"epochs\[1\]: 2.0 is not an integer >= 1"),
        ({"batch_size": [8, 8, 0]}, ValueError, r"batch_size\[2\]: 0 is not an integer >= 1"),
        (
            {"optimizer": ["adam", None, "adma"]},
            ValueError,
            r"optimizer\[2\]: 'adma' is not one of sgd, rmsprop, adam, adamw",
        ),
        (
            {"early_stopping": [None, 3, None]},
            TypeError,
            r"early_stopping\[1\]: 3 is neither None nor a fastdl.EarlyStopping",
        ),
        ({"callbacks": [[], []]}, ValueError, r"callbacks: 2 values for 3 networks"),
        (
            {"callbacks": SHARED},
            TypeError,
            r"callbacks: Shared\(\) is not a sequence of callbacks, one network's own",
        ),
        ({"callbacks": [[], [3], []]}, TypeError, r"callbacks\[1\]: 3 is not a fastdl.Callback"),
        (
            {"callbacks": [[SHARED], [], [SHARED]]},
            ValueError,
            r"callbacks: Shared\(\) is there twice",
        ),
        ({"rows": 3}, TypeError, r"rows: 3 is not a sequence of arrays, one a network"),
        ({"rows": [[0], [1]]}, ValueError, r"rows: 2 values for 3 networks"),
        (
            {"rows": [[0], [60], [1]]},
            ValueError,
            r"rows\[1\]: 60 at index 0 is not an integer in \[0, 59\]",
        ),
        ({"rows": [[0], [1], []]}, ValueError, r"rows\[2\]: shape \(0,\) holds no data"),
        (
            {"rows": [[0]] * 3, "y": Y[:9]},
            ValueError,
            r"rows: X, y and sample_weight have \[60, 9\] rows to choose from",
        ),
        ({"verbose": 3}, ValueError, r"verbose: 3 is not an integer in \[0, 2\]"),
        ({"shuffle": 1}, TypeError, r"shuffle: 1 is not True or False"),
        ({"threads": 0}, ValueError, r"threads: 0 is not an integer >= 1"),
        ({"X": X[:, :5]}, ValueError, r"X: shape \(60, 5\) is not rows of 6 features.*"),
        ({"y": Y[:9]}, ValueError, r"y: shape \(9,\) is neither 60 labels.*"),
        ({"validation_split": 1.0}, ValueError, r"validation_split: 1.0 is not a finite.*"),
        (
            {"networks": [network(), network({"sizes": [5, 3]})]},
            ValueError,
            r"networks\[1\]: X: shape \(60, 6\) is not rows of 5 features.*",
        ),
    ],
)
def test_errors_come_before_any_change(arguments, error, message):
    networks = [network({"seed": seed}) for seed in range(3)]
    before = [state_of(net) for net in networks]
    with pytest.raises(error, match=f"^{message}$"):
        fit_many(**{"networks": networks, "X": X, "y": Y, "verbose": 0} | arguments)
    assert [state_of(net) for net in networks] == before


def test_an_error_in_one_ends_all():
    def fail(self, epoch, logs):
        raise RuntimeError("enough")

    networks = [network(), network()]
    before = state_of(networks[0])
    callbacks = [[], [watcher(on_epoch_end=fail)]]
    # The first, which takes longest, is begun with; without the error it would take hours.
    with pytest.raises(RuntimeError, match=r"^enough$"):
        fit_many(networks, X, Y, epochs=[10**8, 5], callbacks=callbacks, threads=2, verbose=0)
    assert networks[1].iterations == 2
    assert networks[0].iterations == (networks[0]._state.iterations if networks[0]._state else 0)
    assert networks[0].iterations or state_of(networks[0]) == before


def test_networks_not_begun_stay_as_they_were():
    def fail(self, logs):
        raise RuntimeError("enough")

    networks = [network(), network()]
    before = state_of(networks[1])
    with pytest.raises(RuntimeError, match=r"^enough$"):
        fit_many(
            networks,
            X,
            Y,
            epochs=[2, 1],
            callbacks=[[watcher(on_train_begin=fail)], []],
            threads=1,
            verbose=0,
        )
    assert state_of(networks[1]) == before


@pytest.mark.parametrize("backend", ["cython", "reference"])
def test_ctrl_c_ends_all_after_a_step(backend):
    def networks():
        return [network({"seed": seed, "dropout": 0.5}) for seed in range(3)]

    def press(self, batch, logs):
        os.kill(os.getpid(), signal.SIGINT)

    threads = threading.active_count()
    stopped = networks()
    meeting = threading.Barrier(2, timeout=60)
    begin = {"on_train_begin": lambda self, logs: meeting.wait()}
    callbacks = [[watcher(**begin, on_train_progress=press)], [watcher(**begin)], []]
    fit = {"epochs": 10**7, "batch_size": 60, "callbacks": callbacks, "threads": 2, "verbose": 0}
    with fastdl.use_backend(backend), pytest.raises(KeyboardInterrupt):
        fit_many(stopped, X, Y, **fit)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert threading.active_count() == threads
    assert stopped[2].optimizer is None  # not begun
    with fastdl.use_backend(backend):
        for net, again in zip(stopped[:2], networks(), strict=False):
            again.fit(X, Y, epochs=net.iterations, batch_size=60, verbose=0)
            assert state_of(net) == state_of(again)


# ---------------------------------------------------------------------------------------- progress


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def test_one_bar_for_all(capsys):
    fit_many([network(), network()], X, Y, epochs=[2, 3], batch_size=20)
    printed = capsys.readouterr().out
    assert re.fullmatch(r"15/15 ━{20} \d+s \d+[um]s/step - networks: 2\n", printed)


def test_silence(capsys):
    fit_many([network()], X, Y, verbose=0)
    assert capsys.readouterr().out == ""


def test_a_terminal_sees_the_bar_grow(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr("fastdl._many._PROGRESS_INTERVAL", 0)
    drawn = threading.Event()

    def flush():
        if "networks: 1" in terminal.getvalue():
            drawn.set()

    monkeypatch.setattr(terminal, "flush", flush)
    # The second network begins once the first one's end has been drawn.
    wait = watcher(on_train_begin=lambda self, logs: drawn.wait(60))
    fit_many([network(), network()], X, Y, epochs=[4, 2], callbacks=[[], [wait]], threads=1)
    lines = terminal.getvalue().split("\r")[1:]
    assert lines[-1].startswith("12/12 ")
    assert any(line.startswith(" 8/12 ") and "networks: 1" in line for line in lines[:-1])


def test_rows_that_are_not_in_memory(tmp_path):
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    mapped_ones, networks = ([MLP([6, 4, 3], seed=seed) for seed in (0, 1)] for _ in range(2))
    fit_many(mapped_ones, mapped, Y, validation_data=(mapped, Y), verbose=0)
    fit_many(networks, X, Y, validation_data=(X, Y), verbose=0)
    assert list(map(state_of, mapped_ones)) == list(map(state_of, networks))


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("X", {"X": Blocks(X, Y), "y": None}),
        ("X", {"X": "rows.npy", "rows": [[0]]}),
        ("X", {"X": lambda: [(X, Y)], "y": None}),
        ("validation_data", {"validation_data": Blocks(X, Y)}),
        ("validation_data[0]", {"validation_data": ("rows.npy", Y)}),
    ],
)
def test_blocks_train_one_network(name, changed):
    with pytest.raises(TypeError, match=f"^{re.escape(name)}: rows that are read block by block"):
        fit_many([network()], **{"X": X, "y": Y} | changed)
