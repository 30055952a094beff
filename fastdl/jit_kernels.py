"""The operations of `reference.py` compiled by Numba: same names, parameters and meaning.

A kernel is compiled when it is first called with a new set of types and then cached on disk. The
code is plain loops, whose innermost ones LLVM turns into vector instructions. Numba computes
`float32 op int` and `float32 op float` in float64, so that every constant that meets an array is
first converted to the array's own type.
"""

import math

import numba
import numpy as np

from .reference import (
    ELU,
    GELU,
    LEAKY_RELU,
    LINEAR,
    LOG_SOFTMAX,
    MOMENTUM,
    PHILOX_INCREMENTS,
    PHILOX_MULTIPLIERS,
    PHILOX_ROUNDS,
    PROBABILITY_EPSILON,
    RELU,
    SGD,
    SHUFFLE_STREAM,
    SIGMOID,
    SILU,
    SOFTMAX,
    SOFTPLUS,
    TANH,
)

# The GIL is not needed, division by zero gives an infinity, and floating-point arithmetic stays
# IEEE's: no `fastmath`, which would break NaN. Said outright, or a function would take it over from
# the one that first calls it.
_compile = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath=False)


# --------------------------------------------------------------------------- elementwise functions


@_compile
def exp(inputs, outputs):
    x, y = inputs.reshape(-1), outputs.reshape(-1)
    for i in range(x.size):
        y[i] = math.exp(x[i])


@_compile
def log(inputs, outputs):
    x, y = inputs.reshape(-1), outputs.reshape(-1)
    for i in range(x.size):
        y[i] = math.log(x[i])


@_compile
def log1p(inputs, outputs):
    x, y = inputs.reshape(-1), outputs.reshape(-1)
    for i in range(x.size):
        y[i] = math.log1p(x[i])


@_compile
def expm1(inputs, outputs):
    x, y = inputs.reshape(-1), outputs.reshape(-1)
    for i in range(x.size):
        y[i] = math.expm1(x[i])


@_compile
def tanh(inputs, outputs):
    x, y = inputs.reshape(-1), outputs.reshape(-1)
    for i in range(x.size):
        y[i] = math.tanh(x[i])


@_compile
def sigmoid(inputs, outputs):
    x, y = inputs.reshape(-1), outputs.reshape(-1)
    for i in range(x.size):
        y[i] = _sigmoid(x[i])


@_compile
def _sigmoid(x):
    one = type(x)(1)
    tail = math.exp(-abs(x))
    return (one if x >= 0 else tail) / (one + tail)


@_compile
def _softplus(x):
    positive = x if x > 0 else type(x)(0)
    return positive + math.log1p(math.exp(-abs(x)))


@_compile
def _normal_cdf(x):
    return type(x)(0.5) * math.erfc(x * type(x)(-math.sqrt(0.5)))


# ------------------------------------------------------------------------------------- activations


@_compile
def activation_forward(inputs, activation, slope, outputs):
    if activation in (SOFTMAX, LOG_SOFTMAX):
        for b in range(inputs.shape[0]):
            _softmax_row(inputs[b], activation, outputs[b])
        return
    x, y = inputs.reshape(-1), outputs.reshape(-1)
    zero = inputs.dtype.type(0)
    slope = inputs.dtype.type(slope)
    # NaN fails every comparison and so takes the last branch, which passes it on.
    if activation == LINEAR:
        for i in range(x.size):
            y[i] = x[i]
    elif activation == RELU:
        for i in range(x.size):
            y[i] = zero if x[i] <= 0 else x[i]
    elif activation == LEAKY_RELU:
        for i in range(x.size):
            y[i] = x[i] if x[i] > 0 else slope * x[i]
    elif activation == ELU:
        for i in range(x.size):
            y[i] = x[i] if x[i] > 0 else slope * math.expm1(x[i])
    elif activation == SIGMOID:
        for i in range(x.size):
            y[i] = _sigmoid(x[i])
    elif activation == TANH:
        for i in range(x.size):
            y[i] = math.tanh(x[i])
    elif activation == SOFTPLUS:
        for i in range(x.size):
            y[i] = _softplus(x[i])
    elif activation == SILU:
        for i in range(x.size):
            y[i] = x[i] * _sigmoid(x[i])
    elif activation == GELU:
        for i in range(x.size):
            y[i] = x[i] * _normal_cdf(x[i])


