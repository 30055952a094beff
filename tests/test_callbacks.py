"""Callbacks: when they run, what they decide beside Keras's own, what the progress bar prints."""

import io
import re
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastdl import MLP, Callback, EarlyStopping, History, _engine, callbacks
from fastdl.callbacks import LearningRateScheduler, ProgressBar, ReduceLROnPlateau, StopAt
from fastdl.optimizers import SGD

X = np.random.default_rng(0).normal(size=(20, 4))
Y = np.arange(20) % 3

HOOKS = [
    "on_train_begin",
    "on_train_end",
    "on_epoch_begin",
    "on_epoch_end",
    "on_train_batch_begin",
    "on_train_batch_end",
]


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras")


def recorder(base, hooks=HOOKS):
    """A callback, Keras's or ours, that notes its calls and the names in the logs."""

    class Recorder(base):
        pass

    calls = []
    for hook in hooks:

        def note(self, *arguments, hook=hook, **keywords):
            *number, logs = (*arguments, *keywords.values())
            calls.append((hook, number, sorted(logs or {})))

        setattr(Recorder, hook, note)
    return Recorder(), calls


# -------------------------------------------------------------------------------------------- hooks


@pytest.mark.parametrize("validation", [None, (X, Y)])
def test_hooks_are_called_as_in_keras(keras, validation):
    settings = {"epochs": 3, "initial_epoch": 1, "batch_size": 8, "verbose": 0}
    ours, calls = recorder(Callback)
    MLP([4, 3]).fit(X, Y, callbacks=[ours], validation_data=validation, **settings)
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    theirs, expected = recorder(keras.callbacks.Callback)
    model.fit(X, Y, callbacks=[theirs], validation_data=validation, **settings)
    # Keras says which step begins, and how many epochs there are, without logs as well.
    assert calls == expected


def test_hooks_of_steps_are_called_only_if_overridden():
    ours, calls = recorder(Callback, ["on_train_batch_begin"])
    net = MLP([4, 3])
    net.fit(X, Y, batch_size=8, callbacks=[ours], verbose=0)
    assert calls == [("on_train_batch_begin", [step], []) for step in range(3)]
    plain = callbacks.CallbackList([Callback(), History()], net, {})
    assert not any(plain.overrides(hook) for hook in HOOKS[4:])
    late = Callback()
    late.on_train_batch_end = lambda batch, logs=None: None
    assert callbacks.CallbackList([late], net, {}).overrides("on_train_batch_end")


def test_hooks_of_steps_see_running_means():
    class Watcher(Callback):
        def __init__(self):
            self.logs = []

        def on_train_batch_end(self, batch, logs=None):
            self.logs.append(logs)

    watcher, net = Watcher(), MLP([4, 3], seed=0)
    before = net.evaluate(X[:8], Y[:8])
    settings = {"batch_size": 8, "shuffle": False, "verbose": 0}
    history = net.fit(X, Y, callbacks=[watcher], **settings).history
    assert watcher.logs[0] == pytest.approx(before)
    assert watcher.logs[-1] == {name: values[0] for name, values in history.items()}


def test_callbacks_know_the_network_and_the_settings():
    class Watcher(Callback):
        def on_train_begin(self, logs=None):
            self.seen = self.model, self.params

    watcher, net = Watcher(), MLP([4, 3])
    net.fit(X, Y, epochs=2, batch_size=8, callbacks=[watcher], verbose=0)
    assert watcher.seen == (net, {"epochs": 2, "steps": 3, "verbose": 0})


