"""Linear models and optimisation: logistic regression on quadratic features by mini-batch descent.

`from fastdl.assignments.linear import *` gives the exercise's functions under their names, and its
three loops (`sgd`, `momentum`, `rmsprop`) as one compiled call each. X is `expand`ed, shape (n, 6),
wherever there are weights w, shape (6,).
"""

import sys

import numpy as np

from .. import checks, ops, plots
from ..datasets import load_circle
from ..plots import scatter

__all__ = [
    "animate",
    "compute_grad",
    "compute_loss",
    "expand",
    "load_circle",
    "momentum",
    "probability",
    "rmsprop",
    "scatter",
    "sgd",
    "visualize",
]


# ----------------------------------------------------------------------------------- the functions


def expand(X):
    """Quadratic features of points in the plane.

    Parameters
    ----------
    X : array_like, shape (n, 2)

    Returns
    -------
    ndarray, shape (n, 6)
        The columns x0, x1, x0**2, x1**2, x0*x1, 1; float32 for float32, otherwise float64.

    Raises
    ------
    TypeError
        If X holds anything but real numbers.
    ValueError
        If X is not of shape (n, 2).

    Examples
    --------
    >>> from fastdl.assignments.linear import expand
    >>> print(expand([[2.61, -1.28]]).round(4))
    [[ 2.61   -1.28    6.8121  1.6384 -3.3408  1.    ]]
    """
    X = checks.as_array("X", X, ndim=2)
    if X.shape[1] != 2:
        raise ValueError(f"X: shape {X.shape} is not (n, 2)")
    return ops.quadratic_features(X)


def probability(X, w):
    """Probability of class 1 under logistic regression, sigmoid(X @ w).

    Parameters
    ----------
    X : array_like, shape (n, d)
    w : array_like, shape (d,)

    Returns
    -------
    ndarray, shape (n,)
        Exact for any finite score, without overflow.

    Raises
    ------
    TypeError, ValueError
        If a dtype or shape does not fit.

    Examples
    --------
    >>> from fastdl.assignments.linear import expand, probability
    >>> print(probability(expand([[0, 0], [0, 1]]), [0, 0, 0, 0, 0, 1]).round(4))
    [0.7311 0.7311]
    """
    X, w = _features(X, w)
    return ops.sigmoid(X @ w)


def compute_loss(X, y, w):
    """Mean binary cross-entropy of logistic regression.

    Parameters
    ----------
    X : array_like, shape (n, d)
    y : array_like, shape (n,)
        0 or 1, or anything between.
    w : array_like, shape (d,)

    Returns
    -------
    float
        Mean of ln(1 + e**s) - y*s over the scores s = X @ w, which is -(y ln p + (1-y) ln(1-p))
        and stays finite where p rounds to 0 or 1.

    Raises
    ------
    TypeError, ValueError
        If a dtype, shape or target does not fit.

    Examples
    --------
    >>> from fastdl.assignments.linear import compute_loss, expand
    >>> print(f"{compute_loss(expand([[0, 0], [0, 1]]), [0, 1], [0, 0, 0, 0, 0, 1]):.4f}")
    0.8133
    """
    X, y, w = _examples(X, y, w)
    scores = X @ w
    # ln(1 + e**s) - y*s itself would lose what is small beside s.
    return np.mean((np.maximum(scores, 0) - y * scores) + ops.softplus(-np.abs(scores)))


def compute_grad(X, y, w):
    """Gradient of `compute_loss` in w, (p - y) @ X / n.

    Parameters
    ----------
    X : array_like, shape (n, d)
    y : array_like, shape (n,)
        0 or 1, or anything between.
    w : array_like, shape (d,)

    Returns
    -------
    ndarray, shape (d,)

    Raises
    ------
    TypeError, ValueError
        If a dtype, shape or target does not fit.

    Examples
    --------
    >>> from fastdl.assignments.linear import compute_grad, expand
    >>> print(compute_grad(expand([[0, 0], [0, 1]]), [0, 1], [0, 0, 0, 0, 0, 1]).round(4))
    [ 0.     -0.1345  0.     -0.1345  0.      0.2311]
    """
    X, y, w = _examples(X, y, w)
    return (ops.sigmoid(X @ w) - y) @ X / len(y)


