"""The command `fastdl`: the assignments as demonstrations, the installation, predictions."""

import argparse
import functools
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from . import __version__, backends, datasets, ops
from ._optional import optional_import
from .backends import use_backend
from .callbacks import Callback
from .losses import BinaryCrossentropy
from .network import MLP
from .optimizers import Adam
from .schedules import CosineDecay

# What `demo` goes by where it is not told. The batches of the linear models are then those of the
# exercise, which calls np.random.seed(42).
_DEFAULTS = {"out": Path("out"), "epochs": 40, "seed": 42}

# Training of the MNIST network: six seeds ended at 97.76 to 97.94 % on validation.
_BATCH_SIZE = 32
_LEARNING_RATE = 1e-3

# `demo mnist --fast`: seconds that each of these seeds should stay under.
_FAST_SEEDS = range(5)
_FAST_SECONDS = 1.0


def main(arguments=None):
    """Run the command.

    Parameters
    ----------
    arguments : sequence of str, optional
        What comes after the command's name; `sys.argv` if not given.

    Returns
    -------
    int
        The exit code: 0, 1 where something failed, or 130 after Ctrl-C. Bad arguments raise
        SystemExit with code 2, after one line on stderr.

    Examples
    --------
    >>> from fastdl.cli import main
    >>> main(["demo", "--epochs", "0"])
    Traceback (most recent call last):
    SystemExit: 2
    """
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except _BadArgumentError as error:
        options.parser.error(str(error))
    except (ImportError, OSError, RuntimeError) as error:
        print(f"{options.parser.prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


class _BadArgumentError(Exception):
    """An argument that parses but turns out to be unusable."""


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        """One line, where argparse would print its usage too."""
        self.exit(2, f"{self.prog}: {' '.join(message.split())}\n")


def _parser():
    parser = _Parser(prog="fastdl", description="Small dense neural networks on the CPU.")
    parser.add_argument("--version", action="version", version=f"fastdl {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)

    demo = commands.add_parser(
        "demo",
        help="run the assignments, write their pictures, print their results",
        description="Run the three assignments on real data, write their pictures, and print a "
        "table of results beside the known ones.",
    )
    demo.add_argument(
        "assignment", nargs="?", choices=[*_DEMOS, "all"], default="all", help="default: all"
    )
    demo.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help=f"for the pictures; default: {_DEFAULTS['out']}",
    )
    demo.add_argument(
        "--epochs",
        type=_integer(1),
        metavar="N",
        help=f"of the MNIST network; default: {_DEFAULTS['epochs']}",
    )
    demo.add_argument(
        "--seed",
        type=_integer(0, 2**32 - 1),
        metavar="N",
        help="of the linear models' batches and of the MNIST network; the planar networks start "
        f"from the course's; default: {_DEFAULTS['seed']}",
    )
    demo.add_argument(
        "--fast",
        action="store_true",
        help=f"with mnist: only train from {len(_FAST_SEEDS)} seeds until 97.5 %% of the "
        "validation images are right, and print how long that takes",
    )
    demo.set_defaults(run=_demo, parser=demo)

    info = commands.add_parser("info", help="describe the installation")
    info.set_defaults(run=_info, parser=info)

    predict = commands.add_parser(
        "predict",
        help="print what a saved network says of each row of a file",
        description="Print one line for each row of DATA: the predicted class, or the values that "
        "a regression predicts.",
    )
    predict.add_argument("model", metavar="MODEL", help="a file written by MLP.save")
    predict.add_argument(
        "data", metavar="DATA", help="rows of features: .npy, or .csv of numbers without a header"
    )
    predict.set_defaults(run=_predict, parser=predict)
    return parser


def _integer(low, high=None):
    """A type for argparse: an integer from `low` to `high`."""
    rule = f">= {low}" if high is None else f"in [{low}, {high}]"

    def convert(text):
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer {rule}")
        return value

    return convert


# --------------------------------------------------------------------------------------------- demo


def _demo(options):
    if options.fast:
        if options.assignment != "mnist":
            raise _BadArgumentError("argument --fast: only for the assignment mnist")
        for name in _DEFAULTS:
            if getattr(options, name) is not None:
                raise _BadArgumentError(f"argument --fast: not allowed with argument --{name}")
        _demo_mnist_fast()
        return
    for name, value in _DEFAULTS.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    chosen = list(_DEMOS) if options.assignment == "all" else [options.assignment]
    for name in chosen:
        folder = options.out / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _BadArgumentError(f"argument --out: {error}") from error
        table = _Table()
        _DEMOS[name](folder, options, table)
        table.show()
        print(f"\nPictures in {folder}\n")


def _demo_linear(folder, options, table):
    from . import plots
    from .assignments import linear

    X, y = linear.load_circle()
    features = linear.expand(X)
    table.title = f"Linear models: {len(X)} points, 100 steps of 4 points each"
    table.add("points of class 1", "about 62 %", f"{100 * y.mean():.0f} %")
    squares = " ".join(f"{value:g}" for value in linear.expand([[2.61, -1.28]])[0, 2:5].round(10))
    table.add("squares and product of 2.61, -1.28", "6.8121 1.6384 -3.3408", squares)
    _save(linear.scatter(X, y, title="Class 1 inside, class 0 outside"), folder / "data.png")

    loops = {"SGD": linear.sgd, "Momentum": linear.momentum, "RMSprop": linear.rmsprop}
    for title, loop in _progress("linear", loops.items()):
        run = functools.partial(loop, features, y, seed=options.seed, history=True)
        with use_backend("reference"):
            (known, _, _), numpy_seconds = _timed(run)
        (w, losses, history), seconds = _timed(run)
        known, ours = (linear.compute_loss(features, y, weights) for weights in (known, w))
        table.add(
            f"{title}: loss at the end",
            f"{known:.6f} (NumPy loop, {numpy_seconds:.4f} s)",
            f"{ours:.6f}",
            seconds,
        )

        def probability(points, w=w):
            return linear.probability(linear.expand(points), w)

        figure = plots.decision_surface(probability, X, y, losses, title=title)
        _save(figure, folder / f"{title.lower()}.png")
        linear.animate(folder / f"{title.lower()}.gif", X, y, history, losses, title=title)


def _demo_planar(folder, options, table):
    from . import plots
    from .assignments import planar

    X, Y = planar.load_planar_dataset()
    table.title = f"Planar data: {X.shape[1]} points, one hidden layer"
    _save(plots.scatter(X.T, Y[0], title="The flower"), folder / "data.png")

    def baseline():
        try:
            model, seconds = _timed(planar.logistic_regression, X, Y)
        except ImportError as error:
            table.add("logistic regression: accuracy", "47 %", str(error))
            return
        percent = 100 * np.mean(model.predict(X.T) == Y[0])
        table.add("logistic regression: accuracy", "47 %", f"{percent:g} %", seconds)
        figure = plots.plot_decision_boundary(model.predict, X, Y, title="Logistic regression")
        _save(figure, folder / "logistic_regression.png")

    def network():
        start = planar.initialize_parameters(2, 4, 1, seed=2)
        ([parameters], [costs]), seconds = _timed(ops.planar_descent, X, Y, [start])
        table.add("4 hidden units, 10,000 iterations", None, None, seconds)
        for i, known in enumerate(_PLANAR_COSTS):
            table.add(f"  cost after iteration {1000 * i}", known, f"{costs[i]:.6f}")
        table.add("  accuracy", "90 %", f"{planar.accuracy(parameters, X, Y):g} %")

        def model(points):
            return planar.predict(parameters, points.T)

        figure = plots.plot_decision_boundary(model, X, Y, title="4 hidden units")
        _save(figure, folder / "decision_boundary.png")

    def sizes():
        study, seconds = _timed(planar.hidden_size_study, X, Y)
        table.add("all sizes at once, 5,000 iterations", None, None, seconds)
        for (size, trained), known in zip(study.items(), _PLANAR_ACCURACIES, strict=True):
            table.add(f"  {size} hidden: accuracy", known, f"{trained.accuracy:g} %")
        _save(planar.plot_hidden_sizes(study, X, Y), folder / "hidden_sizes.png")

    def rates():
        _save(planar.learning_rate_illustration(), folder / "learning_rates.png")

    for part in _progress("planar", (baseline, network, sizes, rates)):
        part()


def _demo_mnist(folder, options, table):
    from .assignments import mnist

    data = mnist.load_data()
    (X_train, _), validation, test = data
    counts = " + ".join(f"{len(images):,}" for images, _ in data)
    table.title = "MNIST: 3 hidden layers of 128 units"
    table.add("training, validation and test images", "50,000 + 10,000 + 10,000", counts)
    _save(mnist.plot_digits(X_train), folder / "digits.png")

    network = mnist.build_network(seed=options.seed)
    table.add("parameters", "134,794", f"{sum(array.size for array in network.weights):,}")
    steps = options.epochs * -(-len(X_train) // _BATCH_SIZE)
    history, seconds = _timed(
        mnist.train,
        network,
        data,
        epochs=options.epochs,
        batch_size=_BATCH_SIZE,
        optimizer=Adam(CosineDecay(_LEARNING_RATE, steps)),
        callbacks=[_EpochBar()],
        verbose=0,
    )
    accuracy = network.evaluate(*validation)["accuracy"]
    epochs = len(history.epoch)
    table.add(
        f"validation accuracy, best of {epochs} epoch{'s' * (epochs != 1)}",
        "above 97.5 % (97.61 %)",
        f"{100 * accuracy:.2f} %",
        seconds,
    )
    table.add("test accuracy", None, f"{100 * network.evaluate(*test)['accuracy']:.2f} %")
    _save(mnist.plot_learning_curves(history), folder / "learning_curves.png")
    _save(mnist.plot_weights(network), folder / "weights.png")

    what = "the same weights in Keras: its evaluate"
    try:
        in_keras, seconds = _timed(_evaluate_in_keras, network, *validation)
        table.add(what, f"{100 * accuracy:.2f} %, as above", f"{100 * in_keras:.2f} %", seconds)
    except ImportError as error:
        table.add(what, None, str(error))


def _demo_mnist_fast():
    """Time `mnist.train_fast`: preparation, steps and validations, the images being in memory."""
    from .assignments import mnist

    data = mnist.load_data()
    table = _Table()
    table.title = "MNIST: a new network until it is right about 97.5 % of the validation images"
    times = []
    for seed in _progress("mnist", _FAST_SEEDS):
        network = mnist.build_network(seed=seed)
        accuracies, seconds = _timed(mnist.train_fast, network, data)
        times.append(seconds)
        table.add(
            f"seed {seed}: validation accuracy",
            f"above 97.5 % in {_FAST_SECONDS:g} s",
            f"{100 * accuracies[-1]:.2f} % ({len(accuracies)} validations)",
            seconds,
        )
    under = sum(seconds < _FAST_SECONDS for seconds in times)
    table.add("median", None, None, statistics.median(times))
    table.add(f"under {_FAST_SECONDS:g} s", None, f"{under} of {len(times)}")
    table.show()


def _evaluate_in_keras(network, images, labels):
    """The accuracy that Keras finds for its model with a network's weights."""
    from .assignments import mnist
    from .keras import restore

    # TensorFlow's notices about the CPU would stand between the table and its progress bar.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    model = restore(mnist.build_model())
    model.set_weights(network.get_weights())
    _, accuracy = model.evaluate(images, np.eye(network.sizes[-1])[labels], verbose=0)
    return accuracy


_DEMOS = {"linear": _demo_linear, "planar": _demo_planar, "mnist": _demo_mnist}

# The course's results: see `ops.planar_descent` from parameters drawn after np.random.seed(2).
_PLANAR_COSTS = (
    "0.693048",
    "0.288083",
    "0.254385",
    "0.233864",
    "0.226792",
    "0.222644",
    "0.219731",
    "0.217504",
)
_PLANAR_ACCURACIES = (
    "67.5 %",
    "67.25 %",
    "90.75 %",
    "90.5 %",
    "91.25 %",
    "about 90 to 91 %",
    "about 90 to 91 %",
)


class _Table:
    """What was found, beside what is known."""

    title = ""

    def __init__(self):
        self._rows = [("what", "known result", "ours", "seconds")]

    def add(self, what, known, ours, seconds=None):
        """Add a row; None leaves a cell empty."""
        time_taken = None if seconds is None else f"{seconds:.4f}"
        self._rows.append(tuple(cell or "" for cell in (what, known, ours, time_taken)))

    def show(self):
        """Print it."""
        widths = [max(map(len, column)) for column in zip(*self._rows, strict=True)]
        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        print(self.title)
        for number, (*cells, seconds) in enumerate(self._rows):
            texts = [cell.ljust(width) for cell, width in zip(cells, widths, strict=False)]
            if number == 1:
                print(rule)
            print("  ".join([*texts, seconds.rjust(widths[-1])]).rstrip())


class _EpochBar(Callback):
    """A progress bar over all the steps of a training."""

    def on_train_begin(self, logs=None):
        """Open it."""
        self._bar = _progress("mnist", total=self.params["epochs"] * self.params["steps"])
        self._epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        """Note the epoch."""
        self._epoch = epoch

    def on_train_progress(self, batch, logs=None):
        """Move it."""
        self._bar.update(self._epoch * self.params["steps"] + batch + 1 - self._bar.n)

    def on_epoch_end(self, epoch, logs=None):
        """Move it and show the accuracy."""
        self.on_train_progress(self.params["steps"] - 1)
        self._bar.set_postfix(epoch=epoch + 1, val_accuracy=f"{logs['val_accuracy']:.4f}")

    def on_train_end(self, logs=None):
        """Remove it."""
        self._bar.close()


def _progress(name, steps=None, total=None):
    """A progress bar on stderr, if that is a terminal."""
    tqdm = optional_import("tqdm", extra="cli").tqdm
    return tqdm(steps, desc=name, total=total, disable=None, leave=False)


def _timed(function, *arguments, **options):
    start = time.perf_counter()
    result = function(*arguments, **options)
    return result, time.perf_counter() - start


def _save(figure, path):
    figure.savefig(path, dpi=120)


# --------------------------------------------------------------------------------------------- info


def _info(options):
    try:
        level = backends.cpu_level()
    except ImportError:
        level = "no compiled module"
    built, supported = backends.built_cpu_levels(), backends.supported_cpu_levels()
    available = [name for name in backends.BACKENDS if _is_available(name)]
    facts = {
        "fastdl": __version__,
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "CPU level": f"{level} (built: {', '.join(built) or 'none'}; "
        f"supported by this CPU: {', '.join(supported)})",
        "backend": f"{backends.get_backend()} (available: {', '.join(available)})",
        "threads": f"up to {backends.available_threads()}, where a training gains by them",
        "cache folder": datasets.cache_folder(),
    }
    for name, fact in facts.items():
        print(f"{name:12}  {fact}")


def _is_available(backend):
    try:
        with use_backend(backend):
            return True
    except ImportError:
        return False


# ------------------------------------------------------------------------------------------ predict


def _predict(options):
    network = _read("MODEL", options.model, MLP.load)
    rows = _read("DATA", options.data, _read_rows)
    try:
        if not network.loss.classification:
            predictions = network.predict(rows)
        else:
            predictions = _classes(network, network.predict_proba(rows))
    except (TypeError, ValueError) as error:
        raise _BadArgumentError(f"argument DATA: {options.data}: {error}") from error
    for row in predictions:
        print(*row)


def _classes(network, probabilities):
    """One class for each row, or several yes or no, as text: nan for what is not known."""
    unknown = np.isnan(probabilities)
    if isinstance(network.loss, BinaryCrossentropy) and network.sizes[-1] > 1:
        classes = (probabilities > 0.5).astype(int)
    else:
        unknown = unknown.any(axis=1, keepdims=True)
        classes = probabilities.argmax(axis=1)[:, np.newaxis]
    return np.where(unknown, "nan", classes.astype(str))


def _read(argument, path, function):
    """What `function` reads from the file at `path`; the error names the argument."""
    try:
        return function(path)
    except OSError as error:
        raise _BadArgumentError(f"argument {argument}: {path}: {error.strerror}") from error
    except (TypeError, ValueError) as error:
        raise _BadArgumentError(f"argument {argument}: {path}: {error}") from error


def _read_rows(path):
    suffix = Path(path).suffix.lower()
    if suffix == ".npy":
        with open(path, "rb") as file:
            rows = np.lib.format.read_array(file, allow_pickle=False)
    elif suffix == ".csv":
        with open(path, encoding="utf-8-sig") as lines:  # spreadsheets write a byte-order mark
            rows = [line for line in lines if line.strip()]
        rows = np.loadtxt(rows, delimiter=",", ndmin=2) if rows else np.empty((0, 0))
    else:
        raise ValueError("the name does not end in .npy or .csv")
    if not rows.size:
        raise ValueError("there are no rows")
    return rows
