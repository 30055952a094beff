"""Optimizers: what a training step does with the gradients.

The objects only hold the settings, so that one of them can serve many networks; the moments they
work with belong to the network. Formulas and defaults are those of the Keras classes of the same
names, and so are the settings they share:

learning_rate
    A number, or a function of the number of steps taken so far (see `fastdl.schedules`).
weight_decay
    Before the update every parameter, biases too, shrinks by the factor
    1 - learning_rate * weight_decay (decoupled from the gradient: Loshchilov and Hutter,
    "Decoupled weight decay regularization", ICLR 2019).
clipnorm, global_clipnorm, clipvalue
    Before anything else, gradients are scaled down to this norm, each parameter array by itself or
    all of them together, or every element is clipped to [-clipvalue, clipvalue]. At most one.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from . import checks
from ._declarative import Declarative, resolve


class Optimizer(Declarative):
    """Base of the optimizers.

    Attributes
    ----------
    kernel : str
        The update's name among the kernels, called as
        `kernel(parameters, gradients, *slots, learning_rate, *arguments(step))`.
    slots : tuple of str
        The arrays it keeps, each as large as the parameters and 0 at first.
    """

    def __post_init__(self):
        if not callable(self.learning_rate):
            self._number("learning_rate", low=0)
        self._number("weight_decay", low=0)
        given = [
            name
            for name in ("clipnorm", "global_clipnorm", "clipvalue")
            if getattr(self, name) is not None
        ]
        self._number(*given, low=0, low_open=True)
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)}: only one of them can be set")

    def rate(self, step):
        """The learning rate of the step that follows `step` others."""
        if callable(self.learning_rate):
            return checks.number("learning_rate", self.learning_rate(step), low=0)
        return self.learning_rate


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent: w -= learning_rate * g, or with momentum v = momentum*v - learning_rate*g.

    The step with momentum is w += v, with `nesterov` w += momentum*v - learning_rate*g.

    Parameters
    ----------
    learning_rate : float or callable, default 0.01
    momentum : float in [0, 1], default 0.0
    nesterov : bool, default False
    weight_decay : float, default 0.0
    clipnorm, global_clipnorm, clipvalue : float, optional

    Examples
    --------
    >>> from fastdl.optimizers import SGD
    >>> SGD(0.1, momentum=0.9).momentum
    0.9
    >>> SGD(-0.1)
    Traceback (most recent call last):
    ValueError: learning_rate: -0.1 is not a finite number >= 0
    """

    learning_rate: float = 0.01
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    clipnorm: float | None = None
    global_clipnorm: float | None = None
    clipvalue: float | None = None

    kernel = "sgd_update"

    def __post_init__(self):
        super().__post_init__()
        self._number("momentum", low=0, high=1)
        self._replace("nesterov", checks.boolean("nesterov", self.nesterov))

    @property
    def slots(self):
        """The velocity, where there is momentum."""
        return ("velocity",) if self.momentum else ()

    def arguments(self, step):
        """What the kernel takes after the learning rate."""
        return self.momentum, self.nesterov, self.weight_decay

    def rule(self):
        """The engine's name of the update, and its numbers: momentum or decay, beta_2, epsilon."""
        name = ("nesterov" if self.nesterov else "momentum") if self.momentum else "sgd"
        return name, self.momentum, 0.0, 0.0


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """s = rho*s + (1-rho)*g**2; w -= learning_rate * g / sqrt(s + epsilon).

    Tieleman and Hinton, lecture 6.5 of "Neural networks for machine learning", Coursera 2012.

    Parameters
    ----------
    learning_rate : float or callable, default 0.001
    rho : float in [0, 1], default 0.9
    epsilon : float, default 1e-7
    weight_decay : float, default 0.0
    clipnorm, global_clipnorm, clipvalue : float, optional

    Examples
    --------
    >>> from fastdl.optimizers import RMSprop
    >>> RMSprop(rho=0.95).learning_rate
    0.001
    """

    learning_rate: float = 0.001
    rho: float = 0.9
    epsilon: float = 1e-7
    weight_decay: float = 0.0
    clipnorm: float | None = None
    global_clipnorm: float | None = None
    clipvalue: float | None = None

    kernel = "rmsprop_update"
    slots = ("mean_square",)

    def __post_init__(self):
        super().__post_init__()
        self._number("rho", low=0, high=1)
        self._number("epsilon", low=0, low_open=True)

    def arguments(self, step):
        """What the kernel takes after the learning rate."""
        return self.rho, self.epsilon, self.weight_decay

    def rule(self):
        """The engine's name of the update, and its numbers."""
        return "rmsprop", self.rho, 0.0, self.epsilon


