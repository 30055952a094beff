"""The assignments' pictures, from plain arrays and callables.

Every function returns a matplotlib `Figure` that belongs to no pyplot state: save it with
`figure.savefig(path)`, or let a notebook show it. Class 0 is blue and round, class 1 is orange and
three-cornered, and signed quantities run from that blue through white to that orange, which people
with any colour vision can tell apart.
"""

import functools
import io
import math
import reprlib
from collections.abc import Mapping

import numpy as np

from . import checks
from ._optional import optional_import

# Blue, vermilion and green of Okabe and Ito's colour-blind safe palette.
_BLUE, _ORANGE, _GREEN = "#0072B2", "#D55E00", "#009E73"
_INK, _FAINT = "#333333", "#D9D9D9"

_POINT_SIZE = 22


def scatter(X, y, *, title="Two classes"):
    """Points of two classes in the plane.

    Parameters
    ----------
    X : array_like, shape (n, 2)
    y : array_like, shape (n,)
        0 or 1.
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> from fastdl import datasets, plots
    >>> figure = plots.scatter(*datasets.load_circle())
    >>> figure.axes[0].get_xlabel()
    '$x_0$'
    """
    X, y = _points(X, y)
    figure = _figure(5.2, 4.8)
    axes = figure.subplots()
    _draw_points(axes, X, y)
    axes.legend(loc="upper right", fontsize=9, framealpha=0.9)
    axes.set_aspect("equal", adjustable="datalim")
    _label(axes, title, "$x_0$", "$x_1$")
    return figure


def decision_surface(probability, X, y, losses, *, title="Decision surface"):
    """What a model says about the plane, beside the loss that training went through.

    Parameters
    ----------
    probability : callable
        Takes points (k, 2), gives the probability of class 1 of each, (k,).
    X : array_like, shape (n, 2)
    y : array_like, shape (n,)
        0 or 1.
    losses : array_like, shape (steps,)
        The loss before each step.
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> from fastdl import datasets, plots
    >>> X, y = datasets.load_circle()
    >>> figure = plots.decision_surface(lambda points: 1.0 * (points[:, 0] > 0), X, y, [0.9, 0.7])
    >>> [axes.get_title(loc="left") for axes in figure.axes[:2]]
    ['Decision surface', 'Loss on all points']
    """
    X, y = _points(X, y)
    figure, surface, curve = _surface_and_loss(X, y, _numbers("losses", losses), title)
    surface.draw(probability)
    curve.draw(len(curve.losses) - 1)
    return figure


def animate_decision_surface(
    path,
    probability,
    weights,
    X,
    y,
    losses,
    *,
    title="Decision surface",
    frames=40,
    frames_per_second=10,
):
    """Write an animated GIF of `decision_surface` through the steps of a descent.

    Parameters
    ----------
    path : str or path-like
        The file to write.
    probability : callable
        Takes points (k, 2) and one row of `weights`, gives the probability of class 1, (k,).
    weights : array_like, shape (steps + 1, d)
        The weights before each step, and the final ones.
    X : array_like, shape (n, 2)
    y : array_like, shape (n,)
        0 or 1.
    losses : array_like, shape (steps,)
        The loss before each step.
    title : str
    frames : int, default 40
        At most so many pictures, evenly spread over the steps, the first and the last included.
    frames_per_second : int, default 10

    Returns
    -------
    str or path-like
        `path`.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from fastdl import datasets, plots
    >>> def probability(points, w):
    ...     return 1 / (1 + np.exp(-points @ w))
    >>> X, y = datasets.load_circle(100)
    >>> weights, losses = np.array([[0, 0], [1, 0], [1, 1]]), [0.7, 0.6]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "descent.gif")
    ...     _ = plots.animate_decision_surface(
    ...         path, probability, weights, X, y, losses, frames=2, frames_per_second=1
    ...     )
    ...     os.path.getsize(path) > 1000
    True
    """
    X, y = _points(X, y)
    weights, losses = _numbers("weights", weights), _numbers("losses", losses)
    if len(weights) != len(losses) + 1:
        raise ValueError(f"weights: {len(weights)} rows are not one more than {len(losses)} losses")
    frames = checks.integer("frames", frames, low=2)
    frames_per_second = checks.integer("frames_per_second", frames_per_second, low=1)
    animation = optional_import("matplotlib.animation", extra="plots")
    optional_import("PIL", extra="plots")
    figure, surface, curve = _surface_and_loss(X, y, losses, title)
    writer = animation.PillowWriter(fps=frames_per_second)
    with writer.saving(figure, path, dpi=80):
        for step in np.unique(np.linspace(0, len(losses), frames).round().astype(int)):
            surface.draw(lambda points, step=step: probability(points, weights[step]))
            curve.draw(min(step, len(losses) - 1))
            surface.axes.set_title(f"{title} after {step} steps", loc="left")
            writer.grab_frame()
            # Laid out once: the axes would move from frame to frame with the width of their ticks.
            figure.set_layout_engine("none")
        # The GIF starts again at once, so the end stays for a second (as one picture, in the file).
        for _ in range(frames_per_second - 1):
            writer.grab_frame()
    return path