# ---------------------------------------------------------------------------------------- the loops


def sgd(X, y, w=None, *, eta=0.05, n_iter=100, batch_size=4, seed=None, losses=True, history=False):
    """Mini-batch gradient descent, w = w - eta * dw, in one compiled call.

    Each iteration draws `batch_size` rows as `np.random.choice(n, batch_size)` does, dw being the
    gradient of the loss on them: after the same seed these are the numbers of the loop written by
    hand.

    Parameters
    ----------
    X : array_like, shape (n, d)
        The `expand`ed points.
    y : array_like, shape (n,)
        0 or 1, or anything between.
    w : array_like, shape (d,), optional
        Where to start; integers will do. If not given, the exercise's: zeros, and 1 at the end.
    eta : float, default 0.05
        The learning rate, >= 0.
    n_iter : int, default 100
        Number of steps, >= 0.
    batch_size : int, default 4
        Rows in each, >= 1.
    seed : int, optional
        Below 2**32. Draw as after `np.random.seed(seed)`, but leave the global state alone, from
        which the batches come otherwise.
    losses : bool, default True
        Whether to compute the loss on all rows at each step, where most of the time goes.
    history : bool, default False
        Whether to return the weights at each step too.

    Returns
    -------
    w : ndarray, shape (d,)
        The final weights, a new array.
    losses : ndarray, shape (n_iter,), or None
        The loss on all rows before each step.
    history : ndarray, shape (n_iter + 1, d)
        Only where asked for: the weights before each step, and the final ones.

    Raises
    ------
    TypeError, ValueError
        If an argument breaks its rule. Nothing has been drawn from the global state then.

    Examples
    --------
    >>> from fastdl.assignments.linear import expand, load_circle, sgd
    >>> X, y = load_circle()
    >>> w, losses = sgd(expand(X), y, seed=42)
    >>> print(f"{losses[0]:.4f} {losses[-1]:.4f}")
    0.6849 0.4015
    """
    return _descend("sgd", X, y, w, eta, n_iter, batch_size, seed, losses, history)


def momentum(
    X,
    y,
    w=None,
    *,
    eta=0.05,
    alpha=0.9,
    n_iter=100,
    batch_size=4,
    seed=None,
    losses=True,
    history=False,
):
    """Mini-batch descent with momentum, nu = alpha * nu + eta * dw; w = w - nu, from nu = 0.

    Parameters
    ----------
    alpha : float in [0, 1], default 0.9
        How much of the last step is kept.
    X, y, w, eta, n_iter, batch_size, seed, losses, history
        As in `sgd`, and so are what is returned and raised.

    Examples
    --------
    >>> from fastdl.assignments.linear import expand, load_circle, momentum
    >>> X, y = load_circle()
    >>> w, losses = momentum(expand(X), y, seed=42)
    >>> print(f"{losses[0]:.4f} {losses[-1]:.4f}")
    0.6849 0.2313
    """
    return _descend(
        "momentum", X, y, w, eta, n_iter, batch_size, seed, losses, history, alpha=alpha
    )


def rmsprop(
    X,
    y,
    w=None,
    *,
    eta=0.05,
    alpha=0.9,
    eps=1e-8,
    n_iter=100,
    batch_size=4,
    seed=None,
    losses=True,
    history=False,
):
    """RMSprop, G = alpha * G + (1 - alpha) * dw**2; w = w - eta * dw / sqrt(G + eps), from G = 0.

    Parameters
    ----------
    alpha : float in [0, 1], default 0.9
        How much of the mean square of the gradients is kept.
    eps : float, default 1e-8
        >= 0; what keeps the divisor from 0.
    X, y, w, eta, n_iter, batch_size, seed, losses, history
        As in `sgd`, and so are what is returned and raised.

    Examples
    --------
    >>> from fastdl.assignments.linear import expand, load_circle, rmsprop
    >>> X, y = load_circle()
    >>> w, losses = rmsprop(expand(X), y, seed=42)
    >>> print(f"{losses[0]:.4f} {losses[-1]:.4f}")
    0.6849 0.2825
    """
    return _descend(
        "rmsprop", X, y, w, eta, n_iter, batch_size, seed, losses, history, alpha=alpha, eps=eps
    )


