"""The pictures' structure: what is drawn where. How they look, only eyes can say."""

import io
import pickle
import sys

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from fastdl import plots

POINTS = np.array([[0.0, 0.0], [1.0, 0.5], [2.0, -1.0], [-1.0, 3.0], [0.5, 1.5]])
LABELS = np.array([0, 1, 1, 0, 1])
LOSSES = np.array([0.9, 0.6, 0.5, 0.45])


@pytest.fixture(autouse=True)
def pyplot_untouched():
    """No function may open a pyplot figure or change matplotlib's settings."""
    settings = dict(matplotlib.rcParams)
    figures = plt.get_fignums()
    yield
    assert plt.get_fignums() == figures
    assert dict(matplotlib.rcParams) == settings


def title(axes):
    return axes.get_title(loc="left")


def drawn_points(axes):
    """Label -> the points of each scatter."""
    return {part.get_label(): np.asarray(part.get_offsets()) for part in axes.collections
            if part.get_label().startswith("class")}  # fmt: skip


def image(axes):
    return axes.get_images()[0]


def test_scatter_draws_each_class_by_itself():
    figure = plots.scatter(POINTS, LABELS, title="Some points")
    (axes,) = figure.axes
    drawn = drawn_points(axes)
    np.testing.assert_array_equal(drawn["class 0"], POINTS[LABELS == 0])
    np.testing.assert_array_equal(drawn["class 1"], POINTS[LABELS == 1])
    assert title(axes) == "Some points"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["class 0", "class 1"]


def test_every_figure_can_be_saved():
    buffer = io.BytesIO()
    plots.scatter(POINTS, LABELS).savefig(buffer, format="png")
    assert Image.open(buffer).size == (520, 480)


def test_every_figure_shows_itself_in_a_notebook():
    # IPython draws figures by itself only once pyplot has been in use, and asks this of all others.
    content = plots.scatter(POINTS, LABELS)._repr_png_()
    assert Image.open(io.BytesIO(content)).size == (520, 480)


def test_every_figure_can_be_pickled():
    figure = pickle.loads(pickle.dumps(plots.scatter(POINTS, LABELS, title="Some points")))
    assert title(figure.axes[0]) == "Some points"
    assert Image.open(io.BytesIO(figure._repr_png_())).size == (520, 480)


# -------------------------------------------------------------------------------- decision surface


def right_of(boundary):
    """The probability that rises from 0 to 1 about x_0 = boundary."""
    return lambda points: 1 / (1 + np.exp(-5 * (points[:, 0] - boundary)))


def test_decision_surface_shows_the_probability_where_it_holds():
    figure = plots.decision_surface(right_of(0.5), POINTS, LABELS, LOSSES)
    surface = image(figure.axes[0])
    left, right, bottom, top = surface.get_extent()
    assert left < -1 < 2 < right
    assert bottom < -1 < 3 < top
    values = surface.get_array()
    across = np.linspace(left, right, values.shape[1])
    np.testing.assert_allclose(values[0], right_of(0.5)(across[:, np.newaxis]))
    np.testing.assert_array_equal(values[0], values[-1])
    assert surface.get_clim() == (0, 1)
    assert set(drawn_points(figure.axes[0])) == {"class 0", "class 1"}


def test_decision_surface_is_the_right_way_up():
    figure = plots.decision_surface(lambda points: points[:, 1] > 2, POINTS, LABELS, LOSSES)
    surface = image(figure.axes[0])
    assert surface.origin == "lower"
    assert surface.get_array()[-1].all()
    assert not surface.get_array()[0].any()


def boundaries(axes):
    """The vertices of each contour line."""
    return [path.vertices for part in axes.collections if part.get_label().startswith("_")
            for path in part.get_paths() if len(path.vertices)]  # fmt: skip


def test_decision_surface_draws_the_boundary():
    figure = plots.decision_surface(right_of(0.5), POINTS, LABELS, LOSSES)
    (line,) = boundaries(figure.axes[0])
    np.testing.assert_allclose(line[:, 0], 0.5, atol=0.01)