@_compile
def _softmax_row(inputs, activation, outputs):
    maximum = _maximum(inputs)
    total = inputs.dtype.type(0)
    if activation == SOFTMAX:
        for o in range(inputs.size):
            outputs[o] = math.exp(inputs[o] - maximum)
            total += outputs[o]
        for o in range(inputs.size):
            outputs[o] /= total
    else:
        for o in range(inputs.size):
            outputs[o] = inputs[o] - maximum
            total += math.exp(outputs[o])
        log_total = math.log(total)
        for o in range(inputs.size):
            outputs[o] -= log_total


@_compile
def _maximum(row):
    maximum = row.dtype.type(-np.inf)
    for o in range(row.size):
        maximum = max(maximum, row[o])
    return maximum


@_compile
def activation_backward(inputs, outputs, grad_outputs, activation, slope, grad_inputs):
    if activation in (SOFTMAX, LOG_SOFTMAX):
        for b in range(inputs.shape[0]):
            _softmax_row_backward(outputs[b], grad_outputs[b], activation, grad_inputs[b])
        return
    x, y, dy, dx = (
        inputs.reshape(-1),
        outputs.reshape(-1),
        grad_outputs.reshape(-1),
        grad_inputs.reshape(-1),
    )
    zero, one = inputs.dtype.type(0), inputs.dtype.type(1)
    slope = inputs.dtype.type(slope)
    if activation == LINEAR:
        for i in range(x.size):
            dx[i] = dy[i]
    elif activation == RELU:
        for i in range(x.size):
            dx[i] = dy[i] * (one if y[i] > 0 else zero)
    elif activation == LEAKY_RELU:
        for i in range(x.size):
            dx[i] = dy[i] * (one if y[i] > 0 else slope)
    elif activation == ELU:
        for i in range(x.size):
            dx[i] = dy[i] * (one if y[i] > 0 else y[i] + slope)
    elif activation == SIGMOID:
        for i in range(x.size):
            dx[i] = dy[i] * (y[i] * (one - y[i]))
    elif activation == TANH:
        for i in range(x.size):
            dx[i] = dy[i] * (one - y[i] * y[i])
    elif activation == SOFTPLUS:
        for i in range(x.size):
            dx[i] = dy[i] * -math.expm1(-y[i])
    elif activation == SILU:
        for i in range(x.size):
            dx[i] = dy[i] * (_sigmoid(x[i]) * (one + x[i] - y[i]))
    elif activation == GELU:
        half = inputs.dtype.type(0.5)
        density_at_0 = inputs.dtype.type(1 / math.sqrt(2 * math.pi))
        for i in range(x.size):
            density = density_at_0 * math.exp(-half * x[i] * x[i])
            dx[i] = dy[i] * (_normal_cdf(x[i]) + x[i] * density)


@_compile
def _softmax_row_backward(outputs, grad_outputs, activation, grad_inputs):
    total = outputs.dtype.type(0)
    if activation == SOFTMAX:
        for o in range(outputs.size):
            total += grad_outputs[o] * outputs[o]
        for o in range(outputs.size):
            grad_inputs[o] = outputs[o] * (grad_outputs[o] - total)
    else:
        for o in range(outputs.size):
            total += grad_outputs[o]
        for o in range(outputs.size):
            grad_inputs[o] = grad_outputs[o] - math.exp(outputs[o]) * total


# ------------------------------------------------------------------------------- the dense layer

# The part of the right factor that is worked on at a time: 32 KiB in float64, a usual L1 cache.
_TILE_ROWS, _TILE_COLUMNS = 32, 128


@_compile
def matmul(left, right, transpose_left, transpose_right, outputs):
    outputs[:] = 0
    _add_product(left, right, transpose_left, transpose_right, outputs)


