"""Activations, losses and optimizers written in Python: on each backend, as the built-in ones.

Numba's engine trains with them wherever the compiled one would, so that other builds of that one
have no part in this.
"""

import copy
import functools
import math
import pickle
import subprocess
import sys
import types

import numpy as np
import pytest
import scipy.sparse

from fastdl import MLP, activations, losses, optimizers, use_backend

BACKENDS = ("cython", "numba", "reference")
TOLERANCE = {"rtol": 1e-9, "atol": 1e-12}


def tanh(z):
    return math.tanh(z)


def tanh_slope(z, a):
    return 1 - a * a


def square(target, prediction):
    return (prediction - target) ** 2


def square_slope(target, prediction):
    return 2 * (prediction - target)


BETA_1 = 0.9


def adam(w, g, learning_rate, t, m, v):
    m = BETA_1 * m + (1 - BETA_1) * g
    v = 0.999 * v + (1 - 0.999) * g * g
    rate = learning_rate * math.sqrt(1 - 0.999**t) / (1 - BETA_1**t)
    return w - rate * m / (math.sqrt(v) + 1e-7), m, v


def descent(w, g, learning_rate, t):
    return w - learning_rate * g


TANH = activations.Custom(tanh, tanh_slope, name="my_tanh")
SQUARE = losses.Custom(square, square_slope, name="my_square")
ADAM = optimizers.Custom(adam, slots=("m", "v"), learning_rate=0.01, name="my_adam")


def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(41, 5)), rng.normal(size=(41, 2))


def trained(arguments, optimizer, backend, dtype="float64", **fit):
    X, y = data()
    with use_backend(backend):
        arguments = {"activation": "tanh", "loss": "mse", "dropout": 0.2} | arguments
        net = MLP([5, 20, 7, 2], seed=1, dtype=dtype, **arguments)
        history = net.fit(X, y, batch_size=8, epochs=2, optimizer=optimizer, verbose=0, **fit)
        scores = net.evaluate(X, y), net.predict(X), net.gradients(X, y)[1]
    return net, history.history["loss"], scores


def assert_same(run, wanted, tolerance):
    (net, losses, scores), (other, other_losses, other_scores) = run, wanted
    np.testing.assert_allclose(losses, other_losses, **tolerance)
    for array, expected in zip(net.weights, other.weights, strict=True):
        np.testing.assert_allclose(array, expected, **tolerance)
    assert scores[0]["loss"] == pytest.approx(other_scores[0]["loss"], rel=tolerance["rtol"])
    np.testing.assert_allclose(scores[1], other_scores[1], **tolerance)
    for array, expected in zip(scores[2], other_scores[2], strict=True):
        np.testing.assert_allclose(array, expected, **tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("arguments", [{"activation": TANH}, {"loss": SQUARE}])
def test_a_row_at_a_time_is_predicted_alike(arguments, backend):
    X, _ = data()
    net = MLP([5, 20, 7, 2], seed=1, dtype="float64", **{"loss": "mse"} | arguments)
    with use_backend(backend):
        many = net.predict(X)
        few = [net.predict(X[row : row + 1]) for row in range(len(X))]
    np.testing.assert_allclose(np.concatenate(few), many, **TOLERANCE)


@pytest.mark.parametrize("backend", BACKENDS)
def test_mostly_zeros(backend):
    X, y = data()
    X[X < 1] = 0
    runs = []
    for fit_on, rows in ((backend, scipy.sparse.csr_matrix(X)), ("reference", X)):
        with use_backend(fit_on):
            net = MLP([5, 20, 2], activation=TANH, loss=SQUARE, seed=1, dtype="float64")
            fit = {"optimizer": ADAM, "epochs": 3, "batch_size": 8, "verbose": 0}
            history = net.fit(rows, y, validation_split=0.2, **fit)
            runs.append((net, history.history))
    (net, history), (wanted, wanted_history) = runs
    for name, values in wanted_history.items():
        np.testing.assert_allclose(history[name], values, **TOLERANCE)
    for array, expected in zip(net.weights, wanted.weights, strict=True):
        np.testing.assert_allclose(array, expected, **TOLERANCE)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("arguments", "optimizer", "same", "same_optimizer"),
    [
        ({"activation": TANH}, "adam", {}, "adam"),
        ({"activation": ["tanh", TANH]}, "sgd", {}, "sgd"),
        ({"output_activation": TANH}, "sgd", {"output_activation": "tanh"}, "sgd"),
        ({"loss": SQUARE}, "adam", {}, "adam"),
        ({}, ADAM, {}, optimizers.Adam(0.01)),
        ({}, optimizers.Custom(descent, learning_rate=0.1), {}, optimizers.SGD(0.1)),
        (
            {"activation": TANH, "loss": SQUARE, "l2": 0.01},
            optimizers.Custom(adam, ("m", "v"), 0.01, weight_decay=0.1, global_clipnorm=0.1),
            {"l2": 0.01},
            optimizers.AdamW(0.01, weight_decay=0.1, global_clipnorm=0.1),
        ),
    ],
    ids=["activation", "one_activation", "output", "loss", "optimizer", "no_slots", "all"],
)
def test_same_as_built_in(arguments, optimizer, same, same_optimizer, backend):
    wanted = trained(same, same_optimizer, "reference")
    assert_same(trained(arguments, optimizer, backend), wanted, TOLERANCE)


