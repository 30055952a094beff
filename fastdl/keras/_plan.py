"""A compiled Keras model as the engine takes it, and the copies between the two."""

import dataclasses
import random

import numpy as np

from .. import _engine, losses
from .._optional import optional_import
from ..reference import LINEAR
from ._bare import import_keras
from ._models import (
    MEAN,
    UnsupportedModelError,
    is_sparse,
    penalties,
    read_dtype,
    read_input,
    read_layers,
    read_loss,
)
from ._optimizers import ArrayRule, State, read_optimizer, read_rate

# Methods in whose place come fastdl's.
REPLACED = (
    "fit",
    "evaluate",
    "predict",
    "train_on_batch",
    "test_on_batch",
    "predict_on_batch",
)

# What neither a subclass nor the model itself may define in a way of its own.
_OWN = {
    "__call__",
    "call",
    "compute_loss",
    "compute_loss_and_updates",
    "compute_metrics",
    "compute_own_metrics",
    "get_metrics_result",
    "losses",
    "make_predict_function",
    "make_test_function",
    "make_train_function",
    "metrics",
    "predict_step",
    "reset_metrics",
    "stateless_call",
    "test_step",
    "train_step",
}

# What an activation depends on, in layers by the name of their class.
_SETTINGS = {
    "Activation": ("activation",),
    "Dense": ("activation",),
    "ELU": ("alpha",),
    "LeakyReLU": ("negative_slope",),
    "ReLU": ("max_value", "negative_slope", "threshold"),
    "Softmax": ("axis",),
}

# The types of arguments that an object of Keras may be given anew at any time.
_PLAIN = (bool, float, int, str, type(None))


