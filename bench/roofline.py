"""Measure what this machine can do at most, and what that makes of a training step.

    python bench/roofline.py bench/ROOFLINE.md

Compiles roofline.c for this very CPU with the system's compiler, runs it, and writes tables between
the markers of the document, as report.py does: the machine's figures, and for each phase of the
MNIST network's step its operations, the bytes it moves, and the shortest time in which the machine
can do that. What the document says outside the markers is written by hand.
"""

import argparse
import itertools
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import report
from peers import training

from fastdl import backends

SOURCE = Path(__file__).with_name("roofline.c")
FLAGS = "-O3 -march=native -mprefer-vector-width=512 -fno-math-errno -fno-trapping-math -pthread"
# `getconf` names what the caches hold; where it doesn't know, sizes that are common.
CACHES = {
    "l1": ("LEVEL1_DCACHE_SIZE", 32 << 10),
    "l2": ("LEVEL2_CACHE_SIZE", 1 << 20),
    "l3": ("LEVEL3_CACHE_SIZE", 16 << 20),
}
MOST_MEMORY = 1 << 30  # bytes to read from main memory

BATCH, KEEP = 32, 0.5
FLOAT = 4  # bytes
# 32-bit operations to draw and apply dropout for a unit: Philox4x32-10 makes eight draws of sixteen
# bits from 10 rounds of some 14 operations, then comes shift, mask, compare and product.
DROPOUT_OPERATIONS = 22
LOSS_OPERATIONS = 30  # for an output: an exponential and a logarithm's share, by polynomials
BYTES_PER_NONZERO = (
    12  # read value and column, write the value to its place in the transposed batch
)
BARRIERS = 8  # in a step of four layers: 4 forward, 1 at the loss, 3 backward
MACHINE_ROWS = {
    "multiply-add, float32": ("fma", 1e9, "GFLOP/s"),
    "read L1": ("read_l1", 1e9, "GB/s"),
    "read L2": ("read_l2", 1e9, "GB/s"),
    "read L3": ("read_l3", 1e9, "GB/s"),
    "read main memory": ("read_memory", 1e9, "GB/s"),
    "read, modify and write L2, each way": ("modify_l2", 1e9, "GB/s"),
    "Adam's arithmetic, in L1": ("adam_l1", 1e9, "parameters/ns"),
}


class Phase(NamedTuple):
    """A part of a step: what it computes, and what it moves to and from one cache."""

    name: str
    operations: float  # that multiply-adds do two of
    bytes: float
    figure: str  # of the machine, that says how fast the bytes go
    scale: float = 1.0  # operations cost so many times as much as at the multiply-adds' peak

    def seconds(self, machine, threads):
        """At least; the slower one of computing and moving, since both go on at the same time."""
        computing = self.operations * self.scale / machine[f"fma_{threads}"]
        moving = self.bytes / machine[f"{self.figure}_{threads}"]
        return max(computing, moving)


# --------------------------------------------------------------------------------------- machine


def cache_sizes():
    sizes = {}
    for name, (variable, common) in CACHES.items():
        found = subprocess.run(["getconf", variable], capture_output=True, text=True, check=False)
        text = found.stdout.strip()
        sizes[name] = int(text) if text.isdigit() and int(text) else common
    return sizes


