"""The drop-in for the exercise on planar data: rows 2.1 to 2.13."""

import sys
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest

import fastdl
from fastdl.assignments import planar

pytestmark = pytest.mark.each_build

NAMES = ("W1", "b1", "W2", "b2")

# At iterations 0, 1000, ..., 7000 with 4 hidden units, rate 1.2, drawn after np.random.seed(2).
KNOWN_COSTS = (
    "0.693048",
    "0.288083",
    "0.254385",
    "0.233864",
    "0.226792",
    "0.222644",
    "0.219731",
    "0.217504",
)
KNOWN_ACCURACIES = {1: 67.5, 2: 67.25, 3: 90.75, 4: 90.5, 5: 91.25}


@pytest.fixture(scope="module")
def data():
    return planar.load_planar_dataset()


def global_state():
    _, words, position, *_ = np.random.get_state()
    return words.tobytes(), position


def random_network(n_x=2, n_h=3, n_y=1, seed=0):
    random = np.random.default_rng(seed)
    shapes = ((n_h, n_x), (n_h, 1), (n_y, n_h), (n_y, 1))
    return {name: random.normal(size=shape) for name, shape in zip(NAMES, shapes, strict=True)}


def hand_forward(X, parameters):
    A1 = np.tanh(parameters["W1"] @ X + parameters["b1"])
    return A1, 1 / (1 + np.exp(-(parameters["W2"] @ A1 + parameters["b2"])))


# ------------------------------------------------------------------------- the network, by parts


def test_star_import_brings_the_functions_and_nothing_else():
    namespace = {}
    exec("from fastdl.assignments.planar import *", namespace)
    assert sorted(set(namespace) - {"__builtins__"}) == sorted(planar.__all__)
    assert {"nn_model", "predict", "plot_decision_boundary"} <= set(namespace)


def test_layer_sizes(data):
    assert planar.layer_sizes(*data) == (2, 4, 1)
    assert planar.layer_sizes(np.zeros((5, 3)), np.zeros((2, 3))) == (5, 4, 2)


def test_parameters_are_drawn_from_the_global_state():
    np.random.seed(2)
    expected = np.random.randn(4, 2) * 0.01, np.random.randn(3, 4) * 0.01
    following = np.random.random_sample()
    np.random.seed(2)
    parameters = planar.initialize_parameters(2, 4, 3)
    assert list(parameters) == list(NAMES)
    np.testing.assert_array_equal(parameters["W1"], expected[0])
    np.testing.assert_array_equal(parameters["W2"], expected[1])
    assert parameters["b1"].tolist() == [[0]] * 4
    assert parameters["b2"].tolist() == [[0]] * 3
    assert np.random.random_sample() == following


def test_a_seed_draws_alike_and_leaves_the_global_state_alone():
    np.random.seed(2)
    expected = planar.initialize_parameters(2, 4, 1)
    before = global_state()
    parameters = planar.initialize_parameters(2, 4, 1, seed=2)
    for name in NAMES:
        np.testing.assert_array_equal(parameters[name], expected[name])
    assert global_state() == before


def test_forward_propagation_is_tanh_then_sigmoid(data):
    X, _ = data
    parameters = random_network()
    A1, expected = hand_forward(X, parameters)
    A2, cache = planar.forward_propagation(X, parameters)
    assert list(cache) == ["Z1", "A1", "Z2", "A2"]
    np.testing.assert_allclose(A2, expected, rtol=1e-13)
    np.testing.assert_allclose(cache["A1"], A1, rtol=1e-13)
    np.testing.assert_allclose(np.tanh(cache["Z1"]), A1, rtol=1e-13)
    np.testing.assert_allclose(1 / (1 + np.exp(-cache["Z2"])), expected, rtol=1e-13)
    np.testing.assert_array_equal(cache["A2"], A2)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, float])
def test_cost_is_the_textbook_formula(dtype):
    A2 = np.array([[0.2, 0.5, 0.9]])
    Y = np.array([[0, 1, 1]], dtype=dtype)
    cost = planar.compute_cost(A2, Y)
    assert type(cost) is float
    assert cost == pytest.approx(-(np.log(0.8) + np.log(0.5) + np.log(0.9)) / 3, rel=1e-15)


def test_cost_ignores_its_third_argument():
    A2, Y = [[0.2, 0.9]], [[0, 1]]
    assert planar.compute_cost(A2, Y, random_network()) == planar.compute_cost(A2, Y)


def test_cost_at_saturation_is_finite_and_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert planar.compute_cost([[0.0, 1.0]], [[0, 1]]) == pytest.approx(0, abs=1e-15)
        wrong = planar.compute_cost([[0.0, 1.0]], [[1, 0]])
    assert 30 < wrong < 1000


