"""Keras's optimizers: what they are among fastdl's, what they keep, and the steps fastdl lacks.

The compiled engine has SGD, RMSprop, Adam and AdamW. Where an argument goes beyond these, and for
Nadam and Adagrad, NumPy takes the step on the flat arrays of all parameters, in the order and with
the formulas of Keras.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .. import _engine, optimizers, schedules
from ._models import UnsupportedModelError

# The attributes that hold what each optimizer keeps of every parameter, in the order in which
# fastdl's optimizer of the same name, if there is one, has its slots.
_SLOTS = {
    "SGD": ("momentums",),
    "RMSprop": ("_velocities", "_momentums", "_average_gradients"),
    "Adam": ("_momentums", "_velocities", "_velocity_hats"),
    "AdamW": ("_momentums", "_velocities", "_velocity_hats"),
    "Nadam": ("_momentums", "_velocities"),
    "Adagrad": ("_accumulators",),
}
AVERAGE = "_model_variables_moving_average"

_SCHEDULES = (
    "CosineDecay",
    "ExponentialDecay",
    "InverseTimeDecay",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
)


class Rule(NamedTuple):
    """A Keras optimizer as training takes it."""

    optimizer: optimizers.Optimizer  # or an `ArrayRule`
    attributes: tuple[str, ...]  # of the Keras optimizer, one for each slot
    reasons: list[str]  # why the compiled engine can't take the steps


@dataclasses.dataclass(frozen=True)
class ArrayRule:
    """A step that NumPy takes; called an optimizer by `OptimizerState`."""

    step: Callable  # of Keras's optimizer, w, g, the `OptimizerState`, learning rate, t = 1, 2, ...
    source: object  # Keras's optimizer
    slots: tuple[str, ...]
    learning_rate: object
    weight_decay: float
    clipnorm: float | None
    global_clipnorm: float | None
    clipvalue: float | None

    rate = optimizers.Optimizer.rate

    def update(self, network, state, gradients, learning_rate, trained, decays):
        """Change parameters and slots.

        `trained` says which arrays are; `decays` is 1 where weight decay acts, 0 elsewhere.
        """
        parameters, t = network.parameters, state.iterations + 1
        if self.weight_decay:
            parameters -= parameters * decays * (self.weight_decay * learning_rate)
        with np.errstate(all="ignore"):
            self.step(self.source, parameters, gradients, state, learning_rate, t)
        if AVERAGE in state.slots:
            average, momentum = state.slots[AVERAGE], self.source.ema_momentum if t > 1 else 0.0
            average *= momentum
            average += (1 - momentum) * parameters
            often = self.source.ema_overwrite_frequency
            if often and t % often == 0:
                averages = network.views(average)
                for array, mean, each in zip(network.arrays, averages, trained, strict=True):
                    if each:  # Keras has no averages of others
                        array[...] = mean


def read_optimizer(keras, optimizer, *, decays_all=True):
    """The `Rule` of a Keras optimizer, or an error that names what is not supported.

    `decays_all` says whether weight decay, if there is any, acts on all parameters.
    """
    kind = type(optimizer)
    name = kind.__name__
    # Under the PyTorch backend Keras makes an object of a subclass of the same name.
    own = getattr(keras.optimizers, name, ()) if name in _SLOTS else ()
    if not (kind.__module__.startswith("keras.") and issubclass(kind, own)):
        raise UnsupportedModelError(f"optimizer: {name} is not supported")
    for setting in ("gradient_accumulation_steps", "loss_scale_factor"):
        if getattr(optimizer, setting):
            raise UnsupportedModelError(
                f"optimizer: {setting}={getattr(optimizer, setting)!r} is not supported"
            )
    settings = {
        "learning_rate": read_rate(keras, optimizer),
        "weight_decay": float(optimizer.weight_decay or 0),
        **{
            limit: float(getattr(optimizer, limit) or 0) or None
            for limit in ("clipnorm", "global_clipnorm", "clipvalue")
        },
    }
    reasons = _reasons(name, optimizer)
    if settings["weight_decay"] and not decays_all:
        reasons.append("weight decay of some parameters")
    attributes = tuple(
        attribute for attribute in _SLOTS[name] if _keeps(optimizer, name, attribute)
    )
    if optimizer.use_ema:
        attributes += (AVERAGE,)
    if reasons:
        rule = ArrayRule(_STEPS[name], optimizer, attributes, **settings)
        return Rule(rule, attributes, reasons)
    own = {
        field.name: getattr(optimizer, field.name)
        for field in dataclasses.fields(getattr(optimizers, name))
        if field.name not in settings
    }
    try:
        return Rule(getattr(optimizers, name)(**own, **settings), attributes, [])
    except ValueError as error:
        raise UnsupportedModelError(f"optimizer: {error}") from error


def _reasons(name, optimizer):
    """Why the engine has no equal of an optimizer."""
    if name in ("Nadam", "Adagrad"):
        return [f"optimizer {name}"]
    beyond = {"RMSprop": ["momentum", "centered"], "Adam": ["amsgrad"], "AdamW": ["amsgrad"]}
    names = [*beyond.get(name, []), "use_ema"]
    return [f"{name}'s {argument}" for argument in names if getattr(optimizer, argument)]


def _keeps(optimizer, name, attribute):
    """Whether an optimizer with these arguments keeps what belongs in this attribute."""
    if name == "SGD":
        return optimizer.momentum != 0
    if name == "RMSprop":
        return {"_momentums": optimizer.momentum > 0, "_average_gradients": optimizer.centered}.get(
            attribute, True
        )
    return attribute != "_velocity_hats" or optimizer.amsgrad


def read_rate(keras, optimizer, value=lambda variable: variable.numpy()):
    """An optimizer's learning rate: a number, or a function of the steps taken.

    `value` is what looks at a variable.
    """
    rate = optimizer._learning_rate
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        for name in _SCHEDULES:
            if type(rate) is getattr(keras.optimizers.schedules, name):
                settings = {key: value for key, value in rate.get_config().items() if key != "name"}
                try:
                    return getattr(schedules, name)(**settings)
                except ValueError as error:  # rates below 0, which Keras takes
                    raise UnsupportedModelError(f"optimizer: {error}") from error
        return lambda step: float(keras.ops.convert_to_numpy(rate(step)))
    if callable(rate) and not hasattr(rate, "assign"):
        raise UnsupportedModelError("optimizer: a learning_rate that is a function of nothing")
    return float(value(rate))


# ---------------------------------------------------------------------------- the steps in NumPy


def _sgd(optimizer, w, g, state, rate, t):
    if not optimizer.momentum:
        w -= rate * g
        return
    velocity = state.slots["momentums"]
    velocity *= optimizer.momentum
    velocity -= rate * g
    w += optimizer.momentum * velocity - rate * g if optimizer.nesterov else velocity


def _rmsprop(optimizer, w, g, state, rate, t):
    rho, square = optimizer.rho, state.slots["_velocities"]
    square *= rho
    square += (1 - rho) * g**2
    variance = square
    if optimizer.centered:
        mean = state.slots["_average_gradients"]
        mean *= rho
        mean += (1 - rho) * g
        variance = square - mean**2
    step = rate * g / np.sqrt(variance + optimizer.epsilon)
    if optimizer.momentum > 0:
        velocity = state.slots["_momentums"]
        velocity *= optimizer.momentum
        velocity += step
        step = velocity
    w -= step


def _adam(optimizer, w, g, state, rate, t):
    first, second = state.slots["_momentums"], state.slots["_velocities"]
    first += (g - first) * (1 - optimizer.beta_1)
    second += (g**2 - second) * (1 - optimizer.beta_2)
    if optimizer.amsgrad:
        np.maximum(state.slots["_velocity_hats"], second, out=state.slots["_velocity_hats"])
        second = state.slots["_velocity_hats"]
    rate *= float(_correction(optimizer, np.array(t, w.dtype)))
    w -= rate * first / (np.sqrt(second) + optimizer.epsilon)


def _correction(optimizer, t):
    """What Adam's learning rate is multiplied by in steps t = 1, 2, ..., in the precision of t."""
    first, second = (t.dtype.type(beta) ** t for beta in (optimizer.beta_1, optimizer.beta_2))
    return np.sqrt(1 - second) / (1 - first)