def test_decision_surface_of_one_class_has_no_boundary():
    figure = plots.decision_surface(right_of(-99), POINTS, LABELS, LOSSES)
    assert boundaries(figure.axes[0]) == []


def test_decision_surface_has_the_loss_beside_it():
    axes = plots.decision_surface(right_of(0), POINTS, LABELS, LOSSES).axes[1]
    steps, losses = axes.lines[0].get_data()
    np.testing.assert_array_equal(steps, [0, 1, 2, 3])
    np.testing.assert_array_equal(losses, LOSSES)
    assert axes.get_ylim()[0] < 0.45 < 0.9 < axes.get_ylim()[1]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "mean cross-entropy")
    assert axes.texts[0].get_text() == "loss 0.4500"


def test_constant_loss_can_be_drawn():
    axes = plots.decision_surface(right_of(0), POINTS, LABELS, [0.5]).axes[1]
    assert axes.get_ylim()[0] < axes.get_ylim()[1]


def test_losses_that_are_no_numbers_leave_the_limits_to_the_others():
    losses = [0.9, np.inf, 0.5, np.nan]
    axes = plots.decision_surface(right_of(0), POINTS, LABELS, losses).axes[1]
    whole = plots.decision_surface(right_of(0), POINTS, LABELS, [0.9, 0.7, 0.6, 0.5]).axes[1]
    assert axes.get_ylim() == whole.get_ylim()
    assert axes.texts[0].get_text() == "loss nan"


@pytest.mark.parametrize("loss", [np.nan, np.inf])
def test_losses_none_of_which_is_a_number_can_be_drawn(loss):
    axes = plots.decision_surface(right_of(0), POINTS, LABELS, [loss, loss]).axes[1]
    assert axes.get_ylim()[0] <= 0 < 1 <= axes.get_ylim()[1]


# --------------------------------------------------------------------------------------- animation


@pytest.fixture(scope="module")
def animation(tmp_path_factory):
    """A GIF of three of five states, and the rows of weights that were asked for."""
    asked = []

    def probability(points, w):
        asked.append(float(w[0]))
        return right_of(w[0])(points)

    path = tmp_path_factory.mktemp("plots") / "descent.gif"
    weights = np.linspace(-1, 2, 5)[:, np.newaxis]
    result = plots.animate_decision_surface(
        path, probability, weights, POINTS, LABELS, LOSSES, frames=3, frames_per_second=4
    )
    assert result == path
    return path, asked


def test_animation_goes_from_the_first_weights_to_the_last(animation):
    _, asked = animation
    assert asked == [-1.0, 0.5, 2.0]


def test_animation_is_a_looping_gif_that_pauses_at_its_end(animation):
    with Image.open(animation[0]) as gif:
        assert gif.format == "GIF"
        assert gif.n_frames == 3
        assert gif.info["loop"] == 0
        durations = []
        for frame in range(3):
            gif.seek(frame)
            durations.append(gif.info["duration"])
    assert durations == [250, 250, 1000]


def test_animation_moves_the_surface_and_not_the_axes(animation):
    with Image.open(animation[0]) as gif:
        frames = []
        for frame in range(3):
            gif.seek(frame)
            frames.append(np.asarray(gif.convert("L"), dtype=int))
    changed = np.abs(frames[2] - frames[0]) > 20
    assert changed[:, :400].mean() > 0.2
    # The strip to the left of the first axes holds its ticks and label.
    assert not changed[40:, :25].any()


def test_animation_of_few_steps_repeats_none(tmp_path):
    path = tmp_path / "short.gif"
    weights = np.array([[-1.0], [0.0], [1.0]])
    plots.animate_decision_surface(
        path,
        lambda p, w: right_of(w[0])(p),
        weights,
        POINTS,
        LABELS,
        [0.9, 0.5],
        frames_per_second=1,
    )
    with Image.open(path) as gif:
        assert gif.n_frames == 3


# ------------------------------------------------------------------------------- decision boundary


def upper(points):
    return (points[:, 1] > 1).astype(int)


