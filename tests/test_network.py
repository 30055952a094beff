"""`MLP`: construction, training, scores, parameters, and what is refused."""

import copy
import pickle
import signal
import threading

import numpy as np
import pytest

import fastdl
from fastdl import MLP, _engine, backends, reference
from fastdl.activations import ELU, LeakyReLU
from fastdl.callbacks import Callback
from fastdl.losses import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    Huber,
    MeanSquaredError,
    Poisson,
)
from fastdl.optimizers import SGD, Adam

pytestmark = pytest.mark.each_build

BACKENDS = ["reference", "cython", "numba"]


def blobs(rows=200, classes=3, features=4):
    """Rows around one centre for each class, and their labels."""
    generator = np.random.default_rng(0)
    labels = np.arange(rows) % classes
    centres = 3 * generator.normal(size=(classes, features))
    return centres[labels] + generator.normal(size=(rows, features)), labels


def assert_same(one, other, **tolerance):
    for left, right in zip(one.weights, other.weights, strict=True):
        np.testing.assert_allclose(left, right, **({"rtol": 0} | tolerance))


def state(net):
    """What a failing call must leave as it was."""
    return [*net.get_weights(), net.iterations, net.optimizer, net._network.epochs]


# ------------------------------------------------------------------------------------- construction


@pytest.mark.parametrize(
    ("sizes", "arguments", "loss", "output"),
    [
        ([3, 5], {}, CategoricalCrossentropy(), "softmax"),
        ([3, 1], {}, BinaryCrossentropy(), "sigmoid"),
        ([3, 1], {"loss": "mse"}, MeanSquaredError(), "linear"),
        ([3, 5], {"loss": Huber(2.0)}, Huber(2.0), "linear"),
        ([3, 5], {"loss": "poisson"}, Poisson(), "linear"),
        ([3, 5], {"loss": "bce"}, BinaryCrossentropy(), "sigmoid"),
        ([3, 5], {"output_activation": "linear"}, CategoricalCrossentropy(), "linear"),
        ([3, 1], {"loss": "mse", "output_activation": "tanh"}, MeanSquaredError(), "tanh"),
    ],
)
def test_loss_and_last_activation(sizes, arguments, loss, output):
    net = MLP(sizes, **arguments)
    assert net.loss == loss
    assert net.activations[-1].name == output


def test_settings_per_layer():
    net = MLP([4, 5, 6, 2], activation=["elu", LeakyReLU(0.1)], dropout=(0.25, 0))
    assert net.activations[:-1] == (ELU(1.0), LeakyReLU(0.1))
    assert net.dropout == (0.25, 0.0)
    assert MLP([4, 5, 6, 2], dropout=0.5).dropout == (0.5, 0.5)


@pytest.mark.parametrize(
    ("initializer", "limit"),
    [("glorot_uniform", (6 / 700) ** 0.5), ("he_uniform", 0.1), ("lecun_uniform", 200**-0.5)],
)
def test_first_weights(initializer, limit):
    weights, bias, _, _ = MLP([600, 100, 2], seed=1, kernel_initializer=initializer).weights
    assert not bias.any()
    assert np.abs(weights).max() == pytest.approx(limit, rel=1e-3)
    assert np.abs(weights).max() <= limit
    assert weights.mean() == pytest.approx(0, abs=limit / 100)
    assert weights.std() == pytest.approx(limit / 3**0.5, rel=1e-2)


@pytest.mark.parametrize("dtype", ["float32", "float64", np.float32, np.dtype("float64")])
def test_dtype(dtype):
    net = MLP([2, 3, 2], dtype=dtype)
    assert net.dtype == np.dtype(dtype)
    assert {array.dtype for array in net.weights} == {np.dtype(dtype)}
    assert net.predict(np.zeros((2, 2))).dtype == np.dtype(dtype)


