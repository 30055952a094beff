"""Functions on NumPy arrays, computed by the backend in use: what everything else is built from.

All of them share these conventions.

- Arguments that hold data are array_like. float32 and float64 are computed in their own precision;
  several arrays are promoted to their common dtype as NumPy does; integers and bools alone become
  float64. Any layout will do; what is not C-contiguous is copied first.
- Nothing that is passed in is changed, except by `sgd_update`, `rmsprop_update`, `adam_update` and
  `add_penalty`, which exist to change it.
- `out` receives the result: C-contiguous, writeable, of the result's shape and dtype, and apart in
  memory from the inputs. It is also what is returned.
- NaN and infinities in network inputs, weights and predictions give what the formula gives; in
  targets, labels, sample weights and scalars they are refused.
- Every argument is checked before anything is written. A wrong type or dtype raises TypeError, a
  wrong value, shape or layout ValueError, with a message that names the argument, its value and the
  rule.

Examples
--------
>>> from fastdl import ops
>>> print(ops.dense_forward([[1.0, 2.0]], [[0.5], [-1.0]], [1.75], activation="relu"))
[[0.25]]
"""

import inspect
import math

import numpy as np

from . import checks
from .backends import available_threads, current
from .reference import ACTIVATIONS, DESCENT_METHODS

__all__ = [
    "adam_update",
    "add_penalty",
    "binary_crossentropy",
    "categorical_crossentropy",
    "dense_backward",
    "dense_forward",
    "dropout",
    "elu",
    "elu_gradient",
    "exp",
    "expm1",
    "gelu",
    "gelu_gradient",
    "huber",
    "leaky_relu",
    "leaky_relu_gradient",
    "log",
    "log1p",
    "log_softmax",
    "log_softmax_gradient",
    "logistic_descent",
    "matmul",
    "mean_absolute_error",
    "mean_squared_error",
    "permutation",
    "planar_descent",
    "poisson",
    "quadratic_features",
    "relu",
    "relu_gradient",
    "rmsprop_update",
    "sgd_update",
    "sigmoid",
    "sigmoid_gradient",
    "silu",
    "silu_gradient",
    "softmax",
    "softmax_gradient",
    "softplus",
    "softplus_gradient",
    "sparse_categorical_crossentropy",
    "tanh",
    "tanh_gradient",
]

# The activations that have a parameter, and its default (Keras's).
_DEFAULT_SLOPES = {"leaky_relu": 0.2, "elu": 1.0}

# Their derivative cannot be had from the outputs alone: the backward pass reads their inputs.
_NEED_PREACTIVATIONS = ("silu", "gelu")

_INT64 = np.dtype(np.int64)
_LAST_INT64 = 2**63 - 1
_LAST_WORD = 2**32 - 1  # the random generator counts in words of 32 bits

# Products of a kernel's call by CPU level, and of kernels without one: a thread takes 25 to
# 75 ms, so that Ctrl-C is heard. As how many of them a tanh counts.
_PLANAR_WORK = {"v4": 1 << 28, "v3": 1 << 28, "baseline": 1 << 26}
_LEAST_PLANAR_WORK = 1 << 25
_TANH_WORK = 8


# --------------------------------------------------------------------------- shared documentation


def _document(family, **parameters):
    """Put a family's Parameters, Returns and Raises before the Examples of a docstring.

    `parameters` replaces the family's words on single parameters.
    """

    def complete(function):
        if function.__doc__ is None:  # python -OO
            return function
        words = family["parameters"] | parameters
        head, examples = inspect.cleandoc(function.__doc__).split("Examples\n", 1)
        function.__doc__ = "\n".join(
            [
                head + "Parameters\n----------",
                *(f"{name} : {words[name]}" for name in inspect.signature(function).parameters),
                f"\nReturns\n-------\n{family['returns']}",
                f"\nRaises\n------\n{family['raises']}",
                f"\nExamples\n{examples}",
            ]
        )
        return function

    return complete


_OUT_RAISES = """TypeError
    If an input holds anything but integers, bools, float32 or float64, or `out` has another
    dtype.
ValueError
    If `out` has another shape, is not C-contiguous, is read-only or overlaps an input"""

_FORWARD = {
    "parameters": {
        "inputs": "array_like, any shape",
        "negative_slope": "float, default 0.2\n    The slope below zero, >= 0.",
        "alpha": "float, default 1.0\n    Minus the limit at minus infinity, >= 0.",
        "out": "ndarray, optional\n    Where to write the result.",
    },
    "returns": "ndarray\n    Of the shape of `inputs`; `out` where given. A scalar for a scalar.",
    "raises": f"{_OUT_RAISES}.",
}
_GRADIENT = {
    "parameters": _FORWARD["parameters"]
    | {
        "inputs": "array_like, any shape\n    What the activation was applied to.",
        "grad_outputs": "array_like, shape of `inputs`\n    Gradient of the loss in its outputs.",
    },
    "returns": "ndarray, shape of `inputs`\n"
    "    Gradient of the loss in `inputs`; `out` where given. A scalar for scalars.",
    "raises": f"{_OUT_RAISES},\n    or the inputs differ in shape.",
}


# --------------------------------------------------------------------------- elementwise functions


@_document(_FORWARD)
def exp(inputs, *, out=None):
    """e**x of each element.

    Examples
    --------
    >>> from fastdl import ops
    >>> print(ops.exp([-1.0, 0.0, 1.0]).round(4))
    [0.3679 1.     2.7183]
    """
    return _elementwise("exp", inputs, out)


@_document(_FORWARD)
def log(inputs, *, out=None):
    """Natural logarithm of each element: -inf at 0, NaN below.

    Examples
    --------
    >>> from fastdl import ops
    >>> print(ops.log([0.0, 1.0, 10.0]).round(4))
    [  -inf 0.     2.3026]
    """
    return _elementwise("log", inputs, out)


@_document(_FORWARD)
def log1p(inputs, *, out=None):
    """ln(1 + x) of each element, accurate for small x too: -inf at -1, NaN below.

    Examples
    --------
    >>> from fastdl import ops
    >>> print(ops.log1p([-1.0, 0.0, 9.0]).round(4))
    [  -inf 0.     2.3026]
    """
    return _elementwise("log1p", inputs, out)


@_document(_FORWARD)
def expm1(inputs, *, out=None):
    """e**x - 1 of each element, accurate for small x too.

    Examples
    --------
    >>> from fastdl import ops
    >>> print(ops.expm1([-1.0, 0.0, 1.0]).round(4))
    [-0.6321  0.      1.7183]
    """
    return _elementwise("expm1", inputs, out)


# ------------------------------------------------------------------------------------ activations


@_document(_FORWARD)
def tanh(inputs, *, out=None):
    """Hyperbolic tangent of each element.

    Examples
    --------
    >>> from fastdl import ops
    >>> print(ops.tanh([-2.0, 0.0, 3.0]).round(4))
    [-0.964   0.      0.9951]
    """
    return _elementwise("tanh", inputs, out)