class Plan:
    """What a compiled model is, to train it or, if not `trains`, to score it and predict.

    Attributes
    ----------
    network : Network
        Its parameters are copies of the model's.
    variables : list of Variable or None
        The model's, for each array of the network; None for the bias of a layer without one.
    trained : list of bool
        Whether each array is.
    before : list of layers
        What goes before the first Dense layer, but for Dropout.
    input_rate : float
        Of that.
    input_name : str
        What the inputs are called in a dict.
    input_dtype : str
        What Keras casts them to.
    sparse : bool
        Whether the loss takes integer labels.
    reduction : str or None
        Of the loss.
    rule : Rule
    reasons : list of str
        Why steps are taken kernel by kernel, if they are.
    """

    def __init__(self, model, seed=None, trains=True):
        keras = import_keras()
        _check_model(keras, model)
        chain = read_layers(keras, model)
        self._layers, self._dense = model.layers, chain.dense
        self._activations = [
            (each, _SETTINGS[type(each).__name__])
            for layer in self._layers
            for each in layer._flatten_layers()
            if type(each).__name__ in _SETTINGS
        ]
        dense = chain.dense
        self.input_name, self.input_dtype = read_input(model)
        self.before = [each for each in chain.before if type(each) is not keras.layers.Dropout]
        self.input_rate = sum(float(each.rate) for each in chain.before if each not in self.before)
        self.variables = [
            variable
            for layer in dense
            for variable in (layer.kernel, layer.bias if layer.use_bias else None)
        ]
        trainable = {id(variable) for variable in model.trainable_variables}
        self.trained = [id(variable) in trainable for variable in self.variables]
        if trains and not any(self.trained):
            raise UnsupportedModelError(f"{model.name}: nothing in it is trainable")
        loss, self.reduction = read_loss(keras, model, dense[-1].units, chain.functions[-1])
        if self.reduction in (None, "none"):
            raise UnsupportedModelError(f"loss: reduction {self.reduction!r} is not supported")
        _check_link(loss, chain.functions[-1])
        self.sparse = is_sparse(model)
        self._read_network(keras, chain, loss, seed)
        optimizer = model.optimizer
        decays = [
            trained and _decays(optimizer, variable)
            for trained, variable in zip(self.trained, self.variables, strict=True)
        ]
        plain = all(
            each or variable is None for each, variable in zip(decays, self.variables, strict=True)
        )
        self.rule = read_optimizer(keras, optimizer, decays_all=plain)
        self.decays = np.zeros_like(self.network.parameters)
        for array, each in zip(self.network.views(self.decays), decays, strict=True):
            array[...] = each
        self.constraints = [
            (array, _constraint(keras, variable.constraint))
            for array, variable, trained in zip(
                self.network.arrays, self.variables, self.trained, strict=True
            )
            if trained and variable.constraint is not None
        ]
        constraints = [getattr(each, "constraint", None) for each in self.variables]
        self.may_fail = any(
            each is not None and not type(each).__module__.startswith("keras.")
            for each in constraints
        )
        # Variables know no plain `==`: Keras makes it an operation on their values.
        exist = [variable is not None for variable in self.variables]
        reasons = {
            "dropout of the inputs": self.input_rate,
            "a Dense layer without bias": not all(exist),
            "weights that are not trained": sum(exist) > sum(self.trained),
            "constraints": self.constraints,
            "penalties that differ": self._penalties_differ,
            f"the loss's reduction {self.reduction!r}": self.reduction not in MEAN,
        }
        self.reasons = [reason for reason, given in reasons.items() if given]
        self.reasons += self.rule.reasons
        self._inner_settings, self._outer_settings = self._inner(model), self._outer(model)

    def predicts(self, model):
        """Whether a model's layers and activations are still those read, which is quick to tell."""
        return model.layers == self._layers and self._inner(model) == self._inner_settings

    def holds(self, model):
        """Whether the model and all its settings but the learning rate are still those read."""
        return self.predicts(model) and self._outer(model) == self._outer_settings

    def _inner(self, model):
        """What predictions depend on."""
        # Not the variables: Keras makes `==` an operation on their values.
        variables = [(id(getattr(each, "_kernel", None)), id(each.bias)) for each in self._dense]
        settings = [getattr(layer, name) for layer, names in self._activations for name in names]
        return variables, settings, _redefined(model)

    def _outer(self, model):
        """What another `compile` replaces, and what takes effect without one."""
        optimizer = model.optimizer
        penalties = [getattr(each, "regularizer", None) for each in self.variables]
        return (
            optimizer,
            model._compile_loss,
            model._compile_metrics,
            _plain(optimizer),
            getattr(optimizer, "_exclude_from_weight_decay", None),
            getattr(optimizer, "_exclude_from_weight_decay_pattern", None),
            [
                (each.trainable, each.activity_regularizer, _plain(each))
                for layer in self._layers
                for each in layer._flatten_layers()
            ],
            [(each, _plain(each)) for each in penalties],
            [getattr(each, "constraint", None) for each in self.variables],
            [getattr(each, "trainable", None) for each in self.variables],
            list(map(id, model.metrics)),
        )

    def _read_network(self, keras, chain, loss, seed):
        dense = chain.dense
        pairs = [penalties(keras, layer, name) for layer in dense for name in ("kernel", "bias")]
        pairs = [
            pair if trained else (0.0, 0.0)
            for pair, trained in zip(pairs, self.trained, strict=True)
        ]
        alike = [pairs[0], (0.0, 0.0)] * len(dense)
        self._penalties_differ = pairs != alike
        self.network = _engine.Network(
            (dense[0].kernel.shape[0], *(layer.units for layer in dense)),
            tuple(chain.functions),
            tuple(chain.rates[:-1]),
            loss,
            *((0.0, 0.0) if self._penalties_differ else pairs[0]),
            random.getrandbits(63) if seed is None else seed,
            np.dtype(read_dtype(dense)),
        )
        self.network.penalties = pairs

    def extras(self, recorder):
        """What the engine lacks for this model and these metrics, or None."""
        return Extras(self, recorder) if self.reasons or recorder else None


