"""Every gradient against central finite differences of the value it belongs to, in float64."""

import itertools

import numpy as np
import pytest

from fastdl import backends, reference

pytestmark = pytest.mark.each_build

each_backend = pytest.mark.parametrize("backend", backends.BACKENDS)
each_activation = pytest.mark.parametrize(
    "activation", range(len(reference.ACTIVATIONS)), ids=reference.ACTIVATIONS
)

SLOPES = {reference.LEAKY_RELU: 0.2, reference.ELU: 1.3}


@pytest.fixture
def kernels(backend):
    with backends.use_backend(backend):
        return backends.current()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def differences(function, array, step=1e-5):
    """The gradient of a number-valued function, by changing one element of `array` at a time."""
    gradient = np.empty_like(array)
    for index, value in np.ndenumerate(array):
        array[index] = value + step
        above = function()
        array[index] = value - step
        below = function()
        array[index] = value
        gradient[index] = (above - below) / (2 * step)
    return gradient


def assert_gradient(gradient, function, array):
    # The formula's own error is step**2 times a third derivative of order one; rounding of values
    # of order one, divided by the step, is no more than that.
    np.testing.assert_allclose(gradient, differences(function, array), rtol=1e-7, atol=1e-8)


def away_from_zero(array):
    """The array moved off 0, where relu, |e| and their like have corners."""
    return array + 0.05 * np.sign(array)


@each_backend
@each_activation
def test_activation(kernels, rng, activation):
    slope = SLOPES.get(activation, 0.0)
    inputs = away_from_zero(rng.standard_normal((3, 4)))
    direction = rng.standard_normal(inputs.shape)
    outputs, gradient = np.empty_like(inputs), np.empty_like(inputs)

    def value():
        kernels.activation_forward(inputs, activation, slope, outputs)
        return float((outputs * direction).sum())

    value()
    kernels.activation_backward(inputs, outputs, direction, activation, slope, gradient)
    assert_gradient(gradient, value, inputs)


@each_backend
@each_activation
@pytest.mark.parametrize("argument", ["inputs", "weights", "bias"])
def test_dense_layer(kernels, rng, activation, argument):
    slope = SLOPES.get(activation, 0.0)
    arrays = {
        "inputs": rng.standard_normal((3, 4)),
        "weights": rng.standard_normal((4, 5)),
        "bias": rng.standard_normal(5),
    }
    gradients = {name: np.empty_like(array) for name, array in arrays.items()}
    direction = rng.standard_normal((3, 5))
    preactivations, outputs, scratch = (np.empty((3, 5)) for _ in range(3))

    def value():
        kernels.dense_forward(*arrays.values(), activation, slope, preactivations, outputs)
        return float((outputs * direction).sum())

    value()
    assert (abs(preactivations) > 1e-3).all()  # no corner within a step
    kernels.dense_backward(
        arrays["inputs"],
        arrays["weights"],
        preactivations,
        outputs,
        direction,
        activation,
        slope,
        scratch,
        *gradients.values(),
    )
    assert_gradient(gradients[argument], value, arrays[argument])


def loss_case(rng, operation, from_logits):
    """Targets other than 0 and 1, and rows of either that need not add up to 1."""
    shape = (4, 3)
    predictions = rng.standard_normal(shape) if from_logits else rng.uniform(0.1, 0.9, shape)
    if operation == "sparse_categorical_crossentropy":
        return rng.integers(0, shape[1], shape[0]), predictions
    return rng.uniform(0, 1, shape), predictions


@each_backend
@pytest.mark.parametrize(
    ("operation", "from_logits", "weighted", "label_smoothing"),
    list(
        itertools.product(
            ("binary_crossentropy", "categorical_crossentropy", "sparse_categorical_crossentropy"),
            (True, False),
            (True, False),
            (0.0, 0.2),
        )
    ),
)
def test_crossentropy(kernels, rng, operation, from_logits, weighted, label_smoothing):
    targets, predictions = loss_case(rng, operation, from_logits)
    sample_weight = rng.uniform(0, 2, len(predictions)) if weighted else None
    gradients, scratch = np.empty_like(predictions), np.empty_like(predictions)
    loss = getattr(kernels, operation)

    def value(gradients=scratch):
        return loss(targets, predictions, sample_weight, from_logits, label_smoothing, gradients)

    value(gradients)
    assert_gradient(gradients, value, predictions)