def test_in_single_precision():
    arguments = {"activation": TANH, "loss": SQUARE}
    wanted = trained({}, optimizers.Adam(0.01), "reference", "float32")
    run = trained(arguments, ADAM, "cython", "float32")
    assert_same(run, wanted, {"rtol": 2e-3, "atol": 2e-5})


@pytest.mark.parametrize("backend", ["cython", "reference"])
def test_sample_weights(backend):
    weights = np.random.default_rng(2).random(41)
    wanted = trained({}, "sgd", "reference", sample_weight=weights)
    assert_same(trained({"loss": SQUARE}, "sgd", backend, sample_weight=weights), wanted, TOLERANCE)


@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_gradients_are_slopes(backend):
    softsign = activations.Custom(lambda z: z / (1 + abs(z)), lambda z, a: 1 / (1 + abs(z)) ** 2)
    cosh = losses.Custom(lambda t, p: math.log(math.cosh(p - t)), lambda t, p: math.tanh(p - t))
    X, y = data()
    with use_backend(backend):
        net = MLP([5, 4, 2], activation=softsign, loss=cosh, dtype="float64", seed=0)
        _, gradients = net.gradients(X, y)
        step = 1e-6
        for array, gradient in zip(net.weights, gradients, strict=True):
            ends = []
            for sign in (1, -1):
                array.flat[0] += sign * step
                ends.append(net.gradients(X, y)[0])
                array.flat[0] -= sign * step
            assert gradient.flat[0] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5)


def test_numbers_in_a_function_have_the_networks_dtype():
    jit_engine = pytest.importorskip("fastdl.jit_engine")
    factor = 0.5

    def forward(z):
        return factor * z + 2 * BETA_1 - 1

    for real in (np.float32, np.float64):
        scalar = jit_engine._scalar_function("forward", forward, real, 1)
        assert scalar.nopython_signatures[0].return_type.name == real.__name__


def test_a_loop_in_a_function():
    def forward(z):
        for _ in range(3):
            z = z / 2
        return z

    net = MLP([1, 1, 1], activation=activations.Custom(forward, lambda z, a: 0.125), loss="mse")
    net.set_weights([[[1.0]], [0.0], [[1.0]], [0.0]])
    assert net.predict([[8.0]]).item() == 1


def test_functions_that_numba_compiled():
    numba = pytest.importorskip("numba")
    compiled = activations.Custom(numba.njit(tanh), numba.njit(tanh_slope))
    wanted = trained({}, "sgd", "reference")
    for backend in ("numba", "reference"):
        assert_same(trained({"activation": compiled}, "sgd", backend), wanted, TOLERANCE)


