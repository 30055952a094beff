"""The three estimators."""

import itertools
import math

import numpy as np
from scipy import sparse
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels
from sklearn.utils.validation import check_is_fitted

from .. import activations, checks, losses, optimizers
from ..schedules import InverseTimeDecay
from . import _files
from ._base import NetworkEstimator, Target, keep, with_threads

_SOLVERS = ("lbfgs", "sgd", "adam")
_COURSES = ("constant", "invscaling", "adaptive")
_PENALTIES = ("l2", "l1", "elasticnet")


def _trains_by_batches(estimator):
    if getattr(estimator, "solver", None) == "lbfgs" and estimator.optimizer is None:
        raise AttributeError("partial_fit: the solver 'lbfgs' takes all rows at once")
    return True


# -------------------------------------------------------------------------------------- classifiers


class _Classifier(ClassifierMixin, NetworkEstimator):
    """Answers that are classes: a sigmoid for two, a softmax for more, and several labels a row."""

    _regresses = False
    _noted = ("classes_", "n_outputs_", "_multilabel", "_sparse_labels")

    @available_if(_trains_by_batches)
    @with_threads
    def partial_fit(self, X, y, sample_weight=None, classes=None):
        """Go once through rows X, from where the last call ended; moments and step count go on.

        With `early_stopping`, each call scores `validation_data`, or the share
        `validation_fraction` of its own rows, which it does not train on. Once the score has not
        improved for more than `n_iter_no_change` calls, `stopped_` is True and the parameters are
        those of the best call. Further calls go on from there.

        Parameters
        ----------
        X : array_like or sparse matrix (n, features)
        y : array_like (n,) or (n, labels)
        sample_weight : array_like (n,), optional
            As for `fit`.
        classes : array_like (classes,), optional
            All classes that there will be, the numbers of the columns for several labels a row.
            The first call needs it.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            As `fit`; also if the first call has no `classes`, or a later one others.
        """
        classes = self._all_classes(classes)
        return self._fit(X, y, sample_weight, incremental=True, classes=classes)

    def _all_classes(self, classes):
        """Those that `partial_fit` is given, or None if it knows them."""
        if isinstance(self.class_weight, str):
            raise ValueError(
                f"class_weight: {self.class_weight!r} does not go with partial_fit, which never "
                "sees all rows: give a dict"
            )
        known = hasattr(self, "classes_")
        if not known and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        if classes is not None:
            classes = unique_labels(classes)
            if known and not np.array_equal(classes, self.classes_):
                raise ValueError(
                    f"`classes={classes!r}` is not the same as on last call to partial_fit, was: "
                    f"{self.classes_!r}"
                )
        return classes

    def predict(self, X):
        """The most probable class of each row X.

        Parameters
        ----------
        X : array_like or sparse matrix (n, features)

        Returns
        -------
        ndarray (n,) or (n, labels)
            For several labels a row 0 and 1, a sparse matrix if training had one.
        """
        outputs = self._outputs(X, "linear")
        if self._multilabel:
            chosen = (outputs > 0).astype(np.int64)
            return sparse.csr_matrix(chosen) if self._sparse_labels else chosen
        return self.classes_[self._chosen(outputs)]

    def predict_proba(self, X):
        """The probability of each class for rows X.

        Parameters
        ----------
        X : array_like or sparse matrix (n, features)

        Returns
        -------
        ndarray (n, classes)
            In the order of `classes_`, of the network's dtype.
        """
        check_is_fitted(self)
        outputs = self._outputs(X, self.network_.loss.output_activation)
        if outputs.shape[1] > 1 or self._multilabel:
            return outputs
        if len(self.classes_) == 1:
            return np.ones_like(outputs)
        return np.hstack([1 - outputs, outputs])

    def predict_log_proba(self, X):
        """The logarithm of `predict_proba`.

        Parameters
        ----------
        X : array_like or sparse matrix (n, features)

        Returns
        -------
        ndarray (n, classes)
        """
        probabilities = self.predict_proba(X)
        with np.errstate(divide="ignore"):
            return np.log(probabilities, out=probabilities)

    def _chosen(self, outputs):
        """The number of each row's class."""
        if outputs.shape[1] > 1:
            return outputs.argmax(axis=1)
        # A single class is that of all rows.
        return (outputs[:, 0] > 0) * (len(self.classes_) - 1)

    def _target(self, y, noted=None, classes=None):
        labels_sparse = sparse.issparse(y)
        # To find that out takes as long as some steps of a small network.
        plain = not labels_sparse and y.ndim == 1 and y.dtype.kind in "biuU"
        kind = "multiclass" if plain else type_of_target(y)
        if kind == "multiclass-multioutput":
            raise ValueError("y: several columns of classes: use MultiOutputClassifier")
        if kind not in ("binary", "multiclass", "multilabel-indicator"):
            check_classification_targets(y)  # raises
        if kind == "multilabel-indicator":
            y = y.toarray() if labels_sparse else y
            return self._labels_target(y, noted, classes, labels_sparse)
        if noted:
            if noted["_multilabel"]:
                raise ValueError(f"y: shape {y.shape} is not {noted['n_outputs_']} labels a row")
            classes = noted["classes_"]
        elif classes is None:
            classes = np.unique(y)
        codes = np.searchsorted(classes, y)
        codes[codes == len(classes)] = 0
        unknown = classes[codes] != y
        if unknown.any():
            raise ValueError(f"y: {np.unique(y[unknown])} is not among the classes {classes}")
        several = len(classes) > 2
        units = len(classes) if several else 1
        return Target(
            codes if several else codes[:, None],
            "categorical_crossentropy" if several else "binary_crossentropy",
            units,
            classes=codes,
            noted={
                "classes_": classes,
                "n_outputs_": units,
                "_multilabel": False,
                "_sparse_labels": False,
            },
        )

    def _class_weights(self, target):
        if self.class_weight is None:
            return None
        if target.noted["_multilabel"]:
            return compute_sample_weight(self.class_weight, target.values.astype(np.int64))
        classes, codes = target.noted["classes_"], target.classes
        weights = compute_class_weight(self.class_weight, classes=classes, y=classes[codes])
        return weights[codes]

    def _labels_target(self, y, noted, classes, labels_sparse):
        units = y.shape[1]
        if noted and (not noted["_multilabel"] or units != noted["n_outputs_"]):
            raise ValueError(f"y: shape {y.shape} is not that of classes {noted['classes_']}")
        if not noted and classes is not None and len(classes) != units:
            raise ValueError(f"classes: {len(classes)} are not the {units} columns of y")
        return Target(
            y.astype(np.float32),
            "binary_crossentropy",
            units,
            factor=units,
            noted={
                "classes_": np.arange(units),
                "n_outputs_": units,
                "_multilabel": True,
                "_sparse_labels": labels_sparse,
            },
        )

    def _scored(self, network):
        return activations.get("linear")

    def _scorer(self, values, weight):
        if self._multilabel:
            wanted = values > 0
            return lambda outputs: np.average(((outputs > 0) == wanted).all(axis=1), weights=weight)
        codes = values.reshape(-1)
        return lambda outputs: np.average(self._chosen(outputs) == codes, weights=weight)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _more_tags(self):  # scikit-learn before 1.6
        return {"multilabel": True}


