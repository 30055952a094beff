"""Losses: what a network is trained to make small.

Names are Keras's: "binary_crossentropy", "categorical_crossentropy" (also by its name for integer
labels, "sparse_categorical_crossentropy"), "mean_squared_error" ("mse"), "mean_absolute_error"
("mae"), "huber" and "poisson". The formulas stand in `fastdl.reference`.

A loss also settles the network's last activation, unless that is given: softmax for several
classes, sigmoid for yes or no, linear for regression. Cross-entropies of these are worked out from
the logits, what comes before the activation, and so is that of a linear output; that of any other
output treats it as probabilities.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import checks
from ._declarative import Declarative, resolve

# How far the sum of a row of class probabilities may be from 1.
_SUM_TOLERANCE = 1e-3


class Loss(Declarative):
    """Base of the losses.

    Attributes
    ----------
    output_activation : str
        What the last layer gets where nothing else is asked for.
    classification : bool
        Whether there is an accuracy, and class weights make sense.
    """

    output_activation = "linear"
    classification = False

    def check_outputs(self, units, activation):
        """Refuse a last layer of `units` units with this activation if the loss can't use it."""

    def from_logits(self, activation):
        """Whether the loss starts from what the last activation, by name, is applied to."""
        return False

    def arguments(self, from_logits):
        """What the kernel takes between the sample weights and the gradients."""
        return ()

    def kernel(self, targets):
        """The name of the loss's kernel for these prepared targets."""
        raise NotImplementedError

    def targets(self, name, y, rows, units, dtype):
        """The argument called `name` as `rows` rows of targets for `units` outputs.

        Returns
        -------
        targets : ndarray
            As the kernel takes them.
        labels : ndarray or None
            What `correct` takes.
        """
        targets = _columns(name, y, rows, units, dtype)
        return checks.finite(name, targets), None

    def correct(self, labels, outputs, from_logits):
        """How many rows of outputs (B, units) are right."""
        raise NotImplementedError


class _CrossEntropy(Loss):
    classification = True

    def __post_init__(self):
        self._number("label_smoothing", low=0, high=1)

    def check_outputs(self, units, activation):
        if activation.name not in ("linear", "sigmoid", "softmax"):
            raise ValueError(
                f"output_activation: {activation.name!r} gives neither probabilities nor logits "
                f"for {type(self).__name__}: use sigmoid, softmax or linear"
            )

    def from_logits(self, activation):
        return activation in ("linear", self.output_activation)

    def arguments(self, from_logits):
        return from_logits, self.label_smoothing


@dataclass(frozen=True)
class BinaryCrossentropy(_CrossEntropy):
    """-mean over the outputs of y*ln(p) + (1-y)*ln(1-p): each output a yes or no of its own.

    Parameters
    ----------
    label_smoothing : float in [0, 1], default 0.0
        Targets are moved towards 1/2 by this share.

    Examples
    --------
    >>> from fastdl.losses import BinaryCrossentropy
    >>> BinaryCrossentropy().output_activation
    'sigmoid'
    """

    label_smoothing: float = 0.0

    output_activation = "sigmoid"

    def kernel(self, targets):
        """The name of the loss's kernel."""
        return "binary_crossentropy"

    def targets(self, name, y, rows, units, dtype):
        """0 and 1, or probabilities, one for each output."""
        targets = _columns(name, y, rows, units, dtype)
        return checks.finite(name, targets, low=0, high=1), targets

    def correct(self, labels, outputs, from_logits):
        """Right outputs, those on the label's side of 1/2, divided by the outputs of a row."""
        sides = outputs > (0 if from_logits else 0.5)
        return np.count_nonzero(sides == labels) / outputs.shape[1]


@dataclass(frozen=True)
class CategoricalCrossentropy(_CrossEntropy):
    """-sum over the classes of y*ln(p), for integer labels or rows of probabilities alike.

    Parameters
    ----------
    label_smoothing : float in [0, 1], default 0.0
        Targets are moved towards equal probabilities by this share.

    Examples
    --------
    >>> from fastdl.losses import CategoricalCrossentropy
    >>> CategoricalCrossentropy(label_smoothing=0.1)
    CategoricalCrossentropy(label_smoothing=0.1)
    """

    label_smoothing: float = 0.0

    output_activation = "softmax"

    def check_outputs(self, units, activation):
        """Refuse a single class, and activations that give no probabilities."""
        super().check_outputs(units, activation)
        if units < 2:
            raise ValueError(
                f"loss: {type(self).__name__} needs a last layer of 2 units or more, not {units}"
            )

    def kernel(self, targets):
        """The name of the loss's kernel: labels are one-dimensional."""
        return (
            "sparse_categorical_crossentropy" if targets.ndim == 1 else "categorical_crossentropy"
        )

    def targets(self, name, y, rows, units, dtype):
        """Labels (n,) or (n, 1) of integers in [0, units), or rows (n, units) of probabilities."""
        y = checks.as_array(name, y)
        if y.shape in ((rows,), (rows, 1)):
            labels = checks.as_labels(name, y.reshape(rows), classes=units)
            return labels, labels
        if y.shape != (rows, units):
            raise ValueError(
                f"{name}: shape {y.shape} is neither {rows} labels nor {rows} rows of {units} "
                "probabilities"
            )
        targets = checks.finite(name, checks.as_array(name, y, dtype=dtype), low=0, high=1)
        off = np.abs(targets.sum(axis=1) - 1) > _SUM_TOLERANCE
        if off.any():
            row = int(off.argmax())
            raise ValueError(f"{name}: row {row} sums to {targets[row].sum():g}, not to 1")
        return targets, targets.argmax(axis=1)

    def correct(self, labels, outputs, from_logits):
        """Rows whose largest output is the label's."""
        return np.count_nonzero(outputs.argmax(axis=1) == labels)