class Extras:
    """The parts of a step that only single kernels take: see `_engine.Network.extras`."""

    def __init__(self, plan, recorder):
        self._plan = plan
        self.recorder = recorder

    def batch(self, kernels, network, data):
        """The rows of a batch after dropout, with weights that make the reduction a mean."""
        data, rate = weighted(data, self._plan.reduction), self._plan.input_rate
        if not rate:
            return data
        inputs = data.inputs if isinstance(data.inputs, np.ndarray) else data.inputs.toarray()
        kept = np.empty_like(inputs)
        # The hidden layers' numbers are smaller.
        layer = len(network.layers)
        kernels.dropout(inputs, rate, network.seed, network.iterations, layer, kept)
        return data._replace(inputs=kept)

    def update(self, kernels, network, state, workspace, learning_rate, start, outputs):
        """Take the optimizer's step, keep to the constraints and note the predictions.

        A constraint of the user's that fails leaves all as it was before the step.
        """
        arrays = [network.parameters, *state.slots.values()] if self._plan.may_fail else []
        before, product = [array.copy() for array in arrays], state.product
        try:
            self._take_step(kernels, network, state, workspace, learning_rate)
        except BaseException:
            for array, values in zip(arrays, before, strict=True):
                array[...] = values
            state.product = product
            raise
        if self.recorder:
            self.recorder.record(kernels, network, start, outputs)

    def _take_step(self, kernels, network, state, workspace, learning_rate):
        trained = self._plan.trained
        for gradients, each in zip(workspace.gradient_arrays, trained, strict=True):
            if not each:
                gradients[...] = 0
        if isinstance(state.optimizer, ArrayRule):
            _engine.clip(state.optimizer, workspace)
            state.optimizer.update(
                network, state, workspace.gradients, learning_rate, trained, self._plan.decays
            )
        else:
            _engine.update(kernels, network, state, workspace, learning_rate)
        for array, constraint in self._plan.constraints:
            array[...] = constraint(array)


def weighted(data, reduction):
    """`data` with sample weights by which the mean over its rows is the reduction asked for."""
    if reduction in MEAN:
        return data
    rows, weights = len(data.targets), data.sample_weight
    if reduction == "sum":
        weights = np.ones(rows, data.inputs.dtype) if weights is None else weights
        return data._replace(sample_weight=weights * rows)
    if weights is None:
        return data
    total = weights.sum()
    return data._replace(sample_weight=weights * (rows / total) if total else weights)


def _plain(thing):
    """The arguments of a Keras object that are numbers, strings or flags, by name."""
    return {
        name: value
        for name, value in getattr(thing, "__dict__", {}).items()
        if name[0] != "_" and name != "built" and isinstance(value, _PLAIN)
    }


def _decays(optimizer, variable):
    """Whether an optimizer's weight decay acts on a variable."""
    if variable is None:
        return False
    # TensorFlow's variables have other names than Keras's, with the layer's in them.
    own = import_keras().backend.backend() == "tensorflow"
    return optimizer._use_weight_decay(variable.value if own else variable)


def _check_model(keras, model):
    if not isinstance(model, keras.Model):
        raise TypeError(f"model: {model!r} is not a Keras model")
    base = next(each for each in type(model).__mro__ if each.__module__.startswith("keras."))
    redefined = _redefined(model)
    for name in sorted(_OWN.union(REPLACED)):
        if name in redefined or getattr(type(model), name, None) is not getattr(base, name, None):
            raise own_method(model, name)
    if not getattr(model, "compiled", False):
        raise UnsupportedModelError(f"{model.name}: the model is not compiled")
    if model.optimizer is None or model.loss is None:
        raise UnsupportedModelError(f"{model.name}: compiled without an optimizer or a loss")
    compiled = [model._loss_tracker, model._compile_metrics, *model._compile_loss.metrics]
    if model._compile_metrics:
        given = model._compile_metrics
        compiled += keras.tree.flatten([given._user_metrics, given._user_weighted_metrics])
    for metric in model.metrics:
        if not any(metric is each for each in compiled):
            raise UnsupportedModelError(
                f"metrics: {metric.name} was not given to compile, but is part of {model.name} "
                "or of a layer"
            )
    if getattr(model, "_distribute_strategy", None) is not None:
        raise UnsupportedModelError(f"{model.name}: made under a strategy of tf.distribute")
    outputs = getattr(model, "_outputs_struct", None)
    if isinstance(outputs, (list, tuple)) and len(outputs) == 1:
        (outputs,) = outputs  # as Keras takes it out
    if isinstance(outputs, dict):
        raise UnsupportedModelError(f"{model.name}: its outputs are a dict")
    if model._compile_loss._user_loss_weights is not None:
        raise UnsupportedModelError("loss_weights: not supported")


