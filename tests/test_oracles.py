"""The operations against what others say: mpmath, SciPy, Keras, scikit-learn, published vectors."""

import functools
import inspect
import itertools

import mpmath
import numpy as np
import pytest
import scipy.special
from cases import CASES, DTYPES

from fastdl import backends, ops, reference

# What NumPy 2 says of the arrays of Keras's TensorFlow backend.
pytestmark = [
    pytest.mark.each_build,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

each_backend = pytest.mark.parametrize("backend", backends.BACKENDS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@pytest.fixture
def on_backend(backend):
    with backends.use_backend(backend):
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def keras():
    """Keras on whatever backend it is installed with, imported only when a test needs it."""
    import keras

    return keras


def assert_close(actual, expected, dtype, relative=8, absolute=8):
    """Equal to so many machine epsilons."""
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(actual, expected, rtol=relative * eps, atol=absolute * eps)


# ------------------------------------------------ elementary functions: mpmath and special values

EXACT = {
    "exp": mpmath.exp,
    "log": mpmath.log,
    "log1p": mpmath.log1p,
    "expm1": mpmath.expm1,
    "tanh": mpmath.tanh,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
}

each_function = pytest.mark.parametrize("name", EXACT)


def points(name, dtype, n=1500):
    """The table's domain, numbers near 0 and 1, and those where results leave the range."""
    rng = np.random.default_rng(1)
    (case,) = (case for case in CASES if case.name == name)
    info = np.finfo(dtype)
    edges = np.log([float(info.max), float(info.tiny), float(info.smallest_subnormal)])
    steps = np.arange(-20, 21)[:, None] * float(info.eps)
    values = np.concatenate(
        [
            case.make(dtype, (n,), rng)["inputs"],
            rng.choice([-1, 1], n) * 10 ** rng.uniform(-10, 0.5, n),
            1 + rng.uniform(-0.1, 0.1, n),
            (edges * (1 + steps)).ravel(),
            (-edges * (1 + steps)).ravel(),
        ]
    ).astype(dtype)
    lowest = {"log": 0, "log1p": -1}.get(name, -np.inf)
    return values[np.isfinite(values) & (values > lowest)]


def ulps(actual, exact):
    """The distance of a floating-point number from an exact one in units in the last place."""
    info = np.finfo(actual.dtype)
    overflow = mpmath.mpf(2) ** int(info.maxexp)
    exact = mpmath.mpf(exact)
    if abs(exact) >= overflow:
        return 0 if np.isinf(actual) and np.sign(actual) == mpmath.sign(exact) else mpmath.inf
    if exact == 0:
        return 0 if actual == 0 else mpmath.inf
    rounded = np.sign(actual) * overflow if np.isinf(actual) else mpmath.mpf(float(actual))
    exponent = max(mpmath.frexp(exact)[1] - 1, int(info.minexp))
    return abs(rounded - exact) / mpmath.mpf(2) ** (exponent - int(info.nmant))


@each_dtype
@each_function
def test_compiled_functions_are_within_2_ulp(name, dtype):
    inputs = points(name, dtype)
    outputs = np.empty_like(inputs)
    with backends.use_backend("cython"):
        getattr(backends.current(), name)(inputs, outputs)
    with mpmath.workprec(160):
        errors = [
            float(ulps(y, EXACT[name](mpmath.mpf(float(x)))))
            for x, y in zip(inputs, outputs, strict=True)
        ]
    worst = np.argmax(errors)
    assert errors[worst] <= 2, f"{errors[worst]:.3f} ulp at {inputs[worst]!r}"


inf, nan = np.inf, np.nan

SPECIAL_VALUES = {
    "exp": [(0.0, 1.0), (-0.0, 1.0), (inf, inf), (-inf, 0.0), (nan, nan), (1e4, inf), (-1e4, 0.0)],
    "log": [
        (0.0, -inf),
        (-0.0, -inf),
        (1.0, 0.0),
        (inf, inf),
        (-1.0, nan),
        (-inf, nan),
        (nan, nan),
    ],
    "log1p": [(0.0, 0.0), (-0.0, -0.0), (-1.0, -inf), (inf, inf), (-2.0, nan), (-inf, nan)],
    "expm1": [(0.0, 0.0), (-0.0, -0.0), (inf, inf), (-inf, -1.0), (nan, nan), (1e4, inf)],
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (inf, 1.0), (-inf, -1.0), (nan, nan), (1e30, 1.0)],
    "sigmoid": [(0.0, 0.5), (-0.0, 0.5), (inf, 1.0), (-inf, 0.0), (nan, nan), (-1e4, 0.0)],
}


@each_backend
@each_dtype
@each_function
@pytest.mark.parametrize("copies", [1, 50])  # alone, and in every lane of a vector
def test_special_values(on_backend, dtype, name, copies):
    inputs, expected = np.repeat(np.array(SPECIAL_VALUES[name], dtype), copies, axis=0).T
    actual = getattr(ops, name)(inputs)
    np.testing.assert_array_equal(actual, expected)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(actual[numbers]), np.signbit(expected[numbers]))


