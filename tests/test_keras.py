"""Keras models to networks and back."""

import numpy as np
import pytest

from fastdl import MLP, losses
from fastdl.activations import ELU, LeakyReLU
from fastdl.keras import UnsupportedModelError, from_keras, to_keras
from fastdl.reference import ACTIVATIONS

keras = pytest.importorskip("keras")
layers = keras.layers

X = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)


def chain(*parts, features=(4,)):
    model = keras.Sequential([layers.Input(features), *parts])
    generator = np.random.default_rng(1)
    model.set_weights([generator.normal(size=w.shape) for w in model.get_weights()])
    return model


def assert_predict_alike(net, model, inputs=X):
    expected = np.asarray(model(inputs))
    np.testing.assert_allclose(net.predict(inputs), expected, rtol=2e-5, atol=1e-6)


# ---------------------------------------------------------------------------------------- both ways


def test_the_course_network():
    images = np.random.default_rng(0).uniform(size=(5, 28, 28)).astype(np.float32)
    model = keras.Sequential(name="mlp")
    model.add(layers.Input((28, 28)))
    model.add(layers.Flatten())
    for _ in range(3):
        model.add(layers.Dense(128))
        model.add(layers.Activation("relu"))
        model.add(layers.Dropout(0.5))
    model.add(layers.Dense(10, activation="softmax"))
    net = from_keras(model, seed=0)
    assert net.sizes == (784, 128, 128, 128, 10)
    assert net.dropout == (0.5, 0.5, 0.5)
    assert sum(array.size for array in net.weights) == model.count_params() == 134_794
    assert_predict_alike(net, model, images)
    again = to_keras(net)
    for array, expected in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_by_name(name):
    model = chain(layers.Dense(5, name), layers.Dense(5), layers.Activation(name), layers.Dense(2))
    net = from_keras(model)
    assert [each.name for each in net.activations] == [name, name, "linear"]
    assert_predict_alike(net, model)
    assert_predict_alike(net, to_keras(net))


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (layers.ReLU(), "relu"),
        (layers.ReLU(negative_slope=0.125), LeakyReLU(0.125)),
        (layers.LeakyReLU(0.25), LeakyReLU(0.25)),
        (layers.ELU(alpha=0.5), ELU(0.5)),
        (layers.Softmax(), "softmax"),
    ],
)
def test_activations_by_layer(layer, expected):
    model = chain(layers.Dense(5), layer, layers.Dense(2))
    net = from_keras(model)
    assert net.activations[0] == expected or net.activations[0].name == expected
    assert_predict_alike(net, model)
    assert_predict_alike(net, to_keras(net))


def test_a_layer_as_a_dense_layers_activation():
    net = from_keras(chain(layers.Dense(5, activation=layers.LeakyReLU(0.5)), layers.Dense(2)))
    assert net.activations[0] == LeakyReLU(0.5)


def test_functional_chains():
    start = keras.Input((2, 2))
    inner = layers.Dense(5, "tanh")(layers.Flatten()(start))
    model = keras.Model(start, layers.Dense(2)(layers.Dropout(0.25)(inner)))
    net = from_keras(model)
    assert net.dropout == (0.25,)
    assert_predict_alike(net, model, X.reshape(9, 2, 2))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_settings_go_both_ways(dtype):
    net = MLP(
        [4, 6, 5, 3],
        activation=[LeakyReLU(0.25), "gelu"],
        dropout=[0.25, 0.0],
        l1=0.125,
        l2=0.25,
        dtype=dtype,
        kernel_initializer="he_uniform",
    )
    model = to_keras(net, name="net")
    assert model.name == "net"
    assert_predict_alike(net, model)
    again = from_keras(model, seed=net.seed)
    assert again._config() == net._config() | {"kernel_initializer": "glorot_uniform"}
    for array, expected in zip(again.weights, net.weights, strict=True):
        np.testing.assert_array_equal(array, expected)
    penalties = float(sum(model.losses))
    assert net.evaluate(X, np.zeros(9))["loss"] == pytest.approx(
        penalties - np.log(net.predict(X)[:, 0]).mean(), rel=1e-5
    )


