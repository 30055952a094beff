"""Single operations as peers do them: `PEERS[library, operation]`, for the cases of tests/cases.py.

Each entry makes, from a case's variant (what its name has in brackets) and arguments, a function of
no arguments. That returns what it computed by the names of the kernel's parameters, "loss" for the
returned loss; nothing where there is nothing to compare, as with random numbers.
"""

import functools

import numpy as np

from fastdl.reference import ACTIVATIONS

PEERS = {}


def peer(library, *operations, variants=None):
    """Enter a maker for these operations, in these variants only (None: all)."""

    def register(make):
        for operation in operations:
            PEERS[library, operation] = (functools.partial(make, operation), variants)
        return make

    return register


def variant(case):
    return case.name.partition("[")[2].rstrip("]")


def libraries(case):
    """The peers that have the case's operation in its variant."""
    return [
        library
        for (library, operation), (_, variants) in PEERS.items()
        if operation == case.operation and (variants is None or variant(case) in variants)
    ]


def make(library, case, arguments):
    """The peer's function of no arguments for this case."""
    return PEERS[library, case.operation][0](variant(case), arguments)


ELEMENTWISE = ("exp", "log", "log1p", "expm1", "tanh", "sigmoid")
REGRESSION = ("mean_squared_error", "mean_absolute_error", "huber")
CROSSENTROPIES = (
    "binary_crossentropy",
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
)


# ------------------------------------------------------------------------------------ NumPy, SciPy


@peer("NumPy", "exp", "log", "log1p", "expm1", "tanh")
def _(operation, _variant, arguments):
    function, inputs, outputs = getattr(np, operation), *arguments.values()
    return lambda: {"outputs": function(inputs, out=outputs)}


@peer("SciPy", "sigmoid")
def _(_operation, _variant, arguments):
    from scipy.special import expit

    inputs, outputs = arguments.values()
    return lambda: {"outputs": expit(inputs, out=outputs)}


def _oriented(arguments):
    left, right = arguments["left"], arguments["right"]
    return (
        left.T if arguments["transpose_left"] else left,
        right.T if arguments["transpose_right"] else right,
    )


@peer("NumPy", "matmul")
def _(_operation, _variant, arguments):
    left, right = _oriented(arguments)
    outputs = arguments["outputs"]
    return lambda: {"outputs": np.matmul(left, right, out=outputs)}


@peer("NumPy", "dense_forward", variants=("linear", "relu", "tanh"))
def _(_operation, variant, arguments):
    inputs, weights, bias = (arguments[name] for name in ("inputs", "weights", "bias"))
    outputs = arguments["outputs"]
    activate = {
        "linear": lambda values: None,
        "relu": lambda values: np.maximum(values, 0, out=values),
        "tanh": lambda values: np.tanh(values, out=values),
    }[variant]

    def run():
        np.matmul(inputs, weights, out=outputs)
        np.add(outputs, bias, out=outputs)
        activate(outputs)
        return {"outputs": outputs}

    return run


@peer("NumPy", "permutation")
def _(_operation, _variant, arguments):
    rng, n = np.random.default_rng(0), len(arguments["outputs"])

    def run():
        rng.permutation(n)
        return {}

    return run


# -------------------------------------------------------------------------------------------- JAX


def _jax():
    import jax

    jax.config.update("jax_enable_x64", True)
    return jax


def _jax_activation(name, slope):
    jax = _jax()
    return {
        "linear": lambda x: x,
        "leaky_relu": lambda x: jax.nn.leaky_relu(x, slope),
        "elu": lambda x: jax.nn.elu(x, slope),
        "gelu": lambda x: jax.nn.gelu(x, approximate=False),
        "tanh": jax.numpy.tanh,
    }.get(name) or getattr(jax.nn, name)


