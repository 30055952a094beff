"""What a Keras model consists of, as fastdl's kernels take it; networks from it, and back."""

from typing import NamedTuple

from .. import activations, losses
from ..network import MLP
from ..reference import ACTIVATIONS
from ._bare import import_keras

# Keras's losses by the name of their class and of their function.
_LOSSES = {
    "BinaryCrossentropy": losses.BinaryCrossentropy,
    "CategoricalCrossentropy": losses.CategoricalCrossentropy,
    "SparseCategoricalCrossentropy": losses.CategoricalCrossentropy,
    "MeanSquaredError": losses.MeanSquaredError,
    "MeanAbsoluteError": losses.MeanAbsoluteError,
    "Huber": losses.Huber,
    "binary_crossentropy": losses.BinaryCrossentropy,
    "categorical_crossentropy": losses.CategoricalCrossentropy,
    "sparse_categorical_crossentropy": losses.CategoricalCrossentropy,
    "mean_squared_error": losses.MeanSquaredError,
    "mean_absolute_error": losses.MeanAbsoluteError,
    "huber": losses.Huber,
}


class UnsupportedModelError(ValueError):
    """A Keras model that fastdl has no equal of; the message names the layer and the reason."""


class Chain(NamedTuple):
    """The layers of a model, from its input to its output."""

    before: list  # Flatten, Rescaling, Normalization and Dropout, which nothing is learnt in
    dense: list  # the Dense layers
    functions: list  # the activation of each
    rates: list  # of the dropout after each, which the last has none of


def from_keras(model, *, loss=None, seed=None):
    """Make a network with the layers and weights of a Keras model.

    Parameters
    ----------
    model : keras.Model
        Built; a Sequential or Functional chain of Flatten and Dense layers, each followed by at
        most one activation (Activation, ReLU, LeakyReLU, ELU, Softmax or the layer's own) and,
        except for the last one, then by at most one Dropout.
    loss : str or Loss, optional
        Without it that of a compiled model; otherwise the last activation decides: softmax,
        categorical cross-entropy; sigmoid, binary cross-entropy; any other, mean squared error.
    seed : int, optional
        Of dropout and shuffling.

    Returns
    -------
    MLP
        Its predictions are the model's to rounding. The optimizer is not taken over.

    Raises
    ------
    UnsupportedModelError
        If the model holds anything else.
    TypeError
        If `model` is no Keras model.

    Examples
    --------
    >>> import keras
    >>> from fastdl.keras import from_keras
    >>> model = keras.Sequential([
    ...     keras.layers.Input((28, 28)), keras.layers.Flatten(),
    ...     keras.layers.Dense(128, activation="relu"), keras.layers.Dropout(0.5),
    ...     keras.layers.Dense(10, activation="softmax")])
    >>> from_keras(model, seed=0)
    MLP([784, 128, 10], loss=CategoricalCrossentropy(label_smoothing=0.0), dtype='float32', seed=0)
    """
    keras = import_keras()
    if not isinstance(model, keras.Model):
        raise TypeError(f"model: {model!r} is not a Keras model")
    before, dense, functions, rates = read_layers(keras, model)
    for layer in before:
        if type(layer) is not keras.layers.Flatten:
            raise unsupported(layer, "stands before the first Dense")
    for layer in dense:
        _check_plain(layer)
    pairs = {layer.name: penalties(keras, layer, "kernel") for layer in dense}
    if len(set(pairs.values())) > 1:
        raise UnsupportedModelError(f"kernel_regularizer: not the same in all layers: {pairs}")
    l1, l2 = pairs[dense[0].name]
    if loss is None:
        loss, reduction = read_loss(keras, model, dense[-1].units, functions[-1])
        if reduction not in MEAN:
            raise UnsupportedModelError(f"loss: reduction {reduction!r} is not supported")
    network = MLP(
        [dense[0].kernel.shape[0], *(layer.units for layer in dense)],
        activation=functions[:-1],
        output_activation=functions[-1],
        dropout=rates[:-1],
        loss=loss,
        l1=l1,
        l2=l2,
        dtype=read_dtype(dense),
        seed=seed,
    )
    network.set_weights([array for layer in dense for array in layer.get_weights()])
    return network


