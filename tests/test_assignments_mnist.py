"""The drop-in for the exercise on MNIST: rows 3.1 to 3.8, on small pictures in MNIST's place."""

import numpy as np
import pytest

import fastdl
from fastdl.assignments import mnist
from fastdl.keras import restore
from fastdl.optimizers import SGD
from fastdl.schedules import CosineDecay

keras = pytest.importorskip("keras")


@pytest.fixture(scope="module")
def data():
    """Digit k is a bright block at place k, under noise: training, validation and test parts."""
    random = np.random.default_rng(0)

    def part(n):
        labels = random.integers(0, 10, n)
        images = random.uniform(0, 0.3, (n, 28, 28)).astype(np.float32)
        for image, label in zip(images, labels, strict=True):
            image[4 + 10 * (label // 5) :, 5 * (label % 5) :][:6, :5] += 0.7
        return images, labels

    return part(1200), part(300), part(200)


def test_star_import_brings_the_functions_and_nothing_else():
    namespace = {}
    exec("from fastdl.assignments.mnist import *", namespace)
    assert sorted(set(namespace) - {"__builtins__"}) == sorted(mnist.__all__)
    assert {"load_data", "build_model", "train"} <= set(namespace)


# -------------------------------------------------------------------------------------- the network


def test_the_keras_model_is_the_exercises():
    model = mnist.build_model()
    assert isinstance(model, keras.Sequential)
    assert model.name == "mlp"
    assert model.input_shape == (None, 28, 28)
    assert [type(layer).__name__ for layer in model.layers] == [
        "Flatten",
        *["Dense", "Activation", "Dropout"] * 3,
        "Dense",
    ]
    counts = [layer.count_params() for layer in model.layers if layer.count_params()]
    assert counts == [100_480, 16_512, 16_512, 1_290]
    assert model.count_params() == 134_794
    assert model.loss == "categorical_crossentropy"
    assert model.layers[-1].activation is keras.activations.softmax
    assert {layer.rate for layer in model.layers[3::3]} == {0.5}


@pytest.mark.parametrize(
    ("dropout", "error"), [([0.1, 0.2], TypeError), ("much", TypeError), (1.5, ValueError)]
)
def test_the_keras_model_has_one_share_to_drop(dropout, error):
    with pytest.raises(error, match=r"dropout: .* is not a finite number in \[0, 1\]"):
        mnist.build_model((8, 8), dropout=dropout)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"hidden": (256, 64), "activation": "tanh", "dropout": 0.2},
        {"hidden": (32,) * 5, "activation": "leaky_relu", "dropout": 0, "l1": 1e-5, "l2": 1e-4},
        {"hidden": ()},
    ],
)
def test_model_and_network_are_the_same(data, settings):
    model, network = mnist.build_model(**settings), mnist.build_network(**settings, seed=0)
    images, labels = data[1]
    restore(model).set_weights(network.get_weights())
    # The noise of float32 sums over 784 pixels.
    np.testing.assert_allclose(
        network.predict(images), model.predict(images, verbose=0), rtol=1e-4, atol=1e-6
    )
    # The loss with its penalties.
    loss, accuracy = model.evaluate(images, np.eye(10)[labels], verbose=0)
    scores = network.evaluate(images, labels)
    assert scores["loss"] == pytest.approx(loss, rel=1e-4)
    assert scores["accuracy"] == pytest.approx(accuracy, abs=1e-6)


# ----------------------------------------------------------------------------------------- training


def test_a_network_learns(data):
    network = mnist.build_network(seed=0)
    history = mnist.train(network, data, epochs=5, verbose=0)
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert network.evaluate(*data[2])["accuracy"] > 0.95