def _jax_run(function, names, *arrays):
    """Call the compiled function on arrays that are already JAX's; `names` is of its results."""
    jax = _jax()
    function = jax.jit(function)
    arrays = [jax.numpy.asarray(array) for array in arrays]
    return lambda: dict(zip(names, jax.block_until_ready(function(*arrays)), strict=True))


@peer("JAX", *ELEMENTWISE)
def _(operation, _variant, arguments):
    jax = _jax()
    function = jax.nn.sigmoid if operation == "sigmoid" else getattr(jax.numpy, operation)
    return _jax_run(lambda x: (function(x),), ["outputs"], arguments["inputs"])


@peer("JAX", "activation_forward")
def _(_operation, variant, arguments):
    function = _jax_activation(variant, arguments["slope"])
    return _jax_run(lambda x: (function(x),), ["outputs"], arguments["inputs"])


@peer("JAX", "activation_backward")
def _(_operation, variant, arguments):
    jax = _jax()
    function = _jax_activation(variant, arguments["slope"])
    return _jax_run(
        lambda x, grad_outputs: jax.vjp(function, x)[1](grad_outputs),
        ["grad_inputs"],
        arguments["inputs"],
        arguments["grad_outputs"],
    )


@peer("JAX", "matmul")
def _(_operation, _variant, arguments):
    flags = arguments["transpose_left"], arguments["transpose_right"]

    def function(left, right):
        return ((left.T if flags[0] else left) @ (right.T if flags[1] else right),)

    return _jax_run(function, ["outputs"], arguments["left"], arguments["right"])


@peer("JAX", "dense_forward")
def _(_operation, variant, arguments):
    activation = _jax_activation(variant, arguments["slope"])
    return _jax_run(
        lambda inputs, weights, bias: (activation(inputs @ weights + bias),),
        ["outputs"],
        *(arguments[name] for name in ("inputs", "weights", "bias")),
    )


@peer("JAX", "dense_backward", variants=ACTIVATIONS)
def _(_operation, variant, arguments):
    jax = _jax()
    activation = _jax_activation(variant, arguments["slope"])

    def function(inputs, weights, preactivations, grad_outputs):
        (gradients,) = jax.vjp(activation, preactivations)[1](grad_outputs)
        return gradients @ weights.T, inputs.T @ gradients, gradients.sum(0)

    names = ("inputs", "weights", "preactivations", "grad_outputs")
    return _jax_run(
        function,
        ["grad_inputs", "grad_weights", "grad_bias"],
        *(arguments[name] for name in names),
    )


@peer("JAX", *CROSSENTROPIES, *REGRESSION, "poisson", variants=("logits", "plain"))
def _(operation, variant, arguments):
    jax = _jax()
    jnp = jax.numpy

    def huber(p, t):
        size, delta = jnp.abs(p - t), arguments["delta"]
        return jnp.mean(jnp.where(size <= delta, size**2 / 2, delta * size - delta**2 / 2))

    def log_probability(z, labels):
        return jnp.take_along_axis(jax.nn.log_softmax(z), labels[:, None], 1)

    function = {
        "binary_crossentropy": lambda z, t: jnp.mean(jax.nn.softplus(z) - z * t),
        "categorical_crossentropy": lambda z, t: -jnp.mean((t * jax.nn.log_softmax(z)).sum(1)),
        "sparse_categorical_crossentropy": lambda z, t: -jnp.mean(log_probability(z, t)),
        "mean_squared_error": lambda p, t: jnp.mean((p - t) ** 2),
        "mean_absolute_error": lambda p, t: jnp.mean(jnp.abs(p - t)),
        "huber": huber,
        "poisson": lambda p, t: jnp.mean(jnp.exp(p) - t - t * p + jax.scipy.special.xlogy(t, t)),
    }[operation]
    loss = jax.value_and_grad(function)
    return _jax_run(loss, ["loss", "gradients"], arguments["predictions"], arguments["targets"])


