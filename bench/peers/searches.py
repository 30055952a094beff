"""A search over 200 networks, by fastdl's `sweep` and by scikit-learn's GridSearchCV.

Both train the same candidates in the same folds, with batches, rates, penalties and epochs that
mean the same, on two cores: fastdl in one process, scikit-learn in two with BLAS on one thread each,
as joblib sets it. Training of both ends early by MLPClassifier's default rule, and both train the
winner on all rows at the end.
"""

import functools
import itertools
import os
from dataclasses import dataclass

import numpy as np

import fastdl
from fastdl import datasets
from fastdl.optimizers import Adam

from . import Job

FOLDS = 3
PROCESSES = 2

# In alphabetical order, which is scikit-learn's.
SHARED_GRID = {
    "alpha": [1e-4, 1e-3, 1e-2, 1e-1],
    "batch_size": [16, 32],
}


@dataclass(frozen=True)
class Search:
    """What is searched: `grid` has the rest of a candidate's parameters."""

    load: object
    outputs: int
    epochs: int
    hidden: tuple
    rates: tuple

    @property
    def grid(self):
        return SHARED_GRID | {
            "hidden_layer_sizes": list(self.hidden),
            "learning_rate_init": list(self.rates),
        }


def flower():
    X, Y = datasets.load_planar_dataset()
    return np.ascontiguousarray(X.T, np.float32), Y.ravel().astype(np.int64)


def digits():
    from sklearn.datasets import load_digits

    data = load_digits()
    return (data.data / 16).astype(np.float32), data.target


SEARCHES = {
    "200 candidates on the flower": Search(
        flower, 1, 100, ((4,), (8,), (16,), (50,), (16, 16)), (0.001, 0.003, 0.01, 0.03, 0.1)
    ),
    "200 candidates on digits": Search(
        digits, 10, 10, ((8,), (16,), (32,), (64,), (32, 16)), (0.0003, 0.001, 0.003, 0.01, 0.03)
    ),
}


def jobs():
    return [
        Job(
            name,
            {
                "fastdl": functools.partial(fastdl_search, search),
                "scikit-learn": functools.partial(sklearn_search, search),
            },
            size=search.epochs,
            check_size=search.epochs,
            agree=same_winners,
            prepare=search.load,
        )
        for name, search in SEARCHES.items()
    ]


def folds(X, y):
    from sklearn.model_selection import StratifiedKFold

    return list(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(X, y))


def fastdl_search(search, epochs):
    """Mean accuracy of each candidate over the folds."""
    X, y = search.load()

    def build(alpha, batch_size, hidden_layer_sizes, learning_rate_init, seed):
        sizes = X.shape[1], *hidden_layer_sizes, search.outputs
        # scikit-learn's penalty is alpha / 2 times the squares, divided by the rows of the batch.
        network = fastdl.MLP(sizes, l2=alpha / 2 / batch_size, seed=seed)
        optimizer = Adam(learning_rate_init, epsilon=1e-8)
        return network, {"batch_size": batch_size, "optimizer": optimizer}

    # Training ends with the eleventh epoch in which the loss has not fallen by `tol`.
    stopping = fastdl.EarlyStopping("loss", min_delta=1e-4, patience=11)
    result = fastdl.sweep(
        build,
        search.grid,
        X,
        y,
        cv=folds(X, y),
        epochs=epochs,
        early_stopping=stopping,
        n_jobs=1,
        verbose=0,
    )
    return result.scores["accuracy"].mean(axis=1)


def sklearn_search(search, epochs):
    """Mean accuracy of each candidate over the folds."""
    # Read by the processes that joblib starts: ten epochs are all we ask for.
    os.environ["PYTHONWARNINGS"] = "ignore"
    from sklearn.model_selection import GridSearchCV
    from sklearn.neural_network import MLPClassifier

    X, y = search.load()
    found = GridSearchCV(
        MLPClassifier(max_iter=epochs, random_state=0), search.grid, cv=folds(X, y), n_jobs=PROCESSES
    )
    return found.fit(X, y).cv_results_["mean_test_score"]


def same_winners(accuracies, fastdl_accuracies):
    """placeholder"""