@pytest.mark.parametrize(
    "model",
    [upper, lambda points: upper(points)[np.newaxis], lambda points: upper(points) == 1],
    ids=["flat", "row", "bool"],
)
def test_decision_boundary_shows_the_labels(model):
    figure = plots.plot_decision_boundary(model, POINTS.T, LABELS[np.newaxis])
    (axes,) = figure.axes
    regions = image(axes)
    bottom, top = regions.get_extent()[2:]
    up = np.linspace(bottom, top, regions.get_array().shape[0])
    np.testing.assert_array_equal(regions.get_array()[:, 0], up > 1)
    (line,) = boundaries(axes)
    np.testing.assert_allclose(line[:, 1], 1, atol=0.02)
    np.testing.assert_array_equal(drawn_points(axes)["class 1"], POINTS[LABELS == 1])


def test_decision_boundary_draws_where_it_is_told():
    figure = Figure()
    axes = figure.subplots(1, 2)[1]
    axes.set_title("mine")
    result = plots.plot_decision_boundary(upper, POINTS.T, LABELS, title=None, axes=axes)
    assert result is figure
    assert len(axes.get_images()) == 1
    assert axes.get_title() == "mine"
    assert title(axes) == ""


def test_decision_boundary_of_a_model_with_one_answer():
    figure = plots.plot_decision_boundary(
        lambda points: np.zeros(len(points)), POINTS.T, LABELS[np.newaxis]
    )
    assert boundaries(figure.axes[0]) == []


def test_size_study_says_size_and_accuracy():
    models = {
        1: lambda points: np.zeros((1, len(points))),
        7: lambda points: points[:, 0] > 0.25,
        20: lambda points: np.ones(len(points)),
    }
    figure = plots.size_study(models, POINTS.T, LABELS[np.newaxis])
    assert [title(axes) for axes in figure.axes] == [
        "1 unit: 40 %",
        "7 units: 100 %",
        "20 units: 60 %",
        "Accuracy, %",
    ]
    summary = figure.axes[-1].lines[0]
    np.testing.assert_allclose(summary.get_ydata(), [40, 100, 60])
    assert image(figure.axes[2]).get_array().min() == 1


def test_size_study_of_the_course_fills_two_rows():
    models = dict.fromkeys((1, 2, 3, 4, 5, 20, 50), upper)
    figure = plots.size_study(models, POINTS.T, LABELS)
    assert len(figure.axes) == 8
    assert all(axes.axison for axes in figure.axes)


def test_size_study_leaves_spare_places_empty():
    figure = plots.size_study(dict.fromkeys(range(1, 6), upper), POINTS.T, LABELS)
    assert [axes.axison for axes in figure.axes] == [True] * 6 + [False] * 2


# ---------------------------------------------------------------------------------- learning rates


def test_learning_rates_show_each_run_and_all_costs():
    runs = {0.1: [2.0, 1.0, 0.5], 1.5: [-1.0, 2.0, -4.0]}
    figure = plots.learning_rates(np.square, runs)
    good, bad, summary = figure.axes
    assert title(good) == "Rate 0.1 converges"
    assert title(bad) == "Rate 1.5 diverges"
    for axes, positions in zip((good, bad), runs.values(), strict=True):
        expected = np.column_stack([positions, np.square(positions)])
        np.testing.assert_array_equal(axes.collections[1].get_offsets(), expected)
        arrows = axes.collections[0]
        np.testing.assert_array_equal(arrows.U, np.diff(positions))
        np.testing.assert_array_equal(arrows.V, np.diff(np.square(positions)))
        assert axes.get_xlim()[0] < min(positions)
        assert axes.get_xlim()[1] > max(positions)
    np.testing.assert_array_equal(summary.lines[0].get_ydata(), [4, 1, 0.25])
    np.testing.assert_array_equal(summary.lines[1].get_ydata(), [1, 4, 16])
    assert summary.get_yscale() == "log"


# -------------------------------------------------------------------------------------- the network