@peer("JAX", "dropout")
def _(_operation, _variant, arguments):
    jax = _jax()
    rate = arguments["rate"]
    key, inputs = jax.random.key(0), jax.numpy.asarray(arguments["inputs"])

    @jax.jit
    def function(key, inputs):
        key, draw = jax.random.split(key)
        kept = jax.random.bernoulli(draw, 1 - rate, inputs.shape)
        return key, jax.numpy.where(kept, inputs / (1 - rate), 0)

    def run():
        jax.block_until_ready(function(key, inputs))
        return {}

    return run


@peer("JAX", "sgd_update", "rmsprop_update", "adam_update")
def _(operation, _variant, arguments):
    jax = _jax()
    jnp = jax.numpy
    names = [name for name, value in arguments.items() if isinstance(value, np.ndarray)]
    names.remove("gradients")
    rate, decay = arguments["learning_rate"], arguments["weight_decay"]

    def sgd(g, w, v=None):
        w *= 1 - rate * decay
        if v is None:
            return (w - rate * g,)
        v = arguments["momentum"] * v - rate * g
        return w + (arguments["momentum"] * v - rate * g if arguments["nesterov"] else v), v

    def rmsprop(g, w, s):
        s = arguments["rho"] * s + (1 - arguments["rho"]) * g**2
        return w * (1 - rate * decay) - rate * g / jnp.sqrt(s + arguments["epsilon"]), s

    def adam(g, w, m, v):
        beta_1, beta_2 = arguments["beta_1"], arguments["beta_2"]
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        step = arguments["step"]
        adapted = rate * (1 - beta_2**step) ** 0.5 / (1 - beta_1**step)
        return w * (1 - rate * decay) - adapted * m / (jnp.sqrt(v) + arguments["epsilon"]), m, v

    update = {"sgd_update": sgd, "rmsprop_update": rmsprop, "adam_update": adam}[operation]
    function = jax.jit(update, donate_argnums=range(1, 1 + len(names)))
    gradients = jnp.asarray(arguments["gradients"])
    state = [jnp.array(arguments[name]) for name in names]

    def run():
        state[:] = jax.block_until_ready(function(gradients, *state))
        return dict(zip(names, state, strict=True))

    return run


# ---------------------------------------------------------------------------------------- PyTorch


def _torch_activation(name, slope):
    import torch

    return {
        "linear": lambda x: x,
        "leaky_relu": functools.partial(torch.nn.functional.leaky_relu, negative_slope=slope),
        "elu": functools.partial(torch.nn.functional.elu, alpha=slope),
        "softmax": functools.partial(torch.softmax, dim=1),
        "log_softmax": functools.partial(torch.log_softmax, dim=1),
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
    }.get(name) or getattr(torch.nn.functional, name)


def _torch_activation_gradient(name, slope):
    """A function of inputs, outputs and grad_outputs."""
    import torch

    aten = torch.ops.aten
    return {
        "linear": lambda x, y, g: g,
        "relu": lambda x, y, g: aten.threshold_backward(g, y, 0),
        "leaky_relu": lambda x, y, g: aten.leaky_relu_backward(g, x, slope, False),
        "elu": lambda x, y, g: aten.elu_backward(g, slope, 1, 1, True, y),
        "sigmoid": lambda x, y, g: aten.sigmoid_backward(g, y),
        "tanh": lambda x, y, g: aten.tanh_backward(g, y),
        "softplus": lambda x, y, g: aten.softplus_backward(g, x, 1, 20),
        "silu": lambda x, y, g: aten.silu_backward(g, x),
        "gelu": lambda x, y, g: aten.gelu_backward(g, x),
        "softmax": lambda x, y, g: aten._softmax_backward_data(g, y, 1, y.dtype),
        "log_softmax": lambda x, y, g: aten._log_softmax_backward_data(g, y, 1, y.dtype),
    }[name]


def _tensors(arguments, *names):
    import torch

    return [torch.from_numpy(arguments[name]) for name in names]


