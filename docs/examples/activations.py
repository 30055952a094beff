"""The activations and their derivatives, by the functions of `fastdl.ops`."""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fastdl import ops

NAMES = ("relu", "leaky_relu", "elu", "sigmoid", "tanh", "softplus", "silu", "gelu")


def main(folder):
    x = np.linspace(-4, 4, 401)
    figure = Figure(figsize=(10, 5), layout="constrained")
    for axes, name in zip(figure.subplots(2, 4, sharex=True).flat, NAMES, strict=True):
        axes.plot(x, getattr(ops, name)(x), label="value")
        axes.plot(x, getattr(ops, f"{name}_gradient")(x, np.ones_like(x)), "--", label="derivative")
        axes.set_title(name)
        axes.set_ylim(-1.5, 2)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(loc="upper left")
    figure.savefig(Path(folder) / "activations.png", dpi=80)


if __name__ == "__main__":
    main(*sys.argv[1:])
