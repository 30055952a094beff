"""Every operation of fastdl in plain NumPy: the oracle that the compiled kernels are held to.

These functions are also the `reference` backend, so they have exactly the signatures of
`_kernels.pyx` and `jit_kernels.py`: inputs first, arrays to write last, nothing returned but a
loss value. Like every backend they assume what `ops.py` and `checks.py` have made sure of: arrays
are C-contiguous, agree in dtype (float32 or float64; labels and indices int64) and shape, and no
output overlaps an input unless its docstring allows it.

Letters in shapes: B batch (rows), I inputs of a layer, O outputs of a layer.
"""

import math

import numpy as np

# Activations, by code: the index is what the kernels take, the name is what people write.
ACTIVATIONS = (
    "linear",
    "relu",
    "leaky_relu",
    "elu",
    "sigmoid",
    "tanh",
    "softplus",
    "silu",
    "gelu",
    "softmax",
    "log_softmax",
)
(LINEAR, RELU, LEAKY_RELU, ELU, SIGMOID, TANH, SOFTPLUS, SILU, GELU, SOFTMAX, LOG_SOFTMAX) = range(
    len(ACTIVATIONS)
)
# From here on, functions that users wrote: the kernels don't know them.
CUSTOM = len(ACTIVATIONS)

# Update rules of `logistic_descent`, by code.
DESCENT_METHODS = ("sgd", "momentum", "rmsprop")
SGD, MOMENTUM, RMSPROP = range(len(DESCENT_METHODS))

# Probabilities are kept this far from 0 and 1 before a logarithm (Keras's `epsilon()`).
PROBABILITY_EPSILON = 1e-7


# --------------------------------------------------------------------------- elementwise functions


def exp(inputs, outputs):
    """outputs = e**inputs."""
    with np.errstate(over="ignore", under="ignore"):
        np.exp(inputs, out=outputs)


def log(inputs, outputs):
    """outputs = ln(inputs); -inf at 0, NaN below."""
    with np.errstate(divide="ignore", invalid="ignore"):
        np.log(inputs, out=outputs)


def log1p(inputs, outputs):
    """outputs = ln(1 + inputs); -inf at -1, NaN below."""
    with np.errstate(divide="ignore", invalid="ignore"):
        np.log1p(inputs, out=outputs)


def expm1(inputs, outputs):
    """outputs = e**inputs - 1."""
    with np.errstate(over="ignore", under="ignore"):
        np.expm1(inputs, out=outputs)


def tanh(inputs, outputs):
    """outputs = tanh(inputs)."""
    np.tanh(inputs, out=outputs)


def sigmoid(inputs, outputs):
    """outputs = 1 / (1 + e**-inputs), from e**-|inputs| so that nothing overflows."""
    with np.errstate(under="ignore"):
        tail = np.exp(-np.abs(inputs))
        outputs[...] = np.where(inputs >= 0, 1, tail) / (1 + tail)


# ------------------------------------------------------------------------------------ activations


