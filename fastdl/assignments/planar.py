"""Planar data classification with one hidden layer: tanh, then a sigmoid, by gradient descent.

`from fastdl.assignments.planar import *` gives the exercise's functions under their names, with the
loop of `nn_model` as one compiled call. Samples are columns: X (n_x, m), Y (n_y, m). Parameters are
a dict of W1 (n_h, n_x), b1 (n_h, 1), W2 (n_y, n_h), b2 (n_y, 1).
"""

import reprlib
import warnings
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from .. import checks, ops, plots
from .._optional import optional_import
from ..datasets import load_planar_dataset

__all__ = [
    "accuracy",
    "backward_propagation",
    "compute_cost",
    "forward_propagation",
    "hidden_size_study",
    "initialize_parameters",
    "layer_sizes",
    "learning_rate_illustration",
    "load_planar_dataset",
    "logistic_regression",
    "nn_model",
    "plot_decision_boundary",
    "plot_hidden_sizes",
    "predict",
    "update_parameters",
]

_COST_EVERY = 1000
_NAMES = ("W1", "b1", "W2", "b2")


# --------------------------------------------------------------------------- the network, by parts


def layer_sizes(X, Y):
    """Sizes of the three layers: inputs, the exercise's 4 hidden units, outputs.

    Parameters
    ----------
    X : array_like, shape (n_x, m)
    Y : array_like, shape (n_y, m)

    Returns
    -------
    (n_x, 4, n_y) : tuple of int

    Raises
    ------
    TypeError, ValueError
        If an argument is no 2-D array of numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.assignments.planar import layer_sizes
    >>> layer_sizes(np.zeros((5, 3)), np.zeros((2, 3)))
    (5, 4, 2)
    """
    n_x, n_y = (
        len(checks.dimensions(name, checks.real(name, value), 2))
        for name, value in (("X", X), ("Y", Y))
    )
    return n_x, 4, n_y


def initialize_parameters(n_x, n_h, n_y, *, seed=None):
    """Small random weights and zero biases.

    Parameters
    ----------
    n_x, n_h, n_y : int
        Sizes of the layers, >= 1.
    seed : int, optional
        Below 2**32. Draw as after `np.random.seed(seed)`, but leave the global state alone, from
        which the weights come otherwise.

    Returns
    -------
    dict of str to ndarray of float64
        W1 (n_h, n_x) and then W2 (n_y, n_h), drawn as `np.random.randn(...) * 0.01`; b1 (n_h, 1)
        and b2 (n_y, 1).

    Examples
    --------
    >>> from fastdl.assignments.planar import initialize_parameters
    >>> print(initialize_parameters(2, 4, 1, seed=2)["W2"].round(4))
    [[-0.0106 -0.0091  0.0055  0.0229]]
    """
    n_x = checks.integer("n_x", n_x, low=1)
    n_h = checks.integer("n_h", n_h, low=1)
    n_y = checks.integer("n_y", n_y, low=1)
    random = checks.random_state("seed", seed)
    return {
        "W1": random.randn(n_h, n_x) * 0.01,
        "b1": np.zeros((n_h, 1)),
        "W2": random.randn(n_y, n_h) * 0.01,
        "b2": np.zeros((n_y, 1)),
    }


def forward_propagation(X, parameters):
    """Output of the network, sigmoid(W2 @ tanh(W1 @ X + b1) + b2).

    Parameters
    ----------
    X : array_like, shape (n_x, m)
    parameters : dict

    Returns
    -------
    A2 : ndarray, shape (n_y, m)
        Probability of class 1.
    cache : dict
        Z1 (n_h, m), A1 (n_h, m), Z2 (n_y, m), A2: what each layer's activation took and gave.

    Raises
    ------
    TypeError, ValueError
        If a dtype or shape does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.assignments.planar import forward_propagation, initialize_parameters
    >>> A2, cache = forward_propagation(np.ones((2, 3)), initialize_parameters(2, 4, 1, seed=2))
    >>> print(A2.round(4), list(cache))
    [[0.4999 0.4999 0.4999]] ['Z1', 'A1', 'Z2', 'A2']
    """
    X = checks.as_array("X", X, ndim=2)
    W1, b1, W2, b2 = _checked(parameters, n_x=len(X))
    Z1 = W1 @ X + b1
    A1 = ops.tanh(Z1)
    Z2 = W2 @ A1 + b2
    A2 = ops.sigmoid(Z2)
    return A2, {"Z1": Z1, "A1": A1, "Z2": Z2, "A2": A2}