def test_seed():
    net = MLP([4, 5, 2])
    assert 0 <= net.seed < 2**64
    assert MLP([4, 5, 2]).seed != net.seed
    assert_same(MLP([4, 5, 2], seed=net.seed), net)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": [4]}, r"sizes: \(4,\) has no layer"),
        ({"sizes": [4, 0]}, r"sizes: 0 is not an integer in \[1, "),
        ({"activation": "step"}, "activation: 'step' is not one of"),
        ({"sizes": [4, 2], "activation": "step"}, "activation: 'step' is not one of"),
        ({"activation": ["relu", "relu"]}, "activation: 2 values for 1 hidden layers"),
        ({"dropout": 1.5}, "dropout: 1.5 is not"),
        ({"dropout": [0.1, 0.2]}, "dropout: 2 values for 1 hidden layers"),
        ({"loss": "hinge"}, "loss: 'hinge' is not one of"),
        ({"output_activation": "tanh"}, "output_activation: 'tanh' gives neither"),
        ({"sizes": [4, 1], "loss": "categorical_crossentropy"}, "needs a last layer of 2 units"),
        ({"l1": -1}, "l1: -1 is not"),
        ({"l2": float("nan")}, "l2: nan is not"),
        ({"dtype": "float16"}, "dtype: 'float16' is not one of float32, float64"),
        ({"seed": -1}, "seed: -1 is not"),
        ({"kernel_initializer": "ones"}, "kernel_initializer: 'ones' is not one of"),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLP(**({"sizes": [4, 3, 2]} | arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": 4}, "sizes: 4 is not a sequence"),
        ({"sizes": "42"}, "sizes: '42' is not a sequence"),
        ({"sizes": {4, 2}}, "sizes: {.*} is not a sequence"),
        ({"sizes": np.array(4)}, r"sizes: array\(4\) is not a sequence"),
        ({"sizes": [4, 2**62]}, f"sizes: {2**62} is not an integer in"),
        ({"activation": np.array(4)}, r"activation: array\(4\) is not"),
        ({"sizes": [4, 2.0]}, "sizes: 2.0 is not an integer"),
        ({"activation": None}, "activation: None is not"),
        ({"dropout": "half"}, "dropout: 'half' is not"),
        ({"dtype": "half a float"}, "dtype: 'half a float' is not"),
        ({"seed": 1.5}, "seed: 1.5 is not"),
    ],
)
def test_bad_types_of_settings(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        MLP(**({"sizes": [4, 3, 2]} | arguments))


def test_settings_can_not_be_changed_unnoticed():
    net = MLP([4, 3, 2], dropout=0.5, l1=0.1, l2=0.2)
    for name in ("sizes", "dropout", "activations", "loss", "l1", "l2", "seed", "weights"):
        with pytest.raises(AttributeError):
            setattr(net, name, getattr(net, name))


# ----------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("backend", BACKENDS)
def test_learns(backend):
    X, y = blobs()
    with fastdl.use_backend(backend):
        net = MLP([4, 16, 16, 3], dropout=0.1, seed=0)
        history = net.fit(X, y, epochs=20, optimizer=Adam(0.01), verbose=0)
    assert history.history["accuracy"][-1] > 0.95
    assert net.evaluate(X, y)["accuracy"] > 0.95


@pytest.mark.parametrize("backend", BACKENDS[1:])
@pytest.mark.parametrize(
    ("activation", "loss", "units"),
    [
        (["relu", "tanh"], "categorical_crossentropy", 3),
        (["gelu", "silu"], "mse", 2),
        (["sigmoid", "elu"], "binary_crossentropy", 1),
        (["leaky_relu", "softplus"], "huber", 1),
        (["relu", "tanh"], "poisson", 1),
    ],
)
def test_backends_train_alike(backend, activation, loss, units):
    X, y = blobs(50, max(units, 2))
    if loss == "mse":
        y = X[:, :2]
    nets, histories = [], []
    for name in ("reference", backend):
        with fastdl.use_backend(name):
            net = MLP(
                [4, 9, 7, units],
                activation=activation,
                loss=loss,
                dropout=[0.25, 0.5],
                l2=1e-3,
                dtype="float64",
                seed=3,
            )
            settings = {"epochs": 3, "batch_size": 16, "verbose": 0}
            histories.append(net.fit(X, y, validation_split=0.2, **settings).history)
            nets.append(net)
    assert_same(*nets, rtol=1e-8, atol=1e-11)
    for metric, values in histories[0].items():
        np.testing.assert_allclose(values, histories[1][metric], rtol=1e-8, err_msg=metric)


def test_the_seed_determines_everything():
    X, y = blobs()
    nets = [MLP([4, 8, 3], dropout=0.5, seed=seed) for seed in (5, 5, 6)]
    for net in nets:
        net.fit(X, y, epochs=2, verbose=0)
    assert_same(nets[0], nets[1])
    assert not np.array_equal(nets[0].weights[0], nets[2].weights[0])


def test_progress_and_batch_hooks_do_not_change_the_numbers():
    class Watcher(Callback):
        def on_train_batch_end(self, batch, logs=None):
            pass

    X, y = blobs()
    histories = []
    for callbacks, verbose in ([], 0), ([], 1), ([Watcher()], 0):
        net = MLP([4, 8, 3], dropout=0.5, seed=5)
        histories.append(net.fit(X, y, epochs=2, callbacks=callbacks, verbose=verbose).history)
    assert histories[0] == histories[1] == histories[2]


def test_a_second_fit_goes_on():
    X, y = blobs()
    whole, parts = (MLP([4, 8, 3], dropout=0.5, seed=5) for _ in range(2))
    history = whole.fit(X, y, epochs=4, verbose=0).history
    first = parts.fit(X, y, epochs=2, optimizer="adam", verbose=0)
    second = parts.fit(X, y, epochs=4, initial_epoch=2, optimizer="adam", verbose=0)
    assert_same(whole, parts)
    assert (first.epoch, second.epoch) == ([0, 1], [2, 3])
    for metric in history:
        assert history[metric] == first.history[metric] + second.history[metric]


def test_history():
    X, y = blobs(60)
    net = MLP([4, 8, 3], seed=0)
    history = net.fit(X, y, epochs=3, validation_data=(X, y), verbose=0)
    assert list(history.history) == ["accuracy", "loss", "val_accuracy", "val_loss"]
    assert {len(values) for values in history.history.values()} == {3}
    regression = MLP([4, 1], loss="mse").fit(X, X[:, 0], validation_split=0.5, verbose=0)
    assert list(regression.history) == ["loss", "val_loss"]


def test_images_are_rows():
    generator = np.random.default_rng(0)
    images, y = generator.uniform(size=(30, 6, 5)), generator.integers(0, 4, 30)
    flat, shaped = (MLP([30, 8, 4], seed=0) for _ in range(2))
    flat.fit(images.reshape(30, 30), y, verbose=0)
    shaped.fit(images, y, verbose=0)
    assert_same(flat, shaped)
    np.testing.assert_array_equal(flat.predict(images[:, ::-1]), shaped.predict(images[:, ::-1]))


def test_one_hot_rows_are_labels():
    X, y = blobs()
    integers, rows = (MLP([4, 8, 3], seed=0, dtype="float64") for _ in range(2))
    first = integers.fit(X, y, epochs=2, verbose=0).history
    second = rows.fit(X, np.eye(3)[y], epochs=2, verbose=0).history
    assert_same(integers, rows, atol=1e-12)
    assert first["accuracy"] == second["accuracy"]
    assert integers.evaluate(X, y)["loss"] == pytest.approx(rows.evaluate(X, np.eye(3)[y])["loss"])


def masked(values, rate, seed, step, layer):
    """Inverted dropout by the reference's generator."""
    outputs = np.empty_like(values)
    reference.dropout(values, rate, seed, step, layer, outputs)
    return outputs


def test_dropout_by_hand():
    # Two linear hidden layers, squared error, two steps of gradient descent written out.
    generator = np.random.default_rng(1)
    X, Y = generator.normal(size=(6, 3)), generator.normal(size=(6, 2))
    net = MLP(
        [3, 5, 4, 2],
        activation="linear",
        dropout=[0.5, 0.25],
        loss="mse",
        dtype="float64",
        seed=9,
    )
    W1, b1, W2, b2, W3, b3 = net.get_weights()
    net.fit(X, Y, epochs=2, batch_size=6, shuffle=False, optimizer=SGD(0.125), verbose=0)
    for step in range(2):
        kept1 = masked(np.ones((6, 5)), 0.5, 9, step, 0)
        kept2 = masked(np.ones((6, 4)), 0.25, 9, step, 1)
        h1 = (X @ W1 + b1) * kept1
        h2 = (h1 @ W2 + b2) * kept2
        d3 = 2 * (h2 @ W3 + b3 - Y) / Y.size
        d2 = d3 @ W3.T * kept2
        d1 = d2 @ W2.T * kept1
        for inputs, gradient, weights, bias in (
            (h2, d3, W3, b3),
            (h1, d2, W2, b2),
            (X, d1, W1, b1),
        ):
            weights -= 0.125 * inputs.T @ gradient
            bias -= 0.125 * gradient.sum(axis=0)
    for array, expected in zip(net.weights, (W1, b1, W2, b2, W3, b3), strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-12, atol=1e-14)


def test_rows_are_shuffled_by_epoch():
    generator = np.random.default_rng(1)
    X, y = generator.normal(size=(7, 2)), generator.normal(size=7)
    net = MLP([2, 1], loss="mse", dtype="float64", seed=4)
    weights, bias = net.get_weights()
    net.fit(X, y, epochs=2, batch_size=2, optimizer=SGD(0.125), verbose=0)
    order = np.empty(7, np.int64)
    for epoch in range(2):
        reference.permutation(4, epoch, order)
        for rows in (order[0:2], order[2:4], order[4:6], order[6:7]):
            error = 2 * (X[rows] @ weights + bias - y[rows, None]) / len(rows)
            weights -= 0.125 * X[rows].T @ error
            bias -= 0.125 * error.sum(axis=0)
    np.testing.assert_allclose(net.weights[0], weights, rtol=1e-12)
    np.testing.assert_allclose(net.weights[1], bias, rtol=1e-12)


def test_validation_split_takes_the_last_rows():
    X, y = blobs(50)
    split, given = (MLP([4, 8, 3], seed=0) for _ in range(2))
    weights = np.linspace(0.5, 2, 50)
    first = split.fit(X, y, sample_weight=weights, validation_split=0.3, verbose=0)
    second = given.fit(
        X[:35],
        y[:35],
        sample_weight=weights[:35],
        validation_data=(X[35:], y[35:], weights[35:]),
        verbose=0,
    )
    assert first.history == second.history
    assert_same(split, given)


def test_validation_data_come_before_the_split():
    X, y = blobs(50)
    both, given = (MLP([4, 8, 3], seed=0) for _ in range(2))
    first = both.fit(X, y, validation_data=(X, y), validation_split=0.3, verbose=0)
    second = given.fit(X, y, validation_data=(X, y), verbose=0)
    assert first.history == second.history


@pytest.mark.parametrize("form", ["labels", "one-hot"])
def test_class_weights_are_sample_weights(form):
    X, labels = blobs(50)
    y = labels if form == "labels" else np.eye(3)[labels]
    by_class, by_row = (MLP([4, 8, 3], seed=0) for _ in range(2))
    by_class.fit(X, y, class_weight={0: 2.0, 1: 0.5}, verbose=0)
    by_row.fit(X, y, sample_weight=np.array([2.0, 0.5, 1.0])[labels], verbose=0)
    assert_same(by_class, by_row)


def test_class_weights_are_for_training_alone():
    X, y = blobs()
    whole = {"class_weight": {0: 10, 1: 1, 2: 0}, "validation_split": 0.2, "verbose": 0}
    apart = whole | {"validation_split": 0.0, "validation_data": (X[160:], y[160:])}
    histories = [
        MLP([4, 8, 3], seed=0).fit(X, y, epochs=2, **whole).history,
        MLP([4, 8, 3], seed=0).fit(X[:160], y[:160], epochs=2, **apart).history,
    ]
    assert histories[0] == histories[1]


@pytest.mark.parametrize("hook", ["on_train_begin", "on_epoch_begin"])
def test_training_that_is_to_end_before_an_epoch_ends_with_it(hook):
    class End(Callback):
        def on_train_begin(self, logs=None):
            self.model.stop_training = hook == "on_train_begin"

        def on_epoch_begin(self, epoch, logs=None):
            self.model.stop_training |= hook == "on_epoch_begin" and epoch == 1

    X, y = blobs()
    net = MLP([4, 8, 3], seed=0)
    epochs = net.fit(X, y, epochs=9, batch_size=10, callbacks=[End()], verbose=0).epoch
    assert epochs == {"on_train_begin": [0], "on_epoch_begin": [0, 1]}[hook]
    assert net.iterations == 20 * len(epochs)


def test_weights_that_are_the_networks_own_can_be_set():
    net = MLP([3, 3, 3], seed=0)
    first, _, second, _ = net.get_weights()
    weights = net.weights
    net.set_weights([weights[2], weights[3], weights[0], weights[1]])
    np.testing.assert_array_equal(net.weights[0], second)
    np.testing.assert_array_equal(net.weights[2], first)


def test_class_weights_of_one_unit():
    X, labels = blobs(50, classes=2)
    by_class, by_row = (MLP([4, 8, 1], seed=0) for _ in range(2))
    by_class.fit(X, labels, class_weight={1: 3}, verbose=0)
    by_row.fit(X, labels, sample_weight=np.array([1.0, 3.0])[labels], verbose=0)
    assert_same(by_class, by_row)


def test_weights_scale_the_loss_but_not_the_accuracy():
    X, y = blobs(30)
    net = MLP([4, 3], seed=0)
    plain = net.evaluate(X, y)
    doubled = net.evaluate(X, y, sample_weight=np.full(30, 2.0))
    assert doubled["loss"] == pytest.approx(2 * plain["loss"])
    assert doubled["accuracy"] == plain["accuracy"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_callers_arrays_stay_as_they_are(dtype):
    X, y = blobs(40)
    X, weights = X.astype(dtype), np.ones(40, dtype)
    targets = np.eye(3, dtype=dtype)[y]
    given = (X, targets, weights)
    before = copy.deepcopy(given)
    for array in given:
        array.flags.writeable = False
    net = MLP([4, 8, 3], dropout=0.5, dtype=dtype)
    for shuffle in (True, False):
        net.fit(X, targets, sample_weight=weights, shuffle=shuffle, validation_split=0.5, verbose=0)
    net.evaluate(X, targets, sample_weight=weights)
    net.gradients(X, targets, weights)
    net.predict(X)
    for array, expected in zip(given, before, strict=True):
        np.testing.assert_array_equal(array, expected)


def test_batches_larger_than_the_data():
    X, y = blobs(10)
    large, exact = (MLP([4, 8, 3], seed=0) for _ in range(2))
    large.fit(X, y, epochs=2, batch_size=1000, verbose=0)
    exact.fit(X, y, epochs=2, batch_size=10, verbose=0)
    assert_same(large, exact)
    assert large.iterations == 2


def test_fit_outside_the_main_thread():
    X, y = blobs()
    here, there = (MLP([4, 8, 3], dropout=0.5, seed=5) for _ in range(2))
    here.fit(X, y, verbose=0)
    thread = threading.Thread(target=there.fit, args=(X, y), kwargs={"verbose": 0})
    thread.start()
    thread.join()
    assert_same(here, there)


# ------------------------------------------------------------------------------------- interruption


@pytest.fixture
def signal_in_third_step(monkeypatch):
    """Send the process Ctrl-C in the middle of a network's third step, kernel by kernel."""
    loss = _engine._loss
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return loss(*arguments)

    monkeypatch.setattr(_engine, "_loss", interrupted)
    with fastdl.use_backend("reference"):
        yield


@pytest.mark.usefixtures("signal_in_third_step")
def test_ctrl_c_leaves_a_completed_step():
    X, y = blobs()
    net = MLP([4, 8, 3], dropout=0.5, seed=5)
    with pytest.raises(KeyboardInterrupt):
        net.fit(X, y, batch_size=10, verbose=0)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert net.iterations == net._state.iterations == 3

    class StopAfterThree(Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 2

    stopped = MLP([4, 8, 3], dropout=0.5, seed=5)
    stopped.fit(X, y, batch_size=10, callbacks=[StopAfterThree()], verbose=0)
    assert_same(net, stopped)
    for name, slot in net._state.slots.items():
        np.testing.assert_array_equal(slot, stopped._state.slots[name])
    net.fit(X, y, batch_size=10, verbose=0)
    stopped.fit(X, y, batch_size=10, verbose=0)
    assert_same(net, stopped)


@pytest.mark.usefixtures("signal_in_third_step")
def test_a_programs_own_handler_is_left_alone():
    caught = []
    before = signal.signal(signal.SIGINT, lambda *arguments: caught.append(arguments))
    try:
        X, y = blobs()
        net = MLP([4, 8, 3])
        net.fit(X, y, batch_size=10, verbose=0)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(caught) == 1
    assert net.iterations == 20


@pytest.mark.parametrize("hook", ["on_train_batch_begin", "on_epoch_end", "on_train_end"])
def test_ctrl_c_in_a_callback_leaves_a_usable_network(hook):
    class Interrupt(Callback):
        pass

    def interrupt(*arguments):
        raise KeyboardInterrupt

    setattr(Interrupt, hook, interrupt)
    X, y = blobs()
    net = MLP([4, 8, 3], seed=0)
    with pytest.raises(KeyboardInterrupt):
        net.fit(X, y, callbacks=[Interrupt()], verbose=0)
    net.fit(X, y, epochs=20, optimizer=Adam(0.01), verbose=0)
    assert net.evaluate(X, y)["accuracy"] > 0.95


# ------------------------------------------------------------------------------------------- scores


def test_scores_by_hand():
    X, y = blobs(100)
    net = MLP([4, 8, 3], seed=0, l1=0.01, l2=0.02, dtype="float64")
    probabilities = net.predict(X)
    penalty = sum(0.01 * np.abs(w).sum() + 0.02 * (w**2).sum() for w in net.weights[0::2])
    expected = {
        "accuracy": np.mean(probabilities.argmax(axis=1) == y),
        "loss": -np.log(probabilities[np.arange(100), y]).mean() + penalty,
    }
    assert net.evaluate(X, y) == pytest.approx(expected)
    assert net.evaluate(X, y, batch_size=7) == pytest.approx(expected)


def test_binary_accuracy():
    X, y = blobs(100, classes=2)
    net = MLP([4, 8, 1], seed=0)
    expected = np.mean((net.predict(X).ravel() > 0.5) == y)
    assert net.evaluate(X, y)["accuracy"] == pytest.approx(expected)
    assert net.evaluate(X, y[:, None])["accuracy"] == pytest.approx(expected)


def test_evaluate_prints_when_asked(capsys):
    X, y = blobs(100)
    scores = MLP([4, 3], seed=0).evaluate(X, y, verbose=1, batch_size=10)
    printed = capsys.readouterr().out
    assert printed.startswith("10/10 - 0s - ")
    assert f"accuracy: {scores['accuracy']:.4f} - loss: {scores['loss']:.4f}" in printed


def test_predict_by_hand():
    net = MLP([3, 5, 2], activation="tanh", dtype="float64", seed=0)
    W1, b1, W2, b2 = net.weights
    b1[...] = 0.5
    X = np.random.default_rng(0).normal(size=(1000, 3))
    scores = np.exp(np.tanh(X @ W1 + b1) @ W2 + b2)
    expected = scores / scores.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(net.predict(X), expected, rtol=1e-12)


def test_predict_many_rows_as_one_by_one():
    X = np.random.default_rng(0).normal(size=(_engine.ROWS + 3, 4))
    net = MLP([4, 8, 3], seed=0, dtype="float64")
    alone = np.vstack([net.predict(row[None]) for row in X])
    np.testing.assert_allclose(net.predict(X), alone, rtol=1e-12)


def test_predict_of_no_rows():
    assert MLP([4, 3]).predict(np.empty((0, 4))).shape == (0, 3)
    assert MLP([4, 3]).predict(np.empty((0, 2, 2))).shape == (0, 3)


def test_predict_into_an_array():
    X, _ = blobs(20)
    net = MLP([4, 3], seed=0)
    out = np.empty((20, 3), np.float32)
    assert net.predict(X, out=out) is out
    np.testing.assert_array_equal(out, net.predict(X))
    for bad, message in (
        (np.empty((20, 2), np.float32), r"out: shape \(20, 2\) is not \(20, 3\)"),
        (np.empty((3, 20), np.float32).T, "out: strides"),
    ):
        with pytest.raises(ValueError, match=message):
            net.predict(X, out=bad)
    with pytest.raises(TypeError, match="out: dtype float64 is not float32"):
        net.predict(X, out=np.empty((20, 3)))
    out.flags.writeable = False
    with pytest.raises(ValueError, match=r"out: .* read-only"):
        net.predict(X, out=out)


def test_predict_refuses_to_overwrite_its_inputs():
    data = np.ones((5, 3), np.float32)
    with pytest.raises(ValueError, match=r"out: memory .* overlaps X"):
        MLP([3, 3]).predict(data, out=data)
    np.testing.assert_array_equal(data, 1)


def test_probabilities():
    X, _ = blobs(20)
    one = MLP([4, 8, 1], seed=0)
    assert one.predict(X).shape == (20, 1)
    np.testing.assert_allclose(one.predict_proba(X)[:, 1:], one.predict(X))
    np.testing.assert_allclose(one.predict_proba(X).sum(axis=1), 1, rtol=1e-6)
    three = MLP([4, 8, 3], seed=0)
    np.testing.assert_array_equal(three.predict_proba(X), three.predict(X))
    logits = MLP([4, 8, 3], seed=0, output_activation="linear")
    np.testing.assert_array_equal(logits.predict_proba(X), three.predict(X))
    assert not np.allclose(logits.predict(X), three.predict(X))
    with pytest.raises(ValueError, match=r"predict_proba: a network with loss Huber.* has no"):
        MLP([4, 1], loss="huber").predict_proba(X)


@pytest.mark.parametrize(
    ("loss", "units", "output"),
    [
        ("categorical_crossentropy", 3, None),
        ("categorical_crossentropy", 3, "sigmoid"),
        (CategoricalCrossentropy(label_smoothing=0.1), 3, "linear"),
        ("binary_crossentropy", 1, None),
        (BinaryCrossentropy(label_smoothing=0.1), 3, "softmax"),
        ("mse", 2, "sigmoid"),
        ("mae", 2, None),
        (Huber(0.7), 1, "log_softmax"),
        ("poisson", 2, None),
    ],
)
@pytest.mark.parametrize("activation", ["tanh", "gelu", LeakyReLU(0.3)])
def test_gradients_are_finite_differences(loss, units, output, activation):
    generator = np.random.default_rng(8)
    X = generator.normal(size=(6, 3))
    y = generator.uniform(size=(6, units))
    if units == 3:
        y /= y.sum(axis=1, keepdims=True)
    weights = generator.uniform(size=6)
    net = MLP(
        [3, 4, units],
        activation=activation,
        output_activation=output,
        loss=loss,
        dropout=0.5,
        l1=0.01,
        l2=0.02,
        dtype="float64",
        seed=1,
    )
    net.weights[1][...] = generator.normal(size=4)
    loss, gradients = net.gradients(X, y, weights)
    assert loss == pytest.approx(net.evaluate(X, y, sample_weight=weights)["loss"])
    for array, gradient in zip(net.weights, gradients, strict=True):
        assert gradient.shape == array.shape
        for index in np.ndindex(array.shape):
            value, sides = array[index], []
            for step in (1e-6, -1e-6):
                array[index] = value + step
                sides.append(net.evaluate(X, y, sample_weight=weights)["loss"])
            array[index] = value
            assert gradient[index] == pytest.approx((sides[0] - sides[1]) / 2e-6, abs=1e-7)


def test_gradients_change_nothing():
    X, y = blobs(20)
    net = MLP([4, 8, 3], seed=0)
    before = state(net)
    first = net.gradients(X, y)
    second = net.gradients(X, y)
    assert first[0] == second[0]
    assert first[1][0] is not second[1][0]
    for now, then in zip(state(net), before, strict=True):
        np.testing.assert_array_equal(now, then)


# --------------------------------------------------------------------------------------- parameters


def test_weights_are_live_and_get_weights_copies():
    net = MLP([4, 3], seed=0)
    copied = net.get_weights()
    net.weights[0][...] = 1
    assert not np.array_equal(copied[0], net.weights[0])
    X, y = blobs(20)
    live = net.weights[0]
    net.fit(X, y, verbose=0)
    assert not (live == 1).all()


def test_set_weights():
    net, other = MLP([4, 5, 3], seed=0), MLP([4, 5, 3], seed=1)
    other.set_weights(net.get_weights())
    assert_same(net, other)
    X, _ = blobs(20)
    np.testing.assert_array_equal(net.predict(X), other.predict(X))


def test_a_rate_may_be_an_array_of_no_dimensions():
    assert MLP([4, 3, 2], dropout=np.array(0.5)).dropout == (0.5,)


def test_a_batch_may_be_larger_than_any_data():
    nets = [MLP([4, 5, 3], seed=0) for _ in range(2)]
    for net, batch_size in zip(nets, (len(X), 2**63 - 1), strict=True):
        net.fit(X, Y, batch_size=batch_size, epochs=2, verbose=0)
    for array, other in zip(nets[0].weights, nets[1].weights, strict=True):
        np.testing.assert_array_equal(array, other)
    with pytest.raises(ValueError, match=f"batch_size: {2**63} is not an integer in"):
        nets[0].fit(X, Y, batch_size=2**63, verbose=0)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([np.zeros((4, 3))], ValueError, "weights: 1 arrays are not the network's 2"),
        ([np.ones((4, 3)), np.ones(4)], ValueError, r"weights\[1\]: shape \(4,\) is not \(3,\)"),
        ([np.ones((4, 3)), np.ones(3, complex)], TypeError, r"weights\[1\]: dtype complex128"),
        (None, TypeError, "weights: None is not a sequence of arrays"),
    ],
)
def test_bad_weights_change_nothing(weights, error, message):
    net = MLP([4, 3], seed=0)
    before = net.get_weights()
    with pytest.raises(error, match=message):
        net.set_weights(weights)
    for array, expected in zip(net.weights, before, strict=True):
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize(
    "duplicate", [MLP.copy, copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))]
)
def test_copies_are_independent_and_complete(duplicate):
    X, y = blobs()
    net = MLP([4, 8, 3], dropout=0.5, seed=0)
    net.fit(X, y, verbose=0)
    twin = duplicate(net)
    before = twin.get_weights()
    net.fit(X, y, verbose=0)
    for array, expected in zip(twin.weights, before, strict=True):
        np.testing.assert_array_equal(array, expected)
    twin.fit(X, y, verbose=0)
    assert_same(net, twin)


