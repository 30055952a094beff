"""A search over 200 networks, by fastdl's `sweep` and by scikit-learn's GridSearchCV.

Both train the same candidates in the same folds, with batches, rates, penalties and epochs that
mean the same: fastdl in one process, scikit-learn in two, each with one thread of BLAS, as joblib
sets it. Training of both ends early by MLPClassifier's default rule, and both train the winner on
all rows at the end. Rows are float32 for both, which scikit-learn trains in if it is given them.
"""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import fastdl
from fastdl import datasets
from fastdl.optimizers import Adam

from . import Job

FOLDS = 3
PROCESSES = 2

# What names are there come in alphabetical order, which is scikit-learn's order of candidates.
ALPHAS, BATCHES = [1e-4, 1e-3, 1e-2, 1e-1], [16, 32]

# Accuracies of two candidates that are so far apart are in the same order in both searches, but for
# such a share of the pairs, and the winner of one is so close to the best in the other: first
# weights and orders of rows are drawn differently, and the flower has 133 rows in a fold.
CLEAR, MOST_REVERSED, CLOSE = 0.1, 0.03, 0.04


@dataclass(frozen=True)
class Search:
    """What is searched, for up to so many epochs of each network of `outputs` outputs."""

    load: Callable
    outputs: int
    epochs: int
    hidden: list[tuple[int, ...]]
    rates: list[float]

    @property
    def grid(self):
        return {
            "alpha": ALPHAS,
            "batch_size": BATCHES,
            "hidden_layer_sizes": self.hidden,
            "learning_rate_init": self.rates,
        }


def flower():
    X, Y = datasets.load_planar_dataset()
    return np.ascontiguousarray(X.T, np.float32), Y.ravel().astype(np.int64)


def digits():
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return (X / 16).astype(np.float32), y


SEARCHES = {
    "a search over 200 networks, flower": Search(
        flower,
        outputs=1,
        epochs=100,
        hidden=[(4,), (8,), (16,), (50,), (16, 16)],
        rates=[0.001, 0.003, 0.01, 0.03, 0.1],
    ),
    "a search over 200 networks, digits": Search(
        digits,
        outputs=10,
        epochs=10,
        hidden=[(8,), (16,), (32,), (64,), (32, 16)],
        rates=[0.0003, 0.001, 0.003, 0.01, 0.03],
    ),
}


def jobs():
    return [search_job(name, search) for name, search in SEARCHES.items()]


def search_job(name, search):
    return Job(
        name,
        {
            "fastdl": functools.partial(fastdl_search, search),
            "scikit-learn (2 processes)": functools.partial(sklearn_search, search),
        },
        size=search.epochs,
        check_size=search.epochs,
        agree=same_winners,
        prepare=search.load,
    )


def folds(X, y):
    from sklearn.model_selection import StratifiedKFold

    return list(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(X, y))


def builder(search, X):
    """What makes a network of a candidate, whose parameters have scikit-learn's names."""

    def build(alpha, batch_size, hidden_layer_sizes, learning_rate_init, seed):
        sizes = X.shape[1], *hidden_layer_sizes, search.outputs
        # scikit-learn's penalty is alpha / 2 times the squares, divided by the rows of the batch.
        network = fastdl.MLP(sizes, l2=alpha / 2 / batch_size, seed=seed)
        optimizer = Adam(learning_rate_init, epsilon=1e-8)
        return network, {"batch_size": batch_size, "optimizer": optimizer}

    return build


def fastdl_search(search, epochs):
    """Mean accuracy of each candidate over the folds."""
    X, y = search.load()
    # Training ends with the eleventh epoch in which the loss has not fallen by `tol`.
    stopping = fastdl.EarlyStopping("loss", min_delta=1e-4, patience=11)
    result = fastdl.sweep(
        builder(search, X),
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
        MLPClassifier(max_iter=epochs, random_state=0),
        search.grid,
        cv=folds(X, y),
        n_jobs=PROCESSES,
    )
    return found.fit(X, y).cv_results_["mean_test_score"]


def same_winners(accuracies, fastdl_accuracies):
    """Raise where the two searches rank clearly different candidates differently."""
    theirs, ours = (np.subtract.outer(found, found) for found in (accuracies, fastdl_accuracies))
    clear = ours > CLEAR
    reversed_share = (theirs[clear] < 0).mean()
    if not reversed_share <= MOST_REVERSED:
        raise AssertionError(f"{reversed_share:.1%} of clear differences are the other way round")
    for found, winner in (
        (accuracies, np.argmax(fastdl_accuracies)),
        (fastdl_accuracies, np.argmax(accuracies)),
    ):
        behind = found.max() - found[winner]
        if not behind <= CLOSE:
            raise AssertionError(f"the other search's winner is {behind:.3f} behind the best")