class State(_engine.OptimizerState):
    """An optimizer's state, with learning rates that make up for Keras's rounding.

    In single precision, 1 - beta_2**t of Keras's Adam is off by up to 6e-5 of its value in the
    first steps. The engine works it out in double precision, so it is given other learning rates.
    """

    product = None  # of Nadam's momenta
    _ahead = 0, None, ()  # rates worked out, from which step on, and of which optimizer

    def rates(self, most):
        """The learning rates of the next steps.

        An epoch takes several calls: what one has worked out for the others is kept.
        """
        first, owner, rates = self._ahead
        start = self.iterations - first
        if owner is not self.optimizer or not 0 <= start <= len(rates) - most:
            first, start, rates = self.iterations, 0, self._rates(most)
            self._ahead = first, self.optimizer, rates
        return rates[start : start + most]

    def _rates(self, most):
        rates, optimizer = super().rates(most), self.optimizer
        if not isinstance(optimizer, optimizers.Adam):
            return rates
        t = self.iterations + np.arange(1.0, len(rates) + 1)
        return rates * (_correction(optimizer, t.astype(self.dtype)) / _correction(optimizer, t))


def _nadam(optimizer, w, g, state, rate, t):
    """Dozat, "Incorporating Nesterov momentum into Adam", ICLR workshop 2016.

    The scalars are rounded where Keras rounds them.
    """
    number = w.dtype.type
    beta_1, beta_2 = number(optimizer.beta_1), number(optimizer.beta_2)
    now, later = (beta_1 * (1 - number(0.5) * number(0.96) ** number(n)) for n in (t, t + 1))
    product = number(state.product) * now
    state.product = float(product)
    first, second = state.slots["_momentums"], state.slots["_velocities"]
    first += (g - first) * (1 - beta_1)
    second += (g**2 - second) * (1 - beta_2)
    mean = later / (1 - product * later) * first + (1 - now) / (1 - product) * g
    root = np.sqrt(second / (1 - beta_2 ** number(t)))
    w -= number(rate) * mean / (root + number(optimizer.epsilon))


def _adagrad(optimizer, w, g, state, rate, t):
    """Duchi, Hazan and Singer, "Adaptive subgradient methods", JMLR 2011."""
    total = state.slots["_accumulators"]
    total += g**2
    w -= rate * g / np.sqrt(total + optimizer.epsilon)


_STEPS = {
    "SGD": _sgd,
    "RMSprop": _rmsprop,
    "Adam": _adam,
    "AdamW": _adam,
    "Nadam": _nadam,
    "Adagrad": _adagrad,
}