def activation_forward(inputs, activation, slope, outputs):
    """outputs (B, O) = activation(inputs (B, O)); `outputs` may be `inputs`.

    `slope` is leaky_relu's slope below zero and elu's alpha; the others ignore it.
    """
    if activation == LINEAR:
        outputs[...] = inputs
    elif activation == RELU:
        np.maximum(inputs, 0, out=outputs)
    elif activation == LEAKY_RELU:
        outputs[...] = np.where(inputs > 0, inputs, slope * inputs)
    elif activation == ELU:
        outputs[...] = np.where(inputs > 0, inputs, slope * np.expm1(np.minimum(inputs, 0)))
    elif activation == SIGMOID:
        sigmoid(inputs, outputs)
    elif activation == TANH:
        np.tanh(inputs, out=outputs)
    elif activation == SOFTPLUS:
        outputs[...] = _softplus(inputs)
    elif activation == SILU:
        outputs[...] = inputs * _sigmoid(inputs)
    elif activation == GELU:
        outputs[...] = inputs * _normal_cdf(inputs)
    elif activation == SOFTMAX:
        shifted = np.exp(inputs - _row_maximum(inputs))
        outputs[...] = shifted / shifted.sum(axis=1, keepdims=True)
    elif activation == LOG_SOFTMAX:
        shifted = inputs - _row_maximum(inputs)
        outputs[...] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def activation_backward(inputs, outputs, grad_outputs, activation, slope, grad_inputs):
    """grad_inputs (B, O) = grad_outputs (B, O) times the activation's derivative.

    `inputs` and `outputs` are what `activation_forward` took and gave; only silu and gelu look at
    `inputs`, the others work from `outputs`. `grad_inputs` may be `grad_outputs`.
    """
    if activation == LINEAR:
        derivative = 1
    elif activation == RELU:
        derivative = outputs > 0
    elif activation == LEAKY_RELU:
        derivative = np.where(outputs > 0, 1, inputs.dtype.type(slope))
    elif activation == ELU:
        derivative = np.where(outputs > 0, 1, outputs + inputs.dtype.type(slope))
    elif activation == SIGMOID:
        derivative = outputs * (1 - outputs)
    elif activation == TANH:
        derivative = 1 - outputs**2
    elif activation == SOFTPLUS:
        derivative = -np.expm1(-outputs)
    elif activation == SILU:
        derivative = _sigmoid(inputs) * (1 + inputs - outputs)
    elif activation == GELU:
        density = np.exp(-(inputs**2) / 2) / inputs.dtype.type(math.sqrt(2 * math.pi))
        derivative = _normal_cdf(inputs) + inputs * density
    elif activation == SOFTMAX:
        grad_inputs[...] = outputs * (
            grad_outputs - (grad_outputs * outputs).sum(axis=1, keepdims=True)
        )
        return
    elif activation == LOG_SOFTMAX:
        grad_inputs[...] = grad_outputs - np.exp(outputs) * grad_outputs.sum(axis=1, keepdims=True)
        return
    np.multiply(grad_outputs, derivative, out=grad_inputs)


def _sigmoid(inputs):
    outputs = np.empty_like(inputs)
    sigmoid(inputs, outputs)
    return outputs


def _softplus(inputs):
    """ln(1 + e**x) = max(x, 0) + ln(1 + e**-|x|), exact for small and large x."""
    return np.maximum(inputs, 0) + np.log1p(np.exp(-np.abs(inputs)))


def _normal_cdf(inputs):
    """The standard normal distribution function, erfc(-x / sqrt(2)) / 2, by `math`."""
    erfc = np.frompyfunc(math.erfc, 1, 1)
    return (0.5 * erfc(-inputs.astype(np.float64) / math.sqrt(2))).astype(inputs.dtype)


def _row_maximum(inputs):
    return inputs.max(axis=1, keepdims=True, initial=-np.inf)


# ------------------------------------------------------------------------------- the dense layer


def matmul(left, right, transpose_left, transpose_right, outputs):
    """outputs (M, N) = left @ right, either of them transposed first where its flag is set."""
    np.matmul(
        left.T if transpose_left else left, right.T if transpose_right else right, out=outputs
    )


def dense_forward(inputs, weights, bias, activation, slope, preactivations, outputs):
    """outputs (B, O) = activation(inputs (B, I) @ weights (I, O) + bias (O,)).

    `preactivations` (B, O) receives what the activation was applied to. It may be `outputs` where
    the backward pass has no use for it, that is for all activations but silu and gelu.
    """
    np.matmul(inputs, weights, out=preactivations)
    preactivations += bias
    activation_forward(preactivations, activation, slope, outputs)


def dense_backward(
    inputs,
    weights,
    preactivations,
    outputs,
    grad_outputs,
    activation,
    slope,
    grad_preactivations,
    grad_inputs,
    grad_weights,
    grad_bias,
):
    """Gradients of a loss in a dense layer's inputs, weights and bias from that in its outputs.

    `grad_preactivations` (B, O) is written on the way and may be `grad_outputs` (B, O);
    `grad_inputs` (B, I) is None where nobody needs it (the first layer).
    """
    activation_backward(
        preactivations, outputs, grad_outputs, activation, slope, grad_preactivations
    )
    np.matmul(inputs.T, grad_preactivations, out=grad_weights)
    np.sum(grad_preactivations, axis=0, out=grad_bias)
    if grad_inputs is not None:
        np.matmul(grad_preactivations, weights.T, out=grad_inputs)