@peer("PyTorch", *ELEMENTWISE)
def _(operation, _variant, arguments):
    import torch

    function = getattr(torch, operation)
    inputs, outputs = _tensors(arguments, "inputs", "outputs")
    return lambda: {"outputs": function(inputs, out=outputs)}


@peer("PyTorch", "activation_forward")
def _(_operation, variant, arguments):
    function = _torch_activation(variant, arguments["slope"])
    (inputs,) = _tensors(arguments, "inputs")
    return lambda: {"outputs": function(inputs)}


@peer("PyTorch", "activation_backward")
def _(_operation, variant, arguments):
    function = _torch_activation_gradient(variant, arguments["slope"])
    tensors = _tensors(arguments, "inputs", "outputs", "grad_outputs")
    return lambda: {"grad_inputs": function(*tensors)}


@peer("PyTorch", "matmul")
def _(_operation, _variant, arguments):
    import torch

    left, right = (torch.from_numpy(array) for array in _oriented(arguments))
    (outputs,) = _tensors(arguments, "outputs")
    return lambda: {"outputs": torch.mm(left, right, out=outputs)}


@peer("PyTorch", "dense_forward")
def _(_operation, variant, arguments):
    import torch

    activation = _torch_activation(variant, arguments["slope"])
    inputs, weights, bias = _tensors(arguments, "inputs", "weights", "bias")
    return lambda: {"outputs": activation(torch.addmm(bias, inputs, weights))}


@peer("PyTorch", "dense_backward", variants=ACTIVATIONS)
def _(_operation, variant, arguments):
    import torch

    gradient = _torch_activation_gradient(variant, arguments["slope"])
    inputs, weights, *layer = _tensors(
        arguments, "inputs", "weights", "preactivations", "outputs", "grad_outputs"
    )

    def run():
        gradients = gradient(*layer)
        return {
            "grad_inputs": torch.mm(gradients, weights.T),
            "grad_weights": torch.mm(inputs.T, gradients),
            "grad_bias": gradients.sum(0),
        }

    return run


@peer("PyTorch", *CROSSENTROPIES, *REGRESSION, "poisson", variants=("logits", "plain"))
def _(operation, variant, arguments):
    import torch
    from torch.nn import functional

    def poisson(p, t):  # its own has but an approximation of what does not depend on p
        return (torch.exp(p) - t - t * p + torch.xlogy(t, t)).mean()

    loss = {
        "binary_crossentropy": functional.binary_cross_entropy_with_logits,
        "categorical_crossentropy": functional.cross_entropy,
        "sparse_categorical_crossentropy": functional.cross_entropy,
        "mean_squared_error": functional.mse_loss,
        "mean_absolute_error": functional.l1_loss,
        "huber": functools.partial(functional.huber_loss, delta=arguments.get("delta", 1.0)),
        "poisson": poisson,
    }[operation]
    predictions, targets = _tensors(arguments, "predictions", "targets")
    predictions.requires_grad_()

    def run():
        predictions.grad = None
        value = loss(predictions, targets)
        value.backward()
        return {"loss": value.detach(), "gradients": predictions.grad}

    return run


@peer("PyTorch", "dropout")
def _(_operation, _variant, arguments):
    from torch.nn import functional

    (inputs,) = _tensors(arguments, "inputs")
    rate = arguments["rate"]

    def run():
        functional.dropout(inputs, rate)
        return {}

    return run


@peer("PyTorch", "permutation")
def _(_operation, _variant, arguments):
    import torch

    n = len(arguments["outputs"])

    def run():
        torch.randperm(n)
        return {}

    return run