@pytest.mark.parametrize("n_y", [1, 2])
def test_gradients_are_those_of_the_cost(n_y):
    random = np.random.default_rng(3)
    X, Y = random.normal(size=(2, 7)), random.random((n_y, 7)) > 0.5
    parameters = random_network(n_y=n_y)
    _, cache = planar.forward_propagation(X, parameters)
    grads = planar.backward_propagation(parameters, cache, X, Y)
    assert list(grads) == ["dW1", "db1", "dW2", "db2"]
    step = 1e-6
    for name in NAMES:
        differences = np.empty_like(parameters[name])
        for index in np.ndindex(differences.shape):
            costs = []
            for sign in (1, -1):
                moved = {key: value.copy() for key, value in parameters.items()}
                moved[name][index] += sign * step
                costs.append(planar.compute_cost(planar.forward_propagation(X, moved)[0], Y))
            differences[index] = (costs[0] - costs[1]) / (2 * step)
        np.testing.assert_allclose(grads["d" + name], differences, rtol=1e-6, atol=1e-8)


def test_backward_propagation_looks_at_a1_and_a2_alone():
    X, Y = np.ones((2, 3)), np.array([[0, 1, 1]])
    parameters = random_network()
    _, cache = planar.forward_propagation(X, parameters)
    expected = planar.backward_propagation(parameters, cache, X, Y)
    odd = {"A1": cache["A1"], "A2": cache["A2"], "Z1": "what the notebook left here"}
    grads = planar.backward_propagation(parameters, odd, X, Y)
    for name, grad in grads.items():
        np.testing.assert_array_equal(grad, expected[name])


def test_updates_are_new_arrays():
    parameters = random_network()
    before = {name: value.copy() for name, value in parameters.items()}
    grads = {"d" + name: np.ones_like(value) for name, value in parameters.items()}
    updated = planar.update_parameters(parameters, grads)
    for name in NAMES:
        np.testing.assert_array_equal(parameters[name], before[name])
        np.testing.assert_allclose(updated[name], before[name] - 1.2, rtol=1e-15)
    halved = planar.update_parameters(parameters, grads, learning_rate=0.5)
    np.testing.assert_allclose(halved["W1"], before["W1"] - 0.5, rtol=1e-15)


def test_predict_is_above_one_half(data):
    X, _ = data
    parameters = random_network()
    predictions = planar.predict(parameters, X)
    assert predictions.dtype == bool
    assert predictions.shape == (1, 400)
    np.testing.assert_array_equal(predictions, hand_forward(X, parameters)[1] > 0.5)


def test_accuracy_is_that_of_the_notebook(data):
    X, Y = data
    parameters = random_network()
    predictions = planar.predict(parameters, X)
    right = np.dot(Y, predictions.T) + np.dot(1 - Y, 1 - predictions.T)
    assert planar.accuracy(parameters, X, Y) == float(right.item() / Y.size * 100)


