"""Time fastdl and its peers in turns and print medians and their ratios.

    python bench/compare.py loops        the training loops of the first two assignments
    python bench/compare.py training     epochs of networks on the training engine
    python bench/compare.py predict      one row, and 10,000
    python bench/compare.py keras_models fit and predict of Keras's own models, accelerated
    python bench/compare.py searches     the best of 200 candidates, and GridSearchCV
    python bench/compare.py estimators   fits of the estimators, scikit-learn's and fastdl's
    python bench/compare.py accuracy     MNIST after 13 epochs, fastdl and Keras
    python bench/compare.py all

Turns share what the machine is doing besides, so ratios are worth more than times. Each contestant
has a process of its own (see worker.py), waiting while another has its turn. That all get the same
results is checked first, and the first call, with what it compiles, is timed apart. Peers that use
threads run with one and with all, and count with the better one.

A contestant may take `--seconds` a turn, on average. One that needs longer has fewer turns, three
at least, spread evenly over all; and of a library's settings, one that is clearly the slower after
three turns has no more. Exits with 1 where what the project promises is not reached.
"""

import argparse
import contextlib
import importlib
import os
import statistics
import sys
from dataclasses import dataclass, field
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow loads

import peers
from peers import estimators, keras_models, searches, training
from worker import Worker

SUITES = ("loops", "training", "predict", "keras_models", "searches", "estimators")
ANY = ()  # every library that is not ours


class Limit(NamedTuple):
    """`library` does `job` at least `ratio` times as fast as the best of `opponents`."""

    job: str
    ratio: float
    opponents: tuple[str, ...]
    library: str = "fastdl"


PLANAR = "nn_model, 4 hidden units, 10,000 iterations"
DROPOUT = "MNIST, dropout 0.5"
MANY = "256 networks of 2-4-1, 1,000 epochs"
PYTORCH = ("PyTorch", "PyTorch (compiled)")
KERAS = ("Keras", "Keras (tuned)")
ONNX = ("ONNX Runtime", "ONNX Runtime (bound)")

LIMITS = (
    Limit("momentum, 100 steps, the loss at each", 20, ("NumPy",)),
    Limit("SGD, 1,000 steps", 100, ("NumPy",)),
    Limit(PLANAR, 20, ("NumPy",)),
    Limit(PLANAR, 5, ("JAX",)),
    Limit(DROPOUT, 6, ("JAX",)),
    Limit(DROPOUT, 15, PYTORCH),
    Limit(DROPOUT, 40, ("Keras",)),
    Limit(DROPOUT, 12, KERAS),
    Limit(DROPOUT, 8, ("Keras (JAX)",)),
    Limit(DROPOUT, 3.5, ("JAX",), "fastdl (1 thread)"),
    Limit(DROPOUT, 4, ("JAX",), "fastdl (v3)"),
    Limit("MNIST, no dropout", 15, ("scikit-learn",)),
    Limit("dense inputs, tanh", 2, ANY),
    Limit("784-512-512-10, dense inputs, batches of 32", 2, ANY),
    Limit("784-2048-2048-10, dense inputs, batches of 128", 1, ANY),
    Limit(MANY, 3, ("JAX",)),
    Limit(MANY, 1.8, ("fastdl (1 thread)",)),
    Limit("one MNIST row", 12, ("PyTorch",)),
    Limit("one MNIST row", 4, ONNX),
    Limit("10,000 MNIST rows", 2, ANY),
    Limit("10,000 dense rows", 1, ANY),
    Limit(keras_models.FIT, 30, ("Keras",)),
    Limit(keras_models.FIT, 12, ("Keras (JAX)",)),
    Limit(keras_models.PREDICT, 200, ("Keras",)),
    *(Limit(search, 15, ("scikit-learn (2 processes)",)) for search in searches.SEARCHES),
    Limit(estimators.MNIST, 12, ("scikit-learn",)),
    Limit(estimators.MNIST_FREE, 12, ("scikit-learn",)),
    Limit(estimators.DIGITS, 12, ("scikit-learn",)),
    Limit(estimators.COVERTYPE, 5, ("scikit-learn",)),
)

MOST_SECONDS = {"one MNIST row": 4e-6, "one row of 2-4-1": 1e-6}  # of fastdl's median

EPOCHS, SEEDS = 13, range(5)
ACCURACY_MARGIN = 0.0015


FEWEST_TURNS = 3
CLEARLY = 1.1  # times as long as the library's other setting: the better one is beyond doubt


class Result(NamedTuple):
    label: str
    library: str
    seconds: float  # median of a run
    first: float
    turns: int


@dataclass
class Contestant:
    """A library with one setting, waiting in its process, and the seconds of a run in each turn."""

    label: str
    library: str
    first: float
    worker: Worker
    calls: int
    samples: list[float] = field(default_factory=list)

    @property
    def median(self):
        return statistics.median(self.samples)

    def is_behind(self, contestants):
        """Whether another setting of this library is clearly faster; after three turns of both."""
        medians = [
            other.median
            for other in contestants
            if other.library == self.library and len(other.samples) >= FEWEST_TURNS
        ]
        return len(self.samples) >= FEWEST_TURNS and self.median > CLEARLY * min(medians)