@_document(_GRADIENT)
def tanh_gradient(inputs, grad_outputs, *, out=None):
    """Gradient through `tanh`: grad_outputs * (1 - tanh(x)**2).

    Examples
    --------
    >>> from fastdl import ops
    >>> print(ops.tanh_gradient([-2.0, 0.0, 3.0], [1.0, 1.0, 0.5]).round(4))
    [0.0707 1.     0.0049]
    """
    return _activate_backward("tanh", inputs, grad_outputs, 0.0, out)


@_document(_FORWARD)
def sigmoid(inputs, *, out=None):
    """Logistic function 1 / (1 + e**-x) of each element; overflows nowhere.

    Examples
    --------
    >>> from fastdl import ops
    >>> print(ops.sigmoid([-2.0, 0.0, 3.0]).round(4))
    [0.1192 0.5    0.9526]
    """
    return _elementwise("sigmoid", inputs, out)


@_document(_GRADIENT)
def sigmoid_gradient(inputs, grad_outputs, *, out=None):
    """Gradient through `sigmoid`: grad_outputs * s * (1 - s), s = sigmoid(x).

    Examples
    --------
    >>> from fastdl import ops
    >>> print(ops.sigmoid_gradient([-2.0, 0.0, 3.0], [1.0, 1.0, 0.5]).round(4))
    [0.105  0.25   0.0226]
    """
    return _activate_backward("sigmoid", inputs, grad_outputs, 0.0, out)


@_document(_FORWARD)
def relu(inputs, *, out=None):
    """Rectified linear unit max(x, 0) of each element.

    Examples
    --------
    >>> from fastdl import ops
    >>> print(ops.relu([-2.0, 0.0, 3.0]))
    [0. 0. 3.]
    """
    return _activate("relu", inputs, 0.0, out)


@_document(_GRADIENT)
def relu_gradient(inputs, grad_outputs, *, out=None):
    """Gradient through `relu`: grad_outputs where x > 0, else 0.

    Examples
    --------
    >>> from fastdl import ops
    >>> print(ops.relu_gradient([-2.0, 0.0, 3.0], [1.0, 1.0, 0.5]))
    [0.  0.  0.5]
    """
    return _activate_backward("relu", inputs, grad_outputs, 0.0, out)


@_document(_FORWARD)
def leaky_relu(inputs, negative_slope=0.2, *, out=None):
    """x where x > 0, else negative_slope * x, of each element.

    From Maas, Hannun and Ng, "Rectifier nonlinearities improve neural network acoustic models",
    ICML 2013; the default is Keras's.

    Examples
    --------
    >>> from fastdl import ops
    >>> print(ops.leaky_relu([-2.0, 0.0, 3.0]))
    [-0.4  0.   3. ]
    """
    slope = checks.number("negative_slope", negative_slope, low=0)
    return _activate("leaky_relu", inputs, slope, out)


@_document(_GRADIENT)
def leaky_relu_gradient(inputs, grad_outputs, negative_slope=0.2, *, out=None):
    """Gradient through `leaky_relu`: grad_outputs where x > 0, else negative_slope * grad_outputs.

    Examples
    --------
    >>> from fastdl import ops
    >>> print(ops.leaky_relu_gradient([-2.0, 0.0, 3.0], [1.0, 1.0, 0.5]))
    [0.2 0.2 0.5]
    """
    slope = checks.number("negative_slope", negative_slope, low=0)
    return _activate_backward("leaky_relu", inputs, grad_outputs, slope, out)


@_document(_FORWARD)
def elu(inputs, alpha=1.0, *, out=None):
    """Exponential linear unit, x where x > 0, else alpha * (e**x - 1), of each element.

    From Clevert, Unterthiner and Hochreiter, "Fast and accurate deep network learning by
    exponential linear units (ELUs)", ICLR 2016.

    Examples
    --------
    >>> from fastdl import ops
    >>> print(ops.elu([-2.0, 0.0, 3.0]).round(4))
    [-0.8647  0.      3.    ]
    """
    slope = checks.number("alpha", alpha, low=0)
    return _activate("elu", inputs, slope, out)


@_document(_GRADIENT)
def elu_gradient(inputs, grad_outputs, alpha=1.0, *, out=None):
    """Gradient through `elu`: grad_outputs where x > 0, else grad_outputs * alpha * e**x.

    Examples
    --------
    >>> from fastdl import ops
    >>> print(ops.elu_gradient([-2.0, 0.0, 3.0], [1.0, 1.0, 0.5]).round(4))
    [0.1353 1.     0.5   ]
    """
    slope = checks.number("alpha", alpha, low=0)
    return _activate_backward("elu", inputs, grad_outputs, slope, out)


@_document(_FORWARD)
def softplus(inputs, *, out=None):
    """ln(1 + e**x) of each element; overflows nowhere.

    Examples
    --------
    >>> from fastdl import ops
    >>> print(ops.softplus([-2.0, 0.0, 3.0]).round(4))
    [0.1269 0.6931 3.0486]
    """
    return _activate("softplus", inputs, 0.0, out)


@_document(_GRADIENT)
def softplus_gradient(inputs, grad_outputs, *, out=None):
    """Gradient through `softplus`: grad_outputs * sigmoid(x).

    Examples
    --------
    >>> from fastdl import ops
    >>> print(ops.softplus_gradient([-2.0, 0.0, 3.0], [1.0, 1.0, 0.5]).round(4))
    [0.1192 0.5    0.4763]
    """
    return _activate_backward("softplus", inputs, grad_outputs, 0.0, out)


@_document(_FORWARD)
def silu(inputs, *, out=None):
    """x * sigmoid(x) of each element, also called swish.

    From Elfwing, Uchibe and Doya, "Sigmoid-weighted linear units for neural network function
    approximation in reinforcement learning", Neural Networks 107, 2018.

    Examples
    --------
    >>> from fastdl import ops
    >>> print(ops.silu([-2.0, 0.0, 3.0]).round(4))
    [-0.2384  0.      2.8577]
    """
    return _activate("silu", inputs, 0.0, out)


@_document(_GRADIENT)
def silu_gradient(inputs, grad_outputs, *, out=None):
    """Gradient through `silu`: grad_outputs * s * (1 + x * (1 - s)), s = sigmoid(x).

    Examples
    --------
    >>> from fastdl import ops
    >>> print(ops.silu_gradient([-2.0, 0.0, 3.0], [1.0, 1.0, 0.5]).round(4))
    [-0.0908  0.5     0.5441]
    """
    return _activate_backward("silu", inputs, grad_outputs, 0.0, out)


@_document(_FORWARD)
def gelu(inputs, *, out=None):
    """x * Phi(x) of each element, Phi the standard normal distribution function, not approximated.

    From Hendrycks and Gimpel, "Gaussian error linear units (GELUs)", arXiv:1606.08415.

    Examples
    --------
    >>> from fastdl import ops
    >>> print(ops.gelu([-2.0, 0.0, 3.0]).round(4))
    [-0.0455  0.      2.996 ]
    """
    return _activate("gelu", inputs, 0.0, out)


@_document(_GRADIENT)
def gelu_gradient(inputs, grad_outputs, *, out=None):
    """Gradient through `gelu`: grad_outputs * (Phi(x) + x * phi(x)), phi the density of Phi.

    Examples
    --------
    >>> from fastdl import ops
    >>> print(ops.gelu_gradient([-2.0, 0.0, 3.0], [1.0, 1.0, 0.5]).round(4))
    [-0.0852  0.5     0.506 ]
    """
    return _activate_backward("gelu", inputs, grad_outputs, 0.0, out)