@each_backend
@each_dtype
@pytest.mark.parametrize("name", ["log1p", "expm1", "tanh"])
def test_tiny_numbers_pass_unchanged(on_backend, dtype, name):
    info = np.finfo(dtype)
    subnormal = info.smallest_subnormal * np.array([1, 2, 3, 999])
    magnitudes = [*subnormal, info.tiny, *info.tiny * (1 + info.eps * np.arange(1, 4))]
    inputs = np.array([*magnitudes, *np.negative(magnitudes)] * 5, dtype)
    np.testing.assert_array_equal(getattr(ops, name)(inputs), inputs)


@each_backend
@pytest.mark.parametrize("name", ["log1p", "expm1", "tanh"])
def test_subnormal_numbers_are_as_before_afterwards(on_backend, name):
    getattr(ops, name)(np.ones(100, np.float32))
    assert np.float32(1e-40) * np.float32(1) > 0


@each_backend
@each_dtype
def test_logarithms_of_subnormal_numbers(on_backend, dtype):
    smallest = np.finfo(dtype).smallest_subnormal
    digits = np.finfo(dtype).nmant
    counts = np.array([1, 2, 3, 1000, 2**digits - 1, 2**digits], np.float64)
    expected = np.log(counts) + (np.finfo(dtype).minexp - digits) * np.log(2)
    np.testing.assert_allclose(ops.log(counts.astype(dtype) * smallest), expected, rtol=1e-6)
    np.testing.assert_array_equal(
        ops.log(np.array([0, -0.0, -smallest], dtype)), [-np.inf, -np.inf, nan]
    )


# ----------------------------------------------------------------------------------------- SciPy

SCIPY_ACTIVATIONS = {
    "sigmoid": scipy.special.expit,
    "softplus": functools.partial(np.logaddexp, 0.0),
    "silu": lambda x: x * scipy.special.expit(x),
    "gelu": lambda x: 0.5 * x * (1 + scipy.special.erf(x / np.sqrt(2))),
    "elu": lambda x: np.where(x > 0, x, scipy.special.expm1(x)),
    "softmax": functools.partial(scipy.special.softmax, axis=1),
    "log_softmax": functools.partial(scipy.special.log_softmax, axis=1),
}


@each_backend
@each_dtype
@pytest.mark.parametrize("name", SCIPY_ACTIVATIONS)
def test_activations_as_in_scipy(on_backend, rng, dtype, name):
    inputs = (3 * rng.standard_normal((20, 33))).astype(dtype)
    expected = SCIPY_ACTIVATIONS[name](inputs.astype(np.float64))
    assert_close(getattr(ops, name)(inputs), expected, dtype)


