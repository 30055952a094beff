"""What the estimators share: a network that is made, trained and asked as scikit-learn has it."""

import functools
import math
import warnings
from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import (
    _check_sample_weight,
    assert_all_finite,
    check_is_fitted,
    column_or_1d,
)

from .. import _engine, activations, backends, checks, optimizers
from .._optional import optional_import
from ..network import MLP, Training
from . import _files
from ._training import Progress, Validation, descend

try:
    from sklearn.utils.validation import validate_data

    # The engine looks for what is not finite when it looks for zeros.
    _FINITE_LATER = {"ensure_all_finite": False}
except ImportError:  # scikit-learn before 1.6
    _FINITE_LATER = {}

    def validate_data(estimator, *arguments, **options):
        return estimator._validate_data(*arguments, **options)


# scikit-learn's names of activations, where fastdl's are others.
_ACTIVATIONS = {"identity": "linear", "logistic": "sigmoid"}
_OUTPUT_ACTIVATIONS = {"linear": "identity", "sigmoid": "logistic"}

# Frames from a warning to the caller of `fit` or `partial_fit`, through `_fit` and `with_threads`.
_STACK = 4


class Target(NamedTuple):
    """What a network is to learn.

    Attributes
    ----------
    values : ndarray
        As its loss takes them.
    loss : str or Loss
        Of the network.
    units : int
        Outputs.
    factor : float
        What makes a row's loss, a mean over the outputs, the one that scikit-learn descends on.
    report : float
        What makes of that the one that scikit-learn reports.
    classes : ndarray of int (n,) or None
        Of the rows, to divide them by.
    noted : dict
        Attributes of an estimator with such targets: what further ones have to go with.
    """

    values: np.ndarray
    loss: object
    units: int
    factor: float = 1.0
    report: float = 1.0
    classes: np.ndarray | None = None
    noted: dict = {}  # noqa: RUF012, nothing is put into it


class Rows(NamedTuple):
    """Some of the rows of a fit, their targets and weights."""

    X: object
    values: np.ndarray
    weight: np.ndarray | None

    def part(self, rows):
        return Rows(*(each if each is None else each[rows] for each in self))


def keep(estimator, parameters):
    """Store a constructor's arguments, its `locals()`, as they are: scikit-learn wants it so."""
    for name, value in parameters.items():
        if name not in ("self", "__class__"):
            setattr(estimator, name, value)


def with_threads(method):
    """A method that takes no more threads than `n_threads` allows."""

    @functools.wraps(method)
    def limited(self, *arguments, **options):
        threads = self.n_threads
        if threads is not None:
            threads = checks.integer("n_threads", threads, low=1)
        with backends.use_threads(threads):
            return method(self, *arguments, **options)

    return limited


def as_activation(value):
    """The activation that a parameter stands for, by scikit-learn's name or by fastdl's."""
    return activations.get(_ACTIVATIONS.get(value, value) if isinstance(value, str) else value)