def test_a_keras_model_learns_the_same(data):
    network = mnist.build_network(hidden=(32,), seed=3)
    model = mnist.build_model(hidden=(32,))
    model.set_weights(network.get_weights())
    mnist.train(network, data, epochs=2, verbose=0)
    history = mnist.train(model, data, epochs=2, verbose=0, seed=3)
    assert isinstance(history, keras.callbacks.History)
    # The same rows are taken and the same units dropped; Keras rounds the rates of Adam.
    for ours, theirs in zip(network.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_the_keras_model_is_fitted_as_in_the_exercise(data, capsys):
    (X, y), (X_val, y_val), _ = data
    model = mnist.build_model(hidden=(32,))
    validation = X_val, np.eye(10)[y_val]
    history = model.fit(X, np.eye(10)[y], validation_data=validation, epochs=3)
    assert list(history.history) == ["accuracy", "loss", "val_accuracy", "val_loss"]
    assert "Epoch 3/3" in capsys.readouterr().out
    loss, accuracy = restore(model).evaluate(*validation, verbose=0)
    assert history.history["val_loss"][-1] == pytest.approx(loss, rel=1e-5)
    assert history.history["val_accuracy"][-1] == pytest.approx(accuracy)


def test_a_keras_model_takes_keras_optimizers(data):
    model = mnist.build_model(hidden=(8,))
    mnist.train(model, data, epochs=1, optimizer="sgd", verbose=0)
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    before = model.get_weights()
    with pytest.raises(TypeError, match=r"optimizer: SGD.* is not one of Keras's"):
        mnist.train(model, data, optimizer=SGD(0.1))
    np.testing.assert_array_equal(before[0], model.get_weights()[0])


def test_one_hot_rows_are_labels_too(data):
    (X, y), (X_val, y_val), _ = data
    networks = [mnist.build_network(hidden=(16,), seed=0) for _ in range(2)]
    mnist.train(networks[0], ((X, y), (X_val, y_val)), epochs=1, verbose=0)
    one_hot = (X, np.eye(10)[y]), (X_val, np.eye(10)[y_val])
    mnist.train(networks[1], one_hot, epochs=1, verbose=0)
    for expected, weights in zip(networks[0].weights, networks[1].weights, strict=True):
        np.testing.assert_allclose(weights, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "given",
    [lambda y: y.astype(np.float32), lambda y: y[:, np.newaxis], lambda y: y.tolist()],
    ids=["floats", "column", "list"],
)
def test_a_keras_model_takes_labels_of_all_forms(data, given):
    (X, y), (X_val, y_val), _ = data
    model, other = (mnist.build_model(hidden=()) for _ in range(2))
    other.set_weights(model.get_weights())
    mnist.train(model, data, epochs=1, verbose=0)
    mnist.train(other, ((X, given(y)), (X_val, given(y_val))), epochs=1, verbose=0)
    np.testing.assert_array_equal(other.get_weights()[0], model.get_weights()[0])


@pytest.mark.parametrize(("label", "value"), [(-1, "-1"), (10, "10"), (2.5, "2.5")])
@pytest.mark.parametrize(("part", "name"), [(0, "y_train"), (1, "y_val")])
def test_a_keras_model_refuses_labels_out_of_range(data, label, value, part, name):
    parts = [(X, y.astype(type(label))) for X, y in data]
    parts[part][1][3] = label
    with pytest.raises(
        ValueError, match=rf"{name}: {value} at index 3 is not an integer in \[0, 9"
    ):
        mnist.train(mnist.build_model(hidden=(8,)), parts, epochs=1, verbose=0)


def test_progress_is_keras_like(data, capsys):
    mnist.train(mnist.build_network(hidden=(8,), seed=0), data, epochs=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Epoch 1/2"
    assert lines[1].startswith("38/38 ")
    assert "val_accuracy: " in lines[1]
    assert lines[2] == "Epoch 2/2"


def test_the_best_weights_are_kept(data):
    seen = []

    class Watch(fastdl.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((logs["val_accuracy"], self.model.get_weights()))

    network = mnist.build_network(hidden=(8,), seed=0)
    # A rate so high that accuracy goes up and down.
    mnist.train(
        network, data, epochs=8, optimizer=SGD(1.5), patience=None, callbacks=[Watch()], verbose=0
    )
    accuracies = [accuracy for accuracy, _ in seen]
    best = int(np.argmax(accuracies))
    assert best < len(seen) - 1
    for kept, weights in zip(network.weights, seen[best][1], strict=True):
        np.testing.assert_array_equal(kept, weights)


@pytest.mark.parametrize(("patience", "epochs"), [(2, 3), (5, 6), (None, 9)])
def test_training_stops_when_the_best_is_so_many_epochs_old(data, patience, epochs):
    # With a learning rate of 0 the first epoch stays the best.
    history = mnist.train(
        mnist.build_network(hidden=(8,), seed=0),
        data,
        epochs=9,
        optimizer=SGD(0.0),
        patience=patience,
        verbose=0,
    )
    assert len(history.epoch) == epochs


def test_settings_reach_the_training(data):
    network = mnist.build_network(hidden=(8,), seed=0)
    optimizer = SGD(CosineDecay(0.1, 100), momentum=0.9, nesterov=True)
    mnist.train(network, data, epochs=2, batch_size=100, optimizer=optimizer, verbose=0)
    assert network.optimizer == optimizer
    assert network.iterations == 2 * 12


def test_augmentation_multiplies_the_images(data):
    network = mnist.build_network(hidden=(8,), seed=0)
    history = mnist.train(network, data, epochs=1, batch_size=100, augment=5, verbose=0)
    assert network.iterations == 5 * 12
    assert len(history.epoch) == 1


def test_a_keras_model_that_is_interrupted_has_learnt_so_far(data):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    model = mnist.build_model(hidden=(8,))
    before = model.get_weights()
    with pytest.raises(KeyboardInterrupt):
        mnist.train(model, data, callbacks=[Interrupt()], verbose=0)
    assert not np.array_equal(model.get_weights()[0], before[0])
    assert int(model.optimizer.iterations) == 38


def test_fast_training_stops_at_the_first_epoch_past_the_target(data):
    network = mnist.build_network(seed=0)
    accuracies = mnist.train_fast(network, data, target=0.9)
    assert accuracies[-1] > 0.9
    assert all(accuracy <= 0.9 for accuracy in accuracies[:-1])
    assert network.evaluate(*data[1])["accuracy"] == accuracies[-1]
    # An epoch over 1,200 images, then epochs over 108 hard images and 108 others.
    assert network.iterations == 13 + len(accuracies) * 3


def test_fast_training_gives_up(data):
    network = mnist.build_network(hidden=(8,), seed=0)
    assert len(mnist.train_fast(network, data, target=1, max_rounds=2)) == 10


def test_fast_training_goes_over_the_hard_images(data, monkeypatch):
    network = mnist.build_network(seed=0)
    (X, y), *_ = data
    fit, probabilities, fitted = network.fit, [], []

    def spy(images, labels, sample_weight=None, **settings):
        if sample_weight is not None:
            probabilities.append(network.predict(X)[np.arange(len(y)), y])
            fitted.append((images, labels, sample_weight))
        return fit(images, labels, sample_weight=sample_weight, **settings)

    monkeypatch.setattr(network, "fit", spy)
    mnist.train_fast(network, data, max_rounds=1)
    [(images, labels, weights)], [probabilities] = fitted, probabilities
    place = {image.tobytes(): index for index, image in enumerate(X)}
    rows = np.array([place[image.tobytes()] for image in images])
    np.testing.assert_array_equal(labels, y[rows])
    assert len(set(rows)) == len(rows) == 216
    assert set(rows[:108]) == set(np.argsort(probabilities)[:108])
    assert set(weights[:108]) == {1}
    assert set(weights[108:]) == {2}


def test_fast_training_is_the_same_for_the_same_seed_and_for_one_hot_rows(data):
    (X, y), (X_val, y_val), _ = data
    one_hot = (X, np.eye(10)[y]), (X_val, np.eye(10)[y_val])
    runs = [
        mnist.train_fast(mnist.build_network(seed=seed), parts, target=1, max_rounds=1)
        for seed, parts in ((5, data), (5, data), (5, one_hot))
    ]
    assert runs[0] == runs[1]
    assert runs[2] == pytest.approx(runs[0], abs=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"target": 97.5}, "target: 97.5 is not"), ({"max_rounds": 0}, "max_rounds: 0 is not")],
)
def test_fast_training_refuses_bad_settings(data, settings, message):
    with pytest.raises(ValueError, match=message):
        mnist.train_fast(mnist.build_network(hidden=(8,)), data, **settings)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs: 0 is not an integer >= 1"),
        ({"batch_size": 0}, ValueError, "batch_size: 0 is not an integer >= 1"),
        ({"patience": -1}, ValueError, "patience: -1"),
        ({"augment": 0}, ValueError, "augment: 0 is not an integer >= 1"),
        ({"optimizer": "adma"}, ValueError, "optimizer: 'adma'"),
    ],
)
def test_bad_settings_are_refused_and_change_nothing(data, settings, error, message):
    network = mnist.build_network(hidden=(8,), seed=0)
    before = network.get_weights()
    with pytest.raises(error, match=message):
        mnist.train(network, data, **settings)
    for old, new in zip(before, network.weights, strict=True):
        np.testing.assert_array_equal(old, new)


def test_fast_training_needs_two_images(data):
    (X, y), *others = data
    network = mnist.build_network(hidden=(8,), seed=0)
    before = network.get_weights()
    with pytest.raises(ValueError, match=r"X_train: shape \(1, 28, 28\) is not of 2 or more rows"):
        mnist.train_fast(network, ((X[:1], y[:1]), *others))
    np.testing.assert_array_equal(before[-2], network.get_weights()[-2])


# ----------------------------------------------------------------------------------------- pictures


def test_pictures(data):
    (images, _), *_ = data
    assert len(mnist.plot_digits(images).axes) == 1
    for model in (mnist.build_network(), mnist.build_model()):
        titles = [axes.get_title(loc="left") for axes in mnist.plot_weights(model).axes]
        assert "Layer 1: what each of 128 units looks for" in titles
        assert "Layer 4: 128 x 10" in titles
    history = fastdl.History()
    history.history = {"loss": [0.5, 0.2], "val_loss": [0.4, 0.3], "accuracy": [0.8, 0.9]}
    titles = [axes.get_title(loc="left") for axes in mnist.plot_learning_curves(history).axes]
    assert titles == ["Loss", "Accuracy"]
