"""Keras's own training and fastdl's from the same start, taking over from each other.

A case is one compiled model. Keras trains it for 26 steps and 26 more; fastdl then does the first
half, and Keras goes on, and the other way round. Run as a program, under the backend that
`KERAS_BACKEND` names, this prints the largest error of each case as JSON.
"""

import functools
import itertools
import json
import sys

import numpy as np

from fastdl.keras import accelerate, import_keras, restore

keras = import_keras()
layers, optimizers = keras.layers, keras.optimizers

ROWS, FEATURES, CLASSES, BATCH = 50, 5, 3, 10
# TensorFlow's XLA takes longer to compile such a step than the few steps of a case do without it.
JIT = keras.backend.backend() != "tensorflow"
X = np.random.default_rng(0).normal(size=(ROWS, FEATURES)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, CLASSES, ROWS)
ONE_HOT = np.eye(CLASSES, dtype=np.float32)[LABELS]
NUMBERS = np.random.default_rng(2).normal(size=(ROWS, CLASSES)).astype(np.float32)
YES_OR_NO = ONE_HOT[:, :1]

# Each loss with the activation of the last layer, its targets, and the metrics beside it.
LOSSES = {
    "binary_crossentropy": ("sigmoid", YES_OR_NO, ["accuracy"]),
    "categorical_crossentropy": ("softmax", ONE_HOT, ["accuracy"]),
    "sparse_categorical_crossentropy": ("softmax", LABELS, ["accuracy"]),
    "mean_squared_error": ("linear", NUMBERS, None),
    "mean_absolute_error": ("linear", NUMBERS, None),
    "huber": ("linear", NUMBERS, None),
}

OPTIMIZERS = {
    "SGD": lambda: optimizers.SGD(0.05),
    "SGD, momentum, clipnorm": lambda: optimizers.SGD(0.02, momentum=0.9, clipnorm=0.5),
    "SGD, Nesterov, decay": lambda: optimizers.SGD(
        0.02, momentum=0.9, nesterov=True, weight_decay=0.01
    ),
    "RMSprop, clipvalue": lambda: optimizers.RMSprop(0.005, clipvalue=0.1),
    "RMSprop, centered, momentum": lambda: optimizers.RMSprop(0.002, momentum=0.5, centered=True),
    "Adam": lambda: optimizers.Adam(0.01),
    "Adam, amsgrad": lambda: optimizers.Adam(0.01, amsgrad=True),
    "Adam, average": lambda: optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=7),
    "AdamW, global_clipnorm": lambda: optimizers.AdamW(0.01, global_clipnorm=1.0),
    "Nadam": lambda: optimizers.Nadam(0.01),
    "Adagrad, decay": lambda: optimizers.Adagrad(0.05, weight_decay=0.01),
}

# Of the two hidden layers: each stands in one pair.
ACTIVATIONS = {
    "relu, tanh": ("relu", "tanh"),
    "leaky_relu, sigmoid": (lambda: layers.LeakyReLU(0.3), "sigmoid"),
    "elu, softplus": ("elu", "softplus"),
    "gelu, silu": ("gelu", "silu"),
    "softmax, linear": ("softmax", "linear"),
    "log_softmax, relu": ("log_softmax", "relu"),
}


def network(pair, output, units, **settings):
    """A chain of three Dense layers, its weights drawn alike in every process."""
    parts = [layers.Input((FEATURES,), name="rows")]
    for activation in ACTIVATIONS[pair]:
        parts.append(layers.Dense(8, **settings))
        parts.append(activation() if callable(activation) else layers.Activation(activation))
    return drawn(keras.Sequential([*parts, layers.Dense(units, output)]))


def drawn(model, seed=3):
    """Give a model random weights, whatever its initializers and the backend's generator say."""
    generator = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, layers.Dense):
            shapes = [array.shape for array in layer.get_weights()]
            layer.set_weights([generator.normal(size=s) / s[0] ** 0.5 for s in shapes])
    return model


