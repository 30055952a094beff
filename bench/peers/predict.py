"""What a trained network answers: one row, again and again, or many at once.

Inputs are in each library's own form before the clock starts, the answers are left in it; all use
the same weights. A library's function here takes a network and rows, and makes a function of no
arguments that gives the probabilities.
"""

import functools
from dataclasses import dataclass

import numpy as np

import fastdl
from fastdl import backends, datasets

from . import Job, training

ROWS = 10_000


@functools.cache
def digits_network():
    """784-128-128-128-10 after an epoch of MNIST: as many units are zero as in use."""
    network = fastdl.MLP(training.DIGITS, dropout=0.5, seed=0)
    X, y = training.mnist()
    with backends.use_backend("cython"):
        network.fit(X, y, verbose=0)
    return network


@functools.cache
def small_network():
    return fastdl.MLP([2, 4, 1], activation="tanh", seed=0)


@functools.cache
def validation_rows():
    _, (X, _), _ = datasets.load_mnist()
    return np.ascontiguousarray(X.reshape(len(X), -1))


def digit():
    return validation_rows()[:1].copy()


def dense_rows():
    X, _ = training.dense(ROWS, training.DIGITS[0], training.DIGITS[-1])
    return X


def point():
    return np.array([[0.5, -0.25]], np.float32)


def jobs():
    return [
        predict_job("one MNIST row", digits_network, digit),
        predict_job("one row of 2-4-1", small_network, point),
        predict_job(f"{ROWS:,} MNIST rows", digits_network, validation_rows),
        predict_job(f"{ROWS:,} dense rows", digits_network, dense_rows),
    ]


@dataclass(frozen=True)
class Answers(Job):
    """A job whose libraries are makers: what they make is timed, with no call around it."""

    def call(self, library):
        return self.libraries[library]()

    def result(self, library):
        return self.run(library)


def predict_job(name, network, rows):
    def prepare():
        network(), rows()

    return Answers(
        name,
        {
            library: functools.cache(lambda make=make: make(network(), rows()))
            for library, make in MAKERS.items()
        },
        size=1,
        check_size=1,
        agree=functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4),
        prepare=prepare,
    )


# --------------------------------------------------------------------------------------- libraries


def fastdl_predict(network, X, backend="cython"):
    out = np.empty((len(X), network.sizes[-1]), np.float32)
    backends.set_backend(backend)
    return functools.partial(network.predict, X, out=out)


def numpy_predict(network, X):
    """Whole-array operations into arrays that are there already."""
    layers = list(zip(network.weights[0::2], network.weights[1::2], strict=True))
    outputs = [np.empty((len(X), len(bias)), np.float32) for _, bias in layers]
    *hidden, last = activations(network)

    def run():
        fed = X
        for (weights, bias), out, activation in zip(
            layers, outputs, [*hidden, "linear"], strict=True
        ):
            np.matmul(fed, weights, out=out)
            out += bias
            if activation == "relu":
                np.maximum(out, 0, out=out)
            elif activation == "tanh":
                np.tanh(out, out=out)
            fed = out
        if last == "softmax":
            fed -= fed.max(axis=1, keepdims=True)
            np.exp(fed, out=fed)
            fed /= fed.sum(axis=1, keepdims=True)
        else:
            np.negative(fed, out=fed)
            np.exp(fed, out=fed)
            fed += 1
            np.reciprocal(fed, out=fed)
        return fed

    return run


def activations(network):
    return [activation.name for activation in network.activations]


def jax_predict(network, X):
    """The weights are constants of the compiled function."""
    import jax
    import jax.numpy as jnp

    functions = {
        "relu": jax.nn.relu,
        "tanh": jnp.tanh,
        "sigmoid": jax.nn.sigmoid,
        "softmax": jax.nn.softmax,
    }
    layers = [jnp.asarray(array) for array in network.weights]
    names = activations(network)

    @jax.jit
    def answer(X):
        for weights, bias, name in zip(layers[0::2], layers[1::2], names, strict=True):
            X = functions[name](X @ weights + bias)
        return X

    X = jnp.asarray(X)
    return lambda: answer(X).block_until_ready()