@_document(_FORWARD, inputs="array_like, shape (..., n)")
def softmax(inputs, *, out=None):
    """e**x divided by its sum over the last axis; overflows nowhere.

    Examples
    --------
    >>> from fastdl import ops
    >>> print(ops.softmax([-2.0, 0.0, 3.0]).round(4))
    [0.0064 0.0471 0.9465]
    """
    return _activate("softmax", inputs, 0.0, out)


@_document(_GRADIENT, inputs="array_like, shape (..., n)\n    What `softmax` was applied to.")
def softmax_gradient(inputs, grad_outputs, *, out=None):
    """Gradient through `softmax`: p * (grad_outputs - sum(grad_outputs * p)), p = softmax(x).

    Examples
    --------
    >>> from fastdl import ops
    >>> print(ops.softmax_gradient([-2.0, 0.0, 3.0], [1.0, 1.0, 0.5]).round(4))
    [ 0.003   0.0223 -0.0253]
    """
    return _activate_backward("softmax", inputs, grad_outputs, 0.0, out)


@_document(_FORWARD, inputs="array_like, shape (..., n)")
def log_softmax(inputs, *, out=None):
    """x - ln(sum(e**x)) over the last axis: the logarithm of `softmax`, finite where that is 0.

    Examples
    --------
    >>> from fastdl import ops
    >>> print(ops.log_softmax([-2.0, 0.0, 3.0]).round(4))
    [-5.055 -3.055 -0.055]
    """
    return _activate("log_softmax", inputs, 0.0, out)


@_document(_GRADIENT, inputs="array_like, shape (..., n)\n    What `log_softmax` was applied to.")
def log_softmax_gradient(inputs, grad_outputs, *, out=None):
    """Gradient through `log_softmax`: grad_outputs - softmax(x) * sum(grad_outputs).

    Examples
    --------
    >>> from fastdl import ops
    >>> print(ops.log_softmax_gradient([-2.0, 0.0, 3.0], [1.0, 1.0, 0.5]).round(4))
    [ 0.9841  0.8822 -1.8662]
    """
    return _activate_backward("log_softmax", inputs, grad_outputs, 0.0, out)


def _elementwise(kernel, inputs, out):
    array = checks.as_array("inputs", inputs)
    outputs = checks.output(
        "out", out, shape=array.shape, dtype=array.dtype, inputs={"inputs": inputs}
    )
    # Flat, so that just-in-time kernels are compiled once and not for each number of dimensions.
    getattr(current(), kernel)(array.reshape(-1), outputs.reshape(-1))
    return _scalar_for_scalar(outputs, out)


def _activate(activation, inputs, slope, out):
    array = checks.as_array("inputs", inputs)
    shape = _rows_of_last_axis(activation, array)
    outputs = checks.output(
        "out", out, shape=array.shape, dtype=array.dtype, inputs={"inputs": inputs}
    )
    current().activation_forward(
        array.reshape(shape), ACTIVATIONS.index(activation), slope, outputs.reshape(shape)
    )
    return _scalar_for_scalar(outputs, out)


def _activate_backward(activation, inputs, grad_outputs, slope, out):
    array, gradients = checks.as_arrays(inputs=inputs, grad_outputs=grad_outputs)
    shape = _rows_of_last_axis(activation, array)
    checks.matches("grad_outputs", gradients, array.shape, "inputs", array.shape)
    grad_inputs = checks.output(
        "out",
        out,
        shape=array.shape,
        dtype=array.dtype,
        inputs={"inputs": inputs, "grad_outputs": grad_outputs},
    )
    kernels, code = current(), ACTIVATIONS.index(activation)
    array, outputs = array.reshape(shape), np.empty(shape, array.dtype)
    kernels.activation_forward(array, code, slope, outputs)
    kernels.activation_backward(
        array, outputs, gradients.reshape(shape), code, slope, grad_inputs.reshape(shape)
    )
    return _scalar_for_scalar(grad_inputs, out)


def _rows_of_last_axis(activation, array):
    """The shape (B, O) in which the kernels see an array of any shape."""
    if activation in ("softmax", "log_softmax"):
        checks.dimensions("inputs", array, 1, or_more=True)
    return math.prod(array.shape[:-1]), math.prod(array.shape[-1:])


def _scalar_for_scalar(outputs, out):
    """A result without dimensions becomes a scalar, as NumPy's functions make it."""
    return outputs[()] if out is None and outputs.ndim == 0 else outputs


# ------------------------------------------------------------------------------- the dense layer


def matmul(left, right, *, transpose_left=False, transpose_right=False, out=None):
    """Matrix product left @ right, either factor transposed first where its flag is set.

    Parameters
    ----------
    left : array_like, shape (M, K), or (K, M) to be transposed
    right : array_like, shape (K, N), or (N, K) to be transposed
    transpose_left, transpose_right : bool, default False
        A transposed factor is read in place: pass `a` and the flag, not `a.T`, which is copied.
    out : ndarray, shape (M, N), optional
        Where to write the result.

    Returns
    -------
    ndarray, shape (M, N)

    Raises
    ------
    TypeError
        If an input holds anything but integers, bools, float32 or float64, or `out` has another
        dtype.
    ValueError
        If an input is not 2-D, the inner dimensions differ, or `out` does not fit.

    Examples
    --------
    >>> from fastdl import ops
    >>> print(ops.matmul([[1.0, 2.0]], [[3.0, 4.0]], transpose_right=True))
    [[11.]]
    """
    a, b = checks.as_arrays(left=left, right=right)
    checks.dimensions("left", a, 2)
    checks.dimensions("right", b, 2)
    transpose_left = checks.boolean("transpose_left", transpose_left)
    transpose_right = checks.boolean("transpose_right", transpose_right)
    rows, inner = a.shape[::-1] if transpose_left else a.shape
    columns = b.shape[0] if transpose_right else b.shape[1]
    expected = (columns, inner) if transpose_right else (inner, columns)
    checks.matches("right", b, expected, "left", a.shape)
    outputs = checks.output(
        "out",
        out,
        shape=(rows, columns),
        dtype=a.dtype,
        inputs={"left": left, "right": right},
    )
    current().matmul(a, b, transpose_left, transpose_right, outputs)
    return outputs


