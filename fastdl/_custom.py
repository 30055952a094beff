"""Activations, losses and optimizers that users write, among the kernels of a backend.

`kernels_for` gives a backend's kernels, which then know the user's functions too: compiled by
Numba, or called element by element on the reference backend. The compiled C engine can't call them;
where that is the backend in use, Numba's kernels and engine stand in.
"""

import numpy as np

from . import backends, losses, optimizers
from ._optional import optional_import
from .reference import CUSTOM, LINEAR


def pieces(network, optimizer=None):
    """What of a network and its optimizer users wrote, in words."""
    found = [f"activation {piece.name!r}" for piece in dict.fromkeys(network.functions) if piece]
    if isinstance(network.loss, losses.Custom):
        found.append(f"loss {network.loss.name!r}")
    if isinstance(optimizer, optimizers.Custom):
        found.append(f"optimizer {optimizer.name!r}")
    return found


def kernels_for(network, optimizer=None):
    """The kernels of the backend in use, for this network and optimizer."""
    kernels = backends.current()
    if not (network.custom or isinstance(optimizer, optimizers.Custom)):
        return kernels
    if backends.get_backend() == "reference":
        return Kernels(kernels, _Interpreted(), network, optimizer)
    try:
        optional_import("numba", extra="numba")
    except ImportError as error:
        raise ImportError(f"{pieces(network, optimizer)[0]}: {error}") from error
    from . import jit_engine, jit_kernels

    return Kernels(jit_kernels, _Compiled(jit_engine), network, optimizer)


def engine_for(kernels, network):
    """What takes whole epochs with these kernels, a module with `train_steps`, or None."""
    if network.extras:
        return None
    if len(network.layers) <= getattr(kernels, "MOST_LAYERS", 0):
        return kernels
    if kernels.__name__.endswith(".jit_kernels"):
        from . import jit_engine

        return jit_engine
    return None


def training_note(network, optimizer=None):
    """What there is to say of how a network is trained, one line, or None."""
    if backends.get_backend() == "reference":
        return None
    written = pieces(network, optimizer)
    if written:
        return f"Trained by the Numba engine: {', '.join(written)}"
    if engine_for(backends.current(), network) is None:
        layers = len(network.layers)
        return f"Trained kernel by kernel: {layers} layers are too many for the compiled engine"
    return None


class Kernels:
    """A backend's kernels that know the functions users wrote for one network and optimizer.

    An activation's code is `CUSTOM` and the number of its layer.
    """

    def __init__(self, kernels, runner, network, optimizer):
        self._kernels = kernels
        dtype = network.parameters.dtype
        self.activations = [
            runner.activation(piece, dtype) if piece else None for piece in network.functions
        ]
        self.loss = self.update = None
        if isinstance(network.loss, losses.Custom):
            self.loss = runner.loss(network.loss, dtype)
        if isinstance(optimizer, optimizers.Custom):
            self.update = runner.update(optimizer, dtype)

    def __getattr__(self, name):
        return getattr(self._kernels, name)

    def activation_forward(self, inputs, activation, slope, outputs):
        if activation < CUSTOM:
            self._kernels.activation_forward(inputs, activation, slope, outputs)
        else:
            self.activations[activation - CUSTOM].forward(inputs, outputs)

    def dense_forward(self, inputs, weights, bias, activation, slope, preactivations, outputs):
        own = activation >= CUSTOM
        self._kernels.dense_forward(
            inputs,
            weights,
            bias,
            LINEAR if own else activation,
            slope,
            preactivations,
            preactivations if own else outputs,
        )
        if own:
            self.activation_forward(preactivations, activation, slope, outputs)

    def dense_backward(
        self, inputs, weights, preactivations, outputs, grad_outputs, activation, slope, *results
    ):
        if activation >= CUSTOM:
            gradients = results[0]
            self.activations[activation - CUSTOM].backward(
                preactivations, outputs, grad_outputs, gradients
            )
            activation, grad_outputs = LINEAR, gradients
        self._kernels.dense_backward(
            inputs, weights, preactivations, outputs, grad_outputs, activation, slope, *results
        )

    def check(self):
        """Raise RuntimeError if a function that the engine called has raised an exception."""
        for compiled in (*self.activations, self.loss, self.update):
            if compiled:
                compiled.check()

    def custom_loss(self, targets, predictions, sample_weight, gradients):
        return self.loss(targets, predictions, sample_weight, gradients)

    def custom_update(self, parameters, gradients, *arguments):
        *slots, learning_rate, step, weight_decay = arguments
        slots = [slot for slot in slots if slot is not None]
        shrink = learning_rate * weight_decay
        self.update(parameters, gradients, slots, learning_rate, step, shrink)