def plot_decision_boundary(model, X, Y, *, title="Decision boundary", axes=None):
    """The two regions that a classifier divides the plane into, and the points it is about.

    Parameters
    ----------
    model : callable
        Takes points (k, 2), gives their labels, 0 or 1, as k values of any shape.
    X : array_like, shape (2, m)
        One point per column.
    Y : array_like, shape (1, m)
        0 or 1.
    title : str or None
        None leaves the axes' title as it is.
    axes : matplotlib.axes.Axes, optional
        Where to draw, such as `plt.gca()`; a new figure if not given.

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> from fastdl import datasets, plots
    >>> X, Y = datasets.load_planar_dataset()
    >>> figure = plots.plot_decision_boundary(lambda points: points[:, 0] > 0, X, Y)
    >>> figure.axes[0].get_ylabel()
    '$x_2$'
    """
    points, labels = _columns(X, Y)
    figure = _figure(5.2, 4.8) if axes is None else axes.figure
    axes = figure.subplots() if axes is None else axes
    _draw_regions(axes, model, points, labels)
    _label(axes, title, "$x_1$", "$x_2$")
    return figure


def size_study(models, X, Y, *, title="Networks of one hidden layer"):
    """The decision boundaries of networks of several sizes, and their accuracies.

    Parameters
    ----------
    models : dict of {int: callable}
        Number of hidden units -> what `plot_decision_boundary` takes.
    X : array_like, shape (2, m)
    Y : array_like, shape (1, m)
        0 or 1.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        One panel per model, titled with its size and its accuracy on `X`, and a last one with the
        accuracies over the sizes.

    Examples
    --------
    >>> from fastdl import datasets, plots
    >>> X, Y = datasets.load_planar_dataset()
    >>> models = {1: lambda points: points[:, 1] > 0, 2: lambda points: points[:, 0] > 0}
    >>> figure = plots.size_study(models, X, Y)
    >>> [axes.get_title(loc="left") for axes in figure.axes]
    ['1 unit: 56.25 %', '2 units: 50.25 %', 'Accuracy, %']
    """
    points, labels = _columns(X, Y)
    columns = min(4, len(models) + 1)
    rows = math.ceil((len(models) + 1) / columns)
    figure = _figure(3.2 * columns, 3.2 * rows + 0.4)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    accuracies = []
    for panel, (size, model) in zip(panels, models.items(), strict=False):
        accuracies.append(100 * np.mean(_flat_labels(model, points) == labels))
        _draw_regions(panel, model, points, labels, point_size=14)
        _label(panel, f"{size} unit{'s' * (size != 1)}: {accuracies[-1]:.4g} %", None, None)
        panel.set_xticks([])
        panel.set_yticks([])
    summary = panels[len(models)]
    summary.plot([str(size) for size in models], accuracies, "o-", color=_INK)
    _label(summary, "Accuracy, %", "hidden units", None)
    _open_frame(summary)
    # Its numbers are kept out of the gap to the panel on its left.
    summary.yaxis.tick_right()
    summary.spines["left"].set_visible(False)
    for spare in panels[len(models) + 1 :]:
        spare.set_axis_off()
    _headline(figure, title)
    return figure