@_compile
def _add_product(left, right, transpose_left, transpose_right, outputs):
    """outputs (M, N) += left (M, K) @ right (K, N), either of them transposed first.

    Tile by tile of `right`, copied to where its rows are contiguous, whole rows of `outputs`
    accumulate: the innermost loop has no sum across its lanes and so vectorises without
    reordering anything.
    """
    rows, columns = outputs.shape
    depth = left.shape[0] if transpose_left else left.shape[1]
    tile = np.empty((_TILE_ROWS, _TILE_COLUMNS), outputs.dtype)
    for k0 in range(0, depth, _TILE_ROWS):
        tile_rows = min(_TILE_ROWS, depth - k0)
        for j0 in range(0, columns, _TILE_COLUMNS):
            tile_columns = min(_TILE_COLUMNS, columns - j0)
            for k in range(tile_rows):
                for j in range(tile_columns):
                    tile[k, j] = right[j0 + j, k0 + k] if transpose_right else right[k0 + k, j0 + j]
            for i in range(rows):
                sums = outputs[i, j0 : j0 + tile_columns]
                for k in range(tile_rows):
                    factor = left[k0 + k, i] if transpose_left else left[i, k0 + k]
                    for j in range(tile_columns):
                        sums[j] += factor * tile[k, j]


@_compile
def dense_forward(inputs, weights, bias, activation, slope, preactivations, outputs):
    for b in range(preactivations.shape[0]):
        for o in range(bias.size):
            preactivations[b, o] = bias[o]
    _add_product(inputs, weights, False, False, preactivations)
    activation_forward(preactivations, activation, slope, outputs)


@_compile
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
    activation_backward(
        preactivations, outputs, grad_outputs, activation, slope, grad_preactivations
    )
    grad_weights[:] = 0
    _add_product(inputs, grad_preactivations, True, False, grad_weights)
    grad_bias[:] = 0
    for b in range(grad_preactivations.shape[0]):
        for o in range(grad_bias.size):
            grad_bias[o] += grad_preactivations[b, o]
    if grad_inputs is not None:
        grad_inputs[:] = 0
        _add_product(grad_preactivations, weights, False, True, grad_inputs)


# ----------------------------------------------------------------------------------------- losses


@_compile
def binary_crossentropy(
    targets, predictions, sample_weight, from_logits, label_smoothing, gradients
):
    rows, outputs = predictions.shape
    real = predictions.dtype.type
    one = real(1)
    kept, added = real(1 - label_smoothing), real(0.5 * label_smoothing)
    low, high = real(PROBABILITY_EPSILON), real(1 - PROBABILITY_EPSILON)
    loss = 0.0
    for b in range(rows):
        weight = _row_weight(sample_weight, b) / (rows * outputs)
        scale = real(weight)
        row_loss = 0.0
        for o in range(outputs):
            target = targets[b, o] * kept + added
            prediction = predictions[b, o]
            if from_logits:
                row_loss += _logit_loss(target, prediction)
                gradients[b, o] = (_sigmoid(prediction) - target) * scale
            else:
                p = min(max(prediction, low), high)
                row_loss -= target * math.log(p) + (one - target) * math.log1p(-p)
                inside = p == prediction
                gradients[b, o] = (p - target) / (p * (one - p)) * scale if inside else real(0)
        loss += row_loss * weight
    return loss


@_compile
def _logit_loss(target, logit):
    """max(z, 0) - t*z + ln(1 + e**-|z|): softplus(z) - t*z would lose what is small beside z."""
    positive = logit if logit > 0 else type(logit)(0)
    return (positive - target * logit) + math.log1p(math.exp(-abs(logit)))


@_compile
def categorical_crossentropy(
    targets, predictions, sample_weight, from_logits, label_smoothing, gradients
):
    return _crossentropy(
        targets, predictions, sample_weight, from_logits, label_smoothing, gradients
    )


@_compile
def sparse_categorical_crossentropy(
    targets, predictions, sample_weight, from_logits, label_smoothing, gradients
):
    return _crossentropy(
        targets, predictions, sample_weight, from_logits, label_smoothing, gradients
    )