def to_keras(network, name="mlp"):
    """Make a Keras model with the layers and weights of a network.

    Parameters
    ----------
    network : MLP
    name : str, default "mlp"
        Of the model.

    Returns
    -------
    keras.Sequential
        Not compiled. Its predictions are the network's to rounding.

    Examples
    --------
    >>> from fastdl import MLP
    >>> from fastdl.keras import to_keras
    >>> model = to_keras(MLP([784, 128, 10], dropout=0.5))
    >>> [layer.name for layer in model.layers]
    ['dense_1', 'activation_1', 'dropout_1', 'dense_2', 'activation_2']
    """
    keras = import_keras()
    if not isinstance(network, MLP):
        raise TypeError(f"network: {network!r} is not an MLP")
    dtype = network.dtype.name
    regularizer = None
    if network.l1 or network.l2:
        regularizer = keras.regularizers.L1L2(l1=network.l1, l2=network.l2)
    layers = [keras.layers.Input(network.sizes[:1], dtype=dtype)]
    for number, (units, function, rate) in enumerate(
        zip(network.sizes[1:], network.activations, (*network.dropout, 0.0), strict=True), 1
    ):
        dense = keras.layers.Dense(
            units,
            kernel_initializer=network.kernel_initializer,
            kernel_regularizer=regularizer,
            dtype=dtype,
            name=f"dense_{number}",
        )
        layers += [dense, _activation_layer(keras, function, dtype, f"activation_{number}")]
        if rate:
            layers.append(keras.layers.Dropout(rate, dtype=dtype, name=f"dropout_{number}"))
    model = keras.Sequential(layers, name=name)
    model.set_weights(network.get_weights())
    return model


def _activation_layer(keras, function, dtype, name):
    if isinstance(function, activations.LeakyReLU):
        return keras.layers.LeakyReLU(function.negative_slope, dtype=dtype, name=name)
    if isinstance(function, activations.ELU):
        return keras.layers.ELU(function.alpha, dtype=dtype, name=name)
    return keras.layers.Activation(function.name, dtype=dtype, name=name)


# ----------------------------------------------------------------------------- reading Keras models


def read_layers(keras, model):
    """The `Chain` that a model is, or an error that names what can't be part of one."""
    before, dense, functions, rates = [], [], [], []
    chain = _chain(model)
    for layer, inputs in chain:
        kind = type(layer)
        if kind is keras.layers.Dense:
            _check_dense(layer, inputs)
            dense.append(layer)
            functions.append(_function(keras, layer, layer.activation))
            rates.append(0.0)
        elif not dense:
            _check_before(keras, layer, before)
            before.append(layer)
        elif kind is keras.layers.Dropout:
            if rates[-1] or layer.noise_shape is not None:
                raise unsupported(layer, "a second Dropout, or one with a noise_shape")
            rates[-1] = float(layer.rate)
        else:
            function = _function(keras, layer, layer)
            if functions[-1].name != "linear" or rates[-1]:
                raise unsupported(layer, "follows another activation, or Dropout")
            functions[-1] = function
    if not dense:
        raise UnsupportedModelError(f"{model.name}: there is no Dense layer")
    if rates[-1]:
        raise unsupported(dense[-1], "Dropout follows the last layer")
    # A Dense layer's activation may be a layer.
    parts = [part for layer, _ in chain for part in layer._flatten_layers()]
    for layer in parts:
        if layer.activity_regularizer is not None:
            raise unsupported(layer, "has an activity_regularizer")
    read_dtype(parts)
    return Chain(before, dense, functions, rates)