def learning_rates(function, runs, *, title="Gradient descent at two learning rates"):
    """What the learning rate decides: the steps taken on a curve, and the cost at each.

    Parameters
    ----------
    function : callable
        The cost at each of an array of positions.
    runs : dict of {float: array_like}
        Learning rate -> the positions that gradient descent went through, (steps + 1,).
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        One panel per run with its steps on the curve, and a last one with the costs of all.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import plots
    >>> steps = np.arange(12)
    >>> runs = {0.2: -4 * 0.6**steps, 1.05: 0.5 * (-1.1) ** steps}  # w -= rate * 2 * w
    >>> figure = plots.learning_rates(np.square, runs)
    >>> [axes.get_title(loc="left") for axes in figure.axes]
    ['Rate 0.2 converges', 'Rate 1.05 diverges', 'Cost at each step']
    """
    figure = _figure(4.2 * (len(runs) + 1), 4.0)
    *panels, summary = figure.subplots(1, len(runs) + 1, squeeze=False)[0]
    colors = (_BLUE, _ORANGE, _GREEN)
    markers = ("o", "^", "s")
    for i, (panel, (rate, positions)) in enumerate(zip(panels, runs.items(), strict=True)):
        look = {"color": colors[i % len(colors)], "marker": markers[i % len(markers)]}
        positions = np.asarray(positions, dtype=float)
        costs = np.asarray(function(positions), dtype=float)
        verdict = "converges" if costs[-1] < costs[0] else "diverges"

        low, high = positions.min(), positions.max()
        reach = 1.25 * max(abs(low), abs(high), 1e-12)
        line = np.linspace(-reach, reach, 400)
        panel.plot(line, function(line), color=_INK, linewidth=1.5)
        panel.quiver(
            positions[:-1],
            costs[:-1],
            np.diff(positions),
            np.diff(costs),
            angles="xy",
            scale_units="xy",
            scale=1,
            width=0.006,
            color=look["color"],
            alpha=0.6,
        )
        panel.scatter(positions, costs, s=36, edgecolors="white", zorder=3, **look)
        outward = math.copysign(1, positions[0])
        panel.annotate(
            "start",
            (positions[0], costs[0]),
            (8 * outward, -4),
            textcoords="offset points",
            ha="left" if outward > 0 else "right",
            color=_INK,
        )
        _label(panel, f"Rate {rate:g} {verdict}", "parameter", "cost")
        _open_frame(panel)

        summary.plot(costs, label=f"rate {rate:g}", markersize=4, **look)
    summary.set_yscale("log")
    summary.legend(fontsize=9)
    _label(summary, "Cost at each step", "step", "cost (log scale)")
    _open_frame(summary)
    _headline(figure, title)
    return figure


def digit_sheet(images, *, rows=15, columns=15, title="Sample digits"):
    """A sheet of images, the first `rows * columns` of those given, row by row.

    Parameters
    ----------
    images : array_like, shape (n, height, width)
        Values in [0, 1], drawn as black on white; n at least rows * columns.
    rows, columns : int, default 15
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import plots
    >>> figure = plots.digit_sheet(np.zeros((225, 28, 28)))
    >>> figure.axes[0].get_images()[0].get_array().shape
    (434, 434)
    """
    images = _numbers("images", images)
    rows, columns = (
        checks.integer(name, value, low=1) for name, value in (("rows", rows), ("columns", columns))
    )
    if images.ndim != 3 or len(images) < rows * columns:
        raise ValueError(
            f"images: shape {images.shape} is not ({rows * columns} or more, height, width)"
        )
    figure = _figure(8, 8 * rows / columns + 0.4)
    axes = figure.subplots()
    sheet = _tiles(images[: rows * columns], columns, gap=1, fill=0)
    axes.imshow(sheet, cmap="gray_r", vmin=0, vmax=1)
    axes.set_axis_off()
    _label(axes, title, None, None)
    return figure