@each_backend
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize(
    ("operation", "options"),
    [("mean_squared_error", ()), ("mean_absolute_error", ()), ("huber", (0.8,)), ("poisson", ())],
)
def test_regression_loss(kernels, rng, operation, options, weighted):
    targets = rng.standard_normal((4, 3))
    predictions = targets + away_from_zero(rng.standard_normal(targets.shape))
    targets = np.abs(targets) if operation == "poisson" else targets
    sample_weight = rng.uniform(0, 2, len(targets)) if weighted else None
    gradients, scratch = np.empty_like(targets), np.empty_like(targets)

    def value(gradients=scratch):
        return getattr(kernels, operation)(targets, predictions, sample_weight, *options, gradients)

    value(gradients)
    assert_gradient(gradients, value, predictions)


@each_backend
@pytest.mark.parametrize(
    ("operation", "targets", "expected"),
    [
        ("binary_crossentropy", [[1.0, 0.0, 1.0]], [[0.0, 0.0, -2 / 3]]),
        ("categorical_crossentropy", [[1.0, 1.0, 1.0]], [[4 / 3, 1 / 3, -2 / 3]]),
    ],
)
def test_clipped_probabilities_have_no_gradient(kernels, operation, targets, expected):
    predictions = np.array([[0.0, 1.0, 0.5]])
    gradients = np.empty_like(predictions)
    getattr(kernels, operation)(np.array(targets), predictions, None, False, 0.0, gradients)
    np.testing.assert_allclose(gradients, expected)


@each_backend
@pytest.mark.parametrize(("l1", "l2"), [(0.3, 0.0), (0.0, 0.2), (0.3, 0.2)])
def test_penalty(kernels, rng, l1, l2):
    parameters = away_from_zero(rng.standard_normal(9))
    before = rng.standard_normal(9)
    gradients = before.copy()

    def value():
        return kernels.add_penalty(parameters, l1, l2, np.zeros_like(before))

    kernels.add_penalty(parameters, l1, l2, gradients)
    assert_gradient(gradients - before, value, parameters)


@each_backend
@pytest.mark.parametrize(("n_x", "n_y", "n_h"), [(2, 1, 4), (3, 2, 5)])
def test_planar_step(kernels, rng, n_x, n_y, n_h):
    samples, rate = 7, 0.5
    inputs = rng.standard_normal((n_x, samples))
    targets = rng.integers(0, 2, (n_y, samples)).astype(float)
    parameters = rng.standard_normal(n_h * n_x + n_h + n_y * n_h + n_y)
    costs = np.empty((1, 1))

    def step(parameters):
        kernels.planar_descent(inputs, targets, np.array([n_h]), parameters, rate, 1, 1, 1, costs)
        return float(costs[0, 0])

    stepped = parameters.copy()
    step(stepped)
    gradient = (parameters - stepped) / rate
    assert_gradient(gradient, lambda: step(parameters.copy()), parameters)


@each_backend
@pytest.mark.parametrize("features", [3, 6])
def test_logistic_step(kernels, rng, features):
    inputs = rng.standard_normal((7, features))
    targets = rng.integers(0, 2, 7).astype(float)
    weights = rng.standard_normal(features)
    batch, rate = np.arange(7)[None, :], 0.5
    columns = np.ascontiguousarray(inputs.T)

    def step(weights):
        losses, state = np.empty(1), np.zeros(features)
        kernels.logistic_descent(
            *(inputs, targets, weights, batch, reference.SGD, rate, 0.9, 1e-8),
            *(state, columns, losses, None),
        )
        return float(losses[0])

    stepped = weights.copy()
    step(stepped)
    assert_gradient((weights - stepped) / rate, lambda: step(weights.copy()), weights)
