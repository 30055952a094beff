"""The drop-in for the exercise on linear models: rows 1.1 to 1.9."""

import sys
import types
import warnings

import numpy as np
import pytest
from PIL import Image

import fastdl
from fastdl.assignments import linear

START = np.array([0, 0, 0, 0, 0, 1])  # integers, as the exercise has it


@pytest.fixture(scope="module")
def data():
    X, y = linear.load_circle()
    return linear.expand(X), y


def global_state():
    _, words, position, *_ = np.random.get_state()
    return words.tobytes(), position


# ------------------------------------------------------ the exercise, as a notebook has it by hand


def hand_probability(X, w):
    return 1 / (1 + np.exp(-(X @ w)))


def hand_loss(X, y, w):
    p = hand_probability(X, w)
    return -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))


def hand_grad(X, y, w):
    return (hand_probability(X, w) - y) @ X / len(y)


def hand_loop(method, X, y, w, *, eta=0.05, alpha=0.9, eps=1e-8, n_iter=100, batch_size=4):
    losses, history = np.zeros(n_iter), [w]
    nu, g2 = np.zeros(len(w)), np.zeros(len(w))
    for i in range(n_iter):
        ind = np.random.choice(X.shape[0], batch_size)
        losses[i] = hand_loss(X, y, w)
        dw = hand_grad(X[ind], y[ind], w)
        if method == "sgd":
            w = w - eta * dw
        elif method == "momentum":
            nu = alpha * nu + eta * dw
            w = w - nu
        else:
            g2 = alpha * g2 + (1 - alpha) * dw**2
            w = w - eta * dw / np.sqrt(g2 + eps)
        history.append(w)
    return w, losses, np.array(history)


# ----------------------------------------------------------------------------------- the functions


def test_star_import_brings_the_functions_and_nothing_else():
    namespace = {}
    exec("from fastdl.assignments.linear import *", namespace)
    assert sorted(set(namespace) - {"__builtins__"}) == sorted(linear.__all__)
    assert {"expand", "probability", "compute_loss", "compute_grad"} <= set(namespace)


def test_expand_gives_the_check_values():
    expected = [[2.61, -1.28, 6.8121, 1.6384, -3.3408, 1], [-0.59, 2.1, 0.3481, 4.41, -1.239, 1]]
    np.testing.assert_allclose(linear.expand([[2.61, -1.28], [-0.59, 2.1]]), expected, rtol=1e-15)


def test_expand_takes_integers():
    assert linear.expand(np.array([[2, -3]])).tolist() == [[2.0, -3.0, 4.0, 9.0, -6.0, 1.0]]


@pytest.mark.parametrize("X", [[1.0, 2.0], [[1.0, 2.0, 3.0]]])
def test_expand_wants_points_of_the_plane(X):
    with pytest.raises(ValueError, match=r"X: shape .* is not"):
        linear.expand(X)


def test_probability_is_the_textbook_formula(data):
    X, _ = data
    for w in (START, np.linspace(-1, 1, 6)):
        expected = hand_probability(X, w)
        np.testing.assert_allclose(linear.probability(X, w), expected, rtol=1e-14)