def saturated_logits(rng, dtype):
    """Scores at which ln(1 - sigmoid) and ln(softmax) are infinite when computed one by one."""
    return (rng.standard_normal((30, 7)) * np.where(np.arange(30) % 3, 1, 500)[:, None]).astype(
        dtype
    )


@each_backend
@each_dtype
def test_binary_crossentropy_as_in_scipy(on_backend, rng, dtype):
    logits = saturated_logits(rng, dtype)
    targets = rng.integers(0, 2, logits.shape)
    weights = rng.uniform(0, 2, len(logits)).astype(dtype)
    loss, gradients = ops.binary_crossentropy(
        targets, logits, from_logits=True, sample_weight=weights
    )
    wide = logits.astype(np.float64)
    scale = weights.astype(np.float64)[:, None] / wide.size
    losses = np.logaddexp(0, wide) - targets * wide
    assert_close(loss, (losses * scale).sum(), dtype)
    assert_close(gradients, (scipy.special.expit(wide) - targets) * scale, dtype)


def loss_of_right_logit(logit):
    """ln(1 + e**-z), the cross-entropy of logit z where the target is 1."""
    return float(mpmath.log1p(mpmath.exp(-logit)))


each_right_logit = pytest.mark.parametrize("logit", [0.5, 12.0, 40.0])


@each_backend
@each_dtype
@each_right_logit
def test_binary_crossentropy_where_it_is_small_beside_the_logit(on_backend, dtype, logit):
    logits = np.array([[logit], [-logit]], dtype)
    loss, _ = ops.binary_crossentropy([[1], [0]], logits, from_logits=True)
    assert_close(loss, loss_of_right_logit(logit), dtype, absolute=0)


@each_backend
@each_dtype
@each_right_logit
@pytest.mark.parametrize("rows", [3, 200])  # alone, and in every lane of a vector
def test_losses_of_logistic_descent_where_they_are_small(on_backend, dtype, logit, rows):
    inputs, weights = np.full((rows, 1), logit, dtype), np.ones(1, dtype)
    _, losses, _ = ops.logistic_descent(inputs, np.ones(rows), weights, [[0]])
    # Adding up the rows may cost an epsilon for each two.
    expected = loss_of_right_logit(logit)
    assert_close(losses[0], expected, dtype, relative=8 + rows / 2, absolute=0)


@each_backend
@each_dtype
@each_right_logit
def test_costs_of_planar_descent_where_they_are_small(on_backend, dtype, logit):
    shapes = {"W1": (1, 1), "b1": (1, 1), "W2": (1, 1), "b2": (1, 1)}
    network = {name: np.zeros(shape, dtype) for name, shape in shapes.items()}
    network["b2"][...] = logit
    inputs = np.zeros((1, 3), dtype)
    _, costs = ops.planar_descent(inputs, np.ones((1, 3)), [network], iterations=1)
    assert_close(costs[0, 0], loss_of_right_logit(logit), dtype, absolute=0)


@each_backend
@each_dtype
def test_losses_of_descent_from_nan_are_nan(on_backend, dtype):
    inputs, targets = np.ones((2, 3), dtype), np.ones((1, 3))
    _, losses, _ = ops.logistic_descent(inputs.T, targets[0], np.array([nan, 0], dtype), [[0]])
    network = {"W1": np.zeros((1, 2), dtype), "b1": [[0]], "W2": [[0]], "b2": [[nan]]}
    _, costs = ops.planar_descent(inputs, targets, [network], iterations=1)
    assert np.isnan([losses[0], costs[0, 0]]).all()