def _redefined(model):
    """What of `_OWN` the model itself has."""
    own = vars(model)
    return {name: own[name] for name in own.keys() & _OWN}


def own_method(model, name):
    return UnsupportedModelError(f"{model.name} ({type(model).__name__}): has a {name} of its own")


def check_optimizer(model):
    """Refuse an optimizer that was built to train anything else."""
    optimizer = model.optimizer
    if optimizer.built and (
        list(map(id, optimizer._trainable_variables)) != list(map(id, model.trainable_variables))
    ):
        raise UnsupportedModelError(
            "optimizer: it was built for other variables than the model's trainable ones; "
            "compile the model anew"
        )


def _check_link(loss, output):
    """Refuse probabilities of one kind under the cross-entropy of the other."""
    own = loss.output_activation
    if loss.classification and output.name in ("sigmoid", "softmax") and output.name != own:
        # TensorFlow's takes the logits, as if the activation were its own; others' do not.
        raise UnsupportedModelError(
            f"loss: {type(loss).__name__} of {output.name} outputs is not the same under all "
            f"backends of Keras: use {own}"
        )


def _constraint(keras, constraint):
    """A Keras constraint as a function of arrays."""
    if type(constraint) is keras.constraints.NonNeg:
        return lambda array: np.maximum(array, 0)
    if type(constraint) is keras.constraints.MaxNorm:
        return lambda array: _limited(array, constraint.max_value, constraint.axis)
    return lambda array: keras.ops.convert_to_numpy(constraint(array.copy()))


def _limited(array, limit, axis):
    axis = tuple(axis) if isinstance(axis, list) else axis
    norms = np.sqrt(np.square(array).sum(axis=axis, keepdims=True))
    return array * (np.clip(norms, 0, limit) / (array.dtype.type(1e-7) + norms))