def dense_forward(
    inputs, weights, bias, activation="linear", *, slope=None, preactivations=None, out=None
):
    """Output of a dense layer: activation(inputs @ weights + bias).

    Parameters
    ----------
    inputs : array_like, shape (B, I)
    weights : array_like, shape (I, O)
    bias : array_like, shape (O,)
    activation : str, default "linear"
        One of `fastdl.reference.ACTIVATIONS`; softmax and log_softmax act on rows.
    slope : float, optional
        The slope of leaky_relu below zero (0.2 where not given) or the alpha of elu (1.0), >= 0.
    preactivations : ndarray, shape (B, O), optional
        Receives inputs @ weights + bias, which `dense_backward` needs for silu and gelu. For the
        other activations it may be `out`.
    out : ndarray, shape (B, O), optional
        Where to write the result.

    Returns
    -------
    ndarray, shape (B, O)

    Raises
    ------
    TypeError
        If an input holds anything but integers, bools, float32 or float64, or an array to write to
        has another dtype.
    ValueError
        If shapes disagree, the activation is unknown, `slope` is negative or the activation has
        none, or an array to write to does not fit.

    Examples
    --------
    >>> from fastdl import ops
    >>> weights = [[1.0, -1.0], [0.5, 2.0]]
    >>> print(ops.dense_forward([[1.0, 2.0], [3.0, 0.0]], weights, [0.0, 1.0], "relu"))
    [[2. 4.]
     [3. 0.]]
    """
    checks.choice("activation", activation, ACTIVATIONS)
    slope = _slope(activation, slope)
    given = {"inputs": inputs, "weights": weights, "bias": bias}
    x, w, b = checks.as_arrays(**given)
    shape = _dense_shape(x, w)
    checks.matches("bias", b, shape[1:], "weights", w.shape)
    outputs = checks.output("out", out, shape=shape, dtype=x.dtype, inputs=given)
    separate = activation in _NEED_PREACTIVATIONS
    if preactivations is None:
        preactivations = np.empty_like(outputs) if separate else outputs
    else:
        checks.writable("preactivations", preactivations, shape=shape, dtype=x.dtype)
        if separate or preactivations is not outputs:
            given["out"] = out
        checks.apart("preactivations", preactivations, given)
    current().dense_forward(x, w, b, ACTIVATIONS.index(activation), slope, preactivations, outputs)
    return outputs


def dense_backward(
    inputs,
    weights,
    preactivations,
    outputs,
    grad_outputs,
    activation="linear",
    *,
    slope=None,
    out=None,
):
    """Gradients of a loss in a dense layer's inputs, weights and bias, from that in its outputs.

    Parameters
    ----------
    inputs : array_like, shape (B, I)
    weights : array_like, shape (I, O)
    preactivations : array_like, shape (B, O), or None
        inputs @ weights + bias, as `dense_forward` wrote it. None will do but for silu and gelu.
    outputs : array_like, shape (B, O)
        What `dense_forward` returned.
    grad_outputs : array_like, shape (B, O)
        Gradient of the loss in `outputs`.
    activation : str, default "linear"
    slope : float, optional
        Both as in `dense_forward`.
    out : tuple of three ndarrays, optional
        Where to write the results; None in the place of one of them gives a new array.

    Returns
    -------
    grad_inputs : ndarray, shape (B, I)
    grad_weights : ndarray, shape (I, O)
    grad_bias : ndarray, shape (O,)

    Raises
    ------
    TypeError
        If an input holds anything but integers, bools, float32 or float64, an array to write to has
        another dtype, or `out` is no tuple of three.
    ValueError
        If shapes disagree, the activation is unknown or lacks its `preactivations`, `slope` is
        negative or the activation has none, or an array to write to does not fit.

    Examples
    --------
    >>> from fastdl import ops
    >>> inputs, weights = [[1.0, 2.0]], [[1.0, -1.0], [0.5, 2.0]]
    >>> outputs = ops.dense_forward(inputs, weights, [0.0, -4.0], "relu")
    >>> for gradient in ops.dense_backward(inputs, weights, None, outputs, [[1.0, 1.0]], "relu"):
    ...     print(gradient)
    [[1.  0.5]]
    [[1. 0.]
     [2. 0.]]
    [1. 0.]
    """
    checks.choice("activation", activation, ACTIVATIONS)
    slope = _slope(activation, slope)
    given = {
        "inputs": inputs,
        "weights": weights,
        "outputs": outputs,
        "grad_outputs": grad_outputs,
    }
    if preactivations is not None:
        given["preactivations"] = preactivations
    elif activation in _NEED_PREACTIVATIONS:
        raise ValueError(f"preactivations: None will not do for the activation {activation!r}")
    x, w, y, grad_y, *rest = checks.as_arrays(**given)
    z = rest[0] if rest else y
    shape = _dense_shape(x, w)
    for name, array in (("outputs", y), ("grad_outputs", grad_y), ("preactivations", z)):
        checks.matches(name, array, shape, "inputs @ weights", shape)
    if out is None:
        out = (None, None, None)
    elif not isinstance(out, tuple) or len(out) != 3:
        raise TypeError(f"out: {type(out).__name__} is not a tuple of three arrays")
    results = []
    for i, (target, like) in enumerate(zip(out, (x.shape, w.shape, shape[1:]), strict=True)):
        name = f"out[{i}]"
        results.append(checks.output(name, target, shape=like, dtype=x.dtype, inputs=given))
        given[name] = target
    current().dense_backward(
        x, w, z, y, grad_y, ACTIVATIONS.index(activation), slope, np.empty_like(y), *results
    )
    return tuple(results)


def _slope(activation, slope):
    """The number that the kernels take as the activation's slope."""
    default = _DEFAULT_SLOPES.get(activation)
    if slope is None:
        return default or 0.0
    if default is None:
        raise ValueError(f"slope: {slope} has no meaning for the activation {activation!r}")
    return checks.number("slope", slope, low=0)


def _dense_shape(inputs, weights):
    """The shape (B, O) of a dense layer's outputs."""
    checks.dimensions("inputs", inputs, 2)
    checks.dimensions("weights", weights, 2)
    shape = inputs.shape[0], weights.shape[1]
    checks.matches("weights", weights, (inputs.shape[1], shape[1]), "inputs", inputs.shape)
    return shape


# ------------------------------------------------------------------------------------------ losses

_LOSS = {
    "parameters": {
        "targets": "array_like, shape of `predictions`",
        "predictions": "array_like, shape (B, ...), not empty\n"
        "    The computation is done in its dtype.",
        "from_logits": "bool, default False\n    Whether `predictions` are logits.",
        "label_smoothing": "float in [0, 1], default 0.0\n"
        "    How far the targets are moved towards equal probabilities (Szegedy et al.,\n"
        '    "Rethinking the inception architecture for computer vision", CVPR 2016).',
        "delta": "float > 0, default 1.0\n    The error from which on the loss is linear.",
        "sample_weight": "array_like, shape (B,), optional\n"
        "    The weight w of each sample in the loss, sum(w * loss) / B.",
        "out": "ndarray, shape of `predictions`, optional\n    Where to write the gradients.",
    },
    "returns": """loss : float
    The mean over the samples.
gradients : ndarray, shape and dtype of `predictions`
    Gradient of `loss` in `predictions`; `out` where given.""",
    "raises": """TypeError
    If an input holds anything but integers, bools, float32 or float64, or `out` has another
    dtype.
ValueError
    If there is no data, shapes disagree, targets or weights are not finite or out of range, or
    `out` does not fit.""",
}
_PROBABILITIES = "array_like, shape of `predictions`\n    Numbers in [0, 1]."
_COUNTS = "array_like, shape of `predictions`\n    Numbers >= 0."
_LABELS = "array_like of integers, shape (B,)\n    The class of each sample, in [0, classes)."
_CLASS_SCORES = (
    "array_like, shape (B, classes), not empty\n    The computation is done in its dtype."
)


