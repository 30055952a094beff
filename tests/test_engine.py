"""The compiled training engine: what NumPy does kernel by kernel, however the work is cut."""

import itertools
import math
import os
import signal

import numpy as np
import pytest

from fastdl import (
    MLP,
    Callback,
    EarlyStopping,
    History,
    _engine,
    backends,
    get_backend,
    use_backend,
)
from fastdl.losses import BinaryCrossentropy, CategoricalCrossentropy, Huber
from fastdl.optimizers import SGD, Adam, AdamW, RMSprop
from fastdl.schedules import ExponentialDecay

pytestmark = pytest.mark.each_build

# Rounding, carried through some twenty steps.
TOLERANCE = {"float32": {"rtol": 2e-3, "atol": 2e-5}, "float64": {"rtol": 1e-9, "atol": 1e-12}}


def data(rows=53, features=11, classes=3, *, density=1.0, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, features))
    X[rng.random(X.shape) >= density] = 0
    X[:, 3 % features] *= density == 1  # a column that no sparse row has
    return X, rng.integers(0, classes, rows)


def one_hot(y):
    return np.eye(y.max() + 1)[y]


NUMBA = "numba"


@pytest.fixture
def threads(request, monkeypatch):
    """So many threads of the compiled engine, or its twin in Numba."""
    if request.param == NUMBA:
        with use_backend(NUMBA):
            yield
    else:
        monkeypatch.setattr(_engine, "_threads", lambda *_: request.param)
        yield


# Smooth, unless asked otherwise: rounding decides on which side of a kink a number falls.
DEFAULTS = {"activation": "tanh", "seed": 7, "dtype": "float64"}


def trained(arguments, fit, X, y, backend=None):
    with use_backend(backend or get_backend()):
        net = MLP(**DEFAULTS | arguments)
        history = net.fit(X, y, **{"epochs": 2, "batch_size": 10, "verbose": 0} | fit)
        return net, history.history


def assert_same_training(arguments, fit, X, y):
    net, history = trained(arguments, fit, X, y)
    wanted, wanted_history = trained(arguments, fit, X, y, "reference")
    tolerance = TOLERANCE[net.dtype.name]
    assert history.keys() == wanted_history.keys()
    for name, values in history.items():
        np.testing.assert_allclose(values, wanted_history[name], **tolerance)
    for array, other in zip(net.weights, wanted.weights, strict=True):
        np.testing.assert_allclose(array, other, **tolerance)
    for name, slot in net._state.slots.items():
        np.testing.assert_allclose(slot, wanted._state.slots[name], **tolerance)
    assert net.iterations == wanted.iterations == net._state.iterations
    with use_backend("reference"):
        expected = net.predict(X)
    np.testing.assert_allclose(net.predict(X), expected, **tolerance)


OPTIMIZERS = {
    "sgd": SGD(0.1),
    "momentum": SGD(0.05, momentum=0.9),
    "nesterov": SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "rmsprop": RMSprop(0.01),
    "adam": Adam(0.01),
    "adamw": AdamW(0.01, weight_decay=0.1),
    "schedule": Adam(ExponentialDecay(0.02, decay_steps=3, decay_rate=0.7)),
    "clipvalue": SGD(0.1, clipvalue=0.01),
    "clipnorm": Adam(0.01, clipnorm=0.05),
    "global_clipnorm": RMSprop(0.01, global_clipnorm=0.05),
}


# Threads divide a first layer's weights by inputs, or by units where dense inputs are few.
DIVISIONS = [(11, 1.0), (11, 0.2), (350, 1.0)]


