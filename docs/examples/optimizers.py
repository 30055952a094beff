"""SGD, momentum and RMSprop on the same mini-batches: the loss on all points before each step."""

import sys
from pathlib import Path

from matplotlib.figure import Figure

from fastdl import datasets
from fastdl.assignments import linear


def main(folder):
    X, y = datasets.load_circle(n_samples=826, seed=0)
    X = linear.expand(X)

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for loop in (linear.sgd, linear.momentum, linear.rmsprop):
        _, losses = loop(X, y, n_iter=300, seed=42)
        axes.plot(losses, label=loop.__name__)
    axes.set(xlabel="step", ylabel="cross-entropy", title="Logistic regression, batches of 4")
    axes.legend()
    figure.savefig(Path(folder) / "optimizers.png", dpi=80)


if __name__ == "__main__":
    main(*sys.argv[1:])