@_compile
def _crossentropy(targets, predictions, sample_weight, from_logits, label_smoothing, gradients):
    """Both categorical losses: `targets` (B, O) probabilities or (B,) labels."""
    rows, classes = predictions.shape
    real = predictions.dtype.type
    kept, added = real(1 - label_smoothing), real(label_smoothing / classes)
    low, high = real(PROBABILITY_EPSILON), real(1 - PROBABILITY_EPSILON)
    loss = 0.0
    for b in range(rows):
        weight = _row_weight(sample_weight, b) / rows
        scale = real(weight)
        row_loss = 0.0
        if from_logits:
            _softmax_row(predictions[b], LOG_SOFTMAX, gradients[b])
            target_total = real(0)
            for o in range(classes):
                target_total += _target(targets, b, o, kept, added)
            for o in range(classes):
                target = _target(targets, b, o, kept, added)
                log_probability = gradients[b, o]
                row_loss -= target * log_probability
                gradients[b, o] = (math.exp(log_probability) * target_total - target) * scale
        else:
            total = real(0)
            for o in range(classes):
                total += predictions[b, o]
            mean_slope = real(0)
            for o in range(classes):
                target = _target(targets, b, o, kept, added)
                normalised = predictions[b, o] / total
                p = min(max(normalised, low), high)
                row_loss -= target * math.log(p)
                gradients[b, o] = -target / p if p == normalised else real(0)
                mean_slope += gradients[b, o] * normalised
            for o in range(classes):
                gradients[b, o] = (gradients[b, o] - mean_slope) / total * scale
        loss += row_loss * weight
    return loss


@_compile
def _target(targets, b, o, kept, added):
    """The smoothed target; Numba compiles the one branch that the dimensions ask for."""
    if targets.ndim == 1:
        return kept + added if targets[b] == o else added
    return targets[b, o] * kept + added


@_compile
def mean_squared_error(targets, predictions, sample_weight, gradients):
    rows, outputs = predictions.shape
    two = predictions.dtype.type(2)
    loss = 0.0
    for b in range(rows):
        weight = _row_weight(sample_weight, b) / (rows * outputs)
        scale = predictions.dtype.type(weight)
        row_loss = 0.0
        for o in range(outputs):
            error = predictions[b, o] - targets[b, o]
            row_loss += error * error
            gradients[b, o] = two * error * scale
        loss += row_loss * weight
    return loss


@_compile
def mean_absolute_error(targets, predictions, sample_weight, gradients):
    rows, outputs = predictions.shape
    loss = 0.0
    for b in range(rows):
        weight = _row_weight(sample_weight, b) / (rows * outputs)
        scale = predictions.dtype.type(weight)
        row_loss = 0.0
        for o in range(outputs):
            error = predictions[b, o] - targets[b, o]
            row_loss += abs(error)
            gradients[b, o] = np.sign(error) * scale
        loss += row_loss * weight
    return loss


@_compile
def huber(targets, predictions, sample_weight, delta, gradients):
    rows, outputs = predictions.shape
    delta = predictions.dtype.type(delta)
    half = predictions.dtype.type(0.5)
    loss = 0.0
    for b in range(rows):
        weight = _row_weight(sample_weight, b) / (rows * outputs)
        scale = predictions.dtype.type(weight)
        row_loss = 0.0
        for o in range(outputs):
            error = predictions[b, o] - targets[b, o]
            size = abs(error)
            row_loss += half * error * error if size <= delta else delta * (size - half * delta)
            gradients[b, o] = min(max(error, -delta), delta) * scale
        loss += row_loss * weight
    return loss


@_compile
def poisson(targets, predictions, sample_weight, gradients):
    rows, outputs = predictions.shape
    one = predictions.dtype.type(1)
    loss = 0.0
    for b in range(rows):
        weight = _row_weight(sample_weight, b) / (rows * outputs)
        scale = predictions.dtype.type(weight)
        row_loss = 0.0
        for o in range(outputs):
            t, p = targets[b, o], predictions[b, o]
            mean = math.exp(p)
            row_loss += mean - t - t * (p - math.log(t if t > 0 else one))
            gradients[b, o] = (mean - t) * scale
        loss += row_loss * weight
    return loss


@_compile
def _row_weight(sample_weight, b):
    return 1.0 if sample_weight is None else float(sample_weight[b])


# ----------------------------------------------------------------------------- random numbers

# Numba gives `uint64 op int64` the type float64, so every integer here is made a uint64 first.
_LOW_HALF, _HALF_BITS = np.uint64(0xFFFFFFFF), np.uint64(32)
_LOW_QUARTER, _QUARTER_BITS = np.uint64(0xFFFF), np.uint64(16)
_MULTIPLIER_0, _MULTIPLIER_1 = (np.uint64(multiplier) for multiplier in PHILOX_MULTIPLIERS)
_INCREMENT_0, _INCREMENT_1 = (np.uint64(increment) for increment in PHILOX_INCREMENTS)