# ----------------------------------------------------------------------------------------- losses
#
# Each returns sum_i(sample_weight_i * loss_i) / B as a float and writes its gradient in
# `predictions` to `gradients` (B, O). `sample_weight` (B,) may be None: all ones. Losses add up in
# float64 whatever the dtype.


def binary_crossentropy(
    targets, predictions, sample_weight, from_logits, label_smoothing, gradients
):
    """-mean over the outputs of t*ln(p) + (1-t)*ln(1-p), for targets t (B, O) in [0, 1].

    From logits z: max(z, 0) - z*t + ln(1 + e**-|z|), finite everywhere.
    """
    targets = targets * (1 - label_smoothing) + 0.5 * label_smoothing
    if from_logits:
        losses = _logit_losses(targets, predictions)
        derivative = _sigmoid(predictions) - targets
    else:
        epsilon = PROBABILITY_EPSILON
        clipped = np.clip(predictions, epsilon, 1 - epsilon)
        losses = -(targets * np.log(clipped) + (1 - targets) * np.log1p(-clipped))
        derivative = np.where(
            clipped == predictions, (clipped - targets) / (clipped * (1 - clipped)), 0
        )
    return _mean_over_outputs(losses, derivative, sample_weight, gradients)


def _logit_losses(targets, logits):
    """max(z, 0) - t*z + ln(1 + e**-|z|): softplus(z) - t*z would lose what is small beside z."""
    return (np.maximum(logits, 0) - targets * logits) + np.log1p(np.exp(-np.abs(logits)))


def categorical_crossentropy(
    targets, predictions, sample_weight, from_logits, label_smoothing, gradients
):
    """-sum over the classes of t*ln(p), for targets t (B, O), p = softmax(logits) or as given.

    Given probabilities are divided by their sum and clipped to [1e-7, 1 - 1e-7], as Keras does.
    """
    targets = targets * (1 - label_smoothing) + label_smoothing / targets.shape[1]
    if from_logits:
        log_probabilities = np.empty_like(predictions)
        activation_forward(predictions, LOG_SOFTMAX, 0.0, log_probabilities)
        losses = -(targets * log_probabilities).sum(axis=1, dtype=np.float64)
        derivative = np.exp(log_probabilities) * targets.sum(axis=1, keepdims=True) - targets
    else:
        epsilon = PROBABILITY_EPSILON
        total = predictions.sum(axis=1, keepdims=True)
        normalised = predictions / total
        clipped = np.clip(normalised, epsilon, 1 - epsilon)
        losses = -(targets * np.log(clipped)).sum(axis=1, dtype=np.float64)
        slope = np.where(clipped == normalised, -targets / clipped, 0)
        derivative = (slope - (slope * normalised).sum(axis=1, keepdims=True)) / total
    weight = _per_row_weight(sample_weight, len(losses))
    gradients[...] = derivative * weight[:, None]
    return float(losses @ weight)


def sparse_categorical_crossentropy(
    targets, predictions, sample_weight, from_logits, label_smoothing, gradients
):
    """`categorical_crossentropy` for integer targets (B,) in [0, O)."""
    one_hot = np.zeros_like(predictions)
    one_hot[np.arange(len(targets)), targets] = 1
    return categorical_crossentropy(
        one_hot, predictions, sample_weight, from_logits, label_smoothing, gradients
    )


def mean_squared_error(targets, predictions, sample_weight, gradients):
    """Mean over the outputs of (p - t)**2."""
    error = predictions - targets
    return _mean_over_outputs(error**2, 2 * error, sample_weight, gradients)


def mean_absolute_error(targets, predictions, sample_weight, gradients):
    """Mean over the outputs of |p - t|; the gradient at 0 is 0."""
    error = predictions - targets
    return _mean_over_outputs(np.abs(error), np.sign(error), sample_weight, gradients)