def compute_cost(A2, Y, parameters=None):
    """Cross-entropy of probabilities, -sum(Y ln A2 + (1 - Y) ln(1 - A2)) / m.

    Parameters
    ----------
    A2 : array_like, shape (n_y, m)
        Probabilities. One that is exactly 0 or 1 counts as the number next to it, so that the cost
        of a wrong one is large, but finite.
    Y : array_like, shape (n_y, m)
        0 or 1.
    parameters : optional
        Not used: the exercise passes it.

    Returns
    -------
    float

    Raises
    ------
    TypeError, ValueError
        If a dtype or shape does not fit.

    Examples
    --------
    >>> from fastdl.assignments.planar import compute_cost
    >>> print(f"{compute_cost([[0.5, 0.9]], [[0, 1]]):.4f}")
    0.3993
    """
    A2 = checks.as_array("A2", A2, ndim=2, dtype=np.dtype(np.float64))
    Y = _targets(Y, "A2", A2)
    inside = np.clip(A2, np.nextafter(0.0, 1.0), np.nextafter(1.0, 0.0))
    return float(-np.sum(Y * np.log(inside) + (1 - Y) * np.log1p(-inside)) / A2.shape[1])


def backward_propagation(parameters, cache, X, Y):
    """Gradients of the cost.

    Parameters
    ----------
    parameters : dict
        Of which W2 is used.
    cache : dict
        Of which A1 (n_h, m) and A2 (n_y, m) are used.
    X : array_like, shape (n_x, m)
    Y : array_like, shape (n_y, m)
        0 or 1.

    Returns
    -------
    dict of str to ndarray
        dW1, db1, dW2, db2, of the shapes of the parameters.

    Raises
    ------
    TypeError, ValueError
        If a dtype or shape does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.assignments.planar import backward_propagation
    >>> cache = {"A1": [[0.5, 0.0]], "A2": [[0.5, 0.75]]}
    >>> grads = backward_propagation({"W2": [[2.0]]}, cache, [[1.0, 2.0]], [[0, 1]])
    >>> print({name: grad.item() for name, grad in grads.items()})
    {'dW1': -0.125, 'db1': 0.125, 'dW2': 0.125, 'db2': 0.125}
    """
    W2 = _entries("parameters", parameters, "W2")
    A1, A2, W2, X = checks.as_arrays(**_entries("cache", cache, "A1", "A2"), **W2, X=X)
    for name, array in (("A1", A1), ("A2", A2), ("W2", W2), ("X", X)):
        checks.dimensions(name, array, 2)
    m = X.shape[1]
    checks.matches("A2", A2, (len(A2), m), "X", X.shape)
    checks.matches("A1", A1, (len(A1), m), "X", X.shape)
    checks.matches("W2", W2, (len(A2), len(A1)), "A1", A1.shape)
    dZ2 = A2 - _targets(Y, "A2", A2)
    dZ1 = W2.T @ dZ2 * (1 - A1**2)
    return {
        "dW1": dZ1 @ X.T / m,
        "db1": dZ1.sum(axis=1, keepdims=True) / m,
        "dW2": dZ2 @ A1.T / m,
        "db2": dZ2.sum(axis=1, keepdims=True) / m,
    }


