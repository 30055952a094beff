"""Activation functions, by name or as an object that carries their parameter.

Names are Keras's: "linear", "relu", "leaky_relu", "elu", "sigmoid", "tanh", "softplus", "silu"
("swish"), "gelu" (the exact one, by the normal distribution function), "softmax" and
"log_softmax". The formulas stand in `fastdl.reference`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from . import checks
from ._declarative import Declarative, resolve
from .reference import ACTIVATIONS, CUSTOM

# The activations that have a parameter, and so a class of their own.
_PARAMETRIC = ("leaky_relu", "elu")


@dataclass(frozen=True)
class Activation(Declarative):
    """An activation function without a parameter.

    Parameters
    ----------
    name : str
        One of the names above but "leaky_relu" and "elu".

    Examples
    --------
    >>> from fastdl.activations import Activation
    >>> Activation("tanh")
    Activation(name='tanh')
    """

    name: str

    def __post_init__(self):
        checks.choice("name", self.name, [a for a in ACTIVATIONS if a not in _PARAMETRIC])

    @property
    def code(self):
        """The number that the kernels know the function by."""
        return ACTIVATIONS.index(self.name)

    @property
    def slope(self):
        """The kernels' parameter: the slope or scale below zero where the function has one."""
        return 0.0


@dataclass(frozen=True)
class LeakyReLU(Activation):
    """x above zero, `negative_slope` * x below.

    Parameters
    ----------
    negative_slope : float, default 0.2
        At least 0.

    Examples
    --------
    >>> from fastdl.activations import LeakyReLU
    >>> LeakyReLU(0.1)
    LeakyReLU(negative_slope=0.1)
    """

    name: str = field(default="leaky_relu", init=False, repr=False)
    negative_slope: float = 0.2

    def __post_init__(self):
        self._number("negative_slope", low=0)

    @property
    def slope(self):
        """The kernels' parameter: `negative_slope`."""
        return self.negative_slope


@dataclass(frozen=True)
class ELU(Activation):
    """x above zero, `alpha` * (e**x - 1) below.

    Clevert, Unterthiner and Hochreiter, "Fast and accurate deep network learning by exponential
    linear units", ICLR 2016.

    Parameters
    ----------
    alpha : float, default 1.0
        At least 0.

    Examples
    --------
    >>> from fastdl.activations import ELU
    >>> ELU(alpha=0.5)
    ELU(alpha=0.5)
    """

    name: str = field(default="elu", init=False, repr=False)
    alpha: float = 1.0

    def __post_init__(self):
        self._number("alpha", low=0)

    @property
    def slope(self):
        """The kernels' parameter: `alpha`."""
        return self.alpha


@dataclass(frozen=True)
class Custom(Activation):
    """An activation written in Python.

    Numba compiles it into the training loop (extra `numba`), in whose place the `reference` backend
    calls it for every element. Numbers written in the functions have the network's dtype.

    Parameters
    ----------
    forward : callable
        The activation of a number z.
    derivative : callable
        Its derivative, given z and the activation.
    name : str, default "custom"
        What `summary` and errors call it; none of the names above.

    Examples
    --------
    >>> from fastdl import MLP
    >>> from fastdl.activations import Custom
    >>> softsign = Custom(
    ...     forward=lambda z: z / (1 + abs(z)),
    ...     derivative=lambda z, a: 1 / (1 + abs(z)) ** 2,
    ...     name="softsign",
    ... )
    >>> MLP([2, 8, 1], activation=softsign, seed=0).predict([[0.0, 0.0]])
    array([[0.5]], dtype=float32)
    """

    name: str = field(default="custom", kw_only=True)
    forward: Callable
    derivative: Callable

    def __post_init__(self):
        checks.functions(forward=self.forward, derivative=self.derivative)
        if not isinstance(self.name, str) or self.name in ACTIVATIONS:
            raise ValueError(f"name: {self.name!r} is not a string, or is fastdl's own activation")

    @property
    def code(self):
        """The first number that the kernels know no function by."""
        return CUSTOM


_BY_NAME = {name: partial(Activation, name) for name in ACTIVATIONS} | {
    "leaky_relu": LeakyReLU,
    "elu": ELU,
    "swish": partial(Activation, "silu"),
}


def get(identifier, name="activation"):
    """The activation that a string or an object stands for.

    Parameters
    ----------
    identifier : str or Activation
    name : str
        What error messages call the argument.

    Raises
    ------
    ValueError
        If there is no activation of that name.
    TypeError
        If it is neither.

    Examples
    --------
    >>> from fastdl import activations
    >>> activations.get("elu")
    ELU(alpha=1.0)
    """
    return resolve(name, identifier, Activation, _BY_NAME)