def learning_curves(history, *, title="Training"):
    """Every metric of a training history over the epochs, that of the validation data beside it.

    Parameters
    ----------
    history : dict of {str: array_like}
        A History's `.history`: "loss", "accuracy" and the like, and perhaps "val_loss", ..., each
        with one value per epoch.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        One panel per metric; the best epoch of the validation data is marked.

    Examples
    --------
    >>> from fastdl import plots
    >>> figure = plots.learning_curves({"loss": [0.9, 0.4, 0.3], "val_loss": [0.6, 0.5, 0.55]})
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['best 0.5 in epoch 2']
    """
    if not isinstance(history, Mapping):
        raise TypeError(
            f"history: {reprlib.repr(history)} is not a dict, as a History's `.history`"
        )
    history = {name: _numbers(f"history[{name!r}]", values) for name, values in history.items()}
    metrics = [name for name in history if not name.startswith("val_")]
    if not metrics:
        raise ValueError(f"history: {sorted(history)} names no metric of the training data")
    figure = _figure(5.2 * len(metrics), 4.0)
    for axes, name in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        epochs = np.arange(1, len(history[name]) + 1)
        axes.plot(epochs, history[name], "o-", color=_BLUE, markersize=3.5, label="training")
        if f"val_{name}" in history:
            values = history[f"val_{name}"]
            checks.matches(f"history['val_{name}']", values, epochs.shape, name, epochs.shape)
            axes.plot(epochs, values, "^-", color=_ORANGE, markersize=3.5, label="validation")
            # A value that is no number is never the best.
            scores = np.nan_to_num(values if "accuracy" in name else -values, nan=-np.inf)
            best = int(scores.argmax())
            _mark(axes, epochs[best], values[best], f"best {values[best]:.4g} in epoch {best + 1}")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.margins(y=0.12)
        axes.legend(fontsize=9)
        _label(axes, name.replace("_", " ").capitalize(), "epoch", name.replace("_", " "))
        _open_frame(axes)
    _headline(figure, title)
    return figure


def layer_weights(weights, *, image_shape=(28, 28), title="Weights learnt at each layer"):
    """The weights of a network of dense layers as pictures, blue below zero and orange above.

    Parameters
    ----------
    weights : sequence of array_like
        One matrix (inputs, units) per layer. The first layer is drawn as one image per unit, the
        others as matrices.
    image_shape : (int, int), default (28, 28)
        Height and width of the images that the first layer sees.
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import plots
    >>> figure = plots.layer_weights([np.ones((784, 12)), np.ones((12, 10))])
    >>> [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]
    ['Layer 1: what each of 12 units looks for', 'Layer 2: 12 x 10']
    """
    matrices = checks.sequence("weights", weights, "matrices")
    if not matrices:
        raise ValueError("weights: the empty list holds nothing to draw")
    first, *others = (
        checks.dimensions(f"weights[{i}]", _numbers(f"weights[{i}]", matrix), 2)
        for i, matrix in enumerate(matrices)
    )
    sides = checks.sequence("image_shape", image_shape, "two integers")
    if len(sides) != 2:
        raise ValueError(f"image_shape: {image_shape} is not (height, width)")
    height, width = (checks.integer("image_shape", side, low=1) for side in sides)
    if len(first) != height * width:
        raise ValueError(f"weights: shape {first.shape} does not match image_shape {image_shape}")
    units = first.shape[1]
    columns = math.ceil(math.sqrt(2 * units))
    tiles = _tiles(first.T.reshape(units, height, width), columns, gap=2, fill=np.nan)
    heights = [10 * tiles.shape[0] / tiles.shape[1], 4][: 1 + bool(others)]
    figure = _figure(11, sum(heights) + 1)
    grid = figure.add_gridspec(
        len(heights),
        max(1, len(others)),
        height_ratios=heights,
        width_ratios=[max(matrix.shape[1], 40) for matrix in others] or [1],
    )
    axes = figure.add_subplot(grid[0, :])
    _draw_signed(axes, tiles, aspect="equal")
    axes.set_axis_off()
    _label(axes, f"Layer 1: what each of {units} units looks for", None, None)
    for i, matrix in enumerate(others):
        axes = figure.add_subplot(grid[1, i])
        _draw_signed(axes, matrix, aspect="auto")
        inputs, units = matrix.shape
        _label(axes, f"Layer {i + 2}: {inputs} x {units}", "unit", "input" if i == 0 else None)
    _headline(figure, title)
    return figure