def update_parameters(parameters, grads, learning_rate=1.2):
    """One step of gradient descent, W = W - learning_rate * dW, for each parameter.

    Parameters
    ----------
    parameters : dict
    grads : dict
        As from `backward_propagation`.
    learning_rate : float, default 1.2
        >= 0.

    Returns
    -------
    dict of str to ndarray
        New arrays.

    Raises
    ------
    TypeError, ValueError
        If a dtype or shape or the learning rate does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.assignments.planar import update_parameters
    >>> ones = {name: np.ones((1, 1)) for name in ("W1", "b1", "W2", "b2")}
    >>> grads = {"d" + name: np.full((1, 1), 0.5) for name in ones}
    >>> print(update_parameters(ones, grads)["W1"])
    [[0.4]]
    """
    learning_rate = checks.number("learning_rate", learning_rate, low=0)
    parameters = _entries("parameters", parameters, *_NAMES)
    grads = _entries("grads", grads, *("d" + name for name in _NAMES))
    updated = {}
    for (name, value), (d_name, grad) in zip(parameters.items(), grads.items(), strict=True):
        value, grad = checks.as_arrays(**{name: value, d_name: grad})
        checks.matches(d_name, grad, value.shape, name, value.shape)
        updated[name] = value - learning_rate * grad
    return updated


# ------------------------------------------------------------------------- the network, as a whole


def nn_model(X, Y, n_h, num_iterations=10000, print_cost=False, *, learning_rate=1.2, seed=None):
    """Train the network by gradient descent on all samples, the whole loop in one compiled call.

    Parameters
    ----------
    X : array_like, shape (n_x, m)
    Y : array_like, shape (n_y, m)
        0 or 1; integers and bools will do.
    n_h : int
        Hidden units, >= 1.
    num_iterations : int, default 10000
        >= 0.
    print_cost : bool, default False
        Print the cost before every 1000th iteration, from the first on (all lines when done).
    learning_rate : float, default 1.2
        >= 0.
    seed : int, optional
        As in `initialize_parameters`, which draws the parameters to start from. The course's own
        seeds with 2.

    Returns
    -------
    dict of str to ndarray of float64
        The parameters learnt.

    Raises
    ------
    TypeError, ValueError
        If an argument breaks its rule. Nothing has been drawn from the global state then.

    Examples
    --------
    >>> from fastdl.assignments.planar import accuracy, load_planar_dataset, nn_model
    >>> X, Y = load_planar_dataset()
    >>> parameters = nn_model(X, Y, 4, num_iterations=3000, print_cost=True, seed=2)
    Cost after iteration 0: 0.693048
    Cost after iteration 1000: 0.288083
    Cost after iteration 2000: 0.254385
    >>> accuracy(parameters, X, Y)
    90.5
    """
    [parameters], [costs] = _train(X, Y, [n_h], num_iterations, learning_rate, seed)
    if print_cost:
        for i, cost in enumerate(costs):
            print(f"Cost after iteration {i * _COST_EVERY}: {cost:f}")
    return parameters


def predict(parameters, X):
    """Whether each sample is of class 1: its probability is above one half.

    Parameters
    ----------
    parameters : dict
    X : array_like, shape (n_x, m)

    Returns
    -------
    ndarray of bool, shape (n_y, m)

    Raises
    ------
    TypeError, ValueError
        If a dtype or shape does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.assignments.planar import initialize_parameters, predict
    >>> print(predict(initialize_parameters(2, 4, 1, seed=2), np.diag([1.0, -1.0])))
    [[ True  True]]
    """
    A2, _ = forward_propagation(X, parameters)
    return A2 > 0.5


def accuracy(parameters, X, Y):
    """Percentage of the samples that `predict` gets right.

    Parameters
    ----------
    parameters : dict
    X : array_like, shape (n_x, m)
    Y : array_like, shape (n_y, m)

    Returns
    -------
    float

    Examples
    --------
    >>> from fastdl.assignments.planar import accuracy, load_planar_dataset, nn_model
    >>> X, Y = load_planar_dataset()
    >>> accuracy(nn_model(X, Y, 4, seed=2), X, Y) >= 90
    True
    """
    predictions = predict(parameters, X)
    return 100 * float(np.mean(predictions == _targets(Y, "predictions", predictions)))