@each_backend
@each_dtype
@pytest.mark.parametrize("sparse", [False, True])
def test_categorical_crossentropy_as_in_scipy(on_backend, rng, dtype, sparse):
    logits = saturated_logits(rng, dtype)
    labels = rng.integers(0, logits.shape[1], len(logits))
    one_hot = np.eye(logits.shape[1], dtype=dtype)[labels]
    weights = rng.uniform(0, 2, len(logits)).astype(dtype)
    if sparse:
        function, targets = ops.sparse_categorical_crossentropy, labels
    else:
        function, targets = ops.categorical_crossentropy, one_hot
    loss, gradients = function(targets, logits, from_logits=True, sample_weight=weights)
    wide = logits.astype(np.float64)
    scale = weights.astype(np.float64) / len(wide)
    losses = scipy.special.logsumexp(wide, axis=1) - wide[np.arange(len(wide)), labels]
    assert_close(loss, losses @ scale, dtype)
    expected = (scipy.special.softmax(wide, axis=1) - one_hot) * scale[:, None]
    assert_close(gradients, expected, dtype)


@each_backend
@each_dtype
def test_huber_as_in_scipy(on_backend, rng, dtype):
    targets, predictions = rng.standard_normal((2, 20, 7)).astype(dtype)
    loss, _ = ops.huber(targets, predictions, delta=0.7)
    errors = predictions.astype(np.float64) - targets
    assert_close(loss, scipy.special.huber(0.7, errors).mean(), dtype)


@each_backend
@each_dtype
def test_poisson_as_in_scikit_learn(on_backend, rng, dtype):
    metrics = pytest.importorskip("sklearn.metrics")
    targets = rng.poisson(2, (20, 7)).astype(dtype)
    logarithms = rng.standard_normal((20, 7)).astype(dtype)
    loss, _ = ops.poisson(targets, logarithms)
    means = np.exp(logarithms.astype(np.float64))
    assert_close(loss, metrics.mean_poisson_deviance(targets.ravel(), means.ravel()) / 2, dtype)


# ----------------------------------------------------------------------------------------- Keras


@each_backend
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in reference.ACTIVATIONS[1:]),
        ("leaky_relu", {"negative_slope": 0.3}),
        ("elu", {"alpha": 0.7}),
    ],
)
def test_activations_as_in_keras(on_backend, rng, keras, name, options):
    # In float32, since Keras rounds the constants in its formulas to that.
    inputs = (3 * rng.standard_normal((20, 7))).astype(np.float32)
    theirs = getattr(keras.activations, name)(keras.ops.convert_to_tensor(inputs), **options)
    ours = getattr(ops, name)(inputs, **options)
    assert_close(ours, keras.ops.convert_to_numpy(theirs), np.float32)


KERAS_LOSSES = {
    "binary_crossentropy": ("BinaryCrossentropy", {"from_logits", "label_smoothing"}),
    "categorical_crossentropy": ("CategoricalCrossentropy", {"from_logits", "label_smoothing"}),
    "sparse_categorical_crossentropy": ("SparseCategoricalCrossentropy", {"from_logits"}),
    "mean_squared_error": ("MeanSquaredError", set()),
    "mean_absolute_error": ("MeanAbsoluteError", set()),
    "huber": ("Huber", {"delta"}),
}
VALUES = {"from_logits": [True, False], "label_smoothing": [0.0, 0.1], "delta": [1.0, 0.6]}


def keras_loss_calls():
    for name, (keras_name, parameters) in KERAS_LOSSES.items():
        for values in itertools.product(*(VALUES[parameter] for parameter in sorted(parameters))):
            options = dict(zip(sorted(parameters), values, strict=True))
            words = [name, *(f"{parameter}={value}" for parameter, value in options.items())]
            yield pytest.param(name, keras_name, options, id="-".join(words))