def huber(targets, predictions, sample_weight, delta, gradients):
    """Mean over the outputs of e**2 / 2 where |e| <= delta, delta*|e| - delta**2 / 2 beyond."""
    error = predictions - targets
    size = np.abs(error)
    losses = np.where(size <= delta, 0.5 * error**2, delta * size - 0.5 * delta**2)
    derivative = np.clip(error, -delta, delta)
    return _mean_over_outputs(losses, derivative, sample_weight, gradients)


def poisson(targets, predictions, sample_weight, gradients):
    """Mean over the outputs of e**p - t - t*(p - ln t), half the Poisson deviance of t and e**p."""
    with np.errstate(over="ignore"):
        mean = np.exp(predictions)
    logarithms = np.log(np.where(targets > 0, targets, 1))
    losses = mean - targets - targets * (predictions - logarithms)
    return _mean_over_outputs(losses, mean - targets, sample_weight, gradients)


def _mean_over_outputs(losses, derivative, sample_weight, gradients):
    weight = _per_row_weight(sample_weight, losses.shape[0]) / losses.shape[1]
    gradients[...] = derivative * weight[:, None]
    return float(losses.sum(axis=1, dtype=np.float64) @ weight)


def _per_row_weight(sample_weight, rows):
    weight = np.ones(rows) if sample_weight is None else sample_weight.astype(np.float64)
    return weight / rows


# ----------------------------------------------------------------------------- random numbers


# Philox4x32-10: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3",
# SC 2011. Multipliers of the two products and increments of the two key words.
PHILOX_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
PHILOX_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
PHILOX_ROUNDS = 10

# Fourth counter word of the shuffling stream; dropout layers count up from 0.
SHUFFLE_STREAM = 0xFFFFFFFF


def philox(counter, seed):
    """Four random 32-bit words for each counter.

    Parameters
    ----------
    counter : sequence of four integers or integer arrays, below 2**32, that broadcast together
    seed : int, below 2**64

    Returns
    -------
    ndarray of uint64, shape (4,) + the counters' shape, values below 2**32
    """
    low_half = np.uint64(0xFFFFFFFF)
    word = [np.asarray(part, dtype=np.uint64) for part in np.broadcast_arrays(*counter)]
    key = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(PHILOX_ROUNDS):
        first = word[0] * np.uint64(PHILOX_MULTIPLIERS[0])
        second = word[2] * np.uint64(PHILOX_MULTIPLIERS[1])
        word = [
            (second >> np.uint64(32)) ^ word[1] ^ np.uint64(key[0]),
            second & low_half,
            (first >> np.uint64(32)) ^ word[3] ^ np.uint64(key[1]),
            first & low_half,
        ]
        key = [
            (part + step) & 0xFFFFFFFF for part, step in zip(key, PHILOX_INCREMENTS, strict=True)
        ]
    return np.stack(word)