def read_dtype(layers):
    """The name of the one dtype of some layers."""
    dtypes = {layer.compute_dtype for layer in layers} | {layer.variable_dtype for layer in layers}
    if len(dtypes) > 1 or not dtypes <= {"float32", "float64"}:
        names = ", ".join(sorted(dtypes))
        raise UnsupportedModelError(f"dtype: {names} is not float32 or float64 throughout")
    return dtypes.pop()


def _chain(model):
    """The layers from a model's one input to its one output, each with what it is fed."""
    if not model.built or not getattr(model, "inputs", None):
        raise UnsupportedModelError(f"{model.name}: the model is not built yet: give it an Input")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UnsupportedModelError(f"{model.name}: not one input and one output")
    # A layer may have been called by other models too: `layer.input` is that of its first call.
    (source,), (tensor,) = model.inputs, model.outputs
    chain = []
    while tensor is not source:
        layer, call, _ = tensor._keras_history
        inputs = layer._inbound_nodes[call].input_tensors
        if len(inputs) != 1:
            raise unsupported(layer, "is not fed by the layer before it alone")
        if layer.weights and any(layer is other for other, _ in chain):
            raise unsupported(layer, "stands at two places")
        (tensor,) = inputs
        chain.append((layer, tensor))
    return chain[::-1]


def read_input(model):
    """What a model's one input is called in a dict of data, and the dtype Keras casts it to."""
    (tensor,) = model.inputs
    struct = getattr(model, "_functional", model)._inputs_struct
    return next(iter(struct)) if isinstance(struct, dict) else tensor.name, tensor.dtype


def _check_before(keras, layer, before):
    """Refuse what can't stand before the first Dense layer, after these others."""
    kind = type(layer)
    if kind is keras.layers.Flatten:
        if layer.data_format != "channels_last":
            raise unsupported(layer, f"data_format is {layer.data_format}")
    elif any(type(other) is keras.layers.Dropout for other in before):
        raise unsupported(layer, "follows Dropout")
    elif kind is keras.layers.Dropout:
        if layer.noise_shape is not None:
            raise unsupported(layer, "has a noise_shape")
    elif kind not in (keras.layers.Rescaling, keras.layers.Normalization):
        raise unsupported(layer, "stands before the first Dense")


def _check_dense(layer, inputs):
    """Refuse a Dense layer that is more than weights and biases for rows of features."""
    if len(inputs.shape) != 2:
        raise unsupported(layer, f"takes inputs {inputs.shape}, not rows of features")
    for setting in ("lora_enabled", "quantization_mode"):
        if getattr(layer, setting, None):
            raise unsupported(layer, f"{setting} is {getattr(layer, setting)!r}")


def _check_plain(layer):
    """Refuse a Dense layer that an MLP has no equal of."""
    if not layer.use_bias:
        raise unsupported(layer, "use_bias is False")
    if not layer.trainable:
        raise unsupported(layer, "is frozen (trainable is False)")
    settings = {
        "bias_regularizer": layer.bias.regularizer,
        "kernel_constraint": layer.kernel.constraint,
        "bias_constraint": layer.bias.constraint,
    }
    for name, setting in settings.items():
        if setting is not None:
            raise unsupported(layer, f"has a {name}")


def _function(keras, layer, function):
    """fastdl's activation for one of Keras's functions or layers."""
    kind = type(function)
    if kind is keras.layers.Activation:
        return _function(keras, layer, function.activation)
    if kind is keras.layers.ReLU and (function.max_value is not None or function.threshold != 0):
        raise unsupported(layer, "has a max_value or a threshold")
    try:
        if kind is keras.layers.ReLU:
            slope = float(function.negative_slope)
            return activations.LeakyReLU(slope) if slope else activations.get("relu")
        if kind is keras.layers.LeakyReLU:
            return activations.LeakyReLU(float(function.negative_slope))
        if kind is keras.layers.ELU:
            return activations.ELU(float(function.alpha))
    except ValueError as error:  # a slope below 0, which Keras takes
        raise unsupported(layer, str(error)) from error
    if kind is keras.layers.Softmax:
        if function.axis != -1:
            raise unsupported(layer, f"axis is {function.axis}")
        return activations.get("softmax")
    for name in ACTIVATIONS:
        if function is getattr(keras.activations, name):
            return activations.get(name)
    raise unsupported(layer, f"{getattr(function, '__name__', kind.__name__)} is not supported")