# ---------------------------------------------------------------------------------------- networks


class _Perceptron(NetworkEstimator):
    """Hidden layers, and scikit-learn's two solvers by batches and one by all rows."""

    @property
    def coefs_(self):
        """The weights of each layer, (inputs, outputs): the network's own arrays."""
        return self.network_.weights[0::2]

    @property
    def intercepts_(self):
        """The biases of each layer."""
        return self.network_.weights[1::2]

    def _hidden(self):
        sizes = self.hidden_layer_sizes
        sizes = sizes if hasattr(sizes, "__iter__") else [sizes]
        return tuple(checks.integer("hidden_layer_sizes", size, low=1) for size in sizes)

    def _check(self):
        self._hidden()
        checks.choice("solver", self.solver, _SOLVERS)
        checks.choice("learning_rate", self.learning_rate, _COURSES)
        checks.number("learning_rate_init", self.learning_rate_init, low=0, low_open=True)
        checks.integer("max_fun", self.max_fun, low=1)
        rates = self.dropout if np.iterable(self.dropout) else [self.dropout]
        if any(rates) and self._rule()[0] is None:
            raise ValueError(f"dropout: {self.dropout} does not go with the solver 'lbfgs'")

    def _rule(self):
        if self.optimizer is not None:
            return optimizers.get(self.optimizer), "constant"
        if self.solver == "lbfgs":
            return None, "constant"
        if self.solver == "sgd":
            nesterov = checks.boolean("nesterovs_momentum", self.nesterovs_momentum)
            rule = optimizers.SGD(self.learning_rate_init, self.momentum, nesterov)
            return rule, self.learning_rate
        rule = optimizers.Adam(self.learning_rate_init, self.beta_1, self.beta_2, self.epsilon)
        return rule, "constant"

    def _penalties(self, weight):
        return 0.0, self.alpha / 2 / weight

    def _first_weights(self, sizes, generator):
        """Glorot and Bengio's, as scikit-learn draws them, the outputs' like the layer's before."""
        activations = self._activations()
        if not isinstance(activations, list):
            activations = [activations] * max(1, len(sizes) - 2)
        factors = [2 if activation.name == "sigmoid" else 6 for activation in activations]
        weights = []
        for layer, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
            factor = factors[min(layer, len(factors) - 1)] if factors else 6
            limit = math.sqrt(factor / (inputs + outputs))
            weights.append(generator.uniform(-limit, limit, (inputs, outputs)))
            weights.append(generator.uniform(-limit, limit, outputs))
        return weights


