"""Estimators: fits of scikit-learn's perceptron and of fastdl's, from plain arrays to a model.

Both classes get the same arguments and the same rows, and a fit is all that it does: checks,
encoding of the labels, first weights, epochs. Before that is timed, their accuracies on other rows
are compared, as means over five seeds; so the first call of each is these five fits.
"""

import functools
import importlib
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastdl import datasets

from . import Job

MNIST = "MNIST, batches of 32"
MNIST_FREE = "MNIST, batches of 32, no penalty"
DIGITS = "digits, batches of 32"
DIGITS_AUTO = "digits, batches of 200"
COVERTYPE = "100,000 rows of 54 features, 7 classes"

SEEDS = range(5)

HOMES = {"fastdl": "fastdl.sklearn", "scikit-learn": "sklearn.neural_network"}


class Task(NamedTuple):
    """`rows` gives (X, y, X_test, y_test), `parameters` are those of both classes.

    Accuracies, over `check_epochs` epochs, are equal to within `margin`: that is what the orders
    in which rows are drawn make of means over five seeds.
    """

    rows: Callable
    parameters: dict
    epochs: int
    check_epochs: int
    margin: float


@functools.cache
def mnist():
    (X, y), _, (X_test, y_test) = datasets.load_mnist()
    return X.reshape(len(X), -1), y, X_test.reshape(len(X_test), -1), y_test


@functools.cache
def digits():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X / 16, y, random_state=0, stratify=y)
    return X, y, X_test, y_test


@functools.cache
def covertype():
    """As many features and classes as the types of forest cover have."""
    from sklearn.datasets import make_classification

    rows, classes = 100_000, 7
    X, y = make_classification(
        rows * 6 // 5, 54, n_informative=20, n_classes=classes, random_state=0
    )
    return X[:rows], y[:rows], X[rows:], y[rows:]


HIDDEN = (128, 128, 128)  # as in the course

TASKS = {
    MNIST: Task(mnist, {"hidden_layer_sizes": HIDDEN, "batch_size": 32}, 5, 3, 0.0015),
    MNIST_FREE: Task(
        mnist, {"hidden_layer_sizes": HIDDEN, "batch_size": 32, "alpha": 0}, 5, 3, 0.0015
    ),
    DIGITS: Task(digits, {"batch_size": 32}, 50, 60, 0.004),
    DIGITS_AUTO: Task(digits, {}, 50, 150, 0.004),
    COVERTYPE: Task(covertype, {"hidden_layer_sizes": (64, 64)}, 5, 6, 0.002),
}


def jobs():
    return [
        Job(
            name,
            {library: functools.partial(fits, library, task) for library in HOMES},
            size=task.epochs,
            check_size=task.check_epochs,
            agree=functools.partial(as_accurate, margin=task.margin),
            prepare=task.rows,
        )
        for name, task in TASKS.items()
    ]


def fits(library, task, epochs):
    """The accuracies of so many epochs, one for each seed; without these, one fit for its time."""
    if epochs != task.check_epochs:
        return fit(library, task, epochs, seed=0)
    _, _, X_test, y_test = task.rows()
    return np.array([fit(library, task, epochs, seed).score(X_test, y_test) for seed in SEEDS])


def fit(library, task, epochs, seed):
    X, y, _, _ = task.rows()
    kind = importlib.import_module(HOMES[library]).MLPClassifier
    # Every fit takes all its epochs.
    model = kind(max_iter=epochs, n_iter_no_change=epochs, random_state=seed, **task.parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        return model.fit(X, y)


def as_accurate(accuracies, fastdl_accuracies, *, margin):
    """fastdl's mean is at least as high, or equal."""
    other, own = np.mean(accuracies), np.mean(fastdl_accuracies)
    print(f"accuracy {other:.2%}, fastdl's {own:.2%}", flush=True)
    if not own >= other - margin:
        raise AssertionError(f"the mean accuracy is {other:.2%}, fastdl's {own:.2%}")