# ---------------------------------------------------------------------------------------- the data


def _numbers(name, value):
    """The argument as an array of float64."""
    array = checks.array(name, value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: dtype {array.dtype} is not one of numbers")
    return array.astype(float, copy=False)


def _points(X, y):
    X, y = _numbers("X", X), _numbers("y", y)
    if X.ndim != 2 or X.shape[1] != 2 or len(X) == 0:
        raise ValueError(f"X: shape {X.shape} is not (n, 2)")
    if y.shape != (len(X),):
        raise ValueError(f"y: shape {y.shape} does not match X {X.shape}")
    return X, checks.as_labels("y", y, classes=2)


def _columns(X, Y):
    """Points (m, 2) and labels (m,) from the course's columns."""
    X, Y = _numbers("X", X), _numbers("Y", Y)
    if X.ndim != 2 or X.shape[0] != 2 or X.size == 0:
        raise ValueError(f"X: shape {X.shape} is not (2, m)")
    if Y.size != X.shape[1]:
        raise ValueError(f"Y: shape {Y.shape} does not match X {X.shape}")
    return X.T, checks.as_labels("Y", Y.reshape(-1), classes=2)


def _flat_labels(model, points):
    return np.asarray(model(points)).reshape(-1)


def _mesh(points, resolution):
    """Points (resolution**2, 2) of a grid around `points`, row by row from below, and its edges."""
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.1 * (high - low) + 1e-9
    low, high = low - margin, high + margin
    across, up = (np.linspace(low[i], high[i], resolution) for i in range(2))
    mesh = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)
    return mesh, (low[0], high[0], low[1], high[1])


def _tiles(images, columns, *, gap, fill):
    """One image of all `images` (n, height, width), `columns` to a row, `gap` pixels between."""
    n, height, width = images.shape
    rows = math.ceil(n / columns)
    cells = np.full((rows * columns, height + gap, width + gap), fill, dtype=float)
    cells[:n, :height, :width] = images
    cells = cells.reshape(rows, columns, height + gap, width + gap).swapaxes(1, 2)
    return cells.reshape(rows * (height + gap), -1)[: -gap or None, : -gap or None]


# -------------------------------------------------------------------------------------- the looks


def _figure(width, height):
    matplotlib_figure = optional_import("matplotlib.figure", extra="plots")
    figure = matplotlib_figure.Figure(
        figsize=(width, height), layout="constrained", facecolor="white"
    )
    # What a notebook asks for; it draws figures without that only where pyplot has been in use.
    figure._repr_png_ = functools.partial(_png, figure)
    return figure


def _png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _colormap(strength=1.0, levels=256):
    """Blue, white, orange; `strength` below 1 is paler, to draw points upon."""
    colors = optional_import("matplotlib.colors", extra="plots")
    ends = [
        1 - strength * (1 - np.array(colors.to_rgb(color))) for color in (_BLUE, "white", _ORANGE)
    ]
    return colors.LinearSegmentedColormap.from_list("blue_orange", ends, levels)


def _label(axes, title, xlabel, ylabel):
    if title is not None:
        axes.set_title(title, loc="left", fontsize=11, color=_INK)
    if xlabel is not None:
        axes.set_xlabel(xlabel, color=_INK)
    if ylabel is not None:
        axes.set_ylabel(ylabel, color=_INK)
    axes.tick_params(colors=_INK, labelsize=9)


def _headline(figure, title):
    figure.suptitle(title, fontsize=13, color=_INK)


def _open_frame(axes):
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=_FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def _mark(axes, x, y, text):
    """A ring about one point of a curve, and what it is."""
    axes.plot([x], [y], "o", markersize=9, fillstyle="none", color=_INK)
    right = x > np.mean(axes.get_xlim())
    axes.annotate(
        text,
        (x, y),
        (-8 if right else 8, 12),
        textcoords="offset points",
        ha="right" if right else "left",
        fontsize=9,
        color=_INK,
        bbox={
            "boxstyle": "square,pad=0.1",
            "facecolor": "white",
            "edgecolor": "none",
            "alpha": 0.8,
        },
    )