def torch_predict(network, X):
    import torch

    functions = {
        "relu": torch.nn.ReLU,
        "tanh": torch.nn.Tanh,
        "sigmoid": torch.nn.Sigmoid,
        "softmax": functools.partial(torch.nn.Softmax, dim=1),
    }
    layers = []
    for weights, bias, name in zip(
        network.weights[0::2], network.weights[1::2], activations(network), strict=True
    ):
        layer = torch.nn.Linear(*weights.shape)
        layer.weight.data = torch.from_numpy(weights.T.copy())
        layer.bias.data = torch.from_numpy(bias.copy())
        layers += [layer, functions[name]()]
    model = torch.nn.Sequential(*layers).eval()
    X = torch.from_numpy(X)

    def run():
        with torch.inference_mode():
            return model(X)

    return run


def onnx_model(network):
    """The network as ONNX has it: Gemm and activation, layer after layer."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    operators = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "softmax": "Softmax"}
    nodes, fed = [], "inputs"
    for layer, name in enumerate(activations(network)):
        nodes += [
            helper.make_node("Gemm", [fed, f"W{layer}", f"b{layer}"], [f"z{layer}"]),
            helper.make_node(operators[name], [f"z{layer}"], [f"a{layer}"]),
        ]
        fed = f"a{layer}"
    names = [f"{letter}{layer}" for layer in range(len(network.sizes) - 1) for letter in "Wb"]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, [None, network.sizes[0]])],
        [helper.make_tensor_value_info(fed, TensorProto.FLOAT, [None, network.sizes[-1]])],
        [
            numpy_helper.from_array(array, name)
            for name, array in zip(names, network.weights, strict=True)
        ],
    )
    # Versions that older runtimes read too.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def onnx_session(network):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = backends.available_threads()
    return onnxruntime.InferenceSession(
        onnx_model(network).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def onnx_predict(network, X):
    session = onnx_session(network)
    names, inputs = [session.get_outputs()[0].name], {"inputs": X}
    return lambda: session.run(names, inputs)[0]


def onnx_bound_predict(network, X):
    """Inputs and outputs bound once, so that a call allocates and converts nothing."""
    import onnxruntime

    session = onnx_session(network)
    binding = session.io_binding()
    out = np.empty((len(X), network.sizes[-1]), np.float32)
    bound = onnxruntime.OrtValue.ortvalue_from_numpy
    inputs, outputs = bound(X), bound(out)
    binding.bind_ortvalue_input("inputs", inputs)
    binding.bind_ortvalue_output(session.get_outputs()[0].name, outputs)

    def run():
        session.run_with_iobinding(binding)
        return outputs

    return run


def keras_model(network):
    import keras

    layers = [
        keras.layers.Dense(units, activation=name)
        for units, name in zip(network.sizes[1:], activations(network), strict=True)
    ]
    model = keras.Sequential([keras.layers.Input(network.sizes[:1]), *layers])
    model.set_weights(network.weights)
    return model


def keras_predict(network, X):
    model = keras_model(network)
    model.compile()
    return functools.partial(model.predict_on_batch, X)


def keras_call(network, X):
    import keras

    model, X = keras_model(network), keras.ops.convert_to_tensor(X)
    return functools.partial(model, X, training=False)


def sklearn_predict(network, X):
    """Fitted to nothing, then given the weights."""
    from sklearn.neural_network import MLPClassifier

    *hidden, _ = activations(network)
    classes = np.arange(max(2, network.sizes[-1]))
    model = MLPClassifier(network.sizes[1:-1], activation=hidden[0])
    nothing = np.zeros((len(classes), network.sizes[0]), np.float32)
    model.partial_fit(nothing, classes, classes=classes)
    model.coefs_, model.intercepts_ = (
        [array.copy() for array in network.weights[part::2]] for part in (0, 1)
    )

    def run():
        probabilities = model.predict_proba(X)
        return probabilities if network.sizes[-1] > 1 else probabilities[:, 1:]

    return run


MAKERS = {
    "fastdl": fastdl_predict,
    "fastdl (1 thread)": fastdl_predict,
    "fastdl (numba)": functools.partial(fastdl_predict, backend="numba"),
    "NumPy (tuned)": numpy_predict,
    "JAX": jax_predict,
    "PyTorch": torch_predict,
    "ONNX Runtime": onnx_predict,
    "ONNX Runtime (bound)": onnx_bound_predict,
    "Keras": keras_predict,
    "Keras (call)": keras_call,
    "scikit-learn": sklearn_predict,
}
