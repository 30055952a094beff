"""Optimizers: their settings, and training against Keras's own."""

import dataclasses

import numpy as np
import pytest

from fastdl import MLP, backends, ops, optimizers, schedules
from fastdl.keras import to_keras
from fastdl.optimizers import SGD, Adam, AdamW, RMSprop

# Name -> our class, the name of Keras's and the arguments of both. All numbers are powers of 2 or
# sums of two: Keras passes some of them through float32, also where the model is float64.
PAIRS = {
    "sgd": (SGD, "SGD", {"learning_rate": 2**-3}),
    "momentum": (SGD, "SGD", {"learning_rate": 2**-3, "momentum": 0.875}),
    "nesterov": (SGD, "SGD", {"learning_rate": 2**-3, "momentum": 0.875, "nesterov": True}),
    "decay": (SGD, "SGD", {"learning_rate": 2**-3, "momentum": 0.5, "weight_decay": 2**-7}),
    "rmsprop": (RMSprop, "RMSprop", {"learning_rate": 2**-9, "rho": 0.875, "epsilon": 2**-20}),
    "adam": (Adam, "Adam", {"learning_rate": 2**-9, "beta_1": 0.875, "beta_2": 1 - 2**-10}),
    "adamw": (AdamW, "AdamW", {"beta_1": 0.75, "beta_2": 1 - 2**-8, "weight_decay": 2**-7}),
    "clipvalue": (SGD, "SGD", {"learning_rate": 0.5, "clipvalue": 2**-7}),
    "clipnorm": (SGD, "SGD", {"learning_rate": 0.5, "clipnorm": 2**-4}),
    "global_clipnorm": (
        SGD,
        "SGD",
        {"learning_rate": 0.5, "global_clipnorm": 2**-4, "weight_decay": 2**-7},
    ),
}


def problem():
    generator = np.random.default_rng(3)
    return generator.normal(size=(37, 5)), generator.integers(0, 3, 37)


def train_both(keras, net, ours, theirs, X, y, **kwargs):
    """Histories of two epochs here and in Keras, from the same weights; the networks change."""
    model = to_keras(net)
    model.compile(
        theirs, loss="sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=True
    )
    kwargs |= {"epochs": 2, "batch_size": 16, "shuffle": False, "verbose": 0}
    history = net.fit(X, y, optimizer=ours, **kwargs)
    return history, model.fit(X, y, **kwargs), model


@pytest.mark.parametrize("name", PAIRS)
def test_trains_as_keras_does(keras_in_double, name):
    ours, kind, arguments = PAIRS[name]
    net = MLP(
        [5, 7, 6, 3],
        activation=["relu", "tanh"],
        dtype="float64",
        seed=1,
        l1=2**-10,
        l2=2**-7,
    )
    X, y = problem()
    validation = (X[:10] + 0.1, y[:10])
    theirs = getattr(keras_in_double.optimizers, kind)(**arguments)
    mine, reference, model = train_both(
        keras_in_double, net, ours(**arguments), theirs, X, y, validation_data=validation
    )
    for array, expected in zip(net.weights, model.get_weights(), strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-9, atol=1e-12)
    assert mine.history.keys() == reference.history.keys()
    assert mine.epoch == reference.epoch
    for metric, values in reference.history.items():
        np.testing.assert_allclose(mine.history[metric], values, rtol=1e-9, err_msg=metric)


def test_schedule_counts_steps_as_keras_does(keras_in_double):
    settings = {"initial_learning_rate": 0.0, "decay_steps": 9, "warmup_target": 0.5}
    settings |= {"warmup_steps": 4, "alpha": 0.1}
    net = MLP([5, 7, 3], dtype="float64", seed=1)
    X, y = problem()
    _, _, model = train_both(
        keras_in_double,
        net,
        SGD(schedules.CosineDecay(**settings)),
        keras_in_double.optimizers.SGD(
            keras_in_double.optimizers.schedules.CosineDecay(**settings)
        ),
        X,
        y,
    )
    for array, expected in zip(net.weights, model.get_weights(), strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-6, atol=1e-9)