@_document(_LOSS, targets=_PROBABILITIES)
def binary_crossentropy(
    targets, predictions, *, from_logits=False, label_smoothing=0.0, sample_weight=None, out=None
):
    """Mean of -t*ln(p) - (1-t)*ln(1-p) over the outputs of each sample, and its gradient.

    From logits it is finite everywhere; probabilities are first clipped to [1e-7, 1 - 1e-7].

    Examples
    --------
    >>> from fastdl import ops
    >>> loss, gradients = ops.binary_crossentropy([1, 0], [0.0, 2.0], from_logits=True)
    >>> print(f"{loss:.4f}", gradients.round(4))
    1.4100 [-0.25    0.4404]
    """
    options = _crossentropy_options(from_logits, label_smoothing)
    return _loss(
        "binary_crossentropy", _probabilities, targets, predictions, options, sample_weight, out
    )


@_document(_LOSS, targets=_PROBABILITIES, predictions=_CLASS_SCORES)
def categorical_crossentropy(
    targets, predictions, *, from_logits=False, label_smoothing=0.0, sample_weight=None, out=None
):
    """-sum(t * ln(p)) over the classes of each sample, and its gradient, for one-hot targets.

    Logits go through softmax first; probabilities are divided by their sum and clipped to
    [1e-7, 1 - 1e-7], as Keras does.

    Examples
    --------
    >>> from fastdl import ops
    >>> loss, gradients = ops.categorical_crossentropy([[0, 1]], [[0.0, 2.0]], from_logits=True)
    >>> print(f"{loss:.4f}", gradients.round(4))
    0.1269 [[ 0.1192 -0.1192]]
    """
    options = _crossentropy_options(from_logits, label_smoothing)
    return _loss(
        "categorical_crossentropy", _one_hot, targets, predictions, options, sample_weight, out
    )


@_document(_LOSS, targets=_LABELS, predictions=_CLASS_SCORES)
def sparse_categorical_crossentropy(
    targets, predictions, *, from_logits=False, label_smoothing=0.0, sample_weight=None, out=None
):
    """-ln(p[target]) of each sample, and its gradient: `categorical_crossentropy` for labels.

    Examples
    --------
    >>> from fastdl import ops
    >>> loss, gradients = ops.sparse_categorical_crossentropy([1], [[0.0, 2.0]], from_logits=True)
    >>> print(f"{loss:.4f}", gradients.round(4))
    0.1269 [[ 0.1192 -0.1192]]
    """
    options = _crossentropy_options(from_logits, label_smoothing)
    return _loss(
        "sparse_categorical_crossentropy",
        _labels,
        targets,
        predictions,
        options,
        sample_weight,
        out,
    )


@_document(_LOSS)
def mean_squared_error(targets, predictions, *, sample_weight=None, out=None):
    """Mean of (p - t)**2 over the outputs of each sample, and its gradient.

    Examples
    --------
    >>> from fastdl import ops
    >>> loss, gradients = ops.mean_squared_error([[1.0, 2.0]], [[1.5, 4.0]])
    >>> print(loss, gradients)
    2.125 [[0.5 2. ]]
    """
    return _loss("mean_squared_error", _numbers, targets, predictions, (), sample_weight, out)


@_document(_LOSS)
def mean_absolute_error(targets, predictions, *, sample_weight=None, out=None):
    """Mean of |p - t| over the outputs of each sample, and its gradient, 0 where p = t.

    Examples
    --------
    >>> from fastdl import ops
    >>> loss, gradients = ops.mean_absolute_error([[1.0, 2.0]], [[1.5, 1.0]])
    >>> print(loss, gradients)
    0.75 [[ 0.5 -0.5]]
    """
    return _loss("mean_absolute_error", _numbers, targets, predictions, (), sample_weight, out)


@_document(_LOSS)
def huber(targets, predictions, *, delta=1.0, sample_weight=None, out=None):
    """Mean of e**2 / 2 where |e| <= delta, else delta*|e| - delta**2 / 2, e = p - t; its gradient.

    From Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics 35,
    1964.

    Examples
    --------
    >>> from fastdl import ops
    >>> loss, gradients = ops.huber([[1.0, 2.0]], [[1.5, 4.0]])
    >>> print(loss, gradients)
    0.8125 [[0.25 0.5 ]]
    """
    options = (checks.number("delta", delta, low=0, low_open=True),)
    return _loss("huber", _numbers, targets, predictions, options, sample_weight, out)


@_document(_LOSS, targets=_COUNTS)
def poisson(targets, predictions, *, sample_weight=None, out=None):
    """Mean of e**p - t - t*(p - ln t) over the outputs of each sample, and its gradient.

    Half the Poisson deviance of counts t >= 0, the predictions p being the logarithms of what is
    expected: McCullagh and Nelder, "Generalized Linear Models", 1989, section 2.3.

    Examples
    --------
    >>> from fastdl import ops
    >>> loss, gradients = ops.poisson([[1.0, 0.0]], [[0.0, 0.0]])
    >>> print(loss, gradients)
    0.5 [[0.  0.5]]
    """
    return _loss("poisson", _counts, targets, predictions, (), sample_weight, out)


def _crossentropy_options(from_logits, label_smoothing):
    return (
        checks.boolean("from_logits", from_logits),
        checks.number("label_smoothing", label_smoothing, low=0, high=1),
    )


def _loss(kernel, as_targets, targets, predictions, options, sample_weight, out):
    """The loss and its gradient; everything is converted to the predictions' dtype, as in Keras."""
    scores = checks.as_array("predictions", predictions)
    checks.dimensions("predictions", scores, 1, or_more=True)
    checks.nonempty("predictions", scores)
    truth = as_targets(targets, scores)
    given = {"targets": targets, "predictions": predictions, "sample_weight": sample_weight}
    if sample_weight is not None:
        sample_weight = checks.as_array("sample_weight", sample_weight, dtype=scores.dtype)
        expected = scores.shape[:1]
        checks.matches("sample_weight", sample_weight, expected, "predictions", scores.shape)
        checks.finite("sample_weight", sample_weight)
    gradients = checks.output("out", out, shape=scores.shape, dtype=scores.dtype, inputs=given)
    rows = (len(scores), -1)
    loss = getattr(current(), kernel)(
        truth, scores.reshape(rows), sample_weight, *options, gradients.reshape(rows)
    )
    return loss, gradients


def _numbers(targets, scores, **limits):
    truth = checks.as_array("targets", targets, dtype=scores.dtype)
    checks.matches("targets", truth, scores.shape, "predictions", scores.shape)
    return checks.finite("targets", truth, **limits).reshape(len(truth), -1)


def _counts(targets, scores):
    return _numbers(targets, scores, low=0)


def _probabilities(targets, scores):
    return _numbers(targets, scores, low=0, high=1)


def _one_hot(targets, scores):
    checks.dimensions("predictions", scores, 2)
    return _probabilities(targets, scores)


def _labels(targets, scores):
    checks.dimensions("predictions", scores, 2)
    labels = checks.as_labels("targets", targets, classes=scores.shape[1])
    return checks.matches("targets", labels, scores.shape[:1], "predictions", scores.shape)


# ----------------------------------------------------------------------------- random numbers


