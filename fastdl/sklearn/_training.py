"""How long an estimator trains: scikit-learn's rules, between the epochs of `MLP.fit`."""

import math

import numpy as np
from scipy.optimize import minimize

from .. import _engine
from ..callbacks import Callback

# Learning rates that are as low as this are not lowered any more.
_LOWEST_RATE = 1e-6


class Validation:
    """Rows that are scored after each epoch.

    Parameters
    ----------
    network : MLP
    X : ndarray or sparse matrix
    score : callable
        Of what the activation `link` makes of the network's outputs, (n, units): the score.
    link : Activation
    """

    def __init__(self, network, X, score, link):
        self._network = network._network
        self._inputs = network._finite("validation_data", network._inputs("X", X))
        self._outputs = np.empty((len(self._inputs), network.sizes[-1]), network.dtype)
        self._score = score
        self._code = link.code

    def score(self):
        _engine.predict(self._network, self._inputs, self._code, self._outputs)
        return float(self._score(self._outputs))


class Progress(Callback):
    """Notes an epoch in the estimator's attributes, and stops training that gets nowhere.

    Parameters
    ----------
    estimator : NetworkEstimator
    rows : int
        Of an epoch.
    factor : float
        What makes of the network's loss the one that is reported.
    validation : Validation or None
    course : {"constant", "invscaling", "adaptive"}
        What becomes of the learning rate.
    first_rate : float or callable
        The optimizer's learning rate.

    Attributes
    ----------
    stopped : bool
        Whether there was no improvement for too long.
    """

    def __init__(self, estimator, rows, factor, validation, course, first_rate):
        self._estimator = estimator
        self._rows = rows
        self._factor = factor
        self._validation = validation
        self._by_score = bool(estimator.early_stopping)
        self._course = course
        self._first_rate = first_rate
        self.stopped = False

    def _epochs_ahead(self):
        # None of so many epochs can be the one that ends it. Called after each of them, training of
        # a small network on few rows took up to half as long again.
        it = self._estimator
        if it.verbose or self._validation is not None or self._course == "invscaling":
            return 1
        return max(1, it.n_iter_no_change - it._waited + 1)

    def _pass_epochs(self, first, logs, begun):
        for loss in logs["loss"]:
            self._note(loss)

    def on_epoch_end(self, epoch, logs):
        """Note loss and score, and see whether they improved."""
        self._note(logs["loss"])

    def _note(self, loss):
        it = self._estimator
        it.n_iter_ += 1
        it.t_ += self._rows
        it.loss_ = loss = loss * self._factor
        it.loss_curve_.append(loss)
        if it.verbose:
            print(f"Iteration {it.n_iter_}, loss = {loss:.8f}")
        score = None
        if self._validation is not None:
            score = self._validation.score()
            it.validation_scores_.append(score)
            if it.verbose:
                print(f"Validation score: {score:f}")
        if self._by_score:
            # The best score grows by less than `tol` at a time without counting as improvement.
            improved = not score < it.best_validation_score_ + it.tol
            if score > it.best_validation_score_:
                it._best_parameters = self.model._network.parameters.copy()
        else:
            improved = not loss > it.best_loss_ - it.tol
            if loss < it.best_loss_:  # NaN is not
                it.best_loss_ = loss
        if score is not None and score > it.best_validation_score_:
            it.best_validation_score_ = score
        it._waited = 0 if improved else it._waited + 1
        if self._course == "invscaling":
            self.model.learning_rate = self._first_rate / (it.t_ + 1) ** it.power_t
        if it._waited > it.n_iter_no_change:
            self._end_of_patience()

    def _end_of_patience(self):
        it = self._estimator
        rate = self.model.learning_rate if self._course == "adaptive" else 0.0
        what = "Validation score" if self._by_score else "Training loss"
        if rate > _LOWEST_RATE:
            it._waited = 0
            self.model.learning_rate = rate / 5
            then = f"Setting learning rate to {rate / 5:f}"
        else:
            self.stopped = self.model.stop_training = True
            then = "Stopping."
        if it.verbose:
            print(
                f"{what} did not improve more than tol={it.tol:f} for {it.n_iter_no_change} "
                f"consecutive epochs. {then}"
            )


def descend(network, data, *, max_iter, max_fun, tol, verbose):
    """Minimise the loss of all rows by L-BFGS.

    Returns
    -------
    losses : list of float
        After each iteration.
    trouble : str or None
        Why it ended, if not for having converged.
    """
    layers, workspace = network._network, _engine.Workspace(network._network)
    losses, last = [], math.inf

    def loss_and_gradient(parameters):
        nonlocal last
        layers.parameters[...] = parameters
        last, _ = _engine.gradients(layers, data, workspace)
        return last, workspace.gradients.astype(np.float64)

    def note(parameters):
        losses.append(last)  # a line search ends with the point that it goes to
        if verbose:
            print(f"Iteration {len(losses)}, loss = {last:.8f}")

    found = minimize(
        loss_and_gradient,
        layers.parameters.astype(np.float64),
        method="L-BFGS-B",
        jac=True,
        callback=note,
        options={"maxfun": max_fun, "maxiter": max_iter, "gtol": tol},
    )
    layers.parameters[...] = found.x
    return losses or [float(found.fun)], None if found.success else str(found.message)