def test_probability_of_huge_scores_is_exact_and_silent():
    X = [[1e308], [1e5], [0.0], [-1e5], [-1e308]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert linear.probability(X, [1]).tolist() == [1, 1, 0.5, 0, 0]


@pytest.mark.parametrize("w", [START, np.linspace(-1, 1, 6)])
def test_loss_is_the_textbook_formula(data, w):
    X, y = data
    loss = linear.compute_loss(X, y, w)
    assert np.ndim(loss) == 0
    assert loss == pytest.approx(hand_loss(X, y, w), rel=1e-13)


def test_loss_stays_finite_at_saturation():
    # The textbook's log(1 - p) is -inf here: p rounds to 1. The loss is the score itself.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert linear.compute_loss([[1000.0], [1000.0]], [0, 1], [1]) == 500


def test_loss_that_is_small_beside_the_scores():
    X, w = np.array([[12], [-12]], np.float32), np.ones(1, np.float32)
    assert linear.compute_loss(X, [1, 0], w) == pytest.approx(np.log1p(np.exp(-12.0)), rel=1e-6)


@pytest.mark.parametrize("w", [START, np.linspace(-1, 1, 6)])
def test_gradient_is_that_of_the_loss(data, w):
    X, y = data
    step = 1e-6
    differences = [
        (linear.compute_loss(X, y, w + d) - linear.compute_loss(X, y, w - d)) / (2 * step)
        for d in step * np.eye(6)
    ]
    gradient = linear.compute_grad(X, y, w)
    np.testing.assert_allclose(gradient, differences, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(gradient, hand_grad(X, y, w), rtol=1e-12, atol=1e-15)


def test_functions_take_lists():
    X, y, w = [[1, 2], [3, 4]], [0, 1], [0, 0]
    assert linear.probability(X, w).tolist() == [0.5, 0.5]
    assert linear.compute_loss(X, y, w) == pytest.approx(np.log(2), rel=1e-15)
    assert linear.compute_grad(X, y, w).tolist() == [-0.5, -0.5]


@pytest.mark.parametrize(
    ("X", "y", "w", "message"),
    [
        (np.ones((3, 6)), np.ones(3), np.ones(5), r"w: shape \(5,\) does not match X \(3, 6\)"),
        (np.ones((3, 6)), np.ones(4), np.ones(6), r"y: shape \(4,\) does not match X \(3, 6\)"),
        (np.ones(6), np.ones(1), np.ones(6), r"X: shape \(6,\) is not 2-D"),
        (np.ones((0, 6)), np.ones(0), np.ones(6), r"X: shape \(0, 6\) holds no data"),
        (np.ones((2, 6)), [0, np.nan], np.ones(6), r"y: nan at index 1"),
        (np.ones((2, 6)), [0, 2], np.ones(6), r"y: 2.0 at index 1"),
    ],
)
@pytest.mark.parametrize("function", [linear.compute_loss, linear.compute_grad, linear.sgd])
def test_bad_data_is_refused(function, X, y, w, message):
    with pytest.raises(ValueError, match=message):
        function(X, y, w)


def test_complex_data_is_refused():
    with pytest.raises(TypeError, match="X: dtype complex128"):
        linear.probability(np.ones((2, 6), dtype=complex), START)


# --------------------------------------------------------------------------------------- the loops


LOOPS = {"sgd": linear.sgd, "momentum": linear.momentum, "rmsprop": linear.rmsprop}


@pytest.mark.parametrize("backend", fastdl.backends.BACKENDS)
@pytest.mark.parametrize("method", LOOPS)
def test_loops_equal_the_one_written_by_hand(data, method, backend):
    X, y = data
    np.random.seed(42)
    expected_w, expected_losses, expected_history = hand_loop(method, X, y, START)
    np.random.seed(42)
    with fastdl.use_backend(backend):
        w, losses, history = LOOPS[method](X, y, START, history=True)
    np.testing.assert_allclose(w, expected_w, rtol=1e-9)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-9)
    np.testing.assert_allclose(history, expected_history, rtol=1e-9)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("sgd", {"eta": 0.2, "n_iter": 30, "batch_size": 1}),
        ("momentum", {"eta": 0.1, "alpha": 0.5, "n_iter": 30, "batch_size": 7}),
        ("rmsprop", {"eta": 0.1, "alpha": 0.5, "eps": 1e-3, "n_iter": 30, "batch_size": 7}),
    ],
)
def test_loops_heed_their_settings(data, method, options):
    X, y = data
    np.random.seed(7)
    expected_w, expected_losses, _ = hand_loop(method, X, y, START, **options)
    np.random.seed(7)
    w, losses = LOOPS[method](X, y, START, **options)
    np.testing.assert_allclose(w, expected_w, rtol=1e-9)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-9)


@pytest.mark.parametrize("n", [3, 826, 2**20 + 1])
def test_one_draw_is_the_stream_of_successive_draws(n):
    np.random.seed(42)
    successive = np.array([np.random.choice(n, 4) for _ in range(100)])
    following = np.random.random_sample()
    np.random.seed(42)
    np.testing.assert_array_equal(np.random.choice(n, (100, 4)), successive)
    assert np.random.random_sample() == following


def test_the_global_state_goes_on_where_the_loop_by_hand_leaves_it(data):
    X, y = data
    np.random.seed(42)
    hand_loop("sgd", X, y, START)
    following = np.random.random_sample()
    np.random.seed(42)
    linear.sgd(X, y, START)
    assert np.random.random_sample() == following