# ------------------------------------------------------------------------------------- the studies


def logistic_regression(X, Y):
    """The baseline, which no straight line can do well: scikit-learn's `LogisticRegressionCV`.

    Parameters
    ----------
    X : array_like, shape (n_x, m)
    Y : array_like, shape (1, m)
        0 or 1.

    Returns
    -------
    sklearn.linear_model.LogisticRegressionCV
        Fitted: its `predict` takes points (k, n_x).

    Examples
    --------
    >>> from fastdl.assignments.planar import load_planar_dataset, logistic_regression
    >>> X, Y = load_planar_dataset()
    >>> print(f"{100 * logistic_regression(X, Y).score(X.T, Y[0]):.0f} %")
    47 %
    """
    X = checks.as_array("X", X, ndim=2)
    Y = checks.as_labels("Y", Y, classes=2, ndim=2)
    checks.matches("Y", Y, (1, X.shape[1]), "X", X.shape)
    linear_model = optional_import("sklearn.linear_model", extra="sklearn")
    model = linear_model.LogisticRegressionCV()
    with warnings.catch_warnings():
        # Announcements of new defaults; these parameters' old ones are the exercise's.
        warnings.simplefilter("ignore", FutureWarning)
        return model.fit(X.T, Y[0])


class Trained(NamedTuple):
    """One network of `hidden_size_study`."""

    parameters: dict
    accuracy: float


def hidden_size_study(
    X, Y, sizes=(1, 2, 3, 4, 5, 20, 50), num_iterations=5000, *, learning_rate=1.2, seed=2
):
    """Networks with several numbers of hidden units, all trained in one compiled call.

    Parameters
    ----------
    X : array_like, shape (n_x, m)
    Y : array_like, shape (n_y, m)
        0 or 1.
    sizes : sequence of int
        Numbers of hidden units, different ones, each >= 1.
    num_iterations : int, default 5000
    learning_rate : float, default 1.2
    seed : int or None, default 2
        Draw each network's parameters as after `np.random.seed(seed)`: the same seed for every
        size, as in the course, whose `initialize_parameters` seeds with 2 each time. With None they
        are drawn from the global state, one network after the other.

    Returns
    -------
    dict of int to (parameters, accuracy)
        By size, with the accuracy on X in percent.

    Raises
    ------
    TypeError, ValueError
        If an argument breaks its rule. Nothing has been drawn from the global state then.

    Examples
    --------
    >>> from fastdl.assignments.planar import hidden_size_study, load_planar_dataset
    >>> study = hidden_size_study(*load_planar_dataset(), sizes=(1, 2, 3))
    >>> {size: trained.accuracy for size, trained in study.items()}
    {1: 67.5, 2: 67.25, 3: 90.75}
    """
    sizes = [
        checks.integer("sizes", size, low=1) for size in checks.sequence("sizes", sizes, "integers")
    ]
    if not sizes:
        raise ValueError("sizes: [] holds no size")
    if len(set(sizes)) < len(sizes):
        raise ValueError(f"sizes: {reprlib.repr(sizes)} holds a size twice")
    networks, _ = _train(X, Y, sizes, num_iterations, learning_rate, seed)
    return {
        size: Trained(parameters, accuracy(parameters, X, Y))
        for size, parameters in zip(sizes, networks, strict=True)
    }


# ----------------------------------------------------------------------------------------- pictures


def plot_decision_boundary(model, X, Y):
    """Draw a classifier's two regions, and the points, into pyplot's current axes.

    Parameters
    ----------
    model : callable
        Takes points (k, 2), gives their labels, 0 or 1, as k values of any shape: such as
        `lambda points: predict(parameters, points.T)`.
    X : array_like, shape (2, m)
    Y : array_like, shape (1, m)
        0 or 1.
    """
    pyplot = optional_import("matplotlib.pyplot", extra="plots")
    plots.plot_decision_boundary(model, X, Y, title=None, axes=pyplot.gca())