def case(optimizer, loss, pair, **settings):
    """A compiled model, and its targets."""
    output, targets, metrics = LOSSES[loss]
    units = 1 if loss == "binary_crossentropy" else CLASSES
    model = network(pair, output, units, **settings)
    model.compile(OPTIMIZERS[optimizer](), loss=loss, metrics=metrics, jit_compile=JIT)
    return model, targets


# All optimizers, losses and activations, the latter two in turn, and the product of the three.
SOME = [
    (optimizer, tuple(LOSSES)[number % len(LOSSES)], tuple(ACTIVATIONS)[number % len(ACTIVATIONS)])
    for number, optimizer in enumerate(OPTIMIZERS)
]
ALL = list(itertools.product(OPTIMIZERS, LOSSES, ACTIVATIONS))


def state(model):
    """Copies of everything that training changes, and where to put them back."""
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)
    variables = [*model.variables, *optimizer.variables]
    if hasattr(optimizer, "_u_product"):
        variables.append(optimizer._u_product)
    variables = [each for each in variables if "seed" not in each.path]
    return {index: (each, each.numpy().copy()) for index, each in enumerate(variables)}


def put_back(saved):
    for variable, value in saved.values():
        variable.assign(value.copy())


def error(found, expected):
    """The largest difference, relative to the largest number of its array."""
    worst = 0.0
    for ours, theirs in zip(found, expected, strict=True):
        ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
        size = max(np.abs(theirs).max(initial=0), 1e-3)
        worst = max(worst, float(np.abs(ours - theirs).max(initial=0) / size))
    return worst if worst == worst else float("inf")


def values(saved):
    return [value for _, value in saved.values()]


def train(model, targets, first, last, **settings):
    """13 steps an epoch, the last one of 5 rows, in order; returns what the History has.

    Few epochs, since TensorFlow takes longer to begin one than for its steps.
    """
    x, y = _repeated(X), _repeated(targets)
    if "sample_weight" in settings:
        settings["sample_weight"] = _repeated(settings["sample_weight"])
    history = model.fit(
        x,
        y,
        batch_size=BATCH,
        initial_epoch=first,
        epochs=last,
        shuffle=False,
        verbose=0,
        **settings,
    )
    return history.history


def _repeated(array):
    return np.resize(array, (125, *array.shape[1:]))


def hand_over(make, **settings):
    """The largest error of weights, optimizer and history over both directions."""
    model, targets = make()
    start = state(model)
    expected = train(model, targets, 0, 2, **settings)
    middle = state(model)
    rest = train(model, targets, 2, 4, **settings)
    end = state(model)
    worst = []

    # fastdl, then Keras.
    put_back(start)
    found = train(accelerate(model), targets, 0, 2, **settings)
    worst.append(error(values(state(model)), values(middle)))
    assert list(found) == list(expected), (list(found), list(expected))
    worst.append(error(found.values(), expected.values()))
    train(restore(model), targets, 2, 4, **settings)
    worst.append(error(values(state(model)), values(end)))

    # Keras, then fastdl.
    put_back(middle)
    found = train(accelerate(model), targets, 2, 4, **settings)
    worst.append(error(values(state(model)), values(end)))
    worst.append(error(found.values(), rest.values()))
    restore(model)
    return max(worst)


def main(first="some", last=None):
    """Print the errors of `SOME`, or of the cases of `ALL` from number `first` to `last`."""
    cases = SOME if first == "some" else ALL[int(first) : last and int(last)]
    if keras.backend.backend() == "jax":
        # Keras's second fit fails: the averages and the weights share buffers after the first.
        cases = [names for names in cases if names[0] != "Adam, average"]
    errors = {}
    for names in cases:
        errors["; ".join(names)] = hand_over(functools.partial(case, *names))
    print(json.dumps(errors))


if __name__ == "__main__":
    main(*sys.argv[1:])