@_compile
def _philox(counter_0, counter_1, counter_2, counter_3, seed):
    """The four words, uint64 below 2**32, for one counter."""
    word_0, word_1 = np.uint64(counter_0), np.uint64(counter_1)
    word_2, word_3 = np.uint64(counter_2), np.uint64(counter_3)
    key_0, key_1 = seed & _LOW_HALF, seed >> _HALF_BITS
    for _ in range(PHILOX_ROUNDS):
        product_0, product_1 = word_0 * _MULTIPLIER_0, word_2 * _MULTIPLIER_1
        word_0 = (product_1 >> _HALF_BITS) ^ word_1 ^ key_0
        word_1 = product_1 & _LOW_HALF
        word_2 = (product_0 >> _HALF_BITS) ^ word_3 ^ key_1
        word_3 = product_0 & _LOW_HALF
        key_0 = (key_0 + _INCREMENT_0) & _LOW_HALF
        key_1 = (key_1 + _INCREMENT_1) & _LOW_HALF
    return word_0, word_1, word_2, word_3


# A seed is handed over as uint64: Numba takes Python's integers for int64 and refuses large ones.


def dropout(inputs, rate, seed, step, layer, outputs):
    _dropout(inputs, rate, np.uint64(seed), step, layer, outputs)


@_compile
def _dropout(inputs, rate, seed, step, layer, outputs):
    if rate >= 1:
        outputs[:] = 0
        return
    rows, units = inputs.shape
    zero = inputs.dtype.type(0)
    scale = inputs.dtype.type(1 / (1 - rate))
    threshold = np.uint64(math.floor(rate * 65536 + 0.5))
    for block in range((rows + 7) // 8):
        first = 8 * block
        for o in range(units):
            words = _philox(o, block, step, layer, seed)
            for r in range(min(8, rows - first)):
                word = words[r // 2]
                number = word & _LOW_QUARTER if r % 2 == 0 else word >> _QUARTER_BITS
                b = first + r
                outputs[b, o] = inputs[b, o] * scale if number >= threshold else zero


def permutation(seed, epoch, outputs):
    _permutation(np.uint64(seed), epoch, outputs)


@_compile
def _permutation(seed, epoch, outputs):
    for i in range(outputs.size):
        outputs[i] = i
    for pair in range((outputs.size - 1) // 2, -1, -1):
        words = _philox(pair, 0, epoch, SHUFFLE_STREAM, seed)
        for parity in (1, 0):
            i = 2 * pair + parity
            if i < outputs.size:
                bound = np.uint64(i + 1)
                high, low = words[2 * parity], words[2 * parity + 1]
                partner = (high * bound + (low * bound >> _HALF_BITS)) >> _HALF_BITS
                outputs[i], outputs[partner] = outputs[partner], outputs[i]


# ---------------------------------------------------------------------------- optimizer updates


@_compile
def sgd_update(parameters, gradients, velocity, learning_rate, momentum, nesterov, weight_decay):
    w, g = parameters.reshape(-1), gradients.reshape(-1)
    real = parameters.dtype.type
    shrink = real(learning_rate * weight_decay)
    learning_rate, momentum = real(learning_rate), real(momentum)
    if velocity is None:
        for i in range(w.size):
            w[i] -= w[i] * shrink
            w[i] -= learning_rate * g[i]
        return
    v = velocity.reshape(-1)
    for i in range(w.size):
        step = learning_rate * g[i]
        v[i] = momentum * v[i] - step
        w[i] -= w[i] * shrink
        w[i] += momentum * v[i] - step if nesterov else v[i]


@_compile
def rmsprop_update(parameters, gradients, mean_square, learning_rate, rho, epsilon, weight_decay):
    w, g, s = parameters.reshape(-1), gradients.reshape(-1), mean_square.reshape(-1)
    real = parameters.dtype.type
    shrink = real(learning_rate * weight_decay)
    learning_rate, epsilon = real(learning_rate), real(epsilon)
    kept, added = real(rho), real(1 - rho)
    for i in range(w.size):
        s[i] = kept * s[i] + added * g[i] * g[i]
        w[i] -= w[i] * shrink
        w[i] -= learning_rate * g[i] / math.sqrt(s[i] + epsilon)


@_compile
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
    _adam_steps(
        parameters.reshape(-1),
        gradients.reshape(-1),
        first_moment.reshape(-1),
        second_moment.reshape(-1),
        learning_rate * math.sqrt(1 - beta_2**step) / (1 - beta_1**step),
        beta_1,
        beta_2,
        epsilon,
        learning_rate * weight_decay,
    )


@_compile
def _adam_steps(w, g, m, v, rate, beta_1, beta_2, epsilon, shrink):
    """Adam's update of flat arrays, with the rate of this step."""
    real = w.dtype.type
    rate, shrink = real(rate), real(shrink)
    share_1, share_2, epsilon = real(1 - beta_1), real(1 - beta_2), real(epsilon)
    for i in range(w.size):
        m[i] += (g[i] - m[i]) * share_1
        v[i] += (g[i] * g[i] - v[i]) * share_2
        w[i] -= w[i] * shrink
        w[i] -= rate * m[i] / (math.sqrt(v[i]) + epsilon)


@_compile
def add_penalty(parameters, l1, l2, gradients):
    w, g = parameters.reshape(-1), gradients.reshape(-1)
    slope_1, slope_2 = parameters.dtype.type(l1), parameters.dtype.type(2 * l2)
    absolute = square = 0.0
    for i in range(w.size):
        wide = float(w[i])
        absolute += abs(wide)
        square += wide * wide
        g[i] += slope_1 * np.sign(w[i]) + slope_2 * w[i]
    return l1 * absolute + l2 * square


# ------------------------------------------------------------------------------------- features


@_compile
def quadratic_features(inputs, outputs):
    rows, count = inputs.shape
    for b in range(rows):
        x, y = inputs[b], outputs[b]
        for i in range(count):
            y[i] = x[i]
            y[count + i] = x[i] * x[i]
        column = 2 * count
        for i in range(count):
            for j in range(i + 1, count):
                y[column] = x[i] * x[j]
                column += 1
        y[column] = 1


# --------------------------------------------------------------------------------- sparse rows


def sparse_rows(inputs, density, threads):
    """As the compiled module's, on one thread and without shifts, which its engine alone adds."""
    starts = np.empty(len(inputs) + 1, np.int64)
    finite = _count_nonzeros(inputs, starts)
    count = starts[-1]
    if not finite or count > density * inputs.size or inputs.shape[1] > 2**31 - 1:
        return finite, None
    columns, values = np.empty(count + 16, np.int32), np.empty(count + 16, inputs.dtype)
    live = np.zeros(inputs.shape[1], np.bool_)
    _take_nonzeros(inputs, columns, values, live)
    columns[count:] = values[count:] = 0
    return finite, (starts, columns, values, np.flatnonzero(live).astype(np.int32))


@_compile
def _count_nonzeros(inputs, starts):
    """Write where each row's nonzero elements begin; returns whether all elements are finite."""
    starts[0] = 0
    others = 0
    for b in range(inputs.shape[0]):
        count = 0
        for i in range(inputs.shape[1]):
            count += inputs[b, i] != 0
            others += not (abs(inputs[b, i]) < math.inf)
        starts[b + 1] = starts[b] + count
    return others == 0


@_compile
def _take_nonzeros(inputs, columns, values, live):
    """Needs room for one element more, which is written before it is known to be zero."""
    k = 0
    for b in range(inputs.shape[0]):
        for i in range(inputs.shape[1]):
            value = inputs[b, i]
            there = value != 0
            columns[k] = i
            values[k] = value
            live[i] |= there
            k += there


# ------------------------------------------------------------------------- whole training loops


@_compile
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
    steps, batch = batches.shape
    rows, features = inputs.shape
    real = weights.dtype.type
    count = real(batch)
    added = real(1 - decay)
    learning_rate, decay, epsilon = real(learning_rate), real(decay), real(epsilon)
    gradients = np.empty_like(weights)
    for step in range(steps):
        if losses is not None:
            loss = 0.0
            for row in range(rows):
                score = _dot(inputs[row], weights)
                loss += _logit_loss(targets[row], score)
            losses[step] = loss / rows
        if history is not None:
            history[step] = weights
        gradients[:] = 0
        for row in batches[step]:
            error = _sigmoid(_dot(inputs[row], weights)) - targets[row]
            for i in range(features):
                gradients[i] += error * inputs[row, i]
        for i in range(features):
            gradient = gradients[i] / count
            if method == SGD:
                weights[i] -= learning_rate * gradient
            elif method == MOMENTUM:
                state[i] = decay * state[i] + learning_rate * gradient
                weights[i] -= state[i]
            else:
                state[i] = decay * state[i] + added * gradient * gradient
                weights[i] -= learning_rate * gradient / math.sqrt(state[i] + epsilon)
    if history is not None:
        history[steps] = weights


@_compile
def _dot(left, right):
    """Four running sums, so that an addition need not wait for the one before it."""
    a = b = c = d = left.dtype.type(0)
    whole = left.size - left.size % 4
    for i in range(0, whole, 4):
        a += left[i] * right[i]
        b += left[i + 1] * right[i + 1]
        c += left[i + 2] * right[i + 2]
        d += left[i + 3] * right[i + 3]
    for i in range(whole, left.size):
        a += left[i] * right[i]
    return (a + b) + (c + d)


@_compile
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
    n_x, m = inputs.shape
    n_y = targets.shape[0]
    start = 0
    for network in range(hidden_sizes.size):
        n_h = hidden_sizes[network]
        stop_w1 = start + n_h * n_x
        stop_b1 = stop_w1 + n_h
        stop_w2 = stop_b1 + n_y * n_h
        stop_b2 = stop_w2 + n_y
        w1 = parameters[start:stop_w1].reshape(n_h, n_x)
        b1 = parameters[stop_w1:stop_b1]
        w2 = parameters[stop_b1:stop_w2].reshape(n_y, n_h)
        b2 = parameters[stop_w2:stop_b2]
        start = stop_b2
        a1 = np.empty((n_h, m), inputs.dtype)
        z2 = np.empty((n_y, m), inputs.dtype)
        dz1 = np.empty(m, inputs.dtype)
        for iteration in range(iterations):
            _planar_forward(inputs, w1, b1, w2, b2, a1, z2)
            if iteration % cost_every == 0:
                costs[network, iteration // cost_every] = _planar_cost(targets, z2)
            _planar_step(inputs, targets, learning_rate, w1, b1, w2, b2, a1, z2, dz1)


@_compile
def _planar_forward(inputs, w1, b1, w2, b2, a1, z2):
    """a1 (n_h, m) = tanh(w1 @ inputs + b1), z2 (n_y, m) = w2 @ a1 + b2."""
    for j in range(b1.size):
        _affine_row(w1[j], b1[j], inputs, a1[j])
        for s in range(a1.shape[1]):
            a1[j, s] = math.tanh(a1[j, s])
    for o in range(b2.size):
        _affine_row(w2[o], b2[o], a1, z2[o])


@_compile
def _affine_row(weights, bias, inputs, outputs):
    """outputs (m,) = weights (n,) @ inputs (n, m) + bias."""
    outputs[:] = bias
    for i in range(weights.size):
        for s in range(outputs.size):
            outputs[s] += weights[i] * inputs[i, s]


@_compile
def _planar_cost(targets, z2):
    cost = 0.0
    for o in range(z2.shape[0]):
        for s in range(z2.shape[1]):
            cost += _logit_loss(targets[o, s], z2[o, s])
    return cost / z2.shape[1]


@_compile
def _planar_step(inputs, targets, learning_rate, w1, b1, w2, b2, a1, z2, dz1):
    """One step down the gradient; z2 (n_y, m) turns into its own gradient, dz1 (m,) is scratch."""
    m = inputs.shape[1]
    real = inputs.dtype.type
    zero, one, rate = real(0), real(1), real(learning_rate / m)
    for o in range(b2.size):
        total = zero
        for s in range(m):
            z2[o, s] = _sigmoid(z2[o, s]) - targets[o, s]
            total += z2[o, s]
        b2[o] -= rate * total
    for j in range(b1.size):
        _affine_row(w2[:, j], zero, z2, dz1)
        total = zero
        for s in range(m):
            dz1[s] *= one - a1[j, s] * a1[j, s]
            total += dz1[s]
        b1[j] -= rate * total
        for o in range(b2.size):
            w2[o, j] -= rate * _dot(z2[o], a1[j])
        for i in range(inputs.shape[0]):
            w1[j, i] -= rate * _dot(dz1, inputs[i])