def test_stopping_in_the_middle_of_an_epoch():
    class Stop(Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 1

    net = MLP([4, 3])
    history = net.fit(X, Y, epochs=5, batch_size=4, callbacks=[Stop()], verbose=0)
    assert net.iterations == 2
    assert history.epoch == [0]
    net.fit(X, Y, epochs=2, batch_size=4, verbose=0)
    assert net.iterations == 12


def test_what_callbacks_put_in_the_logs_is_in_the_history():
    class Extra(Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["epoch squared"] = epoch**2

    history = MLP([4, 3]).fit(X, Y, epochs=4, callbacks=[Extra()], verbose=0)
    assert history.history["epoch squared"] == [0, 1, 4, 9]


@pytest.mark.parametrize(("tick", "expected"), [(0.25, [0, 1, 2, 3]), (0.125, [1, 3]), (0.01, [])])
def test_progress_is_reported_a_few_times_a_second(tick, expected, monkeypatch):
    class Watcher(Callback):
        def __init__(self):
            self.steps = []

        def on_train_progress(self, batch, logs=None):
            assert sorted(logs) == ["accuracy", "loss"]
            self.steps.append(batch)

    # A clock that advances whenever it is looked at, once in a step.
    ticks = iter(np.arange(0, 100, tick))
    monkeypatch.setattr("fastdl.network.time.perf_counter", lambda: float(next(ticks)))
    monkeypatch.setattr("fastdl.network._LISTENING_INTERVAL", 0)
    watcher, net = Watcher(), MLP([4, 3])
    net.fit(X, Y, batch_size=5, callbacks=[watcher], verbose=0)
    assert watcher.steps == expected
    assert net.iterations == 4


@pytest.mark.parametrize(("stop", "expected"), [(None, [2, 1, 0, 3, 2, 1]), (6, [2, 1])])
def test_progress_in_epochs_that_run_through(stop, expected, monkeypatch):
    steps = []

    class Watcher(Callback):
        def on_train_progress(self, batch, logs=None):
            steps.append(batch)
            self.model.stop_training = self.model.iterations == stop

    ticks = iter(np.arange(0, 100, 0.25))
    monkeypatch.setattr("fastdl.network.time.perf_counter", lambda: float(next(ticks)))
    monkeypatch.setattr(_engine, "_STEPS_AHEAD", 3)
    net = MLP([4, 3])
    history = net.fit(X, Y, batch_size=5, epochs=5, callbacks=[Watcher()], verbose=0)
    assert steps[:6] == expected
    assert net.iterations == (stop or 20)
    assert history.epoch == list(range(2 if stop else 5))


# --------------------------------------------------------------------------- decisions about epochs


class Probe:
    """Stands for the model in training: counts epochs as weights."""

    def __init__(self):
        self.stop_training = False
        self.weights = None
        self.metrics = ()

    def get_weights(self):
        return [np.array(self.epoch)]

    def set_weights(self, weights):
        self.restored = int(weights[0])


def run_epochs(callback, metric, values):
    """The epochs run and restored when a callback sees these values."""
    probe = Probe()
    probe.restored = None
    callback.set_model(probe)
    callback.on_train_begin()
    for probe.epoch, value in enumerate(values):
        callback.on_epoch_end(probe.epoch, {metric: value})
        if probe.stop_training:
            break
    callback.on_train_end()
    return probe.epoch, callback.stopped_epoch, callback.best_epoch, probe.restored


# Numbers that float32, in which Keras compares, holds exactly.
metrics = st.lists(
    st.one_of(
        st.integers(-20, 20).map(lambda n: n / 8),
        st.sampled_from([float("nan"), float("inf"), -float("inf")]),
    ),
    min_size=1,
    max_size=12,
)


@given(
    values=metrics,
    mode=st.sampled_from(["min", "max"]),
    min_delta=st.sampled_from([0, 0.125, 0.5]),
    patience=st.integers(0, 4),
    baseline=st.sampled_from([None, 0.0, 1.5]),
    restore_best_weights=st.booleans(),
    start_from_epoch=st.integers(0, 3),
)
def test_early_stopping_decides_as_keras_does(keras, values, **settings):
    ours = EarlyStopping("val_loss", **settings)
    theirs = keras.callbacks.EarlyStopping("val_loss", **settings)
    assert run_epochs(ours, "val_loss", values) == run_epochs(theirs, "val_loss", values)


class ProbeWithRate(Probe):
    """A model whose learning rate both libraries' callbacks can change."""

    def __init__(self):
        super().__init__()
        self.optimizer = self
        self.learning_rate = 1.0


@given(
    values=metrics,
    mode=st.sampled_from(["min", "max"]),
    min_delta=st.sampled_from([0, 0.125, 0.5]),
    patience=st.integers(0, 3),
    cooldown=st.integers(0, 3),
    min_lr=st.sampled_from([0.0, 0.25]),
)
def test_reduce_lr_on_plateau_decides_as_keras_does(keras, values, **settings):
    rates = []
    for kind in ReduceLROnPlateau, keras.callbacks.ReduceLROnPlateau:
        callback, probe = kind("val_loss", factor=0.5, **settings), ProbeWithRate()
        callback.set_model(probe)
        callback.on_train_begin()
        rates.append([])
        for epoch, value in enumerate(values):
            logs = {"val_loss": value}
            callback.on_epoch_end(epoch, logs)
            rates[-1].append((logs["learning_rate"], probe.learning_rate))
    assert rates[0] == rates[1]


def test_early_stopping_restores_the_best_weights():
    class Snapshots(Callback):
        def __init__(self):
            self.weights = []

        def on_epoch_end(self, epoch, logs=None):
            self.weights.append(self.model.get_weights())

    # A learning rate that makes the loss rise at some time.
    net, snapshots = MLP([4, 16, 3], seed=0), Snapshots()
    stopping = EarlyStopping("val_loss", patience=3, restore_best_weights=True)
    history = net.fit(
        X,
        Y,
        epochs=200,
        optimizer=SGD(2.0),
        validation_data=(X[::-1], Y),
        callbacks=[snapshots, stopping],
        verbose=0,
    )
    losses = history.history["val_loss"]
    best = int(np.argmin(losses))
    assert stopping.best_epoch == best
    assert stopping.best == losses[best]
    assert len(losses) == best + 4 == stopping.stopped_epoch + 1 < 200
    for array, expected in zip(net.weights, snapshots.weights[best], strict=True):
        np.testing.assert_array_equal(array, expected)


def test_best_weights_return_also_when_training_simply_ends():
    net = MLP([4, 16, 3], seed=0)
    stopping = EarlyStopping("loss", mode="max", patience=100, restore_best_weights=True)
    net.fit(X, Y, epochs=1, verbose=0)
    first = net.copy()
    net.fit(X, Y, epochs=5, callbacks=[stopping], verbose=0)
    again = first.fit(X, Y, epochs=1, verbose=0)
    assert stopping.best == again.history["loss"][0]
    np.testing.assert_array_equal(net.weights[0], first.weights[0])


@given(
    patience=st.integers(0, 12),
    start=st.integers(0, 8),
    min_delta=st.sampled_from([0.0, 0.02, 1.0]),
    monitor=st.sampled_from(["loss", "accuracy"]),
)
def test_early_stopping_on_what_it_trains_with_may_look_late(patience, start, min_delta, monitor):
    def fit(*others):
        stopping = EarlyStopping(monitor, min_delta, patience, start_from_epoch=start)
        net = MLP([4, 3], seed=0)
        history = net.fit(X, Y, epochs=40, batch_size=8, callbacks=[stopping, *others], verbose=0)
        found = stopping.stopped_epoch, stopping.best, stopping.best_epoch, stopping.wait
        return found, history.history, net.get_weights()

    calls = []
    followed = Callback()
    followed.on_epoch_end = lambda epoch, logs=None: calls.append(epoch)
    expected, history, weights = fit(followed)
    assert calls == list(range(len(history["loss"])))
    found, unfollowed, same_weights = fit()
    assert found == expected
    assert unfollowed == history
    assert all((a == b).all() for a, b in zip(weights, same_weights, strict=True))


def test_how_far_epochs_may_run_ahead():
    def ahead(*given):
        return callbacks.CallbackList([*given, History()], MLP([4, 3]), {}).epochs_ahead()

    stopping = EarlyStopping("loss", patience=5)
    assert ahead() == float("inf")
    assert ahead(stopping) == 5
    stopping.wait = 3
    assert ahead(stopping, EarlyStopping("loss", patience=9)) == 2
    stopping.wait = 5
    assert ahead(stopping) == 1
    assert ahead(EarlyStopping("loss", patience=5, restore_best_weights=True)) == 1
    assert ahead(type("Own", (EarlyStopping,), {})("loss", patience=5)) == 1
    assert ahead(stopping, ReduceLROnPlateau("loss")) == 1


def test_early_stopping_tells_what_it_does(capsys):
    stopping = EarlyStopping("loss", mode="max", verbose=1, restore_best_weights=True)
    MLP([4, 3]).fit(X, Y, epochs=9, callbacks=[stopping], verbose=0)
    assert capsys.readouterr().out == (
        "Epoch 2: early stopping\nRestoring the weights of the best epoch: 1\n"
    )


@pytest.mark.parametrize(("monitor", "sign"), [("val_loss", 1), ("loss", 1), ("accuracy", -1)])
def test_direction_by_name(monitor, sign):
    stopping = EarlyStopping(monitor, patience=1)
    falling = [sign * value for value in (3.0, 2.0, 1.0)]
    assert run_epochs(stopping, monitor, falling)[0] == 2
    assert run_epochs(stopping, monitor, falling[::-1])[0] == 1


@pytest.mark.parametrize(
    ("monitor", "values", "ran"),
    [
        ("val_accuracy", [0.8, 0.9, 0.91, 0.95], 3),
        ("val_loss", [1.2, 0.9, 0.89, 0.5], 3),
        ("val_loss", [0.9, 0.9, float("nan"), 0.9], 4),
    ],
)
def test_stop_at_a_target_wants_more_than_it(monitor, values, ran):
    class Replay(Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs[monitor] = values[epoch]

    stop = StopAt(0.9, monitor)
    history = MLP([4, 3]).fit(X, Y, epochs=4, callbacks=[Replay(), stop], verbose=0)
    assert len(history.epoch) == ran
    assert stop.reached == (ran < 4)


def test_stop_at_forgets_the_training_before():
    stop = StopAt(100, "loss")
    MLP([4, 3]).fit(X, Y, callbacks=[stop], verbose=0)
    assert stop.reached
    stop.target = 0
    MLP([4, 3]).fit(X, Y, callbacks=[stop], verbose=0)
    assert not stop.reached


@pytest.mark.parametrize("kind", [EarlyStopping, ReduceLROnPlateau, lambda: StopAt(1, "val_loss")])
def test_a_missing_metric_is_warned_of(kind):
    callback = kind()
    with pytest.warns(UserWarning, match=f"{type(callback).__name__}: there is no 'val_loss' amo"):
        history = MLP([4, 3]).fit(X, Y, epochs=3, callbacks=[callback], verbose=0)
    assert len(history.epoch) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EarlyStopping("f1"), "mode: 'auto' can't tell whether 'f1'"),
        (lambda: EarlyStopping(mode="least"), "mode: 'least' is not one of"),
        (lambda: EarlyStopping(patience=-1), "patience: -1 is not"),
        (lambda: EarlyStopping(min_delta=float("nan")), "min_delta: nan is not"),
        (lambda: EarlyStopping(start_from_epoch=-1), "start_from_epoch: -1 is not"),
        (lambda: StopAt(float("nan")), "target: nan is not"),
        (lambda: StopAt(1, "f1"), "mode: 'auto' can't tell whether 'f1'"),
        (lambda: ReduceLROnPlateau(factor=1), "factor: 1 is not"),
        (lambda: ReduceLROnPlateau(cooldown=-1), "cooldown: -1 is not"),
        (lambda: ReduceLROnPlateau(min_lr=-1), "min_lr: -1 is not"),
    ],
)
def test_settings_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_learning_rate_scheduler(capsys):
    scheduler = LearningRateScheduler(lambda epoch, rate: rate / 2 if epoch else 0.5, verbose=1)
    net, by_hand = MLP([4, 3], seed=0), MLP([4, 3], seed=0)
    history = net.fit(X, Y, epochs=3, optimizer="sgd", callbacks=[scheduler], verbose=0)
    for rate in (0.5, 0.25, 0.125):
        by_hand.fit(X, Y, optimizer=SGD(rate), verbose=0)
    assert capsys.readouterr().out.split("\n")[1::2] == [
        "Epoch 1: learning rate 0.5",
        "Epoch 2: learning rate 0.25",
        "Epoch 3: learning rate 0.125",
    ]
    assert history.history["learning_rate"] == [0.5, 0.25, 0.125]
    np.testing.assert_array_equal(net.weights[0], by_hand.weights[0])
    with pytest.raises(TypeError, match=r"schedule: 0\.1 can't be called"):
        LearningRateScheduler(0.1)