def test_weights_of_rows_count_as_in_keras(keras_in_double):
    net = MLP([5, 7, 3], dtype="float64", seed=1)
    X, y = problem()
    mine, reference, _ = train_both(
        keras_in_double,
        net,
        SGD(0.1),
        keras_in_double.optimizers.SGD(0.1),
        X,
        y,
        class_weight={0: 3.0, 2: 0.25},
    )
    for metric, values in reference.history.items():
        np.testing.assert_allclose(mine.history[metric], values, rtol=1e-7, err_msg=metric)


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adam", "adamw"])
def test_defaults_are_keras_own(keras_in_double, name):
    theirs = keras_in_double.optimizers.get(name).get_config()
    ours = dataclasses.asdict(optimizers.get(name))
    for setting, value in ours.items():
        expected = theirs[setting] or (0.0 if setting == "weight_decay" else theirs[setting])
        assert value == (pytest.approx(expected) if expected else expected), setting


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (SGD, {"learning_rate": -0.1}, "learning_rate: -0.1 is not a finite number >= 0"),
        (Adam, {"learning_rate": float("nan")}, "learning_rate: nan is not a finite number >= 0"),
        (SGD, {"momentum": 1.5}, "momentum: 1.5 is not"),
        (SGD, {"weight_decay": -1}, "weight_decay: -1 is not"),
        (SGD, {"clipnorm": 0}, "clipnorm: 0 is not"),
        (SGD, {"clipnorm": 1.0, "clipvalue": 1.0}, "clipnorm and clipvalue: only one"),
        (RMSprop, {"rho": -0.1}, "rho: -0.1 is not"),
        (RMSprop, {"epsilon": 0}, "epsilon: 0 is not"),
        (Adam, {"beta_1": 1}, "beta_1: 1 is not"),
        (AdamW, {"beta_2": 1.0}, "beta_2: 1.0 is not"),
    ],
)
def test_settings_are_checked(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(**arguments)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [(SGD, {"learning_rate": "fast"}), (SGD, {"nesterov": 1}), (Adam, {"epsilon": None})],
)
def test_types_are_checked(kind, arguments):
    with pytest.raises(TypeError, match=next(iter(arguments))):
        kind(**arguments)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match=r"optimizer: 'adma' is not one of sgd, rmsprop, adam"):
        optimizers.get("adma")
    with pytest.raises(TypeError, match="optimizer: 3 is not"):
        optimizers.get(3)


def test_schedule_out_of_range_is_refused_before_the_step():
    net = MLP([5, 3], seed=0)
    X, y = problem()
    with pytest.raises(ValueError, match=r"learning_rate: -1\.0 is not"):
        net.fit(X, y, optimizer=SGD(lambda step: -1.0), verbose=0)
    assert net.iterations == 0


def test_one_object_serves_many_networks():
    optimizer = Adam(0.01)
    X, y = problem()
    first, second = (MLP([5, 4, 3], seed=7) for _ in range(2))
    first.fit(X, y, optimizer=optimizer, verbose=0)
    second.fit(X, y, optimizer=optimizer, verbose=0)
    for one, other in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("optimizer", [None, Adam(0.01)])
def test_the_same_optimizer_goes_on(optimizer):
    X, y = problem()
    settings = {"batch_size": 37, "shuffle": False, "verbose": 0}
    whole, parts = (MLP([5, 4, 3], seed=7) for _ in range(2))
    whole.fit(X, y, epochs=2, optimizer=Adam(0.01), **settings)
    parts.fit(X, y, optimizer=Adam(0.01), **settings)
    parts.fit(X, y, optimizer=optimizer, **settings)
    np.testing.assert_array_equal(whole.weights[0], parts.weights[0])


def test_another_optimizer_starts_afresh():
    X, y = problem()
    settings = {"shuffle": False, "verbose": 0}
    net, fresh = (MLP([5, 4, 3], seed=7) for _ in range(2))
    net.fit(X, y, optimizer=Adam(0.01), **settings)
    fresh.set_weights(net.get_weights())
    for each in net, fresh:
        each.fit(X, y, optimizer=Adam(0.01, beta_1=0.5), **settings)
        assert each.optimizer.beta_1 == 0.5
    np.testing.assert_array_equal(net.weights[0], fresh.weights[0])


def test_a_changed_learning_rate_outlives_the_fit():
    X, y = problem()
    net = MLP([5, 3], seed=0)
    with pytest.raises(AttributeError, match="before the first fit"):
        _ = net.learning_rate
    net.fit(X, y, optimizer="sgd", verbose=0)
    net.learning_rate = 0.5
    net.fit(X, y, optimizer="sgd", verbose=0)
    assert net.learning_rate == 0.5
    with pytest.raises(ValueError, match="learning_rate: -1 is not"):
        net.learning_rate = -1
    assert net.learning_rate == 0.5


def test_a_schedule_can_not_be_overwritten():
    X, y = problem()
    net = MLP([5, 3], seed=0)
    net.fit(X, y, optimizer=SGD(schedules.ExponentialDecay(0.1, 2, 0.5)), verbose=0)
    assert net.learning_rate == pytest.approx(0.1 * 0.5 ** (net.iterations / 2))
    with pytest.raises(TypeError, match="learning_rate: the optimizer follows a schedule"):
        net.learning_rate = 0.5


@pytest.mark.parametrize("backend", backends.BACKENDS)
@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adam"])
def test_small_decays_add_up_in_single_precision(name, backend):
    parameters, zeros = np.ones(40, np.float32), np.zeros(40, np.float32)
    slots = [zeros.copy() for _ in range({"sgd": 0, "rmsprop": 1, "adam": 2}[name])]
    last = {"step": 1} if name == "adam" else {}
    update = getattr(ops, f"{name}_update")
    with backends.use_backend(backend):
        for _ in range(2000):
            update(parameters, zeros, *slots, learning_rate=1e-3, weight_decay=1e-3, **last)
    assert np.log(parameters) == pytest.approx(-2e-3, rel=0.02)