def test_summary_of_the_course_network(capsys):
    MLP([784, 128, 128, 128, 10], activation="relu", dropout=0.5, seed=0).summary()
    printed = capsys.readouterr().out
    for count in ("100,480", "16,512", "1,290", "Total params: 134,794 (526.54 KB)"):
        assert count in printed
    assert printed.count("Dropout, 0.5") == 3
    assert "dense_4 (Dense, softmax)      (None, 10)" in printed
    lines = []
    MLP([2000, 2000], dtype="float64").summary(print_fn=lines.append)
    assert "Total params: 4,002,000 (30.53 MB)" in lines[0]


def test_repr():
    assert repr(MLP([4, 1], seed=3)) == (
        "MLP([4, 1], loss=BinaryCrossentropy(label_smoothing=0.0), dtype='float32', seed=3)"
    )


# ---------------------------------------------------------------------------------------- bad input

X, Y = blobs(20)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"X": X[:, :3]}, r"X: shape \(20, 3\) is not rows of 4 features"),
        ({"X": X.ravel()}, r"X: shape \(80,\) is not rows of 4 features"),
        ({"X": X[:0], "y": Y[:0]}, r"X: shape \(0, 4\) holds no data"),
        ({"X": np.where(X > 0, np.nan, X)}, "X: nan at index"),
        ({"X": np.where(X > 0, 1e39, X)}, "X: inf at index"),
        ({"y": Y[:19]}, r"y: shape \(19,\) is neither 20 labels"),
        ({"y": Y + 1}, "y: 3.0 at index 2 is not an integer in"),
        ({"y": np.where(Y == 1, np.nan, Y)}, "y: nan at index 1"),
        ({"y": np.where(Y == 1, np.inf, Y)}, "y: inf at index 1"),
        ({"sample_weight": np.ones(19)}, r"sample_weight: shape \(19,\) does not match X"),
        ({"sample_weight": -np.ones(20)}, "sample_weight: -1.0 at index 0"),
        ({"sample_weight": np.full(20, np.nan)}, "sample_weight: nan at index 0"),
        ({"sample_weight": np.ones((20, 1))}, r"sample_weight: shape \(20, 1\) is not 1-D"),
        ({"class_weight": {3: 1.0}}, "class_weight: 3 is not an integer in"),
        ({"class_weight": {0: -1.0}}, r"class_weight\[0\]: -1.0 is not"),
        ({"class_weight": {0: 1.0}, "sample_weight": np.ones(20)}, "class_weight: can't be given"),
        ({"epochs": 0}, "epochs: 0 is not an integer >= 1"),
        ({"batch_size": 0}, "batch_size: 0 is not an integer >= 1"),
        ({"batch_size": -32}, "batch_size: -32 is not an integer >= 1"),
        ({"initial_epoch": 2}, "initial_epoch: 2 is not an integer in"),
        ({"optimizer": "adma"}, "optimizer: 'adma' is not one of"),
        ({"validation_split": 1.0}, "validation_split: 1.0 is not"),
        ({"validation_split": -0.1}, "validation_split: -0.1 is not"),
        ({"validation_split": 0.99}, "validation_split: 0.99 leaves one part of 20 rows empty"),
        ({"validation_data": (X[:, :3], Y)}, r"validation_data\[0\]: shape \(20, 3\) is not rows"),
        ({"validation_data": (X, Y - 1)}, r"validation_data\[1\]: -1.0 at index 0"),
        ({"validation_data": (X, Y, -np.ones(20))}, r"validation_data\[2\]: -1.0 at index 0"),
        ({"verbose": 3}, "verbose: 3 is not an integer in"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_bad_values_change_nothing(arguments, message):
    net = MLP([4, 5, 3], seed=0)
    before = state(net)
    with pytest.raises(ValueError, match=message):
        net.fit(**({"X": X, "y": Y, "verbose": 0} | arguments))
    for now, then in zip(state(net), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"X": X.astype(object)}, "X: dtype object"),
        ({"X": X.astype(complex)}, "X: dtype complex128"),
        ({"X": X.astype(np.float16)}, "X: dtype float16"),
        ({"X": X.astype(str)}, "X: dtype <U"),
        ({"y": Y.astype(object)}, "y: dtype object"),
        ({"y": Y.astype(complex)}, "y: dtype complex128"),
        ({"sample_weight": ["1"] * 20}, "sample_weight: dtype <U1"),
        ({"class_weight": [1, 1, 1]}, r"class_weight: \[1, 1, 1\] is not a dict"),
        ({"epochs": 1.5}, "epochs: 1.5 is not an integer"),
        ({"batch_size": None}, "batch_size: None is not an integer"),
        ({"shuffle": 1}, "shuffle: 1 is not True or False"),
        ({"optimizer": SGD}, "optimizer: <class"),
        ({"callbacks": [print]}, "callbacks: <built-in function print> is not a fastdl.Callback"),
        ({"callbacks": fastdl.History()}, "callbacks: .* is not a sequence of callbacks"),
        ({"validation_data": X}, "validation_data: not a tuple"),
        ({"resume_from": 3}, "resume_from: 3 is not a path"),
    ],
)
def test_bad_types_change_nothing(arguments, message):
    net = MLP([4, 5, 3], seed=0)
    before = state(net)
    with pytest.raises(TypeError, match=message):
        net.fit(**({"X": X, "y": Y, "verbose": 0} | arguments))
    for now, then in zip(state(net), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_class_weights_need_classes():
    for net, y in (
        (MLP([4, 1], loss="mse"), X[:, 0]),
        (MLP([4, 3], loss="binary_crossentropy"), np.eye(3)[Y]),
    ):
        with pytest.raises(ValueError, match="class_weight: the loss of this network knows no"):
            net.fit(X, y, class_weight={0: 1.0}, verbose=0)


@pytest.mark.parametrize("method", ["evaluate", "gradients"])
def test_scores_check_their_data(method):
    net = MLP([4, 3])
    with pytest.raises(ValueError, match=r"X: shape \(20, 2\) is not rows of 4 features"):
        getattr(net, method)(X[:, :2], Y)
    with pytest.raises(ValueError, match=r"y: 7\.0 at index 0"):
        getattr(net, method)(X, np.full(20, 7))


def test_the_backend_in_use_runs_the_training(monkeypatch):
    used = []
    module = backends._load("reference")
    update = module.adam_update
    monkeypatch.setattr(module, "adam_update", lambda *a: (used.append(1), update(*a)))
    with fastdl.use_backend("reference"):
        MLP([4, 3]).fit(X, Y, batch_size=5, optimizer=Adam(), verbose=0)
    assert len(used) == 4