def test_reduce_lr_on_plateau_trains_slower(capsys):
    reduce = ReduceLROnPlateau("loss", mode="max", factor=0.5, patience=1, verbose=1)
    net = MLP([4, 3], seed=0)
    history = net.fit(X, Y, epochs=3, optimizer=SGD(0.5), callbacks=[reduce], verbose=0)
    assert history.history["learning_rate"] == [0.5, 0.5, 0.25]
    assert net.learning_rate == 0.125
    assert "Epoch 2: learning rate 0.25\n" in capsys.readouterr().out


# ------------------------------------------------------------------------------------- progress bar


def fit_printing(stream, monkeypatch, **settings):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        MLP([4, 3], seed=0).fit(X, Y, batch_size=5, **settings)


def test_progress_bar(capsys):
    MLP([4, 3], seed=0).fit(X, Y, epochs=2, batch_size=5, validation_data=(X, Y))
    first, line, second, _ = capsys.readouterr().out.splitlines()
    assert (first, second) == ("Epoch 1/2", "Epoch 2/2")
    number = r"\d+\.\d{4}(e[+-]\d\d)?"
    names = ("accuracy", "loss", "val_accuracy", "val_loss")
    pattern = r"4/4 ━{20} 0s \d+(us|ms)/step" + "".join(f" - {name}: {number}" for name in names)
    assert re.fullmatch(pattern, line)