@pytest.mark.parametrize("compiled", [False, True])
def test_any_function_is_a_schedule(compiled):
    def schedule(step):
        return 0.1 / (1 + step)

    if compiled:
        schedule = pytest.importorskip("numba").njit(schedule)
    for backend in BACKENDS:
        run = trained({}, optimizers.SGD(schedule), backend)
        wanted = trained({}, optimizers.SGD(lambda step: 0.1 / (1 + step)), "reference")
        assert_same(run, wanted, TOLERANCE)


def test_what_numba_cannot_compile_is_refused_before_anything_changes():
    net = MLP([5, 3, 2], activation=activations.Custom(lambda z: str(open), tanh_slope), loss="mse")
    with pytest.raises(TypeError, match=r"^activation 'custom': Numba can't compile <lambda>: "):
        net.fit(*data(), verbose=0)
    assert net.optimizer is None
    assert net.iterations == net._network.epochs == 0


def scaled(z, factor=2.0):
    return factor * z


def scaled_by_name(z, *, factor=2.0):
    return factor * z


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        (scaled, 1.0),
        (scaled_by_name, 1.0),
        (math.tanh, math.tanh(0.5)),
        (np.tanh, math.tanh(0.5)),
        (abs, 0.5),
    ],
    ids=["default", "keyword", "builtin", "ufunc", "abs"],
)
def test_what_can_be_called_with_a_number(forward, expected, backend):
    net = MLP([1, 1, 1], activation=activations.Custom(forward, tanh_slope), loss="mse")
    net.set_weights([[[1.0]], [0.0], [[1.0]], [0.0]])
    with use_backend(backend):
        assert net.predict([[0.5]]).item() == pytest.approx(expected)


def test_default_values_have_the_networks_dtype():
    jit_engine = pytest.importorskip("fastdl.jit_engine")
    for function in (scaled, scaled_by_name):
        scalar = jit_engine._scalar_function("forward", function, np.float32, 1)
        assert scalar.nopython_signatures[0].return_type.name == "float32"


class Doubling:
    def __call__(self, z):
        return 2 * z

    def method(self, z):
        return 2 * z


@pytest.mark.parametrize(
    ("arguments", "optimizer", "message"),
    [
        (
            {"activation": activations.Custom(Doubling(), tanh_slope)},
            "sgd",
            "activation 'custom': Numba can't compile <test_custom.Doubling",
        ),
        (
            {"activation": activations.Custom(Doubling().method, tanh_slope)},
            "sgd",
            "activation 'custom': Numba can't compile method: ",
        ),
        (
            {"activation": activations.Custom(functools.partial(scaled, factor=3), tanh_slope)},
            "sgd",
            r"activation 'custom': Numba can't compile functools\.partial",
        ),
        (
            {"activation": activations.Custom(lambda z, a: z, tanh_slope)},
            "sgd",
            "activation 'custom': Numba can't compile <lambda>: .*missing a required argument: 'a'",
        ),
        (
            {"activation": activations.Custom(tanh, lambda z, a: None)},
            "sgd",
            "activation 'custom': <lambda> returns none, not a number",
        ),
        (
            {"loss": losses.Custom(lambda t, p: (p, t), square_slope)},
            "sgd",
            r"loss 'custom': <lambda> returns UniTuple\(float64 x 2\), not a number",
        ),
        (
            {"loss": losses.Custom(square, lambda t, p: p * 1j)},
            "sgd",
            "loss 'custom': <lambda> returns complex128, not a number",
        ),
        (
            {},
            optimizers.Custom(lambda w, g, rate, t, m: w, slots=["m"]),
            "optimizer 'custom': <lambda> returns float64, not a tuple of 2 numbers",
        ),
        (
            {},
            optimizers.Custom(lambda w, g, rate, t: (w,)),
            r"optimizer 'custom': <lambda> returns UniTuple\(float64 x 1\), not a number",
        ),
    ],
    ids=[
        *("object", "method", "partial", "parameters", "none", "tuple", "complex"),
        *("no_slots", "one_tuple"),
    ],
)
def test_the_piece_that_cannot_be_compiled_is_named(arguments, optimizer, message):
    net = MLP([5, 3, 2], dtype="float64", **{"loss": "mse"} | arguments)
    with pytest.raises(TypeError, match=f"^{message}"):
        net.fit(*data(), optimizer=optimizer, verbose=0)