def test_digit_sheet_lays_the_images_out_row_by_row():
    images = np.arange(7)[:, np.newaxis, np.newaxis] * np.full((3, 4), 0.1)
    figure = plots.digit_sheet(images, rows=2, columns=3)
    sheet = image(figure.axes[0]).get_array()
    assert sheet.shape == (2 * 3 + 1, 3 * 4 + 2)
    np.testing.assert_array_equal(sheet[:3, :4], images[0])
    np.testing.assert_array_equal(sheet[:3, 5:9], images[1])
    np.testing.assert_array_equal(sheet[4:, 10:], images[5])
    np.testing.assert_array_equal(sheet[3], 0)


def test_learning_curves_have_a_panel_per_metric():
    history = {
        "loss": [0.9, 0.5, 0.4],
        "accuracy": [0.5, 0.7, 0.8],
        "val_loss": [0.8, 0.45, 0.6],
        "val_accuracy": [0.6, 0.65, 0.9],
    }
    figure = plots.learning_curves(history)
    loss, accuracy = figure.axes
    np.testing.assert_array_equal(loss.lines[0].get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), history["loss"])
    np.testing.assert_array_equal(loss.lines[1].get_ydata(), history["val_loss"])
    np.testing.assert_array_equal(accuracy.lines[1].get_ydata(), history["val_accuracy"])
    assert [axes.texts[0].get_text() for axes in figure.axes] == [
        "best 0.45 in epoch 2",
        "best 0.9 in epoch 3",
    ]
    assert (title(loss), title(accuracy)) == ("Loss", "Accuracy")


def test_learning_curves_without_validation():
    (axes,) = plots.learning_curves({"loss": [0.9, 0.5]}).axes
    assert len(axes.lines) == 1
    assert len(axes.texts) == 0


@pytest.fixture
def weights():
    random = np.random.RandomState(0)
    return [random.randn(12, 6), random.randn(6, 5), random.randn(5, 2) * 9]


def test_layer_weights_draw_the_first_layer_as_images(weights):
    figure = plots.layer_weights(weights, image_shape=(3, 4))
    tiles = image(figure.axes[0]).get_array()
    assert tiles.shape == (3 * 2 + 2, 4 * 4 + 2 * 3)
    np.testing.assert_array_equal(tiles[:3, :4], weights[0][:, 0].reshape(3, 4))
    np.testing.assert_array_equal(tiles[:3, 6:10], weights[0][:, 1].reshape(3, 4))
    np.testing.assert_array_equal(tiles[5:, :4], weights[0][:, 4].reshape(3, 4))
    # Between the images and after the last one there is nothing.
    assert np.isnan(tiles[3:5].astype(float).filled(np.nan)).all()
    assert np.isnan(tiles[5:, 10:].astype(float).filled(np.nan)).all()


def test_layer_weights_draw_the_others_as_matrices(weights):
    figure = plots.layer_weights(weights, image_shape=(3, 4))
    drawn = [axes for axes in figure.axes if axes.get_images() and title(axes)]
    assert [title(axes) for axes in drawn] == [
        "Layer 1: what each of 6 units looks for",
        "Layer 2: 6 x 5",
        "Layer 3: 5 x 2",
    ]
    for axes, matrix in zip(drawn[1:], weights[1:], strict=True):
        np.testing.assert_array_equal(image(axes).get_array(), matrix)


def test_layer_weights_have_colours_symmetric_about_zero(weights):
    figure = plots.layer_weights([matrix + 1 for matrix in weights], image_shape=(3, 4))
    limits = [image(axes).get_clim() for axes in figure.axes if axes.get_images() and title(axes)]
    assert len(limits) == 3
    for low, high in limits:
        assert low == -high < 0
    shown = image(figure.axes[0])
    np.testing.assert_allclose(shown.cmap(shown.norm(0.0))[:3], 1, atol=0.02)


def test_layer_weights_of_a_single_layer_of_zeros():
    figure = plots.layer_weights([np.zeros((12, 2))], image_shape=(3, 4))
    assert image(figure.axes[0]).get_clim() == (-1, 1)