def test_a_line_for_each_epoch(capsys):
    MLP([4, 3], seed=0).fit(X, Y, batch_size=5, verbose=2)
    pattern = r"4/4 - 0s - \d+(us|ms)/step - accuracy: \S+ - loss: \S+\n"
    assert re.fullmatch(pattern, capsys.readouterr().out)


def test_silence(capsys):
    MLP([4, 3]).fit(X, Y, verbose=0)
    assert capsys.readouterr().out == ""


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def test_a_terminal_sees_the_line_grow(monkeypatch):
    ticks = iter(np.arange(0, 1000, 0.25))
    monkeypatch.setattr("fastdl.network.time.perf_counter", lambda: float(next(ticks)))
    monkeypatch.setattr("fastdl.network._LISTENING_INTERVAL", 0)
    terminal = Terminal()
    fit_printing(terminal, monkeypatch)
    drawn = terminal.getvalue().split("\r")[1:]
    assert [line.split()[0] for line in drawn] == ["1/4", "2/4", "3/4", "4/4", "4/4"]
    assert drawn[-1].endswith("\n")
    assert "━━━━━─" in drawn[0]


@pytest.mark.parametrize("verbose", [1, 2])
@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_epochs_that_ran_through_are_printed_alike(stream, verbose, monkeypatch):
    monkeypatch.setattr("fastdl.network.time.perf_counter", lambda: 0.0)
    streams = []
    for callback in (Callback(), recorder(Callback, ["on_epoch_end"])[0]):
        streams.append(stream())
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", streams[-1])
            net = MLP([4, 3], seed=0)
            net.fit(X, Y, batch_size=5, epochs=12, callbacks=[callback], verbose=verbose)
    through, one_by_one = (each.getvalue() for each in streams)
    assert through == one_by_one
    assert through.count("Epoch") == through.count("loss") == 12