class NetworkEstimator(BaseEstimator, ABC):
    """Base of the estimators.

    Attributes
    ----------
    network_ : MLP
        What is trained and asked.
    """

    @abstractmethod
    def _check(self):
        """Refuse parameters that only this estimator has."""

    @abstractmethod
    def _target(self, y, noted=None, classes=None):
        """The Target that y is, or also goes with what was `noted` of another one."""

    def _class_weights(self, target):
        """What rows to train on weigh by their classes, or None."""
        return None

    @abstractmethod
    def _scored(self, network):
        """The activation of the outputs that `_scorer`'s function takes."""

    @abstractmethod
    def _scorer(self, values, weight):
        """A function of outputs, as `_scored` says: their score on these targets."""

    @abstractmethod
    def _penalties(self, weight):
        """The factors (L1, L2) of the weights in the loss of a step with rows of this weight."""

    @abstractmethod
    def _rule(self):
        """(the Optimizer or None for L-BFGS, what becomes of its learning rate)."""

    @abstractmethod
    def _first_weights(self, sizes, generator):
        """W1, b1, W2, ... of a new network."""

    def _hidden(self):
        return ()

    # The linear model's, whose constructor does not have them.
    activation = "relu"
    dropout = 0.0
    max_fun = None

    # Rows of a step where nobody says otherwise.
    _auto_batch = 200

    # ------------------------------------------------------------------------------------ training

    @with_threads
    def fit(self, X, y, sample_weight=None):
        """Train on rows X with targets y, anew unless `warm_start` is set.

        Parameters
        ----------
        X : array_like or sparse matrix (n, features)
        y : array_like (n,) or (n, outputs)
        sample_weight : array_like (n,), optional
            What each row's loss is multiplied by. The mean loss is over the sum of these weights.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If an argument or a parameter is out of range or of the wrong type.
        """
        return self._fit(X, y, sample_weight, incremental=False)

    def _fit(self, X, y, sample_weight, incremental, classes=None):
        self._check_parameters()
        optimizer, course = self._rule()
        dtype = self._dtype(optimizer)
        known = hasattr(self, "network_") and (incremental or self.warm_start)
        X, y = self._validated(X, y, dtype, reset=not known, **_FINITE_LATER)
        if sample_weight is not None:
            sample_weight = _row_weights("sample_weight", sample_weight, X)
        noted = {name: getattr(self, name) for name in self._noted} if known else None
        target = self._target(y, noted, classes)
        generator = check_random_state(self.random_state)
        sizes = (X.shape[1], *self._hidden(), target.units)
        weights = None if known else self._first_weights(sizes, generator)
        training = Rows(X, target.values, _product(sample_weight, self._class_weights(target)))
        held = None
        if optimizer is not None:
            training, held = self._split(training, sample_weight, target, dtype, generator)
        network, asked = self._network(sizes, target, dtype, weights, generator)
        data, weight = self._data(network, training, target.factor, optimizer is not None)
        self._start(known, network, asked, target, optimizer)
        if optimizer is None:
            network._network.penalise(*self._penalties(weight))
            interrupted, trouble = False, self._descend(network, data, target)
        else:
            if held is not None:
                score = self._scorer(held.values, held.weight)
                held = Validation(network, held.X, score, self._scored(network))
                if known and not incremental and self.early_stopping:
                    # It may have other rows than the last fit, to which older scores do not belong.
                    score = held.score()
                    self.best_validation_score_ = -math.inf if math.isnan(score) else score
                    self._waited = 0
            batch = self._rows_of_a_step(len(data.inputs))
            network._network.penalise(*self._penalties(weight * batch / len(data.inputs)))
            interrupted, trouble = self._train(
                network, data, target, held, batch, optimizer, course, incremental
            )
        if not np.isfinite(network._network.parameters).all():
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large "
                "values and need to be preprocessed."
            )
        if interrupted:
            warnings.warn("Training interrupted by user.", stacklevel=_STACK)
        elif trouble:
            warnings.warn(trouble, ConvergenceWarning, stacklevel=_STACK)
        return self

    def _start(self, known, network, asked, target, optimizer):
        """The attributes that a fit begins with."""
        scored = optimizer is not None and (self.early_stopping or self.validation_data is not None)
        if not known:
            for name, value in target.noted.items():
                setattr(self, name, value)
            self.n_layers_ = len(network.sizes)
            self.t_ = 0
            self.loss_curve_ = []
            self.validation_scores_ = self.best_validation_score_ = self.best_loss_ = None
            self._waited = 0
            self._best_parameters = None
        last = network.activations[-1].name
        self.out_activation_ = _OUTPUT_ACTIVATIONS.get(last, last)
        if scored and self.best_validation_score_ is None:
            self.validation_scores_, self.best_validation_score_ = [], -math.inf
        if not (self.early_stopping and optimizer is not None) and self.best_loss_ is None:
            self.best_loss_ = math.inf
        if not self.early_stopping or optimizer is None:
            self._best_parameters = None
        elif known and self._best_parameters is None:
            # Where the last fit ended is the best so far.
            self._best_parameters = network._network.parameters.copy()
        self.network_, self._asked = network, asked
        self.n_iter_ = 0

    def _train(self, network, data, target, held, batch, optimizer, course, incremental):
        """Returns whether Ctrl-C was pressed, and what there is to warn of."""
        if not incremental:
            network._state = None
        elif network._state is not None:
            optimizer = network._state.given  # the moments stay, whatever has been set since then
        progress = Progress(
            self, len(data.inputs), target.report, held, course, optimizer.learning_rate
        )
        epochs = range(1 if incremental else self.max_iter)
        training = Training(
            data, None, epochs, batch, optimizer, self.shuffle, [progress], verbose=0
        )
        interrupted = False
        try:
            network._train(training, _engine.Workspace(network._network))
        except KeyboardInterrupt:
            interrupted = True
        self.stopped_ = progress.stopped
        if incremental and self.stopped_:
            self._waited = 0  # further calls begin to wait anew
        if incremental and not self.stopped_:
            return interrupted, None
        if self._best_parameters is not None:
            network._network.parameters[...] = self._best_parameters
            self._best_parameters = None
        if self.stopped_:
            return interrupted, None
        return interrupted, (
            f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the "
            "optimization hasn't converged yet."
        )

    def _descend(self, network, data, target):
        losses, trouble = descend(
            network,
            data,
            max_iter=self.max_iter,
            max_fun=self.max_fun,
            tol=self.tol,
            verbose=self.verbose,
        )
        self.loss_curve_ += [loss * target.report for loss in losses]
        self.n_iter_ = len(losses)
        self.loss_ = self.loss_curve_[-1]
        self.best_loss_ = min(self.loss_, self.best_loss_)
        self.stopped_ = trouble is None
        return trouble and f"lbfgs failed to converge after {self.n_iter_} iterations: {trouble}"

    # -------------------------------------------------------------------------- rows, and a network

    def _validated(self, X, y, dtype, reset, **options):
        """X as rows of `dtype`, and y with one dimension if it has one column."""
        X, y = validate_data(
            self,
            X,
            y,
            reset=reset,
            multi_output=True,
            y_numeric=self._regresses,
            **_row_options(dtype),
            **options,
        )
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return X, y

    def _split(self, rows, sample_weight, target, dtype, generator):
        """Rows to train on, and rows to score after each epoch or None."""
        if self.validation_data is not None:
            return rows, self._own_validation(dtype, target.noted)
        if not self.early_stopping:
            return rows, None
        count = rows.X.shape[0]
        fraction = checks.number(
            "validation_fraction", self.validation_fraction, high_open=True, high=1, low=0
        )
        held = math.ceil(fraction * count)
        if held < 2 or held == count:
            raise ValueError(
                f"validation_fraction: {fraction} of {count} rows leaves {held} to score and "
                f"{count - held} to train on: 2 and 1 at least"
            )
        stratify = target.classes
        if stratify is not None:
            frequency = np.bincount(stratify)
            frequency = frequency[frequency > 0]
            if frequency.min() < 2 or min(held, count - held) < len(frequency):
                stratify = None
        chosen, kept = train_test_split(
            np.arange(count), random_state=generator, test_size=fraction, stratify=stratify
        )
        # What the classes weigh is for training alone.
        return rows.part(chosen), rows._replace(weight=sample_weight).part(kept)

    def _own_validation(self, dtype, noted):
        given = self.validation_data
        if not isinstance(given, (tuple, list)) or len(given) not in (2, 3):
            raise TypeError("validation_data: not a tuple (X, y) or (X, y, sample_weight)")
        X, y, weight = (*given, None)[:3]
        X, y = self._validated(X, y, dtype, reset=False)
        if weight is not None:
            weight = _row_weights("validation_data[2]", weight, X)
        return Rows(X, self._target(y, noted).values, weight)

    def _network(self, sizes, target, dtype, weights, generator):
        """A new network, or the one that is there if it is what the parameters still ask for.

        And that, the arguments of `MLP`.
        """
        rates = list(self.dropout) if np.iterable(self.dropout) else self.dropout
        asked = {
            "sizes": sizes,
            "activation": self._activations(),
            "dropout": rates,
            "loss": target.loss,
            "dtype": dtype,
        }
        if weights is not None:
            network = MLP(seed=generator.randint(2**31 - 1), **asked)
            network.set_weights(weights)
            return network, asked
        old = self.network_
        if old.sizes != sizes:
            raise ValueError(
                f"hidden_layer_sizes: layers of {sizes} units are not those of the network that "
                f"goes on, {old.sizes}"
            )
        if asked == self._asked:  # to make one takes as long as some steps
            return old, asked
        network = MLP(seed=old.seed, **asked)
        if network._config() | {"l1": old.l1, "l2": old.l2} == old._config():
            return old, asked
        network.set_weights(old.weights)
        return network, asked

    def _activations(self):
        if isinstance(self.activation, (list, tuple, np.ndarray)):
            return [as_activation(each) for each in self.activation]
        return as_activation(self.activation)

    def _data(self, network, rows, factor, training):
        """Rows to train on, weights 1 on average, and their sum before that."""
        count, weight = rows.X.shape[0], rows.weight
        total = count
        if weight is not None:
            total = float(weight.sum(dtype=np.float64))
            if not 0 < total < math.inf:
                raise ValueError(f"sample_weight: their sum {total} is not a finite number > 0")
            weight = weight * (factor * count / total)
        elif factor != 1:
            weight = np.full(count, factor, network.dtype)
        try:
            return network._data(rows.X, rows.values, weight, training=training), total
        except ValueError:
            # In scikit-learn's words, if it is about X.
            assert_all_finite(rows.X, input_name="X", estimator_name=type(self).__name__)
            raise

    def _rows_of_a_step(self, rows):
        if isinstance(self.batch_size, str):
            return min(self._auto_batch, rows)
        if self.batch_size > rows:
            warnings.warn(
                f"batch_size: {self.batch_size} is clipped to the {rows} rows there are",
                stacklevel=_STACK + 1,
            )
        return min(self.batch_size, rows)

    # ---------------------------------------------------------------------------------- parameters

    def _check_parameters(self):
        self._check()
        if not isinstance(self.batch_size, str) or self.batch_size != "auto":
            checks.integer("batch_size", self.batch_size, low=1)
        checks.number("alpha", self.alpha, low=0)
        checks.integer("max_iter", self.max_iter, low=1)
        checks.number("tol", self.tol, low=0)
        if not (isinstance(self.n_iter_no_change, float) and self.n_iter_no_change == math.inf):
            checks.integer("n_iter_no_change", self.n_iter_no_change, low=1)
        checks.number("power_t", self.power_t, low=0)
        for name in ("shuffle", "warm_start", "early_stopping"):
            checks.boolean(name, getattr(self, name))

    def _dtype(self, optimizer):
        """float32, and float64 for L-BFGS, whose steps follow from small differences."""
        if self.dtype is None:
            return np.dtype(np.float64 if optimizer is None else np.float32)
        return np.dtype(checks.choice("dtype", np.dtype(self.dtype).name, ("float32", "float64")))

    def _given_optimizer(self):
        return optimizers.get(self.optimizer)

    # -------------------------------------------------------------------------------------- answers

    @with_threads
    def _outputs(self, X, link=None):
        """What the activation called `link`, or else that of `_scored`, makes of the outputs."""
        check_is_fitted(self)
        function = activations.get(link) if link else self._scored(self.network_)
        X = validate_data(self, X, reset=False, **_row_options(self.network_.dtype))
        return self.network_._predict(X, function.code, None)

    # -------------------------------------------------------------------------- other forms of it

    def save(self, path):
        """Write the estimator to a file, its network in the safetensors format, the rest in JSON.

        Nothing in it is code. `fastdl.sklearn.load` reads the estimator, `fastdl.load` its network.
        Training can go on after that; `validation_data` is not in the file.

        Parameters
        ----------
        path : path-like

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If it is not fitted.
        TypeError
            If a parameter is neither a number, a string, an array nor of fastdl, or the estimator
            is of a class of your own.
        OSError
            If the file can't be written; `path` is as before then.

        Examples
        --------
        >>> import os, tempfile
        >>> from fastdl.sklearn import MLPRegressor, load
        >>> model = MLPRegressor(hidden_layer_sizes=4, tol=0.01, random_state=0)
        >>> model = model.fit([[0.0], [1.0], [2.0]], [0.0, 1.0, 2.0])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(os.path.join(folder, "line.safetensors"))
        ...     again = load(os.path.join(folder, "line.safetensors"))
        >>> bool((again.predict([[1.5]]) == model.predict([[1.5]])).all())
        True
        """
        check_is_fitted(self)
        _files.save(self, path)

    def to_keras(self, name="mlp"):
        """Make a Keras model with the layers and weights of the network.

        Parameters
        ----------
        name : str, default "mlp"
            Of the model.

        Returns
        -------
        keras.Sequential
            Not compiled. Its outputs are probabilities, for two classes of the second one.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If it is not fitted.
        ImportError
            If Keras is missing.
        """
        check_is_fitted(self)
        from ..keras import to_keras

        model = to_keras(self.network_, name)
        if self.out_activation_ == "exp":
            keras = optional_import("keras", extra="keras")
            model.add(keras.layers.Activation("exponential"))
        return model

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.multi_output = self._regresses
        return tags


def _row_options(dtype):
    """How scikit-learn is to check rows."""
    return {"accept_sparse": "csr", "dtype": dtype, "order": "C"}


def _row_weights(name, weight, X):
    return checks.finite(name, _check_sample_weight(weight, X, dtype=X.dtype), low=0)


def _product(*weights):
    weights = [weight for weight in weights if weight is not None]
    return functools.reduce(np.multiply, weights) if weights else None