@dataclass(frozen=True)
class Adam(Optimizer):
    """Steps by the ratio of the gradients' running mean to the root of their running mean square.

    m = beta_1*m + (1-beta_1)*g; v = beta_2*v + (1-beta_2)*g**2; w -= a*m / (sqrt(v) + epsilon)
    with a = learning_rate * sqrt(1 - beta_2**t) / (1 - beta_1**t) in step t = 1, 2, ...: Kingma
    and Ba, "Adam: a method for stochastic optimization", ICLR 2015, end of section 2.

    Parameters
    ----------
    learning_rate : float or callable, default 0.001
    beta_1 : float in [0, 1), default 0.9
    beta_2 : float in [0, 1), default 0.999
    epsilon : float, default 1e-7
    weight_decay : float, default 0.0
    clipnorm, global_clipnorm, clipvalue : float, optional

    Examples
    --------
    >>> from fastdl.optimizers import Adam
    >>> Adam(3e-4, global_clipnorm=1).global_clipnorm
    1.0
    """

    learning_rate: float = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7
    weight_decay: float = 0.0
    clipnorm: float | None = None
    global_clipnorm: float | None = None
    clipvalue: float | None = None

    kernel = "adam_update"
    slots = ("first_moment", "second_moment")

    def __post_init__(self):
        super().__post_init__()
        self._number("beta_1", "beta_2", low=0, high=1, high_open=True)
        self._number("epsilon", low=0, low_open=True)

    def arguments(self, step):
        """What the kernel takes after the learning rate."""
        return self.beta_1, self.beta_2, self.epsilon, step + 1, self.weight_decay

    def rule(self):
        """The engine's name of the update, and its numbers."""
        return "adam", self.beta_1, self.beta_2, self.epsilon


@dataclass(frozen=True)
class AdamW(Adam):
    """`Adam` with decoupled weight decay by default.

    Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019.

    Parameters
    ----------
    learning_rate, beta_1, beta_2, epsilon
        As `Adam`.
    weight_decay : float, default 0.004
    clipnorm, global_clipnorm, clipvalue : float, optional

    Examples
    --------
    >>> from fastdl.optimizers import AdamW
    >>> AdamW().weight_decay
    0.004
    """

    weight_decay: float = 0.004


@dataclass(frozen=True)
class Custom(Optimizer):
    """An update written in Python.

    Numba compiles it into the training loop (extra `numba`), in whose place the `reference` backend
    calls it for every parameter. Numbers written in the function have the network's dtype.

    Parameters
    ----------
    update : callable
        Of a parameter w, its gradient g, the learning rate, the number t = 1, 2, ... of the step
        and the parameter's slots, one argument each: returns the new w, or, where there are slots,
        a tuple of it and the new value of each.
    slots : sequence of str, default ()
        Names of what is kept of each parameter from step to step, 0 at first.
    learning_rate : float or callable, default 0.001
    weight_decay : float, default 0.0
    clipnorm, global_clipnorm, clipvalue : float, optional
    name : str, default "custom"
        What `summary` and errors call it.

    Examples
    --------
    >>> from fastdl import MLP
    >>> from fastdl.optimizers import Custom
    >>> def update(w, g, learning_rate, t, velocity):
    ...     velocity = 0.9 * velocity - learning_rate * g
    ...     return w + velocity, velocity
    >>> momentum = Custom(update, slots=["velocity"], learning_rate=0.1)
    >>> history = MLP([1, 1], loss="mse").fit([[1.0]], [1.0], optimizer=momentum, verbose=0)
    """

    update: Callable
    slots: tuple[str, ...] = ()
    learning_rate: float = 0.001
    weight_decay: float = 0.0
    clipnorm: float | None = None
    global_clipnorm: float | None = None
    clipvalue: float | None = None
    name: str = "custom"

    kernel = "custom_update"

    def __post_init__(self):
        super().__post_init__()
        checks.functions(update=self.update)
        if (
            isinstance(self.slots, str)
            or not isinstance(self.slots, Iterable)
            or not all(isinstance(name, str) for name in self.slots)
        ):
            raise TypeError(f"slots: {self.slots!r} is not a sequence of strings")
        self._replace("slots", tuple(self.slots))
        if len(set(self.slots)) < len(self.slots):
            raise ValueError(f"slots: {self.slots} has a name twice")

    def arguments(self, step):
        """What the kernel takes after the learning rate."""
        return step + 1, self.weight_decay

    def rule(self):
        """The engine's name of the update, and its numbers."""
        return "custom", 0.0, 0.0, 0.0


_BY_NAME = {"sgd": SGD, "rmsprop": RMSprop, "adam": Adam, "adamw": AdamW}


def get(identifier, name="optimizer"):
    """The optimizer that a string or an object stands for.

    Parameters
    ----------
    identifier : {"sgd", "rmsprop", "adam", "adamw"} or Optimizer
        A string gives the defaults.
    name : str
        What error messages call the argument.

    Raises
    ------
    ValueError
        If there is no optimizer of that name.
    TypeError
        If it is neither.

    Examples
    --------
    >>> from fastdl import optimizers
    >>> optimizers.get("sgd").learning_rate
    0.01
    """
    return resolve(name, identifier, Optimizer, _BY_NAME)
