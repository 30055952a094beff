"""Losses: what they take as targets, and how a network trains on them in Keras."""

import numpy as np
import pytest

from fastdl import MLP, activations, losses
from fastdl.keras import to_keras
from fastdl.losses import BinaryCrossentropy, CategoricalCrossentropy, Huber
from fastdl.optimizers import SGD

F8 = np.dtype(np.float64)


def one_hot(labels, classes):
    return np.eye(classes)[labels]


def soft(generator, rows, classes):
    return generator.dirichlet(np.ones(classes), rows)


# Units, last activation, our loss, Keras's loss and its arguments, targets of 20 rows. Numbers are
# powers of two for Keras's sake, which passes them through float32.
CASES = {
    "labels": (
        (3, None, CategoricalCrossentropy()),
        ("SparseCategoricalCrossentropy", {}),
        lambda g: g.integers(0, 3, 20),
    ),
    "one-hot, smoothed": (
        (3, None, CategoricalCrossentropy(label_smoothing=0.25)),
        ("CategoricalCrossentropy", {"label_smoothing": 0.25}),
        lambda g: one_hot(g.integers(0, 3, 20), 3),
    ),
    "probabilities": (
        (3, None, CategoricalCrossentropy()),
        ("CategoricalCrossentropy", {}),
        lambda g: soft(g, 20, 3),
    ),
    "logits": (
        (3, "linear", CategoricalCrossentropy()),
        ("CategoricalCrossentropy", {"from_logits": True}),
        lambda g: soft(g, 20, 3),
    ),
    "binary": (
        (1, None, BinaryCrossentropy()),
        ("BinaryCrossentropy", {}),
        lambda g: g.integers(0, 2, (20, 1)),
    ),
    "several, smoothed": (
        (4, None, BinaryCrossentropy(label_smoothing=0.125)),
        ("BinaryCrossentropy", {"label_smoothing": 0.125}),
        lambda g: g.integers(0, 2, (20, 4)),
    ),
    "binary logits": (
        (1, "linear", BinaryCrossentropy()),
        ("BinaryCrossentropy", {"from_logits": True}),
        lambda g: g.uniform(size=(20, 1)),
    ),
    "squared": ((2, None, "mse"), ("MeanSquaredError", {}), lambda g: g.normal(size=(20, 2))),
    "squared, tanh": (
        (2, "tanh", "mse"),
        ("MeanSquaredError", {}),
        lambda g: g.normal(size=(20, 2)),
    ),
    "squared, softmax": (
        (3, "softmax", "mse"),
        ("MeanSquaredError", {}),
        lambda g: g.normal(size=(20, 3)),
    ),
    "absolute": ((2, None, "mae"), ("MeanAbsoluteError", {}), lambda g: g.normal(size=(20, 2))),
    "huber": ((2, None, Huber(0.5)), ("Huber", {"delta": 0.5}), lambda g: g.normal(size=(20, 2))),
}


@pytest.mark.parametrize("case", CASES)
def test_a_step_equals_keras(keras_in_double, case):
    (units, activation, ours), (theirs, arguments), draw = CASES[case]
    generator = np.random.default_rng(5)
    X, y = generator.normal(size=(20, 4)), draw(generator)
    net = MLP([4, 6, units], loss=ours, output_activation=activation, dtype="float64", seed=2)
    model = to_keras(net)
    model.compile(
        keras_in_double.optimizers.SGD(0.5),
        loss=getattr(keras_in_double.losses, theirs)(**arguments),
        run_eagerly=True,
    )
    weights = generator.uniform(0, 2, 20)
    expected = model.train_on_batch(X, y, sample_weight=weights)
    history = net.fit(
        X, y, sample_weight=weights, batch_size=20, shuffle=False, optimizer=SGD(0.5), verbose=0
    )
    # Keras takes logarithms of the softmax's or sigmoid's output after clipping it at 1e-7.
    assert history.history["loss"] == [pytest.approx(float(expected), rel=1e-6)]
    for array, theirs in zip(net.weights, model.get_weights(), strict=True):
        np.testing.assert_allclose(array, theirs, rtol=1e-6, atol=1e-9)