def dropout(inputs, rate, *, seed, step=0, layer=0, out=None):
    """Set a random part `rate` of the elements to 0 and divide the others by 1 - rate.

    From Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, "Dropout: a simple way to
    prevent neural networks from overfitting", JMLR 15, 2014, in the inverted form, which leaves the
    expectation as it is. What is dropped depends on the seed, the step, the layer and the position
    alone: the same call on the gradient is the backward pass. `rate` is kept to 2**-17.

    Parameters
    ----------
    inputs : array_like, shape (B, ...)
    rate : float in [0, 1]
    seed : int in [0, 2**64)
    step : int in [0, 2**32), default 0
        The number of the training step.
    layer : int in [0, 2**32 - 1), default 0
        The number of the layer.
    out : ndarray, shape of `inputs`, optional
        Where to write the result.

    Returns
    -------
    ndarray, shape of `inputs`

    Raises
    ------
    TypeError
        If `inputs` holds anything but integers, bools, float32 or float64, `out` has another dtype,
        or a number is of the wrong type.
    ValueError
        If a number is out of range, `inputs` is a scalar, or `out` does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import ops
    >>> dropped = ops.dropout(np.ones((1000, 100)), 0.2, seed=0)
    >>> print(np.unique(dropped), f"{(dropped == 0).mean():.2f}")
    [0.   1.25] 0.20
    """
    array = checks.as_array("inputs", inputs)
    checks.dimensions("inputs", array, 1, or_more=True)
    rate = checks.number("rate", rate, low=0, high=1)
    seed = checks.seed("seed", seed)
    step = checks.integer("step", step, low=0, high=_LAST_WORD)
    layer = checks.integer("layer", layer, low=0, high=_LAST_WORD - 1)  # the last one shuffles
    outputs = checks.output(
        "out", out, shape=array.shape, dtype=array.dtype, inputs={"inputs": inputs}
    )
    rows = (array.shape[0], math.prod(array.shape[1:]))
    current().dropout(array.reshape(rows), rate, seed, step, layer, outputs.reshape(rows))
    return outputs


def permutation(n, *, seed, epoch=0, out=None):
    """The numbers 0 to n - 1 in a random order that depends on the seed and the epoch alone.

    Fisher and Yates' shuffle on the generator of Salmon, Moraes, Dror and Shaw, "Parallel random
    numbers: as easy as 1, 2, 3", SC 2011.

    Parameters
    ----------
    n : int in [0, 2**32)
    seed : int in [0, 2**64)
    epoch : int in [0, 2**32), default 0
    out : ndarray of int64, shape (n,), optional
        Where to write the result.

    Returns
    -------
    ndarray of int64, shape (n,)

    Raises
    ------
    TypeError
        If a number is no integer, or `out` has another dtype.
    ValueError
        If a number is out of range, or `out` does not fit.

    Examples
    --------
    >>> from fastdl import ops
    >>> print(sorted(ops.permutation(5, seed=0).tolist()))
    [0, 1, 2, 3, 4]
    """
    n = checks.integer("n", n, low=0, high=_LAST_WORD)
    seed = checks.seed("seed", seed)
    epoch = checks.integer("epoch", epoch, low=0, high=_LAST_WORD)
    outputs = checks.output("out", out, shape=(n,), dtype=_INT64, inputs={})
    current().permutation(seed, epoch, outputs)
    return outputs


# ---------------------------------------------------------------------------- optimizer updates

_STATE = "ndarray, shape and dtype of `parameters`\n    Updated too; zeros before the first step."
_UPDATE = {
    "parameters": {
        "parameters": "ndarray of float32 or float64, any shape\n"
        "    Updated in place: C-contiguous and writeable.",
        "gradients": "array_like, shape and dtype of `parameters`",
        "velocity": f"{_STATE}\n    May be None where `momentum` is 0.",
        "mean_square": _STATE,
        "first_moment": _STATE,
        "second_moment": _STATE,
        "step": "int >= 1\n    The number of this step, the first one 1.",
        "learning_rate": "float >= 0, default 0.001",
        "momentum": "float in [0, 1], default 0.0",
        "nesterov": "bool, default False",
        "rho": "float in [0, 1], default 0.9",
        "beta_1": "float in [0, 1), default 0.9",
        "beta_2": "float in [0, 1), default 0.999",
        "epsilon": "float >= 0, default 1e-7",
        "weight_decay": "float >= 0, default 0.0\n"
        "    First the parameters shrink by the factor 1 - learning_rate * weight_decay\n"
        '    (Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019).',
    },
    "returns": "None",
    "raises": """TypeError
    If an array to update is no ndarray of float32 or float64, the dtypes differ, or a number is of
    the wrong type.
ValueError
    If shapes differ, an array to update is not C-contiguous, is read-only or overlaps another, or a
    number is out of range.""",
}


@_document(_UPDATE, learning_rate="float >= 0, default 0.01")
def sgd_update(
    parameters,
    gradients,
    velocity=None,
    *,
    learning_rate=0.01,
    momentum=0.0,
    nesterov=False,
    weight_decay=0.0,
):
    """Stochastic gradient descent, in place, with Keras's formulas.

    v = momentum*v - learning_rate*g, then w += v, or with Nesterov's momentum
    w += momentum*v - learning_rate*g (Sutskever, Martens, Dahl and Hinton, "On the importance of
    initialization and momentum in deep learning", ICML 2013).

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import ops
    >>> parameters, velocity = np.array([1.0, 2.0]), np.zeros(2)
    >>> ops.sgd_update(parameters, [1.0, -1.0], velocity, learning_rate=0.5, momentum=0.9)
    >>> print(parameters, velocity)
    [0.5 2.5] [-0.5  0.5]
    """
    options = (
        checks.number("learning_rate", learning_rate, low=0),
        checks.number("momentum", momentum, low=0, high=1),
        checks.boolean("nesterov", nesterov),
        checks.number("weight_decay", weight_decay, low=0),
    )
    if velocity is not None:
        _update("sgd_update", parameters, gradients, {"velocity": velocity}, options)
    elif momentum == 0:
        _update("sgd_update", parameters, gradients, {}, (None, *options))
    else:
        raise ValueError(f"velocity: None will not do with a momentum of {momentum}")


@_document(_UPDATE)
def rmsprop_update(
    parameters,
    gradients,
    mean_square,
    *,
    learning_rate=0.001,
    rho=0.9,
    epsilon=1e-7,
    weight_decay=0.0,
):
    """RMSprop, in place: s = rho*s + (1-rho)*g**2; w -= learning_rate * g / sqrt(s + epsilon).

    From Tieleman and Hinton, "Lecture 6.5: RMSProp", Coursera, 2012, with epsilon inside the root,
    as in Keras.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import ops
    >>> parameters, mean_square = np.array([1.0, 2.0]), np.zeros(2)
    >>> ops.rmsprop_update(parameters, [1.0, -2.0], mean_square, learning_rate=0.1)
    >>> print(parameters.round(4), mean_square.round(4))
    [0.6838 2.3162] [0.1 0.4]
    """
    options = (
        checks.number("learning_rate", learning_rate, low=0),
        checks.number("rho", rho, low=0, high=1),
        checks.number("epsilon", epsilon, low=0),
        checks.number("weight_decay", weight_decay, low=0),
    )
    _update("rmsprop_update", parameters, gradients, {"mean_square": mean_square}, options)