class Link:
    """The copies between a plan's network, with the state of its optimizer, and the model.

    Attributes
    ----------
    state : OptimizerState
    stale : set
        What of "weights" and "state" the model does not know yet.
    results : callable or None
        What gives its metrics the results that they do not know yet.
    """

    def __init__(self, model, plan):
        self._keras = import_keras()
        self._plan, self._optimizer = plan, model.optimizer
        self.state = State(plan.rule.optimizer, plan.network)
        self.state.dtype = plan.network.parameters.dtype
        self.stale = set()
        self.results = None
        self._views = {}
        self._view, self._assign = _access(self._keras.backend.backend())
        pairs = list(zip(plan.network.arrays, plan.variables, strict=True))
        self._weights = [pair for pair in pairs if pair[1] is not None]
        self._trained = [pair for pair, trained in zip(pairs, plan.trained, strict=True) if trained]
        self._slots = None

    def build(self, model):
        """Have the optimizer make its variables, unless it has."""
        plan, optimizer = self._plan, self._optimizer
        if not optimizer.built:
            optimizer.build(model.trainable_variables)
        known = {
            id(variable): index for index, variable in enumerate(optimizer._trainable_variables)
        }
        self._slots = [
            (array, getattr(optimizer, attribute)[known[id(variable)]])
            for attribute, slot in zip(plan.rule.attributes, self.state.slots.values(), strict=True)
            for array, variable, trained in zip(
                plan.network.views(slot), plan.variables, plan.trained, strict=True
            )
            if trained
        ]

    def touch(self):
        """Note that the network changes."""
        self.stale.update(("weights", "state"))
        self._views.clear()

    def read_weights(self):
        """Take the model's weights, unless the network has newer ones."""
        if "weights" in self.stale:
            return
        for index, (array, variable) in enumerate(self._weights):
            if self._view is None:
                array[...] = variable.numpy()
                continue
            view = self._view(variable)
            place = _place(view)
            if index not in self._views or self._views[index][0] != place:
                array[...] = view
                self._views[index] = place, view  # which keeps others from this place

    def read_rate(self):
        """Take the learning rate, which callbacks may have set."""
        rate, state = read_rate(self._keras, self._optimizer, self._value), self.state
        if rate != state.optimizer.learning_rate:
            state.optimizer = dataclasses.replace(state.optimizer, learning_rate=rate)

    def read(self):
        """Take the weights and the state of the optimizer."""
        self.read_weights()
        self.read_rate()
        for array, variable in self._slots or ():
            array[...] = self._value(variable)
        self.state.iterations = int(self._value(self._optimizer._iterations))
        if hasattr(self._optimizer, "_u_product"):
            self.state.product = float(self._value(self._optimizer._u_product))
        self.stale.clear()

    def write_weights(self):
        """Give the model the network's weights, those that are trained."""
        if "weights" in self.stale:
            # Copies: a backend may keep the array that it is given.
            for array, variable in self._trained:
                self._assign(variable, array.copy())
            self.stale.discard("weights")

    def write_iterations(self):
        """Give the optimizer the number of steps taken."""
        if "state" in self.stale:
            self.assign_number(self._optimizer._iterations, self.state.iterations)

    def write_results(self):
        """Give the model's metrics what was last counted."""
        write, self.results = self.results, None
        if write:
            write()

    def write(self):
        """Give the model all of it."""
        self.write_weights()
        if "state" in self.stale:
            self.write_iterations()
            for array, variable in self._slots:
                self._assign(variable, array.copy())
            if hasattr(self._optimizer, "_u_product"):
                self.assign_number(self._optimizer._u_product, self.state.product)
            self.stale.discard("state")
        self.write_results()  # last: a metric of one's own may fail

    def _value(self, variable):
        return variable.numpy() if self._view is None else self._view(variable)

    def assign_number(self, variable, number):
        """Give a variable of the model, its optimizer or its metrics a number."""
        self._assign(variable, np.array(number, variable.dtype))


def _place(view):
    """What tells one value of a variable from the next."""
    return view.__array_interface__["data"][0] if isinstance(view, np.ndarray) else id(view)


def _access(backend):
    """How a backend's variables are looked at, or None, and how they are assigned an array.

    Where there is a look, what it shows stays as it is, a variable with a new value having it
    elsewhere: a prediction then copies only the weights that changed.
    """
    if backend == "jax":
        return lambda variable: variable.value, _assign
    if backend == "tensorflow":
        # Its operations themselves take a fifth of the time of what stands around them.
        operations = optional_import("tensorflow", extra="keras").raw_ops

        def view(variable):
            value = variable.value
            tensor = operations.ReadVariableOp(resource=value.handle, dtype=value.dtype)
            return np.asarray(memoryview(tensor))

        def assign(variable, array):
            operations.AssignVariableOp(resource=variable.value.handle, value=array)

        return view, assign
    return None, _assign


def _assign(variable, array):
    variable.assign(array)


def counts(keras, plan, metric):
    """Whether the engine's count of right rows is what a Keras metric is."""
    kind, network = type(metric), plan.network
    if kind is keras.metrics.BinaryAccuracy:
        # From logits, Keras compares these with its threshold; the engine takes the sign.
        logits = network.from_logits and network.output_code == LINEAR
        return (
            isinstance(network.loss, losses.BinaryCrossentropy)
            and metric._fn_kwargs.get("threshold") == 0.5
            and not logits
        )
    if not isinstance(network.loss, losses.CategoricalCrossentropy):
        return False
    if plan.sparse:
        return kind is keras.metrics.SparseCategoricalAccuracy
    return kind is keras.metrics.CategoricalAccuracy