@pytest.mark.parametrize("threads", [1, 2, NUMBA], indirect=True)
@pytest.mark.parametrize(("features", "density"), DIVISIONS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.usefixtures("threads")
def test_optimizers(optimizer, features, density):
    X, y = data(features=features, density=density)
    arguments = {"sizes": [features, 40, 9, 3], "dropout": [0.3, 0.0]}
    assert_same_training(arguments, {"optimizer": OPTIMIZERS[optimizer]}, X, y)


@pytest.mark.parametrize("threads", [1, NUMBA], indirect=True)
@pytest.mark.parametrize("density", [1.0, 0.2])
@pytest.mark.usefixtures("threads")
def test_a_step_of_adam_in_single_precision(density):
    X, y = data(density=density)
    arguments = {"sizes": [11, 70, 3], "dtype": "float32"}
    fit = {"optimizer": Adam(0.1), "batch_size": 53, "epochs": 1}
    net, _ = trained(arguments, fit, X, y)
    wanted, _ = trained(arguments, fit, X, y, "reference")
    for array, other in zip(net.weights, wanted.weights, strict=True):
        np.testing.assert_allclose(array, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 3, NUMBA], indirect=True)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "activation",
    [
        "linear", "relu", "leaky_relu", "elu", "sigmoid", "tanh", "softplus", "silu", "gelu",
        "softmax", "log_softmax",
    ],
)  # fmt: skip
@pytest.mark.usefixtures("threads")
def test_activations(activation, dtype):
    X, y = data()
    arguments = {"sizes": [11, 50, 20, 3], "activation": activation, "dropout": 0.2, "dtype": dtype}
    assert_same_training(arguments, {"optimizer": SGD(0.005)}, X, y)


@pytest.mark.parametrize("threads", [1, 2, NUMBA], indirect=True)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("loss", "units"),
    [
        (BinaryCrossentropy(label_smoothing=0.1), 1),
        ("binary_crossentropy", 3),
        ("categorical_crossentropy", 3),
        (CategoricalCrossentropy(label_smoothing=0.1), 3),
        ("mse", 1),
        ("mae", 3),
        (Huber(0.5), 2),
        ("poisson", 3),
    ],
)
@pytest.mark.usefixtures("threads")
def test_losses(loss, units, weighted):
    X, y = data()
    rng = np.random.default_rng(1)
    targets = {1: rng.integers(0, 2, len(X)), 2: rng.normal(size=(len(X), 2)), 3: one_hot(y)}
    fit = {"optimizer": SGD(0.05)}
    if weighted:
        fit["sample_weight"] = rng.random(len(X))
    assert_same_training({"sizes": [11, 20, units], "loss": loss}, fit, X, targets[units])


@pytest.mark.parametrize("output", ["sigmoid", "softmax"])
@pytest.mark.parametrize("threads", [1, NUMBA], indirect=True)
@pytest.mark.usefixtures("threads")
def test_probabilities_instead_of_logits(output):
    X, y = data()
    loss = "categorical_crossentropy" if output == "sigmoid" else "binary_crossentropy"
    arguments = {"sizes": [11, 20, 3], "loss": loss, "output_activation": output}
    assert_same_training(arguments, {"optimizer": SGD(0.05)}, X, one_hot(y))


@pytest.mark.parametrize("threads", [1, 2, NUMBA], indirect=True)
@pytest.mark.parametrize(("features", "density"), DIVISIONS)
@pytest.mark.parametrize("l1", [0.0, 0.01])
@pytest.mark.usefixtures("threads")
def test_penalties(l1, features, density):
    X, y = data(features=features, density=density)
    arguments = {"sizes": [features, 40, 70, 3], "l1": l1, "l2": 0.02}
    assert_same_training(arguments, {"optimizer": Adam(0.01)}, X, y)


@pytest.mark.parametrize("threads", [1, 3], indirect=True)
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "rmsprop", "adam"])
@pytest.mark.usefixtures("threads")
def test_penalties_of_weights_whose_inputs_are_rare(optimizer):
    X, y = data(rows=403, features=60, density=0.01)
    # L1 makes adaptive steps jump over zero and back, by rounding now or a step later.
    l1 = 0.001 if optimizer in ("sgd", "momentum") else 0.0
    arguments = {"sizes": [60, 530, 3], "l1": l1, "l2": 0.002}
    fit = {"optimizer": OPTIMIZERS[optimizer], "batch_size": 3, "epochs": 1}
    assert_same_training(arguments, fit, X, y)


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
@pytest.mark.usefixtures("threads")
def test_penalties_go_on_where_a_call_ended(monkeypatch):
    X, y = data(rows=203, features=60, density=0.05)
    arguments, fit = {"sizes": [60, 20, 3], "l2": 0.01}, {"optimizer": Adam(0.01), "batch_size": 3}
    whole, history = trained(arguments, fit, X, y)
    monkeypatch.setattr("fastdl.network._LISTENING_INTERVAL", 0)
    parts, other = trained(arguments, fit, X, y)
    assert digest(whole) == digest(parts)
    assert history == other