@_document(_UPDATE)
def adam_update(
    parameters,
    gradients,
    first_moment,
    second_moment,
    *,
    step,
    learning_rate=0.001,
    beta_1=0.9,
    beta_2=0.999,
    epsilon=1e-7,
    weight_decay=0.0,
):
    """Adam, in place; with `weight_decay` AdamW.

    m = beta_1*m + (1-beta_1)*g; v = beta_2*v + (1-beta_2)*g**2; w -= a * m / (sqrt(v) + epsilon),
    a = learning_rate * sqrt(1-beta_2**step) / (1-beta_1**step): Kingma and Ba, "Adam: a method for
    stochastic optimization", ICLR 2015, in the form of the end of its section 2, as in Keras.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import ops
    >>> parameters, first, second = np.array([1.0, 2.0]), np.zeros(2), np.zeros(2)
    >>> ops.adam_update(parameters, [1.0, -2.0], first, second, step=1, learning_rate=0.1)
    >>> print(parameters.round(4), first.round(4), second.round(4))
    [0.9 2.1] [ 0.1 -0.2] [0.001 0.004]
    """
    options = (
        checks.number("learning_rate", learning_rate, low=0),
        checks.number("beta_1", beta_1, low=0, high=1, high_open=True),
        checks.number("beta_2", beta_2, low=0, high=1, high_open=True),
        checks.number("epsilon", epsilon, low=0),
        checks.integer("step", step, low=1, high=_LAST_INT64),
        checks.number("weight_decay", weight_decay, low=0),
    )
    state = {"first_moment": first_moment, "second_moment": second_moment}
    _update("adam_update", parameters, gradients, state, options)


def add_penalty(parameters, gradients, *, l1=0.0, l2=0.0):
    """Return l1 * sum(abs(w)) + l2 * sum(w**2) and add its gradient to `gradients`, in place.

    Parameters
    ----------
    parameters : array_like, any shape
    gradients : ndarray of float32 or float64, shape and dtype of `parameters`
        Updated in place: C-contiguous and writeable.
    l1, l2 : float >= 0, default 0.0

    Returns
    -------
    float

    Raises
    ------
    TypeError
        If `gradients` is no ndarray of float32 or float64, the dtypes differ, or a number is of the
        wrong type.
    ValueError
        If shapes differ, `gradients` is not C-contiguous, is read-only or overlaps `parameters`, or
        a number is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import ops
    >>> gradients = np.zeros(3)
    >>> print(ops.add_penalty([1.0, -2.0, 0.0], gradients, l1=0.5, l2=0.25), gradients)
    2.75 [ 1.  -1.5  0. ]
    """
    l1 = checks.number("l1", l1, low=0)
    l2 = checks.number("l2", l2, low=0)
    checks.writable("gradients", gradients)
    array = checks.as_like("parameters", parameters, "gradients", gradients)
    checks.apart("gradients", gradients, {"parameters": parameters})
    return current().add_penalty(array.reshape(-1), l1, l2, gradients.reshape(-1))


def _update(kernel, parameters, gradients, state, options):
    checks.writable("parameters", parameters)
    array = checks.as_like("gradients", gradients, "parameters", parameters)
    given = {"gradients": gradients}
    checks.apart("parameters", parameters, given)
    given["parameters"] = parameters
    for name, value in state.items():
        checks.writable(name, value, shape=parameters.shape, dtype=parameters.dtype)
        given[name] = checks.apart(name, value, given)
    flat = [array.reshape(-1) for array in (parameters, array, *state.values())]
    getattr(current(), kernel)(*flat, *options)  # flat as in `_elementwise`


# ------------------------------------------------------------------------------------- features