class MLPClassifier(_Perceptron, _Classifier):
    """A multilayer perceptron that tells classes apart, in the place of scikit-learn's.

    It has the parameters, defaults and attributes of `sklearn.neural_network.MLPClassifier`, and
    more. Training starts from the same weights as there; with `shuffle=False`, or L-BFGS, it is the
    same up to rounding.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default (100,)
        Units of each hidden layer.
    activation : str, Activation or a sequence of them, default "relu"
        Of the hidden layers: one for all, or one for each. scikit-learn's names, "identity",
        "logistic", "tanh" and "relu", and those of `fastdl.activations`.
    solver : {"adam", "sgd", "lbfgs"}, default "adam"
    alpha : float, default 0.0001
        alpha / 2 times the sum of the squared weights, over the rows of a step, is added to the
        loss.
    batch_size : int or "auto", default "auto"
        Rows of a step; "auto" is 200 or all there are.
    learning_rate : {"constant", "invscaling", "adaptive"}, default "constant"
        What becomes of the learning rate of "sgd". "invscaling" divides the first one by (t_ +
        1)**power_t after each epoch. "adaptive" divides it by 5 whenever training would end for
        lack of improvement, until it is 1e-6.
    learning_rate_init : float, default 0.001
    power_t : float, default 0.5
    max_iter : int, default 200
        Epochs, or iterations of L-BFGS, at most.
    shuffle : bool, default True
        Whether each epoch takes the rows in an order of its own.
    random_state : int, RandomState or None, default None
        Settles the first weights, the rows held back, dropout and shuffling.
    tol : float, default 0.0001
        What is less than this is no improvement.
    verbose : bool or int, default False
        Whether each epoch prints its loss.
    warm_start : bool, default False
        Whether `fit` goes on from where the last one ended.
    momentum : float, default 0.9
        Of "sgd".
    nesterovs_momentum : bool, default True
    early_stopping : bool, default False
        Whether training ends when the score on rows held back does not improve, instead of the
        loss, and goes back to the parameters with the best one.
    validation_fraction : float, default 0.1
        The share of the rows that is held back, of each class alike where there are enough.
    beta_1, beta_2, epsilon : float, default 0.9, 0.999 and 1e-8
        Of "adam".
    n_iter_no_change : int, default 10
        After how many epochs without improvement training goes on for just one more.
    max_fun : int, default 15000
        How often L-BFGS looks at the loss, at most.
    dropout : float or sequence of float, default 0.0
        Share of the units that is dropped after each hidden layer while training.
    optimizer : str or Optimizer, optional
        One of `fastdl.optimizers`, with a schedule perhaps, instead of what `solver`,
        `learning_rate` and the numbers beside them stand for.
    class_weight : dict, "balanced" or None, default None
        What the rows of each class are weighted by; for several labels a row, as
        `sklearn.utils.class_weight.compute_sample_weight` takes it.
    validation_data : tuple (X, y) or (X, y, sample_weight), optional
        Rows to score after each epoch, instead of some that are held back.
    dtype : {"float32", "float64"}, optional
        Of the parameters and of all arithmetic; without it float64 for L-BFGS, float32 otherwise.
    n_threads : int, optional
        Threads at most. Without it as many as pay, OMP_NUM_THREADS at most; joblib's processes set
        that for what runs in them.

    Attributes
    ----------
    classes_ : ndarray
    network_ : MLP
        The network itself.
    coefs_, intercepts_ : list of ndarray
        Its weights (inputs, outputs) and biases (outputs,), layer by layer.
    loss_ : float
        Of the last epoch: the mean over its steps, each before its update.
    loss_curve_ : list of float
        Of all epochs; a fit with `warm_start` and `partial_fit` add to it.
    best_loss_ : float or None
    validation_scores_ : list of float or None
        The accuracy after each epoch, where there are rows to score.
    best_validation_score_ : float or None
    n_iter_ : int
        Epochs or iterations of the last fit.
    t_ : int
        Rows trained on, all epochs together.
    stopped_ : bool
        Whether the last fit ended by itself, before `max_iter`.
    n_features_in_, n_layers_, n_outputs_ : int
    feature_names_in_ : ndarray
        If X had names that are strings.
    out_activation_ : {"softmax", "logistic"}

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import train_test_split
    >>> from fastdl.sklearn import MLPClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> X, X_test, y, y_test = train_test_split(X / 16, y, random_state=0)
    >>> model = MLPClassifier((64,), dropout=0.2, early_stopping=True, random_state=0).fit(X, y)
    >>> bool(model.score(X_test, y_test) > 0.95)
    True
    """

    def __init__(
        self,
        hidden_layer_sizes=(100,),
        activation="relu",
        *,
        solver="adam",
        alpha=0.0001,
        batch_size="auto",
        learning_rate="constant",
        learning_rate_init=0.001,
        power_t=0.5,
        max_iter=200,
        shuffle=True,
        random_state=None,
        tol=1e-4,
        verbose=False,
        warm_start=False,
        momentum=0.9,
        nesterovs_momentum=True,
        early_stopping=False,
        validation_fraction=0.1,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        n_iter_no_change=10,
        max_fun=15000,
        dropout=0.0,
        optimizer=None,
        class_weight=None,
        validation_data=None,
        dtype=None,
        n_threads=None,
    ):
        keep(self, locals())