def _descend(
    method, X, y, w, eta, n_iter, batch_size, seed, losses, history, *, alpha=0.9, eps=1e-8
):
    # Everything is checked before the draw, which an error must not have advanced.
    if w is None:
        columns = checks.as_array("X", X, ndim=2).shape[1]
        w = np.arange(columns) == columns - 1
    X, y, w = _examples(X, y, w)
    eta = checks.number("eta", eta, low=0)
    alpha = checks.number("alpha", alpha, low=0, high=1)
    eps = checks.number("eps", eps, low=0)
    n_iter = checks.integer("n_iter", n_iter, low=0)
    batch_size = checks.integer("batch_size", batch_size, low=1)
    losses, history = checks.boolean("losses", losses), checks.boolean("history", history)
    random = checks.random_state("seed", seed)
    # One draw of all batches goes through the stream just as a draw for each step does.
    batches = random.choice(len(X), (n_iter, batch_size))
    w, losses, weights = ops.logistic_descent(
        X,
        y,
        w,
        batches,
        method=method,
        learning_rate=eta,
        decay=alpha,
        epsilon=eps,
        losses=losses,
        history=history,
    )
    return (w, losses, weights) if history else (w, losses)


# ----------------------------------------------------------------------------------------- pictures


def visualize(X, y, w, history):
    """The probability of class 1 over the plane, beside the curve of the losses.

    In a notebook the picture is shown at once, in the place of the one before it, so that calls
    from inside a loop make an animation.

    Parameters
    ----------
    X : array_like, shape (n, 2) or (n, 6)
        The points, `expand`ed or not.
    y : array_like, shape (n,)
        0 or 1.
    w : array_like, shape (6,)
    history : array_like, shape (steps,)
        The losses.

    Returns
    -------
    matplotlib.figure.Figure or None
        None in a notebook, which has shown it.

    Examples
    --------
    >>> from fastdl.assignments.linear import load_circle, visualize
    >>> X, y = load_circle()
    >>> figure = visualize(X, y, [0, 0, -1, -1, 0, 2], [0.7, 0.5, 0.4])
    >>> figure.axes[0].get_title(loc="left")
    'Decision surface'
    """
    points = _plane(X)
    figure = plots.decision_surface(lambda mesh: probability(expand(mesh), w), points, y, history)
    ipython = sys.modules.get("IPython")
    # A terminal's shell, which has no kernel, could show no more than the figure's name.
    if ipython is None or not hasattr(ipython.get_ipython(), "kernel"):
        return figure
    ipython.display.clear_output(wait=True)
    ipython.display.display(figure)


def animate(path, X, y, history, losses, *, title="Decision surface"):
    """Write the animated GIF of `visualize` through the steps of a loop.

    Parameters
    ----------
    path : str or path-like
        The file to write.
    X : array_like, shape (n, 2) or (n, 6)
        The points, `expand`ed or not.
    y : array_like, shape (n,)
        0 or 1.
    history : array_like, shape (n_iter + 1, 6)
        The weights at each step, as the loops return them with `history=True`.
    losses : array_like, shape (n_iter,)
    title : str

    Returns
    -------
    str or path-like
        `path`.
    """
    return plots.animate_decision_surface(
        path,
        lambda mesh, w: probability(expand(mesh), w),
        history,
        _plane(X),
        y,
        losses,
        title=title,
    )


# ------------------------------------------------------------------------------------------- checks


def _plane(X):
    """The two columns of X that are the points'."""
    return checks.as_array("X", X, ndim=2)[:, :2]


def _features(X, w):
    X, w = checks.as_arrays(X=X, w=w)
    checks.dimensions("X", X, 2)
    checks.matches("w", w, X.shape[1:], "X", X.shape)
    return X, w


def _examples(X, y, w):
    X, w = _features(X, w)
    y = checks.as_array("y", y, dtype=X.dtype)
    checks.matches("y", y, X.shape[:1], "X", checks.nonempty("X", X).shape)
    return X, checks.finite("y", y, low=0, high=1), w