def quadratic_features(inputs, *, out=None):
    """All monomials of degree 1 and 2, and 1: x_i, then x_i**2, then x_i*x_j for i < j, then 1.

    Parameters
    ----------
    inputs : array_like, shape (B, I)
    out : ndarray, shape (B, 2*I + I*(I-1)/2 + 1), optional
        Where to write the result.

    Returns
    -------
    ndarray, shape (B, 2*I + I*(I-1)/2 + 1)

    Raises
    ------
    TypeError
        If `inputs` holds anything but integers, bools, float32 or float64, or `out` has another
        dtype.
    ValueError
        If `inputs` is not 2-D or `out` does not fit.

    Examples
    --------
    >>> from fastdl import ops
    >>> print(ops.quadratic_features([[2.0, 3.0], [-1.0, 0.5]]))
    [[ 2.    3.    4.    9.    6.    1.  ]
     [-1.    0.5   1.    0.25 -0.5   1.  ]]
    """
    array = checks.as_array("inputs", inputs, ndim=2)
    rows, count = array.shape
    outputs = checks.output(
        "out",
        out,
        shape=(rows, 2 * count + count * (count - 1) // 2 + 1),
        dtype=array.dtype,
        inputs={"inputs": inputs},
    )
    current().quadratic_features(array, outputs)
    return outputs


# ------------------------------------------------------------------------- whole training loops


def logistic_descent(
    inputs,
    targets,
    weights,
    batches,
    *,
    method="sgd",
    learning_rate=0.05,
    decay=0.9,
    epsilon=1e-8,
    losses=True,
    history=False,
):
    """Train logistic regression by mini-batch descent: the whole loop in one call.

    The gradient of a batch is g = (sigmoid(x @ w) - t) @ x / len(x). The methods: "sgd",
    w -= learning_rate*g; "momentum", s = decay*s + learning_rate*g, w -= s; "rmsprop",
    s = decay*s + (1-decay)*g**2, w -= learning_rate * g / sqrt(s + epsilon).

    Parameters
    ----------
    inputs : array_like, shape (n, I), not empty
    targets : array_like, shape (n,)
        Numbers in [0, 1].
    weights : array_like, shape (I,)
        Where to start.
    batches : array_like of integers, shape (steps, batch)
        The rows of `inputs` of each step, in [0, n).
    method : {"sgd", "momentum", "rmsprop"}
    learning_rate : float >= 0, default 0.05
    decay : float in [0, 1], default 0.9
    epsilon : float >= 0, default 1e-8
    losses : bool, default True
        Whether to compute the mean cross-entropy over all rows before each step.
    history : bool, default False
        Whether to keep the weights of each step.

    Returns
    -------
    weights : ndarray, shape (I,)
        The final ones, a new array.
    losses : ndarray, shape (steps,), or None
    history : ndarray, shape (steps + 1, I), or None
        The weights before each step and at the end.

    Raises
    ------
    TypeError
        If an input holds anything but integers, bools, float32 or float64, or a number is of the
        wrong type.
    ValueError
        If there is no data or a batch is empty, shapes disagree, targets or batches are out of
        range, the method is unknown, or a number is out of range.

    Examples
    --------
    >>> from fastdl import ops
    >>> inputs, targets = [[1.0, 2.0], [1.0, -1.0]], [1, 0]
    >>> weights, losses, _ = ops.logistic_descent(inputs, targets, [0, 0], [[0, 1], [1, 0]])
    >>> print(weights.round(4), losses.round(4))
    [-0.0002  0.0738] [0.6931 0.6655]
    """
    x, w = checks.as_arrays(inputs=inputs, weights=weights)
    checks.nonempty("inputs", checks.dimensions("inputs", x, 2))
    rows, features = x.shape
    checks.matches("weights", w, (features,), "inputs", x.shape)
    y = checks.as_array("targets", targets, dtype=x.dtype)
    checks.matches("targets", y, (rows,), "inputs", x.shape)
    checks.finite("targets", y, low=0, high=1)
    indices = checks.as_labels("batches", batches, classes=rows, ndim=2)
    steps, batch = indices.shape
    if batch == 0:
        checks.nonempty("batches", indices)
    checks.choice("method", method, DESCENT_METHODS)
    options = (
        checks.number("learning_rate", learning_rate, low=0),
        checks.number("decay", decay, low=0, high=1),
        checks.number("epsilon", epsilon, low=0),
    )
    losses = np.empty(steps, x.dtype) if checks.boolean("losses", losses) else None
    history = (
        np.empty((steps + 1, features), x.dtype) if checks.boolean("history", history) else None
    )
    columns = None if losses is None else np.ascontiguousarray(x.T)
    state, w = np.zeros_like(w), w.copy()
    current().logistic_descent(
        x, y, w, indices, DESCENT_METHODS.index(method), *options, state, columns, losses, history
    )
    return w, losses, history


def planar_descent(
    inputs, targets, networks, *, learning_rate=1.2, iterations=10000, cost_every=1000
):
    """Train tanh-sigmoid networks with one hidden layer by full-batch descent, all in one call.

    Samples are columns. A network computes sigmoid(W2 @ tanh(W1 @ inputs + b1) + b2); its cost is
    the cross-entropy, added up over the outputs and averaged over the samples.

    Parameters
    ----------
    inputs : array_like, shape (n_x, m), not empty
    targets : array_like, shape (n_y, m), not empty
        Numbers in [0, 1].
    networks : list of dicts
        Where to start: `W1` (n_h, n_x), `b1` (n_h, 1), `W2` (n_y, n_h), `b2` (n_y, 1). The hidden
        sizes n_h may differ.
    learning_rate : float >= 0, default 1.2
    iterations : int >= 0, default 10000
    cost_every : int >= 1, default 1000

    Returns
    -------
    networks : list of dicts
        The trained ones: new arrays, of the common dtype of inputs and parameters.
    costs : ndarray of float64, shape (networks, ceil(iterations / cost_every))
        The cost of each network before the iterations 0, cost_every, 2*cost_every, ...

    Raises
    ------
    TypeError
        If an input holds anything but integers, bools, float32 or float64, `networks` is no list of
        dicts, or a number is of the wrong type.
    ValueError
        If there is no data or no network, a parameter is missing, shapes disagree, targets are out
        of [0, 1], or a number is out of range.

    Examples
    --------
    >>> from fastdl import ops
    >>> network = {"W1": [[0.1], [-0.2]], "b1": [[0.0], [0.0]], "W2": [[0.3, 0.1]], "b2": [[0.0]]}
    >>> trained, costs = ops.planar_descent(
    ...     [[-1.0, 2.0]], [[0, 1]], [network], iterations=30, cost_every=10
    ... )
    >>> print(trained[0]["W2"].shape, costs.round(4))
    (1, 2) [[0.6853 0.0624 0.0257]]
    """
    x, *arrays = checks.as_arrays(inputs=inputs, **_planar_parameters(networks))
    checks.nonempty("inputs", checks.dimensions("inputs", x, 2))
    y = checks.nonempty("targets", checks.as_array("targets", targets, ndim=2, dtype=x.dtype))
    (n_x, m), n_y = x.shape, len(y)
    checks.matches("targets", y, (n_y, m), "inputs", x.shape)
    checks.finite("targets", y, low=0, high=1)
    options = (
        checks.number("learning_rate", learning_rate, low=0),
        checks.integer("iterations", iterations, low=0, high=_LAST_INT64),
        checks.integer("cost_every", cost_every, low=1, high=_LAST_INT64),
    )
    hidden_sizes = [
        _hidden_size(i, arrays[4 * i : 4 * i + 4], n_x, n_y) for i in range(len(networks))
    ]
    parameters = np.concatenate([array.reshape(-1) for array in arrays])
    costs = _planar_descent(x, y, np.array(hidden_sizes, _INT64), parameters, *options)
    ends = np.cumsum([array.size for array in arrays])[:-1]
    trained = iter(
        part.reshape(array.shape).copy()
        for part, array in zip(np.split(parameters, ends), arrays, strict=True)
    )
    return [{key: next(trained) for key in _PLANAR_PARAMETERS} for _ in networks], costs


def _planar_descent(inputs, targets, hidden_sizes, parameters, rate, iterations, cost_every):
    """Train in place, in calls between which Ctrl-C is heard; returns the costs."""
    n_x, m = inputs.shape
    threads = available_threads()
    work = int(hidden_sizes.sum()) * m * (n_x + len(targets) + _TANH_WORK)
    kernels = current()
    level = getattr(kernels, "CPU_LEVEL", None)
    most = max(1, _PLANAR_WORK.get(level, _LEAST_PLANAR_WORK) // work)
    costs = np.empty((len(hidden_sizes), -(-iterations // cost_every)))
    done = 0
    while done < iterations:
        # A call records its first iteration: it is one to be recorded, or the record is dropped.
        recorded, since = divmod(done, cost_every)
        steps = min(most, iterations - done, cost_every - since if since else _LAST_INT64)
        if cost_every < steps < iterations - done:
            steps -= steps % cost_every
        part = np.empty((len(hidden_sizes), -(-steps // cost_every)))
        kernels.planar_descent(
            inputs, targets, hidden_sizes, parameters, rate, steps, cost_every, threads, part
        )
        if not since:
            costs[:, recorded : recorded + part.shape[1]] = part
        done += steps
    return costs


_PLANAR_PARAMETERS = ("W1", "b1", "W2", "b2")


def _planar_parameters(networks):
    """All arrays of the networks, by the names that messages give them."""
    if not isinstance(networks, (list, tuple)):
        raise TypeError(f"networks: {type(networks).__name__} is not a list of dicts")
    if not networks:
        raise ValueError("networks: the empty list holds nothing to train")
    named = {}
    for i, network in enumerate(networks):
        if not isinstance(network, dict):
            raise TypeError(f"networks[{i}]: {type(network).__name__} is not a dict")
        for key in _PLANAR_PARAMETERS:
            if key not in network:
                raise ValueError(f"networks[{i}]: the key {key!r} is missing")
            named[f"networks[{i}][{key!r}]"] = network[key]
    return named


def _hidden_size(i, arrays, n_x, n_y):
    """The number of hidden units of network `i`, if its arrays fit together."""
    name = f"networks[{i}]['W1']"
    n_h = len(checks.nonempty(name, checks.dimensions(name, arrays[0], 2)))
    shapes = ((n_h, n_x), (n_h, 1), (n_y, n_h), (n_y, 1))
    for key, array, shape in zip(_PLANAR_PARAMETERS, arrays, shapes, strict=True):
        name, sizes = f"networks[{i}][{key!r}]", (n_x, n_h, n_y)
        checks.matches(name, array, shape, "a network of sizes", sizes)
    return n_h