@pytest.mark.parametrize("density", [1.0, 0.1])
@pytest.mark.parametrize(("features", "units"), [(90, 70), (250, 30), (90, 700)])
def test_any_cut_gives_the_same_penalties(features, units, density, monkeypatch):
    X, y = data(rows=203, features=features, density=density)
    arguments = {"sizes": [features, units, 3], "l1": 1e-3, "l2": 1e-3, "dtype": "float32"}
    results = set()
    for threads in range(1, 6):
        monkeypatch.setattr(_engine, "_threads", lambda *_, count=threads: count)
        net, history = trained(arguments, {"optimizer": Adam(0.01)}, X, y)
        results.add((digest(net), tuple(history["loss"])))
    assert len(results) == 1


@pytest.mark.parametrize("threads", [1, 2, NUMBA], indirect=True)
@pytest.mark.parametrize("density", [1.0, 0.2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "sizes",
    [
        *[[1, 2], [5, 1, 2], [11, 3], [300, 17, 16, 2], [7, 129, 33, 5], [3, 4, 5, 6, 7, 8, 9]],
        *[[20, 33, 16, 17, 13], [4, 1100, 16]],  # few outputs, of so many inputs in several parts
    ],
)
@pytest.mark.usefixtures("threads")
def test_shapes(sizes, dtype, density):
    X, y = data(features=sizes[0], classes=sizes[-1], density=density)
    assert_same_training({"sizes": sizes, "dtype": dtype}, {"optimizer": SGD(0.05)}, X, y)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("density", [1.0, 0.2])
@pytest.mark.parametrize("batch_size", [1, 7, 53, 100])
@pytest.mark.parametrize("threads", [1, NUMBA], indirect=True)
@pytest.mark.usefixtures("threads")
def test_batches(batch_size, density, shuffle):
    X, y = data(density=density)
    fit = {"batch_size": batch_size, "shuffle": shuffle, "optimizer": SGD(0.01)}
    assert_same_training({"sizes": [11, 20, 3], "dropout": 0.5}, fit, X, y)


@pytest.mark.parametrize("threads", [1, NUMBA], indirect=True)
@pytest.mark.usefixtures("threads")
def test_any_depth():
    X, y = data()
    assert_same_training({"sizes": [11, *[4] * 64, 3]}, {"optimizer": SGD(0.1)}, X, y)


# Networks of a few units, whose vectors run along the rows of the batch.

SMOOTH = ["linear", "sigmoid", "tanh", "softplus", "silu", "gelu", "softmax", "log_softmax"]
KINKED = ["relu", "leaky_relu", "elu"]
THIN_FIT = {"batch_size": 21, "optimizer": SGD(0.05)}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_thin_optimizers(optimizer):
    X, y = data(features=3)
    arguments = {"sizes": [3, 7, 4, 3], "dropout": [0.3, 0.0], "l1": 0.001, "l2": 0.002}
    assert_same_training(arguments, THIN_FIT | {"optimizer": OPTIMIZERS[optimizer]}, X, y)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("activation", SMOOTH + KINKED)
def test_thin_activations(activation, dropout, dtype):
    X, y = data(features=5)
    arguments = {
        "sizes": [5, 6, 5, 3],
        "activation": activation,
        "dropout": dropout,
        "dtype": dtype,
    }
    assert_same_training(arguments, THIN_FIT, X, y)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("output", ["logits", "sigmoid", "softmax"])
@pytest.mark.parametrize(
    ("loss", "units"),
    [
        (BinaryCrossentropy(label_smoothing=0.1), 1),
        ("binary_crossentropy", 3),
        ("categorical_crossentropy", 3),
        (CategoricalCrossentropy(label_smoothing=0.1), 3),
        (CategoricalCrossentropy(label_smoothing=0.1), "classes"),
        ("mse", 1),
        ("mae", 3),
        (Huber(0.5), 2),
        ("poisson", 3),
    ],
)
def test_thin_losses(loss, units, output, weighted, dtype):
    X, y = data(features=3)
    rng = np.random.default_rng(1)
    targets = {
        1: rng.integers(0, 2, len(X)),
        2: rng.normal(size=(len(X), 2)),
        3: one_hot(y),
        "classes": y,
    }[units]
    outputs = 3 if units == "classes" else units
    arguments = {"sizes": [3, 5, outputs], "loss": loss, "dtype": dtype}
    if output != "logits":
        arguments["output_activation"] = output
    fit = THIN_FIT | {"sample_weight": rng.random(len(X))} if weighted else THIN_FIT
    assert_same_training(arguments, fit, X, targets)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", [[1, 2], [2, 4, 2], [16, 2], [15, 9, 16, 13], [3, 4, 5, 6, 7, 8]])
@pytest.mark.parametrize("rows", [37, 127, 128, 129, 3001])
def test_thin_shapes(rows, sizes, dtype):
    X, y = data(rows, sizes[0], sizes[-1])
    fit = {"batch_size": rows, "optimizer": SGD(0.05), "shuffle": False}
    assert_same_training({"sizes": sizes, "dtype": dtype, "dropout": 0.2}, fit, X, y)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch_size", [4, 5, 21, 53])
def test_thin_batches(batch_size, shuffle):
    X, y = data(features=2, classes=2)
    fit = {"batch_size": batch_size, "shuffle": shuffle, "optimizer": Adam(0.01)}
    arguments = {"sizes": [2, 4, 1], "dropout": 0.5, "loss": "binary_crossentropy"}
    assert_same_training(arguments, fit, X, y)


def digest(net):
    return b"".join(array.tobytes() for array in net.weights)


def train_at(choice, paces, seconds):
    """Train where a step takes `paces[threads]`; returns the seconds at each number."""
    spent = dict.fromkeys(paces, 0.0)
    while sum(spent.values()) < seconds:
        threads, took = choice.threads, choice.limit(0.05)
        spent[threads] += took
        choice.took(took, took / paces[threads])
    return spent


@pytest.mark.parametrize("most", [2, 5])
def test_threads_stay_where_fewer_are_slower(most):
    choice = _engine.ThreadChoice(most)
    spent = train_at(choice, {most: 1e-4} | {most // 2: 1.5e-4}, 10)
    assert spent[most] > 9.8


def test_threads_stay_where_fewer_are_hardly_faster():
    choice = _engine.ThreadChoice(2)
    assert train_at(choice, {1: 9.9e-5, 2: 1e-4}, 10)[2] > 9.8


def test_half_the_threads_where_they_are_faster():
    choice = _engine.ThreadChoice(4)
    assert train_at(choice, {2: 1e-4, 4: 1.5e-4}, 10)[2] > 9.6


def test_threads_follow_what_the_machine_has_left():
    choice = _engine.ThreadChoice(2)
    train_at(choice, {1: 1e-4, 2: 1.5e-4}, 2)
    assert choice.threads == 1
    assert train_at(choice, {1: 1e-4, 2: 0.6e-4}, 10)[2] > 9.3


def test_long_steps_are_seldom_tried_on_half_the_threads():
    choice, spent = _engine.ThreadChoice(2), {1: 0.0, 2: 0.0}
    for _ in range(500):
        pace = {1: 0.06, 2: 0.03}[choice.threads]
        spent[choice.threads] += pace
        choice.took(pace, 1)
    assert 0 < spent[1] < 0.07 * spent[2]


def test_steps_too_short_to_tell_count_together():
    choice = _engine.ThreadChoice(2)
    for _ in range(10_000):
        choice.took({1: 1e-5, 2: 2e-5}[choice.threads], 1)
    assert choice.threads == 1


@pytest.mark.parametrize("threads", [1, 2, 3], indirect=True)
@pytest.mark.parametrize("few_values", [True, False])
@pytest.mark.parametrize("density", [1.0, 0.2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.usefixtures("threads")
def test_lists_for_more_outputs_than_registers_add_up(dtype, density, few_values):
    # Batches of more rows than a word has bits, the last one of few.
    X, y = data(rows=163, features=40, density=density)
    X = X.round(1) if few_values else X
    arguments = {"sizes": [40, 150, 141, 3], "dropout": 0.4, "dtype": dtype}
    assert_same_training(arguments, {"batch_size": 75, "optimizer": SGD(0.1)}, X, y)


@pytest.mark.parametrize("optimizer", [Adam(0.01), Adam(0.01, global_clipnorm=0.5)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("outputs", [1824, 2721, 4000])
def test_cuts_of_a_wide_layer_give_the_same_bits(outputs, dtype, optimizer, monkeypatch):
    # Of rows half as wide, more than twice as many may wait for the optimizer.
    X, y = data(rows=7, features=60, classes=10)
    arguments, results = {"sizes": [60, outputs, 10], "dtype": dtype}, set()
    for threads in range(1, 5):
        monkeypatch.setattr(_engine, "_threads", lambda *_, count=threads: count)
        net, history = trained(arguments, {"batch_size": 2, "optimizer": optimizer}, X, y)
        results.add((digest(net), *history["loss"]))
    assert len(results) == 1


@pytest.mark.parametrize("optimizer", [Adam(0.01), Adam(0.01, global_clipnorm=0.5)])
@pytest.mark.parametrize("sparse_density", [0, 0.5])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize(
    "sizes", [[90, 130, 70, 10], [90, 45, 10], [90, 11, 70, 10], [90, 600, 10], [90, 50, 1000, 10]]
)
def test_any_cut_gives_the_same_bits(sizes, activation, sparse_density, optimizer, monkeypatch):
    X, y = data(rows=203, features=90, classes=10, density=0.2)
    arguments = {"sizes": sizes, "activation": activation, "dropout": 0.5, "l2": 1e-3}
    arguments["dtype"] = "float32"
    monkeypatch.setattr(_engine, "SPARSE_DENSITY", sparse_density)
    results = set()
    for threads, interval in itertools.product(range(1, 6), [1, 0]):
        monkeypatch.setattr(_engine, "_threads", lambda *_, count=threads: count)
        monkeypatch.setattr("fastdl.network._LISTENING_INTERVAL", interval)
        net, history = trained(arguments, {"batch_size": 64, "optimizer": optimizer}, X, y)
        slots = b"".join(slot.tobytes() for slot in net._state.slots.values())
        results.add((digest(net), slots, *history["loss"]))
    assert len(results) == 1


@pytest.mark.parametrize("sparse_density", [0, 0.5])
@pytest.mark.parametrize("dropout", [0, 0.5])
def test_any_cut_meets_the_same_infinities(dropout, sparse_density, monkeypatch):
    # What ReLU and dropout let pass goes from thread to thread without zeros, but with NaN.
    X, y = data(rows=60, features=90, classes=10, density=0.2)
    arguments = {"sizes": [90, 70, 40, 10], "activation": "relu", "dropout": dropout}
    arguments["dtype"] = "float32"
    monkeypatch.setattr(_engine, "SPARSE_DENSITY", sparse_density)
    finite = set()
    for threads in range(1, 4):
        monkeypatch.setattr(_engine, "_threads", lambda *_, count=threads: count)
        net, _ = trained(arguments, {"batch_size": 20, "optimizer": SGD(1e25)}, X, y)
        finite.add(b"".join(np.isfinite(array).tobytes() for array in net.weights))
    assert len(finite) == 1
    assert not all(finite.pop())


@pytest.mark.parametrize("threads", [1, 2, 3], indirect=True)
@pytest.mark.parametrize(("batch_size", "epochs"), [(5, 1), (5, 4), (53, 30)])
@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adam", "clipnorm"])
@pytest.mark.usefixtures("threads")
def test_calls_of_few_and_of_many_steps(optimizer, batch_size, epochs):
    X, y = data()
    fit = {"optimizer": OPTIMIZERS[optimizer], "batch_size": batch_size, "epochs": epochs}
    assert_same_training({"sizes": [11, 37, 20, 3], "l2": 0.01}, fit, X, y)


@pytest.mark.parametrize("hidden", [20, 4])
@pytest.mark.parametrize("threads", [1, NUMBA], indirect=True)
@pytest.mark.usefixtures("threads")
def test_it_goes_on_where_a_call_ended(hidden, monkeypatch):
    X, y = data()
    arguments, fit = {"sizes": [11, hidden, 3], "dropout": 0.5}, {"optimizer": Adam(0.01)}
    whole, history = trained(arguments, fit, X, y)
    monkeypatch.setattr("fastdl.network._LISTENING_INTERVAL", 0)
    parts, other = trained(arguments, fit, X, y)
    assert digest(whole) == digest(parts)
    assert history == other


# ------------------------------------------------------------------- calls over many epochs


class EpochByEpoch(Callback):
    def on_epoch_end(self, epoch, logs=None):
        """Nothing, but it has to be called."""


def everything(arguments, fit, X, y, backend="cython"):
    """All that training leaves behind, after a second call that goes on with the rest."""
    net, history = trained(arguments, fit, X, y, backend)
    with use_backend(backend):
        again = net.fit(X, y, batch_size=9, epochs=3, verbose=0)
    state = net._state
    slots = [slot.tobytes() for slot in state.slots.values()]
    counters = net.iterations, state.iterations, net._network.epochs
    return digest(net), slots, counters, history, again.epoch, again.history


@pytest.mark.parametrize("backend", ["cython", NUMBA, "reference"])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("batch_size", "density"), [(53, 1.0), (10, 0.2), (100, 0.2), (53, 0.2)])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "schedule", "global_clipnorm"])
def test_many_epochs_are_the_same_as_one_by_one(optimizer, batch_size, density, shuffle, backend):
    X, y = data(density=density)
    arguments = {"sizes": [11, 8, 3], "dropout": 0.3}
    fit = {"optimizer": OPTIMIZERS[optimizer], "batch_size": batch_size, "shuffle": shuffle}
    fit |= {"epochs": 7}
    one_by_one = everything(arguments, fit | {"callbacks": [EpochByEpoch()]}, X, y, backend)
    assert everything(arguments, fit, X, y, backend) == one_by_one


@pytest.mark.parametrize("steps", [1, 4, 7, 12])
@pytest.mark.parametrize("backend", ["cython", NUMBA])
def test_a_call_may_end_anywhere_between_epochs(backend, steps, monkeypatch):
    X, y = data()
    arguments, fit = {"sizes": [11, 8, 3], "dropout": 0.3}, {"epochs": 9, "optimizer": Adam(0.01)}
    whole = everything(arguments, fit, X, y, backend)
    monkeypatch.setattr(_engine, "_STEPS_AHEAD", steps)
    assert everything(arguments, fit, X, y, backend) == whole


@pytest.fixture
def calls(monkeypatch):
    """The steps that each call of the engine took, none ended by the clock."""
    taken = []
    train_steps = _engine.train_steps
    monkeypatch.setattr(
        _engine, "train_steps", lambda *given: (taken.append(train_steps(*given)), taken[-1])[1]
    )
    monkeypatch.setattr("fastdl.network._LISTENING_INTERVAL", 3600)
    return taken


@pytest.mark.parametrize("backend", ["cython", NUMBA])
def test_one_call_runs_through_all_epochs(backend, calls):
    callbacks = [History(), Callback(), EarlyStopping("loss", patience=50)]
    fit = {"epochs": 50, "callbacks": callbacks}
    trained({"sizes": [11, 3]}, fit, *data(), backend)
    assert calls == [50 * 6]


@pytest.mark.parametrize(
    "fit",
    [
        {"callbacks": [EpochByEpoch()]},
        {"callbacks": [EarlyStopping("loss", patience=9), EpochByEpoch()]},
        {"callbacks": [EarlyStopping("loss", patience=9, restore_best_weights=True)]},
        {"validation_split": 0.1},
    ],
)
def test_what_follows_epochs_gets_each(fit, calls):
    trained({"sizes": [11, 3]}, fit | {"epochs": 5, "batch_size": 100}, *data())
    assert calls == [1] * 5


def test_ctrl_c_between_epochs_keeps_the_counters_right(monkeypatch):
    X, y = data()
    net, whole = (MLP([11, 3], seed=1) for _ in range(2))

    class Press(Callback):
        def on_train_progress(self, batch, logs=None):
            if self.model.iterations >= 20:
                raise KeyboardInterrupt

    monkeypatch.setattr("fastdl.network._PROGRESS_INTERVAL", 0)
    monkeypatch.setattr(_engine, "_STEPS_AHEAD", 10)
    with pytest.raises(KeyboardInterrupt):
        net.fit(X, y, batch_size=10, epochs=9, callbacks=[Press()], verbose=0)
    assert (net.iterations, net._network.epochs) == (20, 4)  # 6 steps each
    whole.fit(X, y, batch_size=10, epochs=4, callbacks=[StopAfter(20)], verbose=0)
    for each in (net, whole):
        each.fit(X, y, batch_size=10, epochs=2, verbose=0)
    assert digest(net) == digest(whole)


class StopAfter(Callback):
    def __init__(self, steps):
        self.steps = steps

    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training = self.model.iterations == self.steps


def test_inputs_that_no_row_has_keep_their_weights():
    X, y = data(density=0.2)
    net = MLP([11, 20, 3], seed=0)
    before = net.get_weights()[0]
    net.fit(X, y, optimizer=Adam(0.1), verbose=0)
    assert (net.weights[0][3] == before[3]).all()
    assert not (net.weights[0][4] == before[4]).all()


def test_inputs_that_no_row_has_go_on_with_their_momentum():
    X, y = data()
    X[:, 3] = 1
    dense = {"sizes": [11, 20, 3], "dtype": "float64"}
    nets = []
    for backend in ("cython", "reference"):
        with use_backend(backend):
            net = MLP(**dense, seed=3)
            net.fit(X, y, optimizer=Adam(0.01), verbose=0)
            net.fit(*data(density=0.2), verbose=0)
            nets.append(net)
    for array, other in zip(nets[0].weights, nets[1].weights, strict=True):
        np.testing.assert_allclose(array, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("threads", [1, NUMBA], indirect=True)
@pytest.mark.usefixtures("threads")
def test_subnormal_numbers_are_as_before_afterwards():
    X, y = data()
    MLP([11, 20, 3]).fit(X, y, verbose=0)
    assert np.float32(1e-40) * np.float32(1) > 0


@pytest.mark.usefixtures("ctrl_c_in_third_call")
def test_ctrl_c_ends_a_long_call_after_a_step():
    X, y = data(rows=1000)
    arguments = {"sizes": [11, 32, 3], "dropout": 0.5, "seed": 5}
    net = MLP(**arguments)
    with pytest.raises(KeyboardInterrupt):
        net.fit(X, y, epochs=10**6, batch_size=100, verbose=0)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert net.iterations == net._state.iterations > 0

    again = MLP(**arguments)
    epochs = math.ceil(net.iterations / 10)
    again.fit(X, y, epochs=epochs, batch_size=100, callbacks=[StopAfter(net.iterations)], verbose=0)
    assert digest(net) == digest(again)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_both_engines_find_the_same_nonzeros(dtype):
    X = data(density=0.2)[0].astype(dtype)
    found = []
    for backend in ("cython", NUMBA):
        with use_backend(backend):
            kernels = backends.current()
        assert kernels.sparse_rows(X, 0.1, 1) == (True, None)
        finite, arrays = kernels.sparse_rows(X, 0.3, 1)
        assert finite
        found.append(arrays)
    for array, other in zip(*found, strict=True):
        assert array.dtype == other.dtype
        np.testing.assert_array_equal(array, other)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_both_engines_find_what_is_not_finite(value, dtype):
    X = data(density=0.2)[0].astype(dtype)
    X[20, 7] = value
    for backend in ("cython", NUMBA):
        with use_backend(backend):
            assert backends.current().sparse_rows(X, 1.0, 1) == (False, None)


@pytest.mark.parametrize("units", [2**26, 2**31 - 1])
def test_parameters_that_no_memory_can_hold(units):
    with pytest.raises(MemoryError, match=r"^no [\d,]+ bytes of memory to be had$"):
        MLP([units, units])


@pytest.mark.parametrize("units", [64, 3])
def test_rows_are_inferred_some_at_a_time(units, monkeypatch):
    # Between them Ctrl-C is heard.
    X, y = data(rows=203, density=0.2)
    net = MLP([11, units, 3], seed=0)
    wanted = net.predict(X), net.evaluate(X, y)
    for rows in (1, 64, 202, 203):
        monkeypatch.setattr(_engine, "_INFERRED_PRODUCTS", rows * len(net._network.parameters))
        np.testing.assert_array_equal(net.predict(X), wanted[0])
        assert net.evaluate(X, y) == wanted[1]


def test_read_only_data_needs_no_engine_of_numbas_own():
    jit_engine = pytest.importorskip("fastdl.jit_engine")
    X, y = data()
    arguments, fit = {"sizes": [11, 5, 3]}, {"optimizer": SGD(0.1)}
    wanted, _ = trained(arguments, fit, X, y, NUMBA)
    compiled = len(jit_engine._train.signatures)
    X.flags.writeable = y.flags.writeable = False
    net, _ = trained(arguments, fit, X, y, NUMBA)
    assert digest(net) == digest(wanted)
    assert len(jit_engine._train.signatures) == compiled


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no such choice")
@pytest.mark.parametrize("threads", [3], indirect=True)
def test_threads_may_have_to_share_a_processor(threads):
    X, y = data()
    expected = MLP([11, 40, 40, 3], seed=0).fit(X, y, epochs=20, verbose=0).history
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        history = MLP([11, 40, 40, 3], seed=0).fit(X, y, epochs=20, verbose=0).history
        assert os.sched_getaffinity(0) == {min(before)}
    finally:
        os.sched_setaffinity(0, before)
    assert history == expected