# PyTorch's SGD adds the weight decay to the gradients: the variants with decay are other work.
@peer("PyTorch", "sgd_update", variants=("plain", "momentum", "nesterov"))
def _(_operation, _variant, arguments):
    import torch

    parameters, parameters.grad = _tensors(arguments, "parameters", "gradients")
    rate = arguments["learning_rate"]
    optimizer = torch.optim.SGD(
        [parameters],
        lr=rate,
        momentum=arguments["momentum"],
        nesterov=arguments["nesterov"],
        fused=True,
    )
    if arguments["velocity"] is not None:
        (velocity,) = _tensors(arguments, "velocity")
        optimizer.state[parameters] = {"momentum_buffer": -velocity / rate}
    return _torch_step(optimizer, parameters)


@peer("PyTorch", "adam_update")
def _(_operation, _variant, arguments):
    import torch

    parameters, parameters.grad = _tensors(arguments, "parameters", "gradients")
    optimizer = torch.optim.AdamW(
        [parameters],
        lr=arguments["learning_rate"],
        betas=(arguments["beta_1"], arguments["beta_2"]),
        eps=arguments["epsilon"],
        weight_decay=arguments["weight_decay"],
        fused=True,
    )
    first, second = _tensors(arguments, "first_moment", "second_moment")
    step = torch.tensor(float(arguments["step"] - 1))
    optimizer.state[parameters] = {"step": step, "exp_avg": first, "exp_avg_sq": second}
    return _torch_step(optimizer, parameters)


def _torch_step(optimizer, parameters):
    def run():
        optimizer.step()
        return {"parameters": parameters}

    return run


# ---------------------------------------------------------------------------- Keras (on TensorFlow)


def _keras_run(function, names, *arrays):
    import tensorflow

    function = tensorflow.function(function)
    tensors = [tensorflow.constant(array) for array in arrays]
    return lambda: dict(zip(names, function(*tensors), strict=True))


def _keras_activation(name, slope):
    import keras

    function = keras.activations.get(name)
    if name == "elu":
        return functools.partial(function, alpha=slope)
    if name == "leaky_relu":
        return functools.partial(function, negative_slope=slope)
    return function


@peer("Keras", "activation_forward")
def _(_operation, variant, arguments):
    function = _keras_activation(variant, arguments["slope"])
    return _keras_run(lambda x: (function(x),), ["outputs"], arguments["inputs"])


@peer("Keras", "dense_forward")
def _(_operation, variant, arguments):
    import keras

    activation = _keras_activation(variant, arguments["slope"])
    return _keras_run(
        lambda inputs, weights, bias: (activation(keras.ops.matmul(inputs, weights) + bias),),
        ["outputs"],
        *(arguments[name] for name in ("inputs", "weights", "bias")),
    )


@peer("Keras", *CROSSENTROPIES, *REGRESSION, variants=("logits", "plain"))
def _(operation, variant, arguments):
    import keras
    import tensorflow

    name = {"huber": "Huber"}.get(operation) or operation.title().replace("_", "")
    options = {"from_logits": True} if operation in CROSSENTROPIES else {}
    if operation == "huber":
        options = {"delta": arguments["delta"]}
    loss = getattr(keras.losses, name)(dtype=arguments["predictions"].dtype.name, **options)

    def function(targets, predictions):
        with tensorflow.GradientTape() as tape:
            tape.watch(predictions)
            value = loss(targets, predictions)
        return value, tape.gradient(value, predictions)

    return _keras_run(
        function, ["loss", "gradients"], arguments["targets"], arguments["predictions"]
    )


# ----------------------------------------------------------------------------------- scikit-learn


@peer("scikit-learn", "activation_forward", variants=("softmax",))
def _(_operation, _variant, arguments):
    from sklearn.utils.extmath import softmax

    inputs = arguments["inputs"]
    return lambda: {"outputs": softmax(inputs)}


@peer("scikit-learn", "quadratic_features")
def _(_operation, _variant, arguments):
    from sklearn.preprocessing import PolynomialFeatures

    inputs = arguments["inputs"]
    features = PolynomialFeatures(degree=2).fit(inputs)

    def run():
        features.transform(inputs)  # the same columns in another order
        return {}

    return run