def turns_within(seconds, repeats, needed, fewest=FEWEST_TURNS):
    """Which of so many turns a contestant has that needs so many seconds for one.

    As many as take no more than `repeats * seconds`, or `fewest`, from the first to the last turn.
    """
    count = min(repeats, max(fewest, int(repeats * seconds / needed)))
    return {i * (repeats - 1) // max(1, count - 1) for i in range(count)}


def time_in_turns(module, job, repeats, seconds, fewest=FEWEST_TURNS):
    """The `Result` of each contestant, over `repeats` turns, of which the slow have fewer."""
    contestants = []
    with contextlib.ExitStack() as stack:
        expected = None
        for label, library, environment in peers.contestants(job):
            worker = stack.enter_context(Worker(module, job.name, library, environment))
            first, result = worker.first()
            expected = result if expected is None else expected  # fastdl's: the first one
            job.agree(result, expected)
            contestants.append(Contestant(label, library, first, worker, worker.enough_calls()))
        for turn in range(repeats):
            # Back and forth, so that none always follows the same one.
            for one in contestants[:: -1 if turn % 2 else 1]:
                if turn:  # the first one is everybody's, and says what a turn takes
                    needed = one.samples[0] * one.calls * job.pieces(one.library)
                    turns = turns_within(seconds, repeats, needed, fewest)
                    if turn not in turns or one.is_behind(contestants):
                        continue
                one.samples.append(one.worker.time(one.calls))
    return [
        Result(one.label, one.library, one.median, one.first, len(one.samples))
        for one in contestants
    ]


def best(results, names):
    """The shortest time of these libraries, or labels, and None where none ran."""
    return min(
        (
            result.seconds
            for result in results
            if result.label in names
            or result.library in names
            or (names is ANY and not peers.ours(result.library))
        ),
        default=None,
    )


def judge(job, results):
    """(what was found, whether it is what the project promises) for each promise about a job."""
    for limit in LIMITS:
        if limit.job == job:
            own, other = best(results, (limit.library,)), best(results, limit.opponents)
            if own is None or other is None:
                continue
            names = " and ".join(limit.opponents) or "the best peer"
            found = f"{limit.library}: {other / own:.2f} times {names}, at least {limit.ratio}"
            yield found, other / own >= limit.ratio
    if job in MOST_SECONDS:
        own, most = best(results, ("fastdl",)), MOST_SECONDS[job]
        yield f"fastdl: {own * 1e6:.2f} µs, at most {most * 1e6:g}", own <= most


def compare(suite, repeats, seconds, select=""):
    """Print a table for each job with `select` in its name; return whether all limits are met."""
    module = f"peers.{suite}"
    all_met = True
    for job in importlib.import_module(module).jobs():
        if select not in job.name:
            continue
        results = time_in_turns(module, job, repeats, seconds)
        own = best(results, ("fastdl",))
        show(job.name, results, own)
        all_met &= announce(judge(job.name, results))
    return all_met


def show(name, results, own):
    print(f"\n{name}\n{'':<34}{'median':>14}{'ratio':>9}{'turns':>7}{'first call':>15}")
    for label, _, seconds, first, turns in results:
        times = f"{seconds * 1e3:>11.4f} ms{seconds / own:>8.2f}x"
        print(f"{label:<34}{times}{turns:>7}{first * 1e3:>12.1f} ms", flush=True)


def announce(judgements):
    all_met = True
    for found, met in judgements:
        print(f"{found}: {'met' if met else 'NOT MET'}", flush=True)
        all_met &= met
    return all_met


def compare_accuracy(epochs=EPOCHS, seeds=SEEDS):
    """Print the accuracies of fastdl and Keras; return whether their means agree."""
    means = {}
    for library in ("fastdl", "Keras"):
        values = list(training.accuracies(library, epochs, seeds))
        means[library] = statistics.mean(values)
        each = ", ".join(f"{value:.2%}" for value in values)
        print(f"{library:<10}mean {means[library]:.3%} of {each}", flush=True)
    apart = abs(means["fastdl"] - means["Keras"])
    return announce(
        [(f"{apart:.3%} apart, at most {ACCURACY_MARGIN:.2%}", apart <= ACCURACY_MARGIN)]
    )


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("jobs", choices=[*SUITES, "accuracy", "all"])
    parser.add_argument("--repeats", type=int, default=7, help="turns of all")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="of each contestant in a turn, on average"
    )
    parser.add_argument("--select", default="", help="only the jobs with this in their name")
    options = parser.parse_args(arguments)
    met = [
        compare(suite, options.repeats, options.seconds, options.select)
        for suite in SUITES
        if options.jobs in (suite, "all")
    ]
    if options.jobs in ("accuracy", "all"):
        met.append(compare_accuracy())
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
