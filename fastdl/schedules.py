"""Learning rates that change while training: functions of the number of steps taken so far.

Give one as an optimizer's `learning_rate`. The formulas are those of the Keras classes of the same
names. Any other function of the step does as well, compiled by Numba or not, but can't be saved
with a network.
"""

import bisect
import math
from dataclasses import dataclass

from . import checks
from ._declarative import Declarative


class Schedule(Declarative):
    """Base of the schedules: a frozen dataclass that is called with the step, 0 at the first."""

    def __call__(self, step):
        """Return the learning rate of the step that follows `step` others."""
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")


@dataclass(frozen=True)
class ExponentialDecay(Schedule):
    """initial_learning_rate * decay_rate ** (step / decay_steps).

    Parameters
    ----------
    initial_learning_rate : float
    decay_steps : float
        The rate is multiplied by `decay_rate` once in so many steps.
    decay_rate : float
    staircase : bool, default False
        Round step / decay_steps down, so that the rate falls all at once.

    Examples
    --------
    >>> from fastdl.schedules import ExponentialDecay
    >>> ExponentialDecay(0.1, decay_steps=100, decay_rate=0.5)(200)
    0.025
    """

    initial_learning_rate: float
    decay_steps: float
    decay_rate: float
    staircase: bool = False

    def __post_init__(self):
        self._number("initial_learning_rate", "decay_rate", low=0)
        self._number("decay_steps", low=0, low_open=True)
        self._replace("staircase", checks.boolean("staircase", self.staircase))

    def __call__(self, step):
        passed = step / self.decay_steps
        return self.initial_learning_rate * self.decay_rate ** (
            math.floor(passed) if self.staircase else passed
        )


@dataclass(frozen=True)
class InverseTimeDecay(Schedule):
    """initial_learning_rate / (1 + decay_rate * step / decay_steps).

    Parameters
    ----------
    initial_learning_rate : float
    decay_steps : float
    decay_rate : float
    staircase : bool, default False
        Round step / decay_steps down.

    Examples
    --------
    >>> from fastdl.schedules import InverseTimeDecay
    >>> InverseTimeDecay(0.1, decay_steps=100, decay_rate=0.5)(200)
    0.05
    """

    initial_learning_rate: float
    decay_steps: float
    decay_rate: float
    staircase: bool = False

    __post_init__ = ExponentialDecay.__post_init__

    def __call__(self, step):
        passed = step / self.decay_steps
        return self.initial_learning_rate / (
            1 + self.decay_rate * (math.floor(passed) if self.staircase else passed)
        )


@dataclass(frozen=True)
class PiecewiseConstantDecay(Schedule):
    """values[i] as long as step <= boundaries[i], and the last value afterwards.

    Parameters
    ----------
    boundaries : sequence of float
        Steps, increasing.
    values : sequence of float
        One more than `boundaries`.

    Examples
    --------
    >>> from fastdl.schedules import PiecewiseConstantDecay
    >>> rate = PiecewiseConstantDecay(boundaries=[100, 200], values=[0.1, 0.05, 0.01])
    >>> rate(100), rate(101), rate(201)
    (0.1, 0.05, 0.01)
    """

    boundaries: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self):
        for name in ("boundaries", "values"):
            given = checks.sequence(name, getattr(self, name), "numbers")
            numbers = tuple(checks.number(name, each, low=0) for each in given)
            self._replace(name, numbers)
        if list(self.boundaries) != sorted(set(self.boundaries)):
            raise ValueError(f"boundaries: {self.boundaries} are not increasing")
        if len(self.values) != len(self.boundaries) + 1:
            raise ValueError(
                f"values: {len(self.values)} of them, not one more than the "
                f"{len(self.boundaries)} boundaries"
            )

    def __call__(self, step):
        return self.values[bisect.bisect_left(self.boundaries, step)]


@dataclass(frozen=True)
class PolynomialDecay(Schedule):
    """From the initial rate to the end rate in `decay_steps`, as (1 - step / decay_steps)**power.

    Parameters
    ----------
    initial_learning_rate : float
    decay_steps : float
    end_learning_rate : float, default 0.0001
    power : float, default 1.0
        1 is a straight line.
    cycle : bool, default False
        Start again, over a longer way each time, instead of staying at the end.

    Examples
    --------
    >>> from fastdl.schedules import PolynomialDecay
    >>> PolynomialDecay(0.1, decay_steps=100, end_learning_rate=0.0)(50)
    0.05
    """

    initial_learning_rate: float
    decay_steps: float
    end_learning_rate: float = 0.0001
    power: float = 1.0
    cycle: bool = False

    def __post_init__(self):
        self._number("initial_learning_rate", "end_learning_rate", "power", low=0)
        self._number("decay_steps", low=0, low_open=True)
        self._replace("cycle", checks.boolean("cycle", self.cycle))

    def __call__(self, step):
        decay_steps = self.decay_steps
        if self.cycle:
            decay_steps *= max(1, math.ceil(step / decay_steps))
        left = 1 - min(step, decay_steps) / decay_steps
        span = self.initial_learning_rate - self.end_learning_rate
        return span * left**self.power + self.end_learning_rate


@dataclass(frozen=True)
class CosineDecay(Schedule):
    """Half a cosine wave from the initial rate to `alpha` times it, after a linear warm-up.

    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017.

    Parameters
    ----------
    initial_learning_rate : float
    decay_steps : float
        The length of the half wave, without the warm-up.
    alpha : float, default 0.0
        The final rate as a fraction of the rate that the wave starts from.
    warmup_target : float, optional
        Where the warm-up ends, and the wave starts. Without it there is no warm-up.
    warmup_steps : float, default 0
        The length of the warm-up.

    Examples
    --------
    >>> from fastdl.schedules import CosineDecay
    >>> rate = CosineDecay(0.0, decay_steps=100, warmup_target=0.1, warmup_steps=10)
    >>> rate(0), rate(5), rate(10), rate(110)
    (0.0, 0.05, 0.1, 0.0)
    """

    initial_learning_rate: float
    decay_steps: float
    alpha: float = 0.0
    warmup_target: float | None = None
    warmup_steps: float = 0

    def __post_init__(self):
        self._number("initial_learning_rate", "alpha", "warmup_steps", low=0)
        self._number("decay_steps", low=0, low_open=True)
        if self.warmup_target is not None:
            self._number("warmup_target", low=0)

    def __call__(self, step):
        start = self.initial_learning_rate
        if self.warmup_target is not None:
            if step < self.warmup_steps:
                return start + (self.warmup_target - start) * step / self.warmup_steps
            step -= self.warmup_steps
            start = self.warmup_target
        passed = min(step, self.decay_steps) / self.decay_steps
        cosine = 0.5 * (1 + math.cos(math.pi * passed))
        return start * ((1 - self.alpha) * cosine + self.alpha)