def test_penalties_are_those_of_the_variables():
    model = chain(layers.Dense(2, kernel_regularizer="l2"))
    model.layers[0].kernel.regularizer = keras.regularizers.L1L2(l1=0.125, l2=0.25)
    net = from_keras(model)
    assert (net.l1, net.l2) == (0.125, 0.25)


def test_the_network_is_independent():
    model = chain(layers.Dense(2))
    net = from_keras(model)
    net.weights[0][...] = 0
    assert model.get_weights()[0].any()


# ------------------------------------------------------------------------------------------- losses


@pytest.mark.parametrize(
    ("activation", "units", "expected"),
    [
        ("softmax", 3, losses.CategoricalCrossentropy()),
        ("sigmoid", 1, losses.BinaryCrossentropy()),
        ("sigmoid", 3, losses.BinaryCrossentropy()),
        ("linear", 3, losses.MeanSquaredError()),
        ("tanh", 1, losses.MeanSquaredError()),
    ],
)
def test_the_last_activation_decides(activation, units, expected):
    assert from_keras(chain(layers.Dense(units, activation))).loss == expected


def test_a_loss_can_be_given():
    net = from_keras(chain(layers.Dense(3)), loss="categorical_crossentropy")
    assert net.loss == losses.CategoricalCrossentropy()
    assert_predict_alike(net, chain(layers.Dense(3)))


@pytest.mark.parametrize(
    ("loss", "activation", "expected"),
    [
        ("categorical_crossentropy", "softmax", losses.CategoricalCrossentropy()),
        ("sparse_categorical_crossentropy", "softmax", losses.CategoricalCrossentropy()),
        ("mse", "linear", losses.MeanSquaredError()),
        (keras.losses.mean_absolute_error, "linear", losses.MeanAbsoluteError()),
        (keras.losses.Huber(delta=0.5), "linear", losses.Huber(0.5)),
        (
            keras.losses.CategoricalCrossentropy(label_smoothing=0.25),
            "softmax",
            losses.CategoricalCrossentropy(0.25),
        ),
        (
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "linear",
            losses.CategoricalCrossentropy(),
        ),
        (
            keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.5),
            "linear",
            losses.BinaryCrossentropy(0.5),
        ),
    ],
)
def test_the_compiled_loss_is_taken(loss, activation, expected):
    model = chain(layers.Dense(3, activation))
    model.compile("sgd", loss=loss)
    assert from_keras(model).loss == expected


# ------------------------------------------------------------------------------------ what can't be


def two_inputs():
    left, right = keras.Input((2,)), keras.Input((2,))
    return keras.Model([left, right], layers.Dense(1)(layers.Concatenate()([left, right])))


def branches():
    start = keras.Input((4,))
    return keras.Model(start, layers.Add()([layers.Dense(3)(start), layers.Dense(3)(start)]))


def shared():
    start, dense = keras.Input((4,)), layers.Dense(4)
    return keras.Model(start, dense(dense(start)))


def frozen():
    model = chain(layers.Dense(2, name="last"))
    model.layers[0].trainable = False
    return model


class OwnDense(layers.Dense):
    pass