def picky(z):
    if z > 0.5:
        raise ValueError("z is too large")
    return z


def picky_slope(z, a):
    if z > 0.5:
        raise ValueError("z is too large")
    return 1.0


def picky_loss(target, prediction):
    if prediction > 0.5:
        raise ValueError("prediction is too large")
    return prediction


def picky_descent(w, g, learning_rate, t, slot):
    if t > 0:
        raise ValueError("t is too large")
    return w - g, g


PICKY = activations.Custom(picky, tanh_slope, name="picky")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"activation": PICKY}, "activation 'picky'"),
        ({"loss": losses.Custom(picky_loss, square_slope, name="picky")}, "loss 'picky'"),
    ],
)
def test_an_exception_in_a_function_is_one_of_the_call(arguments, name):
    net = MLP([1, 1, 1], **{"activation": "linear", "loss": "mse"} | arguments)
    net.set_weights([[[1.0]], [0.0], [[1.0]], [0.0]])
    with pytest.raises(RuntimeError, match=f"^{name}: a function of it raised an exception"):
        net.evaluate([[1.0]], [0.0])


def test_an_exception_is_raised_once():
    net = MLP([1, 1, 1], activation=PICKY, loss="mse")
    net.set_weights([[[1.0]], [0.0], [[1.0]], [0.0]])
    with pytest.raises(RuntimeError):
        net.predict([[1.0]])
    assert net.predict([[0.25]]).item() == 0.25


@pytest.mark.parametrize(
    ("arguments", "optimizer", "name"),
    [
        ({"activation": PICKY}, "sgd", "activation 'picky'"),
        (
            {"activation": activations.Custom(tanh, picky_slope, name="picky")},
            "sgd",
            "activation 'picky'",
        ),
        ({"loss": losses.Custom(picky_loss, square_slope, name="picky")}, "sgd", "loss 'picky'"),
        ({}, optimizers.Custom(picky_descent, ["slot"], name="picky"), "optimizer 'picky'"),
    ],
    ids=["forward", "derivative", "loss", "optimizer"],
)
def test_training_ends_with_an_exception_as_it_was(arguments, optimizer, name):
    X, y = data()
    net = MLP([5, 3, 2], seed=1, **{"loss": "mse"} | arguments)
    weights = [array.copy() for array in net.weights]
    with pytest.raises(RuntimeError, match=f"^{name}: "):
        net.fit(X, y, epochs=3, batch_size=len(X), optimizer=optimizer, verbose=0)
    assert net.iterations == 0
    for array, before in zip(net.weights, weights, strict=True):
        np.testing.assert_array_equal(array, before)


FACTOR = 1.0
SETTINGS = types.ModuleType("settings")
SETTINGS.factor = 1.0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("forward", "change"),
    [
        (lambda z: FACTOR * z, lambda patch: patch.setitem(globals(), "FACTOR", 3.0)),
        (
            lambda z: sum([FACTOR * z for _ in range(1)]),
            lambda patch: patch.setitem(globals(), "FACTOR", 3.0),
        ),
        (
            lambda z: SETTINGS.factor * z,
            lambda patch: patch.setattr(SETTINGS, "factor", 3.0),
        ),
    ],
    ids=["global", "comprehension", "module"],
)
def test_a_variable_that_a_function_reads_may_change(forward, change, backend, monkeypatch):
    net = MLP([1, 1, 1], activation=activations.Custom(forward, tanh_slope), loss="mse")
    net.set_weights([[[1.0]], [0.0], [[1.0]], [0.0]])
    with use_backend(backend):
        assert net.predict([[1.0]]).item() == 1
        change(monkeypatch)
        assert net.predict([[1.0]]).item() == 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_variable_around_a_function_may_change(backend):
    factor = 1.0
    own = activations.Custom(lambda z: factor * z, tanh_slope)
    net = MLP([1, 1, 1], activation=own, loss="mse")
    net.set_weights([[[1.0]], [0.0], [[1.0]], [0.0]])
    with use_backend(backend):
        assert net.predict([[1.0]]).item() == 1
        factor = 3.0
        assert net.predict([[1.0]]).item() == 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_array_that_a_function_reads_may_change(backend):
    table = np.ones(1)
    own = activations.Custom(lambda z: table[0] * z, tanh_slope)
    net = MLP([1, 1, 1], activation=own, loss="mse")
    net.set_weights([[[1.0]], [0.0], [[1.0]], [0.0]])
    with use_backend(backend):
        assert net.predict([[1.0]]).item() == 1
        table[0] = 3.0
        assert net.predict([[1.0]]).item() == 3