@each_backend
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize(("name", "keras_name", "options"), list(keras_loss_calls()))
def test_losses_as_in_keras(on_backend, rng, keras, name, keras_name, options, weighted):
    shape = (20, 7)
    # Where the predictions are probabilities they do not add up to 1.
    predictions = rng.uniform(0.05, 0.95, shape)
    if name == "sparse_categorical_crossentropy":
        targets = rng.integers(0, shape[1], shape[0])
    elif name == "categorical_crossentropy":
        targets = np.eye(shape[1])[rng.integers(0, shape[1], shape[0])]
    else:
        targets = rng.integers(0, 2, shape).astype(np.float64)
    weights = rng.uniform(0, 2, shape[0]) if weighted else None
    keras_loss = getattr(keras.losses, keras_name)(dtype="float64", **options)
    expected = float(keras_loss(targets, predictions, sample_weight=weights))
    loss, _ = getattr(ops, name)(targets, predictions, sample_weight=weights, **options)
    assert_close(loss, expected, np.float64)


# id -> (Keras class, its options, our update, number of state arrays). Keras rounds the options to
# float32; these it holds exactly.
OPTIMIZERS = {
    "sgd": ("SGD", {}, ops.sgd_update, 0),
    "sgd-decay": ("SGD", {"weight_decay": 0.125}, ops.sgd_update, 0),
    "momentum": ("SGD", {"momentum": 0.875}, ops.sgd_update, 1),
    "nesterov": ("SGD", {"momentum": 0.875, "nesterov": True}, ops.sgd_update, 1),
    "nesterov-decay": (
        "SGD",
        {"momentum": 0.875, "nesterov": True, "weight_decay": 0.125},
        ops.sgd_update,
        1,
    ),
    "rmsprop": ("RMSprop", {"rho": 0.75, "epsilon": 2**-20}, ops.rmsprop_update, 1),
    "rmsprop-decay": (
        "RMSprop",
        {"rho": 0.75, "epsilon": 2**-5, "weight_decay": 0.125},
        ops.rmsprop_update,
        1,
    ),
    "adam": (
        "Adam",
        {"beta_1": 0.875, "beta_2": 0.984375, "epsilon": 2**-20},
        ops.adam_update,
        2,
    ),
    "adamw": (
        "AdamW",
        {"beta_1": 0.75, "beta_2": 0.875, "epsilon": 2**-5, "weight_decay": 0.125},
        ops.adam_update,
        2,
    ),
}


@each_backend
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers_as_in_keras(on_backend, rng, keras, optimizer):
    keras_name, options, update, states = OPTIMIZERS[optimizer]
    options = {"learning_rate": 0.0625, **options}
    parameters = rng.standard_normal((4, 3))
    state = [np.zeros_like(parameters) for _ in range(states)]
    theirs = keras.Variable(parameters, dtype="float64")
    keras_optimizer = getattr(keras.optimizers, keras_name)(**options)
    for step in range(1, 8):
        gradients = rng.standard_normal(parameters.shape)
        keras_optimizer.apply([keras.ops.convert_to_tensor(gradients)], [theirs])
        count = {"step": step} if update is ops.adam_update else {}
        update(parameters, gradients, *state, **options, **count)
        assert_close(parameters, keras.ops.convert_to_numpy(theirs), np.float64)


@pytest.mark.parametrize(
    ("update", "keras_name"),
    [
        (ops.sgd_update, "SGD"),
        (ops.rmsprop_update, "RMSprop"),
        (ops.adam_update, "Adam"),
    ],
)
def test_defaults_of_updates_are_keras(keras, update, keras_name):
    theirs = inspect.signature(getattr(keras.optimizers, keras_name)).parameters
    for name, parameter in inspect.signature(update).parameters.items():
        if name in theirs:
            assert parameter.default == (theirs[name].default or 0), name


def assert_share(hits, share):
    """The share of True among independent draws, to five standard deviations."""
    deviation = np.sqrt(share * (1 - share) / hits.size)
    assert abs(hits.mean() - share) <= 5 * deviation


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.9])
def test_dropout_statistics_as_in_keras(keras, rate):
    inputs = np.ones((400, 256), np.float32)
    layer = keras.layers.Dropout(rate, seed=1)
    theirs = keras.ops.convert_to_numpy(layer(inputs, training=True))
    ours = ops.dropout(inputs, rate, seed=1)
    for outputs in (theirs, ours):
        kept = outputs != 0
        assert_share(kept, 1 - rate)
        np.testing.assert_allclose(outputs[kept], 1 / (1 - rate), rtol=1e-6)