MODELS = {
    r"conv1d \(Conv1D\): stands before the first Dense": lambda: chain(
        layers.Conv1D(2, 1, name="conv1d"), layers.Flatten(), layers.Dense(1), features=(4, 1)
    ),
    r"norm \(BatchNormalization\): BatchNormalization is not supported": lambda: chain(
        layers.Dense(3), layers.BatchNormalization(name="norm"), layers.Dense(1)
    ),
    r"own \(OwnDense\): stands before": lambda: chain(OwnDense(3, name="own")),
    r"drop \(Dropout\): stands before": lambda: chain(
        layers.Dropout(0.5, name="drop"), layers.Dense(1)
    ),
    r"two \(Dropout\): a second Dropout": lambda: chain(
        layers.Dense(3), layers.Dropout(0.5), layers.Dropout(0.5, name="two"), layers.Dense(1)
    ),
    r"act \(Activation\): follows another activation": lambda: chain(
        layers.Dense(3, "relu"), layers.Activation("tanh", name="act"), layers.Dense(1)
    ),
    r"late \(ReLU\): follows another activation, or Dropout": lambda: chain(
        layers.Dense(3), layers.Dropout(0.5), layers.ReLU(name="late"), layers.Dense(1)
    ),
    r"last \(Dense\): Dropout follows the last layer": lambda: chain(
        layers.Dense(3, name="last"), layers.Dropout(0.5)
    ),
    r"no \(Dense\): use_bias is False": lambda: chain(layers.Dense(3, use_bias=False, name="no")),
    r"last \(Dense\): is frozen": frozen,
    r"held \(Dense\): has a kernel_constraint": lambda: chain(
        layers.Dense(3, kernel_constraint="non_neg", name="held")
    ),
    r"reg \(Dense\): kernel_regularizer OrthogonalRegularizer": lambda: chain(
        layers.Dense(3, kernel_regularizer=keras.regularizers.OrthogonalRegularizer(), name="reg")
    ),
    "kernel_regularizer: not the same": lambda: chain(
        layers.Dense(3, kernel_regularizer="l2"), layers.Dense(1)
    ),
    r"cube \(Dense\): takes inputs \(None, 2, 2\)": lambda: chain(
        layers.Dense(3, name="cube"), features=(2, 2)
    ),
    r"first \(Flatten\): data_format is channels_first": lambda: chain(
        layers.Flatten("channels_first", name="first"), layers.Dense(1), features=(2, 2)
    ),
    r"cap \(ReLU\): has a max_value or a threshold": lambda: chain(
        layers.Dense(3), layers.ReLU(max_value=6, name="cap")
    ),
    r"mish \(Dense\): mish is not supported": lambda: chain(layers.Dense(3, "mish", name="mish")),
    "dtype: bfloat16, float32 is not": lambda: chain(layers.Dense(3, dtype="mixed_bfloat16")),
    "not one input and one output": two_inputs,
    "is not fed by the layer before it alone": branches,
    "stands at two places": shared,
    "there is no Dense layer": lambda: chain(layers.Flatten()),
    "is not built yet": lambda: keras.Sequential([layers.Dense(3)]),
}


@pytest.mark.parametrize("message", MODELS)
def test_unsupported_models_are_named(message):
    model = MODELS[message]()
    with pytest.raises(UnsupportedModelError, match=message):
        from_keras(model)


@pytest.mark.parametrize(
    ("loss", "activation", "message"),
    [
        ("hinge", "linear", "loss: hinge is not supported"),
        (lambda y, p: 0.0, "linear", "loss: <lambda> is not supported"),
        ({"out": "mse"}, "linear", r"loss: .*mse.* is not one loss"),
        ("categorical_crossentropy", "linear", "from_logits is False, but .* is linear"),
        ("binary_crossentropy", "tanh", "output_activation: 'tanh' gives neither"),
        (
            keras.losses.CategoricalCrossentropy(from_logits=True),
            "softmax",
            "from_logits is True, but .* is softmax",
        ),
        (keras.losses.MeanSquaredError(reduction="sum"), "linear", "reduction 'sum'"),
        (keras.losses.SparseCategoricalCrossentropy(ignore_class=0), "softmax", "ignore_class"),
    ],
)
def test_unsupported_losses_are_named(loss, activation, message):
    model = chain(layers.Dense(3, activation))
    model.compile("sgd", loss=loss)
    with pytest.raises(UnsupportedModelError, match=message):
        from_keras(model)


def test_arguments_are_models():
    with pytest.raises(TypeError, match=r"model: .* is not a Keras model"):
        from_keras(MLP([2, 1]))
    with pytest.raises(TypeError, match=r"network: .* is not an MLP"):
        to_keras(chain(layers.Dense(2)))


def test_estimators_become_models():
    from fastdl.sklearn import MLPClassifier

    X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    estimator = MLPClassifier((5, 4), ["tanh", "relu"], tol=0.1, random_state=0)
    estimator.fit(X, np.arange(40) % 3)
    model = estimator.to_keras(name="classes")
    assert model.name == "classes"
    np.testing.assert_allclose(
        model.predict(X, verbose=0), estimator.predict_proba(X), rtol=1e-5, atol=1e-6
    )