ONES = {"W1": np.ones((3, 2)), "b1": np.ones((3, 1)), "W2": np.ones((1, 3)), "b2": np.ones((1, 1))}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: planar.layer_sizes(3, [[1]]), ValueError, r"X: shape \(\) is not 2-D"),
        (lambda: planar.layer_sizes([[1]], None), TypeError, "Y: dtype object is not"),
        (lambda: planar.predict(None, [[1]]), TypeError, "parameters: None is not a dict"),
        (lambda: planar.predict({}, [[1]]), ValueError, "parameters: the key 'W1' is missing"),
        (
            lambda: planar.predict(ONES | {"b1": np.array(1.0)}, np.ones((2, 5))),
            ValueError,
            r"b1: shape \(\) is not 2-D",
        ),
        (
            lambda: planar.backward_propagation({}, {}, [[1]], [[1]]),
            ValueError,
            "parameters: the key 'W2' is missing",
        ),
        (
            lambda: planar.backward_propagation(ONES, [1], [[1]], [[1]]),
            TypeError,
            r"cache: \[1\] is not a dict",
        ),
        (
            lambda: planar.backward_propagation(ONES, {"A1": 1}, [[1]], [[1]]),
            ValueError,
            "cache: the key 'A2' is missing",
        ),
        (
            lambda: planar.hidden_size_study([[1]], [[1]], 4),
            TypeError,
            "sizes: 4 is not a sequence of integers",
        ),
        (
            lambda: planar.learning_rate_illustration(converging="fast"),
            TypeError,
            "converging: 'fast' is not a finite number >= 0",
        ),
        (
            lambda: planar.learning_rate_illustration(converging=0.2, diverging=0.2),
            ValueError,
            "diverging: 0.2 is the same rate as converging",
        ),
        (
            lambda: planar.hidden_size_study([[1, 2]], [[0, 1]], sizes=()),
            ValueError,
            r"sizes: \[\] holds no size",
        ),
        (
            lambda: planar.hidden_size_study([[1, 2]], [[0, 1]], sizes=(2, 3, 2)),
            ValueError,
            r"sizes: \[2, 3, 2\] holds a size twice",
        ),
        (
            lambda: planar.logistic_regression([[1, 2]], [[0, 2]]),
            ValueError,
            r"Y: 2 at index \(0, 1\) is not an integer in \[0, 1\]",
        ),
        (lambda: planar.update_parameters(ONES, ()), TypeError, r"grads: \(\) is not a dict"),
        (lambda: planar.update_parameters(ONES, {}), ValueError, "grads: the key 'dW1' is missing"),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: planar.forward_propagation(np.ones((4, 5)), ONES), r"W1: shape \(3, 2\)"),
        (lambda: planar.predict(ONES | {"b1": np.ones(3)}, np.ones((2, 5))), r"b1: shape \(3,\)"),
        (lambda: planar.compute_cost([[0.5]], [[0, 1]]), r"Y: shape \(1, 2\) does not match A2"),
        (lambda: planar.compute_cost(np.ones((1, 0)), np.ones((1, 0))), r"Y: .* holds no data"),
        (
            lambda: planar.backward_propagation(
                ONES, {"A1": np.ones((3, 5)), "A2": np.ones((1, 4))}, np.ones((2, 5)), [[1] * 5]
            ),
            r"A2: shape \(1, 4\) does not match X \(2, 5\)",
        ),
        (
            lambda: planar.update_parameters(ONES, {"d" + name: np.ones((1, 1)) for name in ONES}),
            r"dW1: shape \(1, 1\) does not match W1 \(3, 2\)",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ----------------------------------------------------------------------- the network, as a whole


@pytest.mark.parametrize("backend", fastdl.backends.BACKENDS)
def test_nn_model_prints_the_known_costs(data, backend, capsys):
    np.random.seed(2)
    with fastdl.use_backend(backend):
        planar.nn_model(*data, 4, num_iterations=7001, print_cost=True)
    expected = [f"Cost after iteration {1000 * i}: {cost}" for i, cost in enumerate(KNOWN_COSTS)]
    assert capsys.readouterr().out.splitlines() == expected


def test_nn_model_is_the_loop_written_by_hand(data):
    X, Y = data
    np.random.seed(5)
    expected = planar.initialize_parameters(2, 3, 1)
    for _ in range(50):
        _, cache = planar.forward_propagation(X, expected)
        grads = planar.backward_propagation(expected, cache, X, Y)
        expected = planar.update_parameters(expected, grads, learning_rate=0.7)
    np.random.seed(5)
    parameters = planar.nn_model(X, Y, 3, num_iterations=50, learning_rate=0.7)
    assert list(parameters) == list(NAMES)
    for name in NAMES:
        np.testing.assert_allclose(parameters[name], expected[name], rtol=1e-9, atol=1e-14)


def test_nn_model_is_silent_unless_asked(data, capsys):
    planar.nn_model(*data, 4, num_iterations=10, seed=2)
    assert capsys.readouterr().out == ""


def test_nn_model_reaches_the_known_accuracy(data):
    parameters = planar.nn_model(*data, 4, num_iterations=10000, seed=2)
    assert planar.accuracy(parameters, *data) >= 90


@pytest.mark.parametrize("dtype", [bool, np.int64, float])
def test_nn_model_takes_labels_of_any_kind(data, dtype):
    X, Y = data
    expected = planar.nn_model(X, Y, 4, num_iterations=20, seed=2)
    parameters = planar.nn_model(X, Y.astype(dtype), 4, num_iterations=20, seed=2)
    for name in NAMES:
        np.testing.assert_array_equal(parameters[name], expected[name])


def test_nn_model_of_no_iterations_gives_the_start(data):
    parameters = planar.nn_model(*data, 4, num_iterations=0, seed=2)
    for name, value in planar.initialize_parameters(2, 4, 1, seed=2).items():
        np.testing.assert_array_equal(parameters[name], value)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((0,), {}, ValueError, r"n_h: 0 is not an integer >= 1"),
        ((4, -1), {}, ValueError, r"num_iterations: -1 is not an integer >= 0"),
        ((4,), {"learning_rate": -1}, ValueError, r"learning_rate: -1 is not a finite number"),
        ((4,), {"learning_rate": "1"}, TypeError, r"learning_rate: '1' is not a finite number"),
        ((4,), {"seed": 1.5}, TypeError, r"seed: 1.5 is not an integer"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_drawn(
    data, arguments, options, error, message
):
    np.random.seed(1)
    before = global_state()
    with pytest.raises(error, match=message):
        planar.nn_model(*data, *arguments, **options)
    assert global_state() == before


@pytest.mark.parametrize(
    ("X", "Y", "message"),
    [
        (np.ones((2, 3)), np.ones((1, 4)), r"Y: shape \(1, 4\) does not match X \(2, 3\)"),
        (np.ones((2, 3)), np.ones(3), r"Y: shape \(3,\) is not 2-D"),
        (np.ones((2, 0)), np.ones((1, 0)), r"X: shape \(2, 0\) holds no data"),
        (np.ones((2, 3)), np.ones((0, 3)), r"Y: shape \(0, 3\) holds no data"),
        (np.ones((2, 3)), [[0, 1, np.nan]], r"Y: nan at index \(0, 2\)"),
        (np.ones((2, 3)), [[0, 1, 2]], r"Y: 2.* at index \(0, 2\)"),
    ],
)
def test_bad_samples_are_refused_before_anything_is_drawn(X, Y, message):
    np.random.seed(1)
    before = global_state()
    with pytest.raises(ValueError, match=message):
        planar.nn_model(X, Y, 4)
    assert global_state() == before


# ------------------------------------------------------------------------------------ the studies


def test_logistic_regression_gets_47_percent(data):
    X, Y = data
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = planar.logistic_regression(X, Y)
    assert np.mean(model.predict(X.T) == Y[0]) == 0.47


def test_hidden_size_study_gives_the_known_accuracies(data):
    study = planar.hidden_size_study(*data)
    assert list(study) == [1, 2, 3, 4, 5, 20, 50]
    assert {size: study[size].accuracy for size in KNOWN_ACCURACIES} == KNOWN_ACCURACIES
    for size in (20, 50):
        assert 89 < study[size].accuracy < 93


@pytest.mark.parametrize("threads", ["1", "2", "3"])
def test_hidden_size_study_trains_each_as_if_alone(data, threads, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    sizes = (4, 50, 1, 20)
    study = planar.hidden_size_study(*data, sizes=sizes, num_iterations=100)
    for size in sizes:
        alone = planar.nn_model(*data, size, num_iterations=100, seed=2)
        for name in NAMES:
            np.testing.assert_array_equal(study[size].parameters[name], alone[name])


def test_hidden_size_study_draws_from_the_global_state_where_asked(data):
    X, Y = data
    np.random.seed(8)
    expected = [planar.nn_model(X, Y, size, num_iterations=10) for size in (3, 1)]
    np.random.seed(8)
    study = planar.hidden_size_study(X, Y, sizes=(3, 1), num_iterations=10, seed=None)
    for trained, parameters in zip(study.values(), expected, strict=True):
        for name in NAMES:
            np.testing.assert_allclose(trained.parameters[name], parameters[name], rtol=1e-12)


# -------------------------------------------------------------------------------------- pictures


def test_decision_boundary_is_drawn_where_the_notebook_draws(data):
    X, Y = data
    parameters = random_network()
    figure, (_, right) = plt.subplots(1, 2)
    try:
        plt.sca(right)
        plt.title("set before")
        planar.plot_decision_boundary(lambda points: planar.predict(parameters, points.T), X, Y)
        assert plt.gcf() is figure
        assert plt.gca() is right
        assert right.get_title() == "set before"
        assert right.collections
        assert not figure.axes[0].collections
    finally:
        plt.close(figure)


def test_without_matplotlib_the_error_names_the_extra(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"fastdl-kernels\[plots\]"):
        planar.plot_decision_boundary(lambda points: points[:, 0] > 0, *data)


def test_hidden_sizes_get_a_panel_each(data):
    study = planar.hidden_size_study(*data, sizes=(1, 3), num_iterations=5000)
    titles = [axes.get_title(loc="left") for axes in planar.plot_hidden_sizes(study, *data).axes]
    assert titles[:2] == ["1 unit: 67.5 %", "3 units: 90.75 %"]


def test_learning_rates_are_drawn_converging_and_diverging():
    figure = planar.learning_rate_illustration(converging=0.3, diverging=1.1)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[:2] == ["Rate 0.3 converges", "Rate 1.1 diverges"]