def array_sizes(caches):
    """Bytes to read so that they come from L1, L2, L3 and main memory."""
    return {
        "l1": caches["l1"] // 2,
        "l2": caches["l2"] // 2,
        "l3": min(caches["l2"] * 8, caches["l3"] // 2),
        "memory": min(caches["l3"] * 2, MOST_MEMORY),
    }


def measure():
    """Name -> figure, in seconds, bytes and operations."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    threads = min(2, backends.available_threads())
    sizes = [str(size // 256 * 256) for size in array_sizes(cache_sizes()).values()]
    with tempfile.TemporaryDirectory() as folder:
        program = os.path.join(folder, "roofline")
        headers = os.path.join(SOURCE.parents[1], "fastdl")
        subprocess.run(
            [*compiler, *FLAGS.split(), f"-I{headers}", str(SOURCE), "-lm", "-o", program],
            check=True,
        )
        printed = subprocess.run(
            [program, str(threads), *sizes], check=True, capture_output=True, text=True
        ).stdout
    return {name: float(value) for name, value in map(str.split, printed.splitlines())}


# ------------------------------------------------------------------------------------------ step


class Densities(NamedTuple):
    """Shares that are not zero: of the inputs, and of each hidden layer's units in training."""

    inputs: float
    hidden: tuple[float, ...]


def densities():
    """Of MNIST and of the network after an epoch, with units dropped as in training."""
    import fastdl

    X, y = training.mnist()
    network = fastdl.MLP(training.DIGITS, dropout=1 - KEEP, seed=0)
    network.fit(X, y, batch_size=BATCH, verbose=0)
    rng = np.random.default_rng(0)
    fed, hidden = X[:2048], []
    for weights, bias in zip(network.weights[0:-2:2], network.weights[1:-2:2], strict=True):
        fed = np.maximum(fed @ weights + bias, 0) * (rng.random(len(bias)) < KEEP) / KEEP
        hidden.append(float(np.mean(fed != 0)))
    return Densities(float(np.mean(X != 0)), tuple(hidden))


def phases(sizes, share):
    """The phases of a step, in their order; zeros of inputs and hidden units are skipped."""
    features, first, *_ = sizes
    pixels = BATCH * features * share.inputs
    found = [
        Phase("sparse rows brought into columns", 0, BYTES_PER_NONZERO * pixels, "read_l1"),
        # A row of weights for each pixel that is not zero: the rows of a batch share few of them.
        Phase("forward 1, sparse", 2 * pixels * first, FLOAT * pixels * first, "read_l2"),
    ]
    hidden = zip(sizes[1:-1], share.hidden, strict=True)
    fed = [BATCH * units * density for units, density in hidden]
    products = list(zip(fed, sizes[2:], strict=True))
    for layer, (alive, outputs) in enumerate(products, start=2):
        work = 2 * alive * outputs
        found.append(Phase(f"forward {layer}", work, FLOAT * alive * outputs, "read_l2"))
    units = BATCH * sum(sizes[1:-1])
    found += [
        # Nothing but multiply-adds does two operations at a time.
        Phase(
            "dropout: draw and apply", DROPOUT_OPERATIONS * units, 3 * FLOAT * units, "read_l1", 2
        ),
        Phase("loss", LOSS_OPERATIONS * BATCH * sizes[-1], FLOAT * BATCH * sizes[-1], "read_l1", 2),
    ]
    for layer, (alive, outputs) in reversed(list(enumerate(products, start=2))):
        work, moved = 2 * alive * outputs, FLOAT * alive * outputs
        found.append(Phase(f"backward {layer}", work, moved, "read_l2"))
        found.append(Phase(f"weight gradient {layer}", work, moved, "read_l1"))
    work, moved = 2 * pixels * first, FLOAT * pixels * first
    found.append(Phase("weight gradient 1, sparse", work, moved, "read_l1"))
    return found


def parameters(sizes):
    return sum((i + 1) * o for i, o in itertools.pairwise(sizes))


def dense_operations(sizes):
    """Of all products of a step in which no zero is skipped."""
    products = [BATCH * i * o for i, o in itertools.pairwise(sizes)]
    return 2 * (3 * sum(products) - products[0])


# ---------------------------------------------------------------------------------------- tables


def machine_table(machine, threads):
    lines = [["", *map(threads_name, threads)]]
    for name, (figure, unit, unit_name) in MACHINE_ROWS.items():
        cells = [f"{machine[f'{figure}_{count}'] / unit:.3g} {unit_name}" for count in threads]
        lines.append([name, *cells])
    for name, figure in {"barrier of two threads": "barrier", "a thread made": "create"}.items():
        if figure in machine:
            lines.append([name, *[""] * (len(threads) - 1), report.duration(machine[figure])])
    return table(lines)


def step_table(machine, threads, sizes, share):
    lines = [["", "million operations", "KB", "moved by", *map(threads_name, threads)]]
    totals = dict.fromkeys(threads, 0.0)

    def add(name, operations, moved, figure, seconds):
        work = f"{operations / 1e6:.3f}" if operations else ""
        kilobytes = f"{moved / 1e3:.0f}" if moved else ""
        times = (microseconds(seconds[count]) for count in threads)
        lines.append([name, work, kilobytes, figure, *times])
        for count in threads:
            totals[count] += seconds[count]

    for phase in phases(sizes, share):
        seconds = {count: phase.seconds(machine, count) for count in threads}
        add(phase.name, phase.operations, phase.bytes, FIGURES[phase.figure], seconds)
    count = parameters(sizes)
    # Parameters and two moments are read and written: 24 bytes, half of them each way.
    update = {
        n: max(count / machine[f"adam_l1_{n}"], 12 * count / machine[f"modify_l2_{n}"])
        for n in threads
    }
    add(f"Adam, {count:,} parameters", 0, 24 * count, FIGURES["modify_l2"], update)
    meetings = {n: BARRIERS * machine.get("barrier", 0.0) if n > 1 else 0.0 for n in threads}
    add(f"{BARRIERS} barriers", 0, 0, "", meetings)
    lines.append(["**a step**", "", "", "", *(f"**{microseconds(totals[n])}**" for n in threads)])
    dense = dense_operations(sizes)
    whole = (microseconds(dense / machine[f"fma_{n}"] + update[n]) for n in threads)
    lines.append(["*a step without skipping zeros*", f"{dense / 1e6:.3f}", "", "", *whole])
    return table(lines)


FIGURES = {"read_l1": "reading L1", "read_l2": "reading L2", "modify_l2": "reading and writing L2"}


def threads_name(count):
    return f"{count} thread{'s'[: count > 1]}"


def microseconds(seconds):
    return f"{seconds * 1e6:.1f} µs"


def table(lines):
    lines = [lines[0], ["---", *["---:"] * (len(lines[0]) - 1)], *lines[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def written(machine, share):
    """Name of a place -> what stands in it."""
    threads = [count for count in (1, 2) if f"fma_{count}" in machine]
    shares = ", ".join(f"{density:.1%}" for density in share.hidden)
    return {
        "roofline-machine": machine_table(machine, threads),
        "roofline-densities": (
            f"Not zero are {share.inputs:.1%} of the inputs, and {shares} of the hidden units "
            f"after dropout. The vectors have {machine['vector_bytes']:.0f} bytes."
        ),
        "roofline-step": step_table(machine, threads, training.DIGITS, share),
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("document", type=Path)
    path = parser.parse_args(arguments).document
    tables = written(measure(), densities())
    document, found = report.place(path.read_text(encoding="utf-8"), tables)
    if missing := set(tables) - set(found):
        raise ValueError(f"{path} has no place for: {', '.join(sorted(missing))}")
    path.write_text(document, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