def penalties(keras, layer, name):
    """(l1, l2) of the penalty on a Dense layer's variable called `name`."""
    # The layer's `kernel_regularizer` is what its kernel was made with.
    regularizer = getattr(getattr(layer, name), "regularizer", None)
    if regularizer is None:
        return 0.0, 0.0
    if type(regularizer) not in (
        keras.regularizers.L1,
        keras.regularizers.L2,
        keras.regularizers.L1L2,
    ):
        raise unsupported(layer, f"{name}_regularizer {type(regularizer).__name__}")
    return float(getattr(regularizer, "l1", 0.0)), float(getattr(regularizer, "l2", 0.0))


# The reductions of a loss that are its mean over the rows of a batch.
MEAN = ("sum_over_batch_size", "mean")


def _given_loss(model):
    """What `compile` got, out of a list for the one output."""
    loss = model.loss
    return loss[0] if isinstance(loss, (list, tuple)) and len(loss) == 1 else loss


def is_sparse(model):
    """Whether a compiled model's loss is the one for integer labels."""
    loss = _given_loss(model)
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    return name in ("sparse_categorical_crossentropy", "SparseCategoricalCrossentropy")


def read_loss(keras, model, units, output):
    """fastdl's loss for a model's, and the reduction of that.

    Without a compiled one, it is the loss that goes with the model's outputs.
    """
    given = _given_loss(model) if getattr(model, "compiled", False) else None
    if given is None:
        by_output = {"softmax": "categorical_crossentropy", "sigmoid": "binary_crossentropy"}
        return losses.get(by_output.get(output.name, "mean_squared_error")), MEAN[0]
    if not isinstance(given, str) and not callable(given):
        raise UnsupportedModelError(f"loss: {given!r} is not one loss")
    try:
        loss = keras.losses.get(given)
    except ValueError as error:  # "crossentropy", which Keras resolves by the targets, or a typo
        raise UnsupportedModelError(f"loss: {given!r} is not supported") from error
    name = loss.__name__ if hasattr(loss, "__name__") else type(loss).__name__
    own = getattr(keras.losses, name, None)
    if name not in _LOSSES or (loss is not own and type(loss) is not own):
        raise UnsupportedModelError(f"loss: {name} is not supported")
    # Not `get_config()`: that of Huber leaves delta out.
    settings = dict(getattr(loss, "_fn_kwargs", {}))
    if settings.pop("axis", -1) != -1 or settings.pop("ignore_class", None) is not None:
        raise UnsupportedModelError("loss: axis and ignore_class are not supported")
    from_logits = settings.pop("from_logits", False)
    if issubclass(_LOSSES[name], losses.CategoricalCrossentropy | losses.BinaryCrossentropy) and (
        from_logits != (output.name == "linear")
    ):
        raise UnsupportedModelError(
            f"loss: from_logits is {from_logits}, but the last activation is {output.name}"
        )
    dtype = getattr(loss, "dtype", "float32")
    if dtype not in ("float32", "float64"):
        raise UnsupportedModelError(f"loss: dtype {dtype} is not float32 or float64")
    try:
        result = _LOSSES[name](**settings)
        result.check_outputs(units, output)
    except ValueError as error:
        raise UnsupportedModelError(f"loss: {error}") from error
    return result, getattr(loss, "reduction", MEAN[0])


def unsupported(layer, reason):
    return UnsupportedModelError(f"{layer.name} ({type(layer).__name__}): {reason}")