# ------------------------------------------------------------------------------ random numbers


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        (
            "00000000 00000000 00000000 00000000",
            "00000000 00000000",
            "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
        ),
        (
            "ffffffff ffffffff ffffffff ffffffff",
            "ffffffff ffffffff",
            "408f276d 41c83b0e a20bc7c6 6d5451fd",
        ),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
    ids=["zeros", "ones", "pi"],
)
def test_philox_known_answers(counter, key, expected):
    """The test vectors of Random123, the authors' own library, for philox4x32 with 10 rounds."""
    counter, key, expected = (
        [int(word, 16) for word in words.split()] for words in (counter, key, expected)
    )
    assert reference.philox(counter, key[0] | key[1] << 32).tolist() == expected


@each_backend
def test_dropout_takes_rows_from_halves_of_words(on_backend):
    words = (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)  # the known answer for zeros
    numbers = [half for word in words for half in (word & 0xFFFF, word >> 16)]
    inputs = np.ones((8, 1))
    for row, number in enumerate(numbers):
        assert ops.dropout(inputs, number / 65536, seed=0)[row] > 0
        assert ops.dropout(inputs, (number + 1) / 65536, seed=0)[row] == 0


def test_dropout_masks_are_independent():
    inputs, rate = np.ones((200, 500), np.float32), 0.3
    first = ops.dropout(inputs, rate, seed=1, step=2, layer=3) > 0
    others = [
        ops.dropout(inputs, rate, **{"seed": 1, "step": 2, "layer": 3, **change}) > 0
        for change in ({"seed": 2}, {"seed": 1 + 2**32}, {"step": 3}, {"layer": 4})
    ]
    others += [np.roll(first, shift, axis) for shift in (1, 8) for axis in (0, 1)]
    for other in others:
        assert_share(first == other, rate**2 + (1 - rate) ** 2)


@each_backend
@pytest.mark.parametrize("n", [1, 2, 50, 51])
def test_permutation_is_fisher_and_yates_shuffle(on_backend, n):
    seed, epoch = 987654321, 6
    expected = list(range(n))
    for i in range(n - 1, 0, -1):
        words = reference.philox((i // 2, 0, epoch, 0xFFFFFFFF), seed).tolist()
        high, low = words[:2] if i % 2 == 0 else words[2:]
        j = (high << 32 | low) * (i + 1) >> 64
        expected[i], expected[j] = expected[j], expected[i]
    assert ops.permutation(n, seed=seed, epoch=epoch).tolist() == expected


def test_permutations_are_uniform():
    orders = [tuple(ops.permutation(4, seed=5, epoch=epoch)) for epoch in range(2400)]
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 24
    # Chi-squared with 23 degrees of freedom, one chance in 10,000.
    assert ((counts - 100) ** 2 / 100).sum() < scipy.special.chdtri(23, 1e-4)


# -------------------------------------------------------------------------------- scikit-learn


@each_backend
def test_logistic_descent_finds_sklearns_optimum(on_backend, rng):
    from sklearn.linear_model import LogisticRegression

    inputs = rng.standard_normal((60, 3))
    targets = (inputs @ [1.0, -2.0, 0.5] + 2 * rng.standard_normal(60) > 0).astype(float)
    model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-12, max_iter=1000)
    expected = model.fit(inputs, targets).coef_[0]
    every_row = np.tile(np.arange(60), (400, 1))
    weights, _, _ = ops.logistic_descent(
        inputs, targets, np.zeros(3), every_row, method="sgd", learning_rate=4.0
    )
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