def _draw_points(axes, X, y, *, point_size=_POINT_SIZE):
    for value, color, marker in ((0, _BLUE, "o"), (1, _ORANGE, "^")):
        chosen = X[y == value]
        axes.scatter(
            chosen[:, 0],
            chosen[:, 1],
            s=point_size,
            color=color,
            marker=marker,
            edgecolors="white",
            linewidths=point_size / 45,
            zorder=3,
            label=f"class {value}",
        )


def _draw_regions(axes, model, points, labels, *, point_size=_POINT_SIZE):
    mesh, extent = _mesh(points, 300)
    said = _flat_labels(model, mesh).reshape(300, 300).astype(float)
    axes.imshow(
        said,
        extent=extent,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap=_colormap(0.35),
        vmin=0,
        vmax=1,
    )
    if said.min() < said.max():
        axes.contour(said, levels=[0.5], extent=extent, colors=_INK, linewidths=1)
    _draw_points(axes, points, labels, point_size=point_size)


def _draw_signed(axes, values, *, aspect):
    # A few extreme weights would leave all others white.
    bound = np.nanpercentile(np.abs(values), 99.5) or 1.0
    image = axes.imshow(
        values, cmap=_colormap(), vmin=-bound, vmax=bound, aspect=aspect, interpolation="nearest"
    )
    axes.figure.colorbar(image, ax=axes, extend="both", pad=0.01, aspect=40)


class _Surface:
    """The left half of `decision_surface`: redrawn for each state of the model."""

    resolution = 200

    def __init__(self, axes, X, y, title):
        self.axes = axes
        self.mesh, self.extent = _mesh(X, self.resolution)
        self.image = axes.imshow(
            np.full((self.resolution, self.resolution), 0.5),
            extent=self.extent,
            origin="lower",
            aspect="auto",
            interpolation="bilinear",
            cmap=_colormap(0.55, levels=20),
            vmin=0,
            vmax=1,
        )
        self.boundary = None
        axes.figure.colorbar(self.image, ax=axes, pad=0.02, label="probability of class 1")
        _draw_points(axes, X, y)
        axes.legend(loc="upper right", fontsize=9, framealpha=0.9)
        _label(axes, title, "$x_0$", "$x_1$")

    def draw(self, probability):
        values = np.asarray(probability(self.mesh)).reshape(self.resolution, self.resolution)
        self.image.set_data(values)
        if self.boundary is not None:
            self.boundary.remove()
            self.boundary = None
        if values.min() < 0.5 < values.max():
            self.boundary = self.axes.contour(
                values, levels=[0.5], extent=self.extent, colors=_INK, linewidths=1.5
            )


class _Curve:
    """The right half of `decision_surface`: the loss up to some step."""

    def __init__(self, axes, losses):
        self.losses = losses
        (self.line,) = axes.plot([], [], color=_INK, linewidth=1.5)
        (self.end,) = axes.plot([], [], "o", color=_INK)
        self.value = axes.text(0.98, 0.96, "", ha="right", va="top", transform=axes.transAxes)
        finite = losses[np.isfinite(losses)]
        low, high = (finite.min(), finite.max()) if finite.size else (0, 1)
        axes.set_xlim(0, max(1, len(losses)))
        axes.set_ylim(max(0, low - 0.1 * (high - low)), high + 0.1 * (high - low) + 1e-3)
        _label(axes, "Loss on all points", "step", "mean cross-entropy")
        _open_frame(axes)

    def draw(self, step):
        self.line.set_data(np.arange(step + 1), self.losses[: step + 1])
        self.end.set_data([step], [self.losses[step]])
        self.value.set_text(f"loss {self.losses[step]:.4f}")


def _surface_and_loss(X, y, losses, title):
    if losses.ndim != 1 or len(losses) == 0:
        raise ValueError(f"losses: shape {losses.shape} is not (steps,)")
    figure = _figure(10.5, 4.6)
    left, right = figure.subplots(1, 2, width_ratios=[5, 4])
    return figure, _Surface(left, X, y, title), _Curve(right, losses)