@pytest.mark.parametrize("method", LOOPS)
def test_a_seed_draws_alike_and_leaves_the_global_state_alone(data, method):
    X, y = data
    np.random.seed(42)
    expected, _ = LOOPS[method](X, y, START)
    np.random.seed(1)
    before = global_state()
    w, _ = LOOPS[method](X, y, START, seed=42)
    np.testing.assert_array_equal(w, expected)
    assert global_state() == before


def test_without_losses_the_weights_are_the_same(data):
    X, y = data
    expected, _ = linear.momentum(X, y, START, seed=0)
    w, losses = linear.momentum(X, y, START, seed=0, losses=False)
    assert losses is None
    np.testing.assert_array_equal(w, expected)


def test_the_default_start_is_the_exercises(data):
    X, y = data
    _, losses = linear.sgd(X, y, seed=0, n_iter=1)
    assert losses[0] == pytest.approx(hand_loss(X, y, START), rel=1e-13)


def test_the_caller_keeps_its_weights(data):
    X, y = data
    w = np.ones(6)
    linear.sgd(X, y, w, seed=0)
    assert w.tolist() == [1] * 6


def test_no_steps_give_the_start_back(data):
    w, losses, history = linear.sgd(*data, START, n_iter=0, history=True)
    assert w.tolist() == START.tolist()
    assert losses.shape == (0,)
    assert history.tolist() == [START.tolist()]


@pytest.mark.parametrize(
    ("method", "options", "error", "message"),
    [
        ("sgd", {"eta": -0.1}, ValueError, r"eta: -0.1 is not a finite number >= 0"),
        ("sgd", {"eta": np.nan}, ValueError, r"eta: nan is not a finite number >= 0"),
        ("sgd", {"n_iter": -1}, ValueError, r"n_iter: -1 is not an integer >= 0"),
        ("sgd", {"n_iter": 2.5}, TypeError, r"n_iter: 2.5 is not an integer >= 0"),
        ("sgd", {"batch_size": 0}, ValueError, r"batch_size: 0 is not an integer >= 1"),
        ("sgd", {"seed": -1}, ValueError, r"seed: -1 is not an integer in \[0, 4294967295\]"),
        ("sgd", {"losses": 1}, TypeError, r"losses: 1 is not True or False"),
        ("sgd", {"history": "yes"}, TypeError, r"history: 'yes' is not True or False"),
        ("momentum", {"alpha": 1.5}, ValueError, r"alpha: 1.5 is not a finite number in \[0, 1\]"),
        ("rmsprop", {"eps": -1}, ValueError, r"eps: -1 is not a finite number >= 0"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_drawn(data, method, options, error, message):
    np.random.seed(1)
    before = global_state()
    with pytest.raises(error, match=message):
        LOOPS[method](*data, START, **options)
    assert global_state() == before


# ---------------------------------------------------------------------------------------- pictures


def test_visualize_refuses_what_is_no_table():
    with pytest.raises(ValueError, match=r"^X: shape \(2,\) is not 2-D"):
        linear.visualize([1, 2], [1], np.ones(6), [0.5])


def test_visualize_returns_a_figure_of_surface_and_losses(data):
    X, y = data
    figure = linear.visualize(X, y, START, [0.5, 0.25])
    surface, curve = figure.axes[:2]
    assert surface.collections
    assert 0.25 in np.concatenate([line.get_ydata() for line in curve.get_lines()])


def test_visualize_shows_the_figure_in_a_notebook(data, monkeypatch):
    shown = []
    display = types.SimpleNamespace(
        clear_output=lambda wait: shown.append(wait), display=shown.append
    )
    shell = types.SimpleNamespace(kernel=object())
    notebook = types.SimpleNamespace(get_ipython=lambda: shell, display=display)
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    X, y = data
    assert linear.visualize(X, y, START, [0.5, 0.25]) is None
    cleared, figure = shown
    assert cleared is True
    assert len(figure.axes) >= 2


@pytest.mark.parametrize("shell", [None, types.SimpleNamespace()], ids=["script", "terminal"])
def test_visualize_returns_the_figure_where_no_notebook_can_show_it(data, shell, monkeypatch):
    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert len(linear.visualize(*data, START, [0.5, 0.25]).axes) >= 2


def test_animate_writes_a_gif_of_several_frames(data, tmp_path):
    X, y = data
    _, losses, history = linear.sgd(X, y, seed=0, n_iter=3, history=True)
    path = tmp_path / "sgd.gif"
    assert linear.animate(path, X, y, history, losses) == path
    with Image.open(path) as picture:
        assert picture.format == "GIF"
        assert picture.n_frames > 1