# ---------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.scatter(POINTS.T, LABELS), r"X: shape \(2, 5\) is not \(n, 2\)"),
        (lambda: plots.scatter(POINTS, LABELS[1:]), r"y: shape \(4,\) does not match X \(5, 2\)"),
        (
            lambda: plots.plot_decision_boundary(upper, POINTS, LABELS),
            r"X: shape \(5, 2\) is not \(2, m\)",
        ),
        (
            lambda: plots.plot_decision_boundary(upper, POINTS.T, LABELS[1:]),
            r"Y: shape \(4,\) does not match X \(2, 5\)",
        ),
        (
            lambda: plots.decision_surface(right_of(0), POINTS, LABELS, []),
            r"losses: shape \(0,\) is not \(steps,\)",
        ),
        (
            lambda: plots.animate_decision_surface(
                "x.gif", None, np.zeros((4, 6)), POINTS, LABELS, LOSSES
            ),
            "weights: 4 rows are not one more than 4 losses",
        ),
        (
            lambda: plots.animate_decision_surface(
                "x.gif", None, np.zeros((5, 6)), POINTS, LABELS, LOSSES, frames=1
            ),
            "frames: 1 is not an integer >= 2",
        ),
        (
            lambda: plots.animate_decision_surface(
                "x.gif", None, np.zeros((5, 6)), POINTS, LABELS, LOSSES, frames_per_second=0
            ),
            "frames_per_second: 0 is not an integer >= 1",
        ),
        (
            lambda: plots.digit_sheet(np.zeros((224, 28, 28))),
            r"images: shape \(224, 28, 28\) is not \(225 or more, height, width\)",
        ),
        (lambda: plots.learning_curves({"val_loss": [1.0]}), "history: .* names no metric"),
        (
            lambda: plots.layer_weights([np.zeros((783, 4))]),
            r"weights: shape \(783, 4\) does not match image_shape \(28, 28\)",
        ),
        (
            lambda: plots.learning_curves({"loss": [1.0, 0.5], "val_loss": [1.0]}),
            r"history\['val_loss'\]: shape \(1,\) does not match loss \(2,\)",
        ),
        (lambda: plots.layer_weights([]), "weights: the empty list"),
        (lambda: plots.layer_weights([np.ones(4)]), r"weights\[0\]: shape \(4,\) is not 2-D"),
        (
            lambda: plots.layer_weights([np.ones((4, 1))], image_shape=(2, 2, 1)),
            r"image_shape: \(2, 2, 1\) is not \(height, width\)",
        ),
        (lambda: plots.scatter([[1, 2], [3]], [0, 1]), "X: setting an array element"),
        (
            lambda: plots.scatter(POINTS, LABELS + 1),
            r"y: 2.0 at index 1 is not an integer in \[0, 1\]",
        ),
        (
            lambda: plots.plot_decision_boundary(upper, POINTS.T, LABELS - 0.5),
            r"Y: -0.5 at index 0 is not an integer in \[0, 1\]",
        ),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.scatter(POINTS.astype(str), LABELS), "X: dtype <U"),
        (lambda: plots.scatter(POINTS, LABELS.astype(object)), "y: dtype object"),
        (lambda: plots.digit_sheet(np.ones((4, 2, 2)), rows=2.0), "rows: 2.0 is not an integer"),
        (lambda: plots.learning_curves(3), "history: 3 is not a dict"),
        (lambda: plots.layer_weights(None), "weights: None is not a sequence of matrices"),
        (
            lambda: plots.layer_weights([np.ones((4, 1))], image_shape=28),
            "image_shape: 28 is not a sequence of two integers",
        ),
    ],
)
def test_refusals_of_types(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_what_is_no_number_is_never_the_best():
    history = {"loss": [0.9, 0.4, 0.3], "val_loss": [0.6, 0.5, np.nan]}
    history |= {"accuracy": [0.1, 0.2, 0.3], "val_accuracy": [np.nan, 0.2, 0.1]}
    figure = plots.learning_curves(history)
    best = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert best == ["best 0.5 in epoch 2", "best 0.2 in epoch 2"]


def test_matplotlib_is_named_when_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"matplotlib: pip install 'fastdl-kernels\[plots\]'"):
        plots.scatter(POINTS, LABELS)