def test_what_has_not_changed_is_compiled_once():
    jit_engine = pytest.importorskip("fastdl.jit_engine")
    nan, table = math.nan, np.ones(1)
    arguments = "activation", lambda z: z + nan * table[0], tanh_slope, np.dtype("float32")
    first, _ = jit_engine.compiled_activation(*arguments)
    assert jit_engine.compiled_activation(*arguments)[0] is first


def test_missing_numba_is_explained():
    code = """
import sys
sys.modules["numba"] = None
from fastdl import MLP, activations
net = MLP([1, 1, 1], activation=activations.Custom(abs, lambda z, a: 1.0, name="size"))
try:
    net.predict([[0.0]])
except ImportError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == (
        "activation 'size': this needs the package numba: pip install 'fastdl-kernels[numba]'"
    )


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: activations.Custom(1, tanh_slope), TypeError, "forward: 1 is not a function"),
        (lambda: activations.Custom(tanh, tanh_slope, name="relu"), ValueError, "name: 'relu'"),
        (lambda: losses.Custom(square, None), TypeError, "gradient: None is not a function"),
        (lambda: optimizers.Custom("adam"), TypeError, "update: 'adam' is not a function"),
        (lambda: optimizers.Custom(adam, "mv"), TypeError, "slots: 'mv' is not a sequence"),
        (lambda: optimizers.Custom(adam, 3), TypeError, "slots: 3 is not a sequence of strings"),
        (lambda: optimizers.Custom(adam, ("m", "m")), ValueError, "slots: .* has a name twice"),
        (
            lambda: MLP([2, 3], output_activation=TANH),
            ValueError,
            "output_activation: 'my_tanh' gives neither",
        ),
    ],
)
def test_wrong_arguments(make, error, message):
    with pytest.raises(error, match=f"^{message}"):
        make()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_train_on(duplicate):
    net, _, _ = trained({"activation": TANH, "loss": SQUARE}, ADAM, "cython")
    twin = duplicate(net)
    for each in (net, twin):
        each.fit(*data(), verbose=0)
    for array, other in zip(net.weights, twin.weights, strict=True):
        np.testing.assert_array_equal(array, other)


@pytest.mark.parametrize(
    ("arguments", "optimizer", "message"),
    [
        ({"activation": TANH}, "sgd", "activation 'my_tanh'"),
        ({"loss": SQUARE}, "sgd", "loss 'my_square'"),
        ({}, ADAM, "optimizer 'my_adam'"),
    ],
)
def test_what_is_written_in_python_cannot_be_saved(arguments, optimizer, message, tmp_path):
    net, _, _ = trained(arguments, optimizer, "cython")
    with pytest.raises(TypeError, match=f"^{message}: written in Python, so it can't be saved$"):
        net.save(tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


def test_summary_says_what_trains_it():
    lines = []
    net, _, _ = trained({"activation": TANH, "loss": SQUARE}, ADAM, "cython")
    net.summary(lines.append)
    assert lines[0].splitlines()[-1] == (
        "Trained by the Numba engine: activation 'my_tanh', loss 'my_square', optimizer 'my_adam'"
    )
    MLP([2, *[2] * 64, 1]).summary(lines.append)
    assert lines[1].splitlines()[-1] == (
        "Trained kernel by kernel: 65 layers are too many for the compiled engine"
    )
    MLP([2, 1]).summary(lines.append)
    assert lines[2].splitlines()[-1].startswith("Total params")