def test_other_outputs_count_as_probabilities(keras_in_double):
    # Not by training: on TensorFlow, Keras takes what is before any sigmoid for logits of classes.
    generator = np.random.default_rng(5)
    X, y = generator.normal(size=(20, 4)), soft(generator, 20, 3)
    net = MLP([4, 3], output_activation="sigmoid", dtype="float64", seed=2)
    expected = keras_in_double.losses.CategoricalCrossentropy()(y, net.predict(X))
    assert net.evaluate(X, y)["loss"] == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("binary_crossentropy", BinaryCrossentropy()),
        ("bce", BinaryCrossentropy()),
        ("categorical_crossentropy", CategoricalCrossentropy()),
        ("sparse_categorical_crossentropy", CategoricalCrossentropy()),
        ("mean_squared_error", losses.MeanSquaredError()),
        ("mse", losses.MeanSquaredError()),
        ("mean_absolute_error", losses.MeanAbsoluteError()),
        ("mae", losses.MeanAbsoluteError()),
        ("huber", Huber()),
        ("poisson", losses.Poisson()),
    ],
)
def test_names(name, expected):
    assert losses.get(name) == expected
    assert losses.get(expected) is expected


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="loss: 'hinge' is not one of binary_crossentropy"):
        losses.get("hinge")
    with pytest.raises(TypeError, match=r"loss: <class .* is not of fastdl's losses"):
        losses.get(BinaryCrossentropy)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BinaryCrossentropy(label_smoothing=1.5), "label_smoothing: 1.5 is not"),
        (lambda: CategoricalCrossentropy(label_smoothing=-0.5), "label_smoothing: -0.5 is not"),
        (lambda: Huber(delta=0), "delta: 0 is not a finite number > 0"),
        (lambda: activations.LeakyReLU(-1), "negative_slope: -1 is not"),
        (lambda: activations.ELU(float("nan")), "alpha: nan is not"),
        (lambda: activations.Activation("elu"), "name: 'elu' is not one of linear"),
        (lambda: activations.get("step"), "activation: 'step' is not one of linear"),
    ],
)
def test_settings_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("loss", "units", "y", "message"),
    [
        (CategoricalCrossentropy(), 3, [0, 1, 3], "y: 3.0 at index 2 is not an integer in .0, 2."),
        (
            CategoricalCrossentropy(),
            3,
            [0, 1, -1],
            "y: -1.0 at index 2 is not an integer in .0, 2.",
        ),
        (CategoricalCrossentropy(), 3, [0, 1, np.nan], "y: nan"),
        (CategoricalCrossentropy(), 3, [0, 1, 0.5], r"y: 0\.5"),
        (CategoricalCrossentropy(), 3, [0, 1], r"y: shape \(2,\) is neither 3 labels nor"),
        (CategoricalCrossentropy(), 3, np.zeros((3, 2)), r"y: shape \(3, 2\) is neither"),
        (CategoricalCrossentropy(), 3, np.zeros((3, 3)), "y: row 0 sums to 0, not to 1"),
        (CategoricalCrossentropy(), 3, np.eye(3) * 2, "y: 2.0 at .* in .0, 1."),
        (BinaryCrossentropy(), 1, [0, 1, 2], "y: 2.0 at .* in .0, 1."),
        (BinaryCrossentropy(), 1, [0, 1, np.nan], "y: nan at"),
        (BinaryCrossentropy(), 2, [0, 1, 1], r"y: shape \(3,\) is not \(3, 2\)"),
        (losses.MeanSquaredError(), 1, [0, 1, np.inf], "y: inf at"),
        (losses.MeanSquaredError(), 2, np.zeros((2, 2)), r"y: shape \(2, 2\) is not \(3, 2\)"),
    ],
)
def test_targets_are_checked(loss, units, y, message):
    with pytest.raises(ValueError, match=message):
        loss.targets("y", y, 3, units, F8)


@pytest.mark.parametrize("y", [["a", "b", "c"], [None, 0, 1], [1j, 0, 1]])
@pytest.mark.parametrize("loss", ["categorical_crossentropy", "binary_crossentropy", "mse"])
def test_types_of_targets_are_checked(loss, y):
    with pytest.raises(TypeError, match="y: dtype"):
        losses.get(loss).targets("y", y, 3, 1, F8)


@pytest.mark.parametrize("y", [[2, 0, 1], [[2], [0], [1]], [[0, 0, 1], [1, 0, 0], [0, 1, 0]]])
def test_labels_of_all_forms(y):
    _, labels = CategoricalCrossentropy().targets("y", y, 3, 3, F8)
    np.testing.assert_array_equal(labels, [2, 0, 1])


def test_right_rows_and_outputs_are_counted():
    outputs = np.array([[0.25, 0.75, 0.0], [0.5, 0.25, 0.25]])
    assert CategoricalCrossentropy().correct(np.array([1, 1]), outputs, False) == 1
    labels = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    assert BinaryCrossentropy().correct(labels, outputs, False) == pytest.approx(5 / 3)
    assert BinaryCrossentropy().correct(labels, outputs, True) == pytest.approx(3 / 3)