def plot_hidden_sizes(study, X, Y):
    """The decision boundary and accuracy of each network of a study.

    Parameters
    ----------
    study : dict
        As from `hidden_size_study`.
    X : array_like, shape (2, m)
    Y : array_like, shape (1, m)

    Returns
    -------
    matplotlib.figure.Figure
    """
    return plots.size_study(
        {
            size: lambda points, parameters=trained.parameters: predict(parameters, points.T)
            for size, trained in study.items()
        },
        X,
        Y,
    )


def learning_rate_illustration(*, converging=0.2, diverging=1.05, start=-4.0, steps=12):
    """Gradient descent on the curve w**2 at two learning rates, of which 1 is the border.

    Parameters
    ----------
    converging, diverging : float
        The learning rates, >= 0, two different ones.
    start : float
    steps : int, default 12
        >= 1.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> from fastdl.assignments.planar import learning_rate_illustration
    >>> [axes.get_title(loc="left") for axes in learning_rate_illustration().axes]
    ['Rate 0.2 converges', 'Rate 1.05 diverges', 'Cost at each step']
    """
    converging = checks.number("converging", converging, low=0)
    diverging = checks.number("diverging", diverging, low=0)
    if diverging == converging:
        raise ValueError(f"diverging: {diverging} is the same rate as converging")
    start = checks.number("start", start)
    steps = checks.integer("steps", steps, low=1)
    # w - rate * 2 * w, over and over.
    runs = {
        rate: start * (1 - 2 * rate) ** np.arange(steps + 1) for rate in (converging, diverging)
    }
    return plots.learning_rates(np.square, runs)


# ----------------------------------------------------------------------------------------- helpers


def _train(X, Y, sizes, num_iterations, learning_rate, seed):
    """Parameters and costs of networks with these numbers of hidden units."""
    # Everything is checked before the draw, which an error must not have advanced.
    X = checks.nonempty("X", checks.as_array("X", X, ndim=2))
    Y = checks.as_array("Y", Y, ndim=2)
    checks.matches("Y", Y, (len(Y), X.shape[1]), "X", X.shape)
    checks.finite("Y", checks.nonempty("Y", Y), low=0, high=1)
    sizes = [checks.integer("n_h", n_h, low=1) for n_h in sizes]
    num_iterations = checks.integer("num_iterations", num_iterations, low=0)
    learning_rate = checks.number("learning_rate", learning_rate, low=0)
    networks = [initialize_parameters(len(X), n_h, len(Y), seed=seed) for n_h in sizes]
    return ops.planar_descent(
        X,
        Y,
        networks,
        learning_rate=learning_rate,
        iterations=num_iterations,
        cost_every=_COST_EVERY,
    )


def _targets(Y, other, outputs):
    """Y as a float64 array of the shape of `outputs`, the argument called `other`."""
    Y = checks.as_array("Y", Y, ndim=2, dtype=np.dtype(np.float64))
    return checks.matches("Y", checks.nonempty("Y", Y), outputs.shape, other, outputs.shape)


def _entries(name, value, *keys):
    """These entries of the argument called `name`, which is a dict that has them."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: {reprlib.repr(value)} is not a dict")
    for key in keys:
        if key not in value:
            raise ValueError(f"{name}: the key {key!r} is missing")
    return {key: value[key] for key in keys}


def _checked(parameters, n_x):
    """W1, b1, W2, b2 as arrays of one dtype, in shapes that fit each other and the input."""
    W1, b1, W2, b2 = checks.as_arrays(**_entries("parameters", parameters, *_NAMES))
    n_h, n_y = (len(checks.dimensions(name, array, 2)) for name, array in (("b1", b1), ("b2", b2)))
    for name, array, shape in (
        ("W1", W1, (n_h, n_x)),
        ("b1", b1, (n_h, 1)),
        ("W2", W2, (n_y, n_h)),
        ("b2", b2, (n_y, 1)),
    ):
        if array.shape != shape:
            raise ValueError(f"{name}: shape {array.shape} is not {shape}")
    return W1, b1, W2, b2
