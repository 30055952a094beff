"""An epoch of the third assignment's network: 784-128-128-128-10 on MNIST, Adam, batches of 32.

Data, labels and parameters are in each library's own form before the clock starts, and every epoch
goes on from the last one. Each function returns the epoch's mean training loss.
"""

import functools
import itertools
import warnings

import numpy as np

import fastdl
from fastdl import backends, datasets

from . import Job

HIDDEN, CLASSES, BATCH, RATE, EPSILON = (128, 128, 128), 10, 32, 0.001, 1e-7


@functools.cache
def data():
    (X, y), _, _ = datasets.load_mnist()
    return np.ascontiguousarray(X.reshape(len(X), -1)), y


def jobs():
    return [
        Job(
            "dropout 0.5",
            {
                "fastdl": fastdl_epoch(0.5, "cython"),
                "fastdl (numba)": fastdl_epoch(0.5, "numba"),
                "JAX": jax_epoch(0.5),
                "PyTorch": torch_epoch(0.5),
                "Keras": keras_epoch(0.5),
            },
            size=1,
            check_size=1,
            agree=functools.partial(_both_learn, below=0.7),
        ),
        Job(
            "no dropout",
            {
                "fastdl": fastdl_epoch(0.0, "cython"),
                "scikit-learn": sklearn_epoch(),
            },
            size=1,
            check_size=1,
            agree=functools.partial(_both_learn, below=0.2),
        ),
    ]


def _both_learn(loss, fastdl_loss, *, below):
    """Different draws give different losses: what can be compared is that both go down."""
    for value in (loss, fastdl_loss):
        if not value < below:
            raise AssertionError(f"after two epochs the loss is {value:.3f}, not below {below}")


def _epochs(make):
    """A job's function from a maker of a function that runs one epoch; made when first called."""
    epoch = functools.cache(make)

    def run(epochs):
        for _ in range(epochs):
            loss = epoch()()
        return loss

    return run


def fastdl_epoch(dropout, backend):
    def make():
        X, y = data()
        network = fastdl.MLP(
            [X.shape[1], *HIDDEN, CLASSES], activation="relu", dropout=dropout, seed=0
        )

        def epoch():
            with backends.use_backend(backend):
                history = network.fit(X, y, epochs=1, batch_size=BATCH, optimizer="adam", verbose=0)
            return history.history["loss"][0]

        return epoch

    return _epochs(make)


def jax_epoch(dropout):
    """One compiled call for the epoch, its last short batch left out.

    Other generators, rows gathered beforehand, an unrolled loop or flattened parameters made no
    difference, or made it slower.
    """

    def make():
        import jax
        import jax.numpy as jnp
        import optax

        X, y = (jnp.asarray(array) for array in data())
        optimizer = optax.adam(RATE, eps=EPSILON)

        def logits(parameters, inputs, key):
            *hidden, last = parameters
            for layer, (weights, bias) in enumerate(hidden):
                inputs = jax.nn.relu(inputs @ weights + bias)
                kept = jax.random.bernoulli(
                    jax.random.fold_in(key, layer), 1 - dropout, inputs.shape
                )
                inputs = jnp.where(kept, inputs / (1 - dropout), 0)
            return inputs @ last[0] + last[1]

        def mean_loss(parameters, inputs, labels, key):
            values = logits(parameters, inputs, key)
            return optax.softmax_cross_entropy_with_integer_labels(values, labels).mean()

        @functools.partial(jax.jit, donate_argnums=0)
        def run(state, X, y, key):
            def step(state, item):
                rows, key = item
                parameters, moments = state
                loss, gradients = jax.value_and_grad(mean_loss)(parameters, X[rows], y[rows], key)
                updates, moments = optimizer.update(gradients, moments)
                return (optax.apply_updates(parameters, updates), moments), loss

            shuffle, key = jax.random.split(key)
            steps = len(X) // BATCH
            rows = jax.random.permutation(shuffle, len(X))[: steps * BATCH].reshape(steps, BATCH)
            state, losses = jax.lax.scan(step, state, (rows, jax.random.split(key, steps)))
            return state, losses.mean()

        glorot = jax.nn.initializers.glorot_uniform()
        sizes = [X.shape[1], *HIDDEN, CLASSES]
        keys = iter(jax.random.split(jax.random.key(0), 1000))
        parameters = [
            (glorot(next(keys), (inputs, outputs), jnp.float32), jnp.zeros(outputs, jnp.float32))
            for inputs, outputs in itertools.pairwise(sizes)
        ]
        state = [(parameters, optimizer.init(parameters))]

        def epoch():
            state[0], loss = run(state[0], X, y, next(keys))
            return float(loss)

        return epoch

    return _epochs(make)


def torch_epoch(dropout):
    """Eager, with the fused Adam; the rows of the epoch are brought into order once."""

    def make():
        import torch

        X, y = (torch.from_numpy(array) for array in data())
        layers = []
        for inputs, outputs in zip([X.shape[1], *HIDDEN[:-1]], HIDDEN, strict=True):
            layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU(), torch.nn.Dropout(dropout)]
        network = torch.nn.Sequential(*layers, torch.nn.Linear(HIDDEN[-1], CLASSES))
        optimizer = torch.optim.Adam(network.parameters(), lr=RATE, eps=EPSILON, fused=True)
        loss_of = torch.nn.CrossEntropyLoss()

        def epoch():
            order = torch.randperm(len(X))
            total = torch.zeros(())
            for inputs, labels in zip(X[order].split(BATCH), y[order].split(BATCH), strict=True):
                optimizer.zero_grad()
                loss = loss_of(network(inputs), labels)
                loss.backward()
                optimizer.step()
                total += len(labels) * loss.detach()
            return float(total) / len(X)

        return epoch

    return _epochs(make)


def keras_epoch(dropout):
    """Many steps in each call of the compiled function, which takes a third off the time."""

    def make():
        import keras

        X, y = data()
        layers = [keras.layers.Input((X.shape[1],))]
        for units in HIDDEN:
            layers += [keras.layers.Dense(units, activation="relu"), keras.layers.Dropout(dropout)]
        network = keras.Sequential([*layers, keras.layers.Dense(CLASSES, activation="softmax")])
        network.compile(
            optimizer=keras.optimizers.Adam(RATE),
            loss="sparse_categorical_crossentropy",
            jit_compile=True,
            steps_per_execution=64,
        )
        return lambda: network.fit(X, y, batch_size=BATCH, verbose=0).history["loss"][0]

    return _epochs(make)


def sklearn_epoch():
    def make():
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier

        X, y = data()
        network = MLPClassifier(
            HIDDEN,
            alpha=0,
            batch_size=BATCH,
            epsilon=EPSILON,
            learning_rate_init=RATE,
            max_iter=1,
            random_state=0,
            warm_start=True,
        )

        def epoch():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # an epoch is all we ask for
                return network.fit(X, y).loss_

        return epoch

    return _epochs(make)