def test_epochs_that_ran_through_share_their_time(monkeypatch, capsys):
    clock = iter([0.0, 5.0, 9.0])
    monkeypatch.setattr("fastdl.network.time.perf_counter", lambda: next(clock))
    bar = ProgressBar()
    bar.set_params({"epochs": 3, "steps": 2, "verbose": 1})
    bar.on_epoch_begin(0)
    bar._pass_epochs(0, {"loss": [1.0, 2.0]}, begun=1)  # two and a half epochs in 5 seconds
    bar.on_epoch_end(2, {"loss": 3.0})
    ends = [line.split("━ ")[1] for line in capsys.readouterr().out.splitlines()[1::2]]
    assert ends == ["2s 1s/step - loss: 1.0000", "2s 1s/step - loss: 2.0000",
                    "5s 2s/step - loss: 3.0000"]  # fmt: skip


def test_a_longer_line_is_covered(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    bar = ProgressBar()
    bar.set_params({"epochs": 1, "steps": 2, "verbose": 1})
    bar.on_epoch_begin(0)
    bar.on_train_progress(0, {"loss": 1.0, "something": 2.0})
    bar.on_epoch_end(0, {"loss": 1.0})
    _, long, short = terminal.getvalue().split("\r")
    assert len(short.rstrip("\n")) == len(long)


def test_streams_without_the_bars_character(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    fit_printing(stream, monkeypatch)
    stream.seek(0)
    assert stream.read().startswith("4/4 ????????????????????")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(3.0, "3s 750ms/step"), (200.0, "3:20 50s/step"), (7300.0, "2:01:40 1825s/step")],
)
def test_times(seconds, expected):
    assert ProgressBar.line(4, 4, seconds, {}) == f"4/4 {'━' * 20} {expected}"


def test_whole_numbers_are_printed_as_such():
    assert ProgressBar.line(1, 1, 0, {"networks": 12}, bar=False).endswith("- networks: 12")


def test_small_metrics():
    assert ProgressBar.line(1, 1, 0, {"loss": 1e-5}, bar=False) == (
        "1/1 - 0s - 0us/step - loss: 1.0000e-05"
    )


def test_nothing_is_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MLP([4, 3]).fit(X, Y, validation_split=0.5, callbacks=[EarlyStopping()], verbose=0)