class MLPRegressor(RegressorMixin, _Perceptron):
    """A multilayer perceptron that predicts numbers, in the place of scikit-learn's.

    It has the parameters, defaults and attributes of `sklearn.neural_network.MLPRegressor`, and
    more.

    Parameters
    ----------
    loss : {"squared_error", "poisson"} or Loss, default "squared_error"
        Half the squared error; half the Poisson deviance, the outputs being the logarithms of
        what is predicted; or one of `fastdl.losses`.
    hidden_layer_sizes, activation, solver, ..., n_threads
        As for `MLPClassifier`, which has a `class_weight` besides. Scores are R**2.

    Attributes
    ----------
    network_, coefs_, ..., feature_names_in_
        As of `MLPClassifier`, but for the classes.
    out_activation_ : {"identity", "exp"}

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.sklearn import MLPRegressor
    >>> X = np.linspace(-3, 3, 200)[:, None]
    >>> model = MLPRegressor(hidden_layer_sizes=32, activation="tanh", solver="lbfgs")
    >>> model = model.fit(X, np.sin(X[:, 0]))
    >>> bool(model.score(X, np.sin(X[:, 0])) > 0.99)
    True
    """

    _regresses = True
    _noted = ("n_outputs_",)

    def __init__(
        self,
        loss="squared_error",
        hidden_layer_sizes=(100,),
        activation="relu",
        *,
        solver="adam",
        alpha=0.0001,
        batch_size="auto",
        learning_rate="constant",
        learning_rate_init=0.001,
        power_t=0.5,
        max_iter=200,
        shuffle=True,
        random_state=None,
        tol=1e-4,
        verbose=False,
        warm_start=False,
        momentum=0.9,
        nesterovs_momentum=True,
        early_stopping=False,
        validation_fraction=0.1,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        n_iter_no_change=10,
        max_fun=15000,
        dropout=0.0,
        optimizer=None,
        validation_data=None,
        dtype=None,
        n_threads=None,
    ):
        keep(self, locals())

    @available_if(_trains_by_batches)
    @with_threads
    def partial_fit(self, X, y, sample_weight=None):
        """Go once through rows X, from where the last call ended: see `MLPClassifier`.

        Parameters
        ----------
        X : array_like or sparse matrix (n, features)
        y : array_like (n,) or (n, outputs)
        sample_weight : array_like (n,), optional
            As for `fit`.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            As `fit`.
        """
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X):
        """The network's answers for rows X.

        Parameters
        ----------
        X : array_like or sparse matrix (n, features)

        Returns
        -------
        ndarray (n,) or (n, outputs)
            float32 if both X and the network are, float64 otherwise.
        """
        outputs = self._outputs(X)
        if getattr(X, "dtype", None) != np.float32:
            outputs = outputs.astype(np.float64, copy=False)
        if self.out_activation_ == "exp":
            np.exp(outputs, out=outputs)
        return outputs[:, 0] if self.n_outputs_ == 1 else outputs

    def _check(self):
        super()._check()
        if not isinstance(self.loss, losses.Loss):
            checks.choice("loss", self.loss, ("squared_error", "poisson"))

    def _target(self, y, noted=None, classes=None):
        units = y.shape[1] if y.ndim > 1 else 1
        if noted and units != noted["n_outputs_"]:
            raise ValueError(f"y: shape {y.shape} is not that of {noted['n_outputs_']} outputs")
        loss, factor, report = self.loss, 1.0, 1.0
        if self.loss == "squared_error":
            # Descend on half the sum over the outputs, report half the mean.
            loss, factor, report = "mean_squared_error", units / 2, 1 / units
        elif self.loss == "poisson":
            if not (y >= 0).all():
                raise ValueError("y: the loss 'poisson' takes no numbers below 0")
            factor = units
        values = y.reshape(len(y), units)
        return Target(values, loss, units, factor, report, noted={"n_outputs_": units})

    def _start(self, known, *arguments):
        super()._start(known, *arguments)
        if self.loss == "poisson":
            self.out_activation_ = "exp"

    def _scored(self, network):
        return network.activations[-1]

    def _scorer(self, values, weight):
        values = values.astype(np.float64)
        deviation = values - np.average(values, axis=0, weights=weight)
        spread = np.average(deviation**2, axis=0, weights=weight)
        logarithms = self.loss == "poisson"

        def score(outputs):
            """The mean R**2, as scikit-learn has it."""
            outputs = np.exp(outputs, dtype=np.float64) if logarithms else outputs
            errors = np.average((values - outputs) ** 2, axis=0, weights=weight)
            constant = np.where(errors == 0, 1.0, 0.0)
            ratios = np.divide(errors, spread, out=1 - constant, where=spread != 0)
            return (1 - ratios).mean()

        return score


