"""Epochs of one network whose rows, hidden width and batch are varied, each while the others stay.

With powers of four all, the lines of `SWEEPS` cross at `BASE`, and every step is a full one: JAX
leaves a short last batch out. So few features that a million rows are 256 MB, and so few rows that
an epoch of the widest network is a matter of seconds.
"""

from typing import NamedTuple

from . import training

FEATURES, CLASSES = 64, 10
LIBRARIES = ["fastdl", "JAX", "PyTorch"]
# Of the first epoch's loss: an epoch may be four steps, from weights of one's own.
TOLERANCE = 0.3


class Point(NamedTuple):
    """`width` is that of both hidden layers."""

    rows: int
    width: int
    batch: int

    @property
    def sizes(self):
        return FEATURES, self.width, self.width, CLASSES

    @property
    def name(self):
        return f"{'-'.join(map(str, self.sizes))}, {self.rows:,} rows, batches of {self.batch:,}"


BASE = Point(rows=4**6, width=4**3, batch=4**3)
SWEEPS = {
    "rows": [4**n for n in range(5, 11)],
    "width": [4**n for n in range(2, 7)],
    "batch": [4**n for n in range(6)],
}


def sweep(dimension, quick=False):
    """The points of a line, or two of them."""
    sizes = SWEEPS[dimension][: 2 if quick else None]
    return [BASE._replace(**{dimension: size}) for size in sizes]


def points(quick=False):
    """Those of all lines, each once."""
    return list(dict.fromkeys(point for dimension in SWEEPS for point in sweep(dimension, quick)))


def epoch(point):
    """A job; an epoch of fastdl's is a fit of its own, which would be long with 13 of them."""
    network = training.Network(point.sizes, point.batch, rows=point.rows)
    return training.training_job(point.name, network, LIBRARIES, TOLERANCE, epochs=1)


def jobs():
    return [epoch(point) for point in points()]