# Both of the following make a function of arrays from a piece that holds functions of numbers.


class _Interpreted:
    """Python calls the functions for each element: slow, and what the others are compared with."""

    def activation(self, piece, dtype):
        return _Activation(
            _elementwise(piece.forward, dtype), _elementwise(piece.derivative, dtype)
        )

    def loss(self, piece, dtype):
        value, gradient = _elementwise(piece.value, np.float64), _elementwise(piece.gradient, dtype)

        def loss(targets, predictions, sample_weight, gradients):
            weights = np.ones(len(targets)) if sample_weight is None else sample_weight
            weights = weights[:, np.newaxis].astype(np.float64) / targets.size
            gradients[...] = gradient(targets, predictions) * weights
            return float(np.sum(value(targets, predictions) * weights))

        return loss

    def update(self, piece, dtype):
        results = 1 + len(piece.slots)
        update = np.vectorize(_python(piece.update), otypes=[dtype] * results)

        def run(parameters, gradients, slots, learning_rate, step, shrink):
            decayed = parameters - parameters * shrink
            new = update(decayed, gradients, learning_rate, step, *slots)
            for array, values in zip([parameters, *slots], new if slots else [new], strict=True):
                array[...] = values

        return run


class _Activation:
    def __init__(self, forward, derivative):
        self._forward, self._derivative = forward, derivative

    def forward(self, inputs, outputs):
        outputs[...] = self._forward(inputs)

    def backward(self, inputs, outputs, grad_outputs, grad_inputs):
        np.multiply(grad_outputs, self._derivative(inputs, outputs), out=grad_inputs)


def _python(function):
    """What Numba's decorators were applied to."""
    return getattr(function, "py_func", function)


def _elementwise(function, dtype):
    return np.vectorize(_python(function), otypes=[dtype])


class _Compiled:
    """Loops that Numba compiled, as its engine or Python calls them."""

    def __init__(self, engine):
        self._engine = engine

    def activation(self, piece, dtype):
        name = f"activation {piece.name!r}"
        loops = self._engine.compiled_activation(name, piece.forward, piece.derivative, dtype)
        return _CompiledActivation(*loops)

    def loss(self, piece, dtype):
        name = f"loss {piece.name!r}"
        return _CompiledLoss(self._engine.compiled_loss(name, piece.value, piece.gradient, dtype))

    def update(self, piece, dtype):
        name, slots = f"optimizer {piece.name!r}", len(piece.slots)
        return _CompiledUpdate(self._engine.compiled_update(name, piece.update, slots, dtype))


class _CompiledActivation:
    def __init__(self, forward, backward):
        self._forward, self._backward = forward, backward
        self.addresses = forward.address, backward.address

    def forward(self, inputs, outputs):
        self._forward(inputs.ctypes.data, outputs.ctypes.data, None, None, inputs.size, 0)

    def backward(self, inputs, outputs, grad_outputs, grad_inputs):
        arrays = (inputs, outputs, grad_outputs, grad_inputs)
        self._backward(*(array.ctypes.data for array in arrays), inputs.size, 0)

    def check(self):
        self._forward.check()
        self._backward.check()


class _CompiledLoss:
    def __init__(self, loop):
        self._loop, self.address, self.check = loop, loop.address, loop.check

    def __call__(self, targets, predictions, sample_weight, gradients):
        if sample_weight is None:
            sample_weight = np.ones(len(targets), targets.dtype)
        arrays = (targets, predictions, sample_weight, gradients)
        return self._loop(*(array.ctypes.data for array in arrays), *targets.shape)


class _CompiledUpdate:
    def __init__(self, loop):
        self._loop, self.address, self.check = loop, loop.address, loop.check

    def __call__(self, parameters, gradients, slots, learning_rate, step, shrink):
        addresses = np.array([slot.ctypes.data for slot in slots], np.int64)
        numbers = np.array([learning_rate, step, shrink])
        arrays = (parameters, gradients, addresses, numbers)
        self._loop(*(array.ctypes.data for array in arrays), 0, parameters.size)