# --------------------------------------------------------------------------------- the linear model


class SGDLogisticRegression(_Classifier):
    """Logistic regression by stochastic gradient descent: one layer, no hidden ones.

    It takes the place of `sklearn.linear_model.SGDClassifier` with the logistic loss and has its
    names for the parameters that both have. Two classes share one column of weights and a sigmoid,
    more have a softmax, several labels a row have a sigmoid each. The loss is the mean over the
    rows of -ln(p) plus alpha times the penalty.

    Parameters
    ----------
    loss : "log_loss"
        There is no other.
    penalty : {"l2", "l1", "elasticnet"} or None, default "l2"
        Half the sum of the squared weights, the sum of their absolute values, or `l1_ratio` of this
        and 1 - `l1_ratio` of that. The gradient of absolute values leads weights to within a step
        of 0, not to 0.
    alpha : float, default 0.0001
        What the penalty is multiplied by.
    l1_ratio : float in [0, 1], default 0.15
    optimizer : {"adam", "sgd", "momentum", "rmsprop"} or Optimizer, default "adam"
        "momentum" is "sgd" with `momentum`. An Optimizer has its own learning rate.
    momentum : float, default 0.9
    learning_rate : {"constant", "optimal", "invscaling", "adaptive"}, default "constant"
        "optimal" is 1 / (alpha * (t0 + t)) after t rows, t0 by L. Bottou's rule, for "sgd" and
        "momentum"; "invscaling" and "adaptive" are those of `MLPClassifier`.
    eta0 : float, default 0.03
        The first learning rate.
    power_t : float, default 0.5
    batch_size : int or "auto", default "auto"
        Rows of a step; "auto" is 8 or all there are.
    max_iter, tol, shuffle, random_state, verbose, warm_start, early_stopping, validation_fraction,
    n_iter_no_change, class_weight, validation_data, dtype, n_threads
        As for `MLPClassifier`, but for defaults: 1000 epochs, of which 5 without an improvement of
        0.001 are enough.

    Attributes
    ----------
    classes_ : ndarray
    coef_ : ndarray (1, features) or (classes, features)
    intercept_ : ndarray (1,) or (classes,)
    network_, loss_curve_, ..., feature_names_in_
        As of `MLPClassifier`.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from fastdl.sklearn import SGDLogisticRegression
    >>> X, y = load_iris(return_X_y=True, as_frame=False)
    >>> model = make_pipeline(StandardScaler(), SGDLogisticRegression(random_state=0)).fit(X, y)
    >>> bool(model.score(X, y) > 0.95)
    True
    """

    def __init__(
        self,
        loss="log_loss",
        *,
        penalty="l2",
        alpha=0.0001,
        l1_ratio=0.15,
        optimizer="adam",
        momentum=0.9,
        learning_rate="constant",
        eta0=0.03,
        power_t=0.5,
        batch_size="auto",
        max_iter=1000,
        tol=1e-3,
        shuffle=True,
        random_state=None,
        verbose=False,
        warm_start=False,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=5,
        class_weight=None,
        validation_data=None,
        dtype=None,
        n_threads=None,
    ):
        keep(self, locals())

    _auto_batch = 8

    @with_threads
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Go once through rows X, as `MLPClassifier.partial_fit`, with SGDClassifier's arguments.

        What a call's rows weigh counts against each other only: the mean loss of a step is over
        the sum of their weights.

        Parameters
        ----------
        X : array_like or sparse matrix (n, features)
        y : array_like (n,) or (n, labels)
        classes : array_like (classes,), optional
            All classes that there will be. The first call needs it.
        sample_weight : array_like (n,), optional
            As for `fit`.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            As `fit`; also if the first call has no `classes`, or a later one others.
        """
        classes = self._all_classes(classes)
        return self._fit(X, y, sample_weight, incremental=True, classes=classes)

    @property
    def coef_(self):
        """The weights, (1, features) or (classes, features): a view of the network's own."""
        return self.network_.weights[0].T

    @property
    def intercept_(self):
        """The biases, (1,) or (classes,)."""
        return self.network_.weights[1]

    def decision_function(self, X):
        """The logits of rows X.

        Parameters
        ----------
        X : array_like or sparse matrix (n, features)

        Returns
        -------
        ndarray (n,) or (n, classes)
            For two classes one number, positive for the second of them.
        """
        outputs = self._outputs(X, "linear")
        return outputs if outputs.shape[1] > 1 or self._multilabel else outputs[:, 0]

    def _check(self):
        checks.choice("loss", self.loss, ("log_loss",))
        if self.penalty is not None:
            checks.choice("penalty", self.penalty, _PENALTIES)
        checks.number("l1_ratio", self.l1_ratio, low=0, high=1)
        checks.number("eta0", self.eta0, low=0, low_open=True)
        courses = (*_COURSES, "optimal")
        checks.choice("learning_rate", self.learning_rate, courses)

    def _rule(self):
        name = self.optimizer
        if not isinstance(name, str):
            return optimizers.get(name), "constant"
        checks.choice("optimizer", name, ("adam", "sgd", "momentum", "rmsprop"))
        rate, course = self.eta0, self.learning_rate
        if course == "optimal":
            rate, course = self._optimal_rate(), "constant"
        if name in ("sgd", "momentum"):
            return optimizers.SGD(rate, self.momentum if name == "momentum" else 0.0), course
        return (optimizers.Adam if name == "adam" else optimizers.RMSprop)(rate), course

    def _optimal_rate(self):
        """1 / (alpha * (t0 + t)), with which the first step is as long as weights are likely to be.

        Bottou, "Stochastic gradient descent tricks", 2012, and scikit-learn's SGDClassifier.
        """
        if self.optimizer not in ("sgd", "momentum") or not self.alpha:
            raise ValueError(
                "learning_rate: 'optimal' is for the optimizers 'sgd' and 'momentum' and alpha > 0"
            )
        first = self.alpha**-0.25  # its slope of the loss, by which to divide, is at most 1
        rows = self._auto_batch if self.batch_size == "auto" else self.batch_size
        return InverseTimeDecay(first, 1 / (first * self.alpha * rows), 1.0)

    def _penalties(self, weight):
        share = {None: 0.0, "l2": 0.0, "l1": 1.0, "elasticnet": self.l1_ratio}[self.penalty]
        alpha = 0.0 if self.penalty is None else self.alpha
        return alpha * share, alpha * (1 - share) / 2

    def _first_weights(self, sizes, generator):
        return [np.zeros(sizes), np.zeros(sizes[1])]


# ------------------------------------------------------------------------------------------- files


def load(path):
    """Read an estimator that `save` wrote.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    MLPClassifier, MLPRegressor or SGDLogisticRegression

    Raises
    ------
    ValueError
        If the file is damaged or holds no estimator of fastdl's.
    ImportError
        If the package safetensors is missing.
    OSError
        If the file can't be read.

    Examples
    --------
    >>> from fastdl.sklearn import load
    >>> load("nothing.safetensors")
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] No such file or directory: 'nothing.safetensors'
    """
    return _files.load(path, (MLPClassifier, MLPRegressor, SGDLogisticRegression))