def dropout(inputs, rate, seed, step, layer, outputs):
    """outputs (B, O) = inputs (B, O) / (1 - rate) where kept, else 0; `outputs` may be `inputs`.

    Whether (row b, unit o) is kept is a function of (seed, step, layer, b, o) alone, so the same
    call on the gradient is the backward pass, and neither threads nor vector width matter. One
    counter (o, b // 8, step, layer) gives eight 16-bit numbers, one for each of eight rows, low
    half of each word first; a unit is dropped where its number is below round(rate * 2**16). The
    rate is thereby exact to 2**-17, and a vector of units reads consecutive counters.
    """
    rows, units = inputs.shape
    if rate >= 1:
        outputs[...] = 0
        return
    counter = (np.arange(units)[None, :], np.arange((rows + 7) // 8)[:, None], step, layer)
    words = philox(counter, seed)
    halves = np.stack([words & np.uint64(0xFFFF), words >> np.uint64(16)], axis=1)
    by_row = halves.reshape(8, -1, units).swapaxes(0, 1).reshape(-1, units)[:rows]
    kept = by_row >= math.floor(rate * 65536 + 0.5)
    outputs[...] = np.where(kept, inputs * inputs.dtype.type(1 / (1 - rate)), 0)


def permutation(seed, epoch, outputs):
    """outputs (n,) int64 = 0 .. n-1 in random order, a function of (seed, epoch) alone.

    Fisher and Yates' shuffle: for i from n - 1 down to 1 swap i with floor(u * (i + 1)), where
    the 64-bit fraction u is words (0, 1), for even i, or (2, 3) of the counter
    (i // 2, 0, epoch, SHUFFLE_STREAM), high word first. n is below 2**32.
    """
    n = len(outputs)
    outputs[...] = np.arange(n)
    words = philox((np.arange((n + 1) // 2), 0, epoch, SHUFFLE_STREAM), seed)
    high, low = words[0::2].T.reshape(-1)[:n], words[1::2].T.reshape(-1)[:n]
    bound = np.arange(1, n + 1, dtype=np.uint64)
    partner = (high * bound + (low * bound >> np.uint64(32))) >> np.uint64(32)
    for i in range(n - 1, 0, -1):
        j = int(partner[i])
        outputs[i], outputs[j] = outputs[j], outputs[i]


# ---------------------------------------------------------------------------- optimizer updates
#
# All in place, on arrays of any shape, with Keras's formulas. `weight_decay` is decoupled
# (Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019): the parameters first
# shrink by the factor 1 - learning_rate * weight_decay.


def sgd_update(parameters, gradients, velocity, learning_rate, momentum, nesterov, weight_decay):
    """v = momentum*v - learning_rate*g; w += v, or with Nesterov w += momentum*v - learning_rate*g.

    `velocity` is None where momentum is 0.
    """
    _decay(parameters, learning_rate, weight_decay)
    step = _like(parameters, learning_rate) * gradients
    if velocity is None:
        parameters -= step
        return
    momentum = _like(parameters, momentum)
    velocity *= momentum
    velocity -= step
    parameters += momentum * velocity - step if nesterov else velocity


def rmsprop_update(parameters, gradients, mean_square, learning_rate, rho, epsilon, weight_decay):
    """s = rho*s + (1-rho)*g**2; w -= learning_rate * g / sqrt(s + epsilon)."""
    _decay(parameters, learning_rate, weight_decay)
    mean_square *= _like(parameters, rho)
    mean_square += _like(parameters, 1 - rho) * gradients**2
    root = np.sqrt(mean_square + _like(parameters, epsilon))
    parameters -= _like(parameters, learning_rate) * gradients / root


def adam_update(
    parameters,
    gradients,
    first_moment,
    second_moment,
    learning_rate,
    beta_1,
    beta_2,
    epsilon,
    step,
    weight_decay,
):
    """Kingma and Ba, "Adam", ICLR 2015, in the form of the end of its section 2, as in Keras.

    m = beta_1*m + (1-beta_1)*g; v = beta_2*v + (1-beta_2)*g**2;
    w -= a * m / (sqrt(v) + epsilon), a = learning_rate * sqrt(1-beta_2**step) / (1-beta_1**step).
    `step` counts from 1.
    """
    _decay(parameters, learning_rate, weight_decay)
    rate = learning_rate * math.sqrt(1 - beta_2**step) / (1 - beta_1**step)
    first_moment += (gradients - first_moment) * _like(parameters, 1 - beta_1)
    second_moment += (gradients**2 - second_moment) * _like(parameters, 1 - beta_2)
    root = np.sqrt(second_moment) + _like(parameters, epsilon)
    parameters -= _like(parameters, rate) * first_moment / root


def add_penalty(parameters, l1, l2, gradients):
    """Return l1 * sum|w| + l2 * sum(w**2) and add its gradient to `gradients`."""
    gradients += _like(parameters, l1) * np.sign(parameters)
    gradients += _like(parameters, 2 * l2) * parameters
    wide = parameters.astype(np.float64)
    return float(l1 * np.abs(wide).sum() + l2 * (wide**2).sum())


def _decay(parameters, learning_rate, weight_decay):
    if weight_decay:
        # A product with 1 - learning_rate * weight_decay would be off in the same way in each step.
        parameters -= parameters * _like(parameters, learning_rate * weight_decay)


def _like(array, value):
    return array.dtype.type(value)


# ------------------------------------------------------------------------------------- features


def quadratic_features(inputs, outputs):
    """outputs (B, I + I + I*(I-1)/2 + 1): x_i, then x_i**2, then x_i*x_j for i < j, then 1."""
    count = inputs.shape[1]
    first, second = np.triu_indices(count, k=1)
    outputs[:, :count] = inputs
    outputs[:, count : 2 * count] = inputs**2
    outputs[:, 2 * count : -1] = inputs[:, first] * inputs[:, second]
    outputs[:, -1] = 1


# ------------------------------------------------------------------------- whole training loops


def logistic_descent(
    inputs,
    targets,
    weights,
    batches,
    method,
    learning_rate,
    decay,
    epsilon,
    state,
    columns,
    losses,
    history,
):
    """Train logistic regression by mini-batch descent, `weights` (I,) in place.

    Parameters
    ----------
    inputs : (n, I)
    targets : (n,), 0 or 1
    weights : (I,), replaced by the final ones
    batches : (steps, batch) int64, the rows of each step
    method : 0 SGD, w -= rate*g; 1 momentum, s = decay*s + rate*g, w -= s;
        2 RMSprop, s = decay*s + (1-decay)*g**2, w -= rate*g / sqrt(s + epsilon)
    state : (I,), the s above; read and written
    columns : (I, n), inputs transposed, or None where `losses` is None
    losses : (steps,), the mean cross-entropy over all rows before each step, or None
    history : (steps + 1, I), the weights before each step and at the end, or None
    """
    for step, rows in enumerate(batches):
        if losses is not None:
            scores = inputs @ weights
            losses[step] = np.mean(_logit_losses(targets, scores))
        if history is not None:
            history[step] = weights
        batch = inputs[rows]
        gradients = (_sigmoid(batch @ weights) - targets[rows]) @ batch / len(rows)
        if method == SGD:
            weights -= learning_rate * gradients
        elif method == MOMENTUM:
            state[...] = decay * state + learning_rate * gradients
            weights -= state
        else:
            state[...] = decay * state + (1 - decay) * gradients**2
            weights -= learning_rate * gradients / np.sqrt(state + epsilon)
    if history is not None:
        history[-1] = weights


def planar_descent(
    inputs,
    targets,
    hidden_sizes,
    parameters,
    learning_rate,
    iterations,
    cost_every,
    threads,
    costs,
):
    """Train tanh-sigmoid networks with one hidden layer by full-batch gradient descent, in place.

    Samples are columns, as in the course: inputs (n_x, m), targets (n_y, m). `hidden_sizes` (k,)
    int64 names k networks, each trained by itself; `parameters` holds, network after network,
    W1 (n_h, n_x), b1 (n_h,), W2 (n_y, n_h), b2 (n_y,), flat. `costs`
    (k, ceil(iterations / cost_every)) receives the cross-entropy at iterations 0, cost_every, ...;
    `threads` is how many may be used, none of them here.
    """
    n_x, m = inputs.shape
    n_y = targets.shape[0]
    start = 0
    for network, n_h in enumerate(hidden_sizes):
        views = []
        for shape in ((n_h, n_x), (n_h, 1), (n_y, n_h), (n_y, 1)):
            stop = start + shape[0] * shape[1]
            views.append(parameters[start:stop].reshape(shape))
            start = stop
        w1, b1, w2, b2 = views
        for iteration in range(iterations):
            a1 = np.tanh(w1 @ inputs + b1)
            z2 = w2 @ a1 + b2
            if iteration % cost_every == 0:
                losses = _logit_losses(targets, z2)
                costs[network, iteration // cost_every] = losses.sum(dtype=np.float64) / m
            dz2 = _sigmoid(z2) - targets
            dz1 = (w2.T @ dz2) * (1 - a1**2)
            w2 -= learning_rate * (dz2 @ a1.T / m)
            b2 -= learning_rate * (dz2.sum(axis=1, keepdims=True) / m)
            w1 -= learning_rate * (dz1 @ inputs.T / m)
            b1 -= learning_rate * (dz1.sum(axis=1, keepdims=True) / m)