@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """Mean over the outputs of (p - y)**2.

    Examples
    --------
    >>> from fastdl.losses import MeanSquaredError
    >>> MeanSquaredError()
    MeanSquaredError()
    """

    def kernel(self, targets):
        """The name of the loss's kernel."""
        return "mean_squared_error"


@dataclass(frozen=True)
class MeanAbsoluteError(Loss):
    """Mean over the outputs of abs(p - y).

    Examples
    --------
    >>> from fastdl.losses import MeanAbsoluteError
    >>> MeanAbsoluteError()
    MeanAbsoluteError()
    """

    def kernel(self, targets):
        """The name of the loss's kernel."""
        return "mean_absolute_error"


@dataclass(frozen=True)
class Huber(Loss):
    """Mean over the outputs of e**2 / 2 where abs(e) <= delta, delta*abs(e) - delta**2 / 2 beyond.

    Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics 1964.

    Parameters
    ----------
    delta : float > 0, default 1.0

    Examples
    --------
    >>> from fastdl.losses import Huber
    >>> Huber(delta=0.5)
    Huber(delta=0.5)
    """

    delta: float = 1.0

    def __post_init__(self):
        self._number("delta", low=0, low_open=True)

    def kernel(self, targets):
        """The name of the loss's kernel."""
        return "huber"

    def arguments(self, from_logits):
        """What the kernel takes between the sample weights and the gradients."""
        return (self.delta,)


@dataclass(frozen=True)
class Poisson(Loss):
    """Mean over the outputs of exp(p) - y - y*(p - ln(y)): half the Poisson deviance of counts y.

    The outputs p are the logarithms of what is expected, as in PyTorch; Keras's loss of this name
    takes what is expected itself. McCullagh and Nelder, "Generalized Linear Models", 1989.

    Examples
    --------
    >>> import numpy as np
    >>> import fastdl
    >>> X = np.array([[0.0], [1.0], [2.0]])
    >>> net = fastdl.MLP([1, 1], loss="poisson", seed=0)
    >>> history = net.fit(X, [1, 3, 9], epochs=500, optimizer=fastdl.optimizers.SGD(0.1), verbose=0)
    >>> np.exp(net.predict(X)).round(2).ravel().tolist()
    [1.0, 3.0, 9.0]
    """

    def kernel(self, targets):
        """The name of the loss's kernel."""
        return "poisson"

    def targets(self, name, y, rows, units, dtype):
        """Numbers (n, units) >= 0; with one output the column may be flat."""
        return checks.finite(name, _columns(name, y, rows, units, dtype), low=0), None


@dataclass(frozen=True)
class Custom(Loss):
    """The mean over the outputs of a function written in Python.

    Numba compiles it into the training loop (extra `numba`), in whose place the `reference` backend
    calls it for every element. Numbers written in the functions have the network's dtype.

    Parameters
    ----------
    value : callable
        The loss of one output, given the target and the prediction.
    gradient : callable
        Its derivative in the prediction, given the same.
    name : str, default "custom"
        What `summary` and errors call it.

    Examples
    --------
    >>> import math
    >>> import fastdl
    >>> from fastdl.losses import Custom
    >>> log_cosh = Custom(
    ...     value=lambda target, prediction: math.log(math.cosh(prediction - target)),
    ...     gradient=lambda target, prediction: math.tanh(prediction - target),
    ...     name="log_cosh",
    ... )
    >>> net = fastdl.MLP([1, 1], loss=log_cosh, seed=0)
    >>> print(f"{net.evaluate([[0.0]], [1.0])['loss']:.4f}")
    0.4338
    """

    value: Callable
    gradient: Callable
    name: str = "custom"

    def __post_init__(self):
        checks.functions(value=self.value, gradient=self.gradient)

    def kernel(self, targets):
        """The name of the loss's kernel."""
        return "custom_loss"


def _columns(name, y, rows, units, dtype):
    """One number for each row and output; with one output the column may be flat."""
    y = checks.as_array(name, y, dtype=dtype)
    if units == 1 and y.shape == (rows,):
        y = y.reshape(rows, 1)
    if y.shape != (rows, units):
        raise ValueError(
            f"{name}: shape {y.shape} is not {(rows, units)}, as the rows of X and the network's "
            "outputs demand"
        )
    return y


_BY_NAME = {
    "binary_crossentropy": BinaryCrossentropy,
    "bce": BinaryCrossentropy,
    "categorical_crossentropy": CategoricalCrossentropy,
    "sparse_categorical_crossentropy": CategoricalCrossentropy,
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
    "mean_absolute_error": MeanAbsoluteError,
    "mae": MeanAbsoluteError,
    "huber": Huber,
    "poisson": Poisson,
}


def get(identifier, name="loss"):
    """The loss that a string or an object stands for.

    Parameters
    ----------
    identifier : str or Loss
        A string gives the defaults.
    name : str
        What error messages call the argument.

    Raises
    ------
    ValueError
        If there is no loss of that name.
    TypeError
        If it is neither.

    Examples
    --------
    >>> from fastdl import losses
    >>> losses.get("mse")
    MeanSquaredError()
    """
    return resolve(name, identifier, Loss, _BY_NAME)
