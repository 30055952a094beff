"""Train from a file that is larger than what the process keeps of it: rate, memory, resuming.

    python bench/streaming.py                      write 4 GB, do all three, remove them
    python bench/streaming.py --gigabytes 0.5      less
    python bench/streaming.py --only rate --keep   one of them, and leave the file for the next

"rate" trains two networks on some of the rows in memory and, between these trainings, on one part
of the file after the other, of which the system's memory holds nothing. Its figure is the median of
the parts' rates, each divided by the mean of the two in memory around it. "memory" and "resume" go
through the whole file twice in a process of their own, which is killed in "resume" and started
again. Exits with 1 where a limit is not kept.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from fastdl import MLP
from fastdl.callbacks import Callback, Checkpoint

FEATURES, BATCH, EPOCHS = 784, 32, 2
PARTS = 5
HELD = 12  # the part of the rows that is held in memory: one twelfth
ROWS_WRITTEN = 1 << 13
HIDDEN = {"narrow": (128, 128, 128), "wide": (512, 512)}
LEAST_RATE = 0.9
DEATH = 0.6  # of the steps, or a little later
MOST_GROWTH = 50  # MB
SAMPLING = 0.02  # seconds

# What is allocated while the first blocks come, and stays, is no growth.
SETTLED = 0.1


def write(folder, gigabytes):
    """Write rows and labels block by block."""
    rows = int(gigabytes * 1e9 / (4 * FEATURES))
    random = np.random.default_rng(0)
    X = np.lib.format.open_memmap(folder / "X.npy", "w+", np.float32, (rows, FEATURES))
    y = np.lib.format.open_memmap(folder / "y.npy", "w+", np.int64, (rows,))
    for start in range(0, rows, ROWS_WRITTEN):
        block = X[start : start + ROWS_WRITTEN]
        random.standard_normal(out=(numbers := np.empty(block.shape, np.float32)), dtype=np.float32)
        block[...] = numbers
        y[start : start + ROWS_WRITTEN] = numbers[:, :10].argmax(axis=1)


def load(folder):
    return np.load(folder / "X.npy", "r"), np.load(folder / "y.npy")


def network(hidden=HIDDEN["narrow"]):
    return MLP([FEATURES, *hidden, 10], dropout=0.5, seed=0)


def forget(folder):
    """Have the system drop what it holds of the file."""
    with open(folder / "X.npy", "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# ------------------------------------------------------------------------------- one after another


def seconds(hidden, X, y):
    net = network(hidden)
    start = time.perf_counter()
    net.fit(X, y, batch_size=BATCH, verbose=0)
    return time.perf_counter() - start


def rate(folder):
    X, y = load(folder)
    held, found = np.array(X[: len(X) // HELD]), {"met": True}
    forget(folder)
    parts = list(zip(np.array_split(X, PARTS), np.array_split(y, PARTS), strict=True))
    for name, hidden in HIDDEN.items():

        def rows_per_second(X, y, hidden=hidden):
            return len(X) / seconds(hidden, X, y)

        in_memory, from_disk = [], []
        rows_per_second(held, y[: len(held)])
        for part in parts:
            in_memory.append(rows_per_second(held, y[: len(held)]))
            forget(folder)
            from_disk.append(rows_per_second(*part))
        in_memory.append(rows_per_second(held, y[: len(held)]))
        shares = 2 * np.array(from_disk) / np.add(in_memory[1:], in_memory[:-1])
        found[name] = {
            "in memory, rows/s": np.rint(in_memory).tolist(),
            "from the disk, rows/s": np.rint(from_disk).tolist(),
            "shares": shares.round(3).tolist(),
            "share": round(float(np.median(shares)), 3),
        }
        found["met"] &= found[name]["share"] >= LEAST_RATE
    return found


def memory(folder):
    told = run(folder, "--report", folder / "whole.json")
    growth = told["most"] - told["settled"]
    return {"settled, MB": told["settled"], "most, MB": told["most"], "met": growth < MOST_GROWTH}


def resume(folder):
    whole = folder / "whole.json"
    told = json.loads(whole.read_text()) if whole.exists() else run(folder, "--report", whole)
    checkpoint = folder / "run.safetensors"
    checkpoint.unlink(missing_ok=True)
    process = start(folder, "--checkpoint", checkpoint, "--die", int(DEATH * told["steps"]))
    killed = process.wait() == -signal.SIGKILL
    again = run(folder, "--resume", checkpoint, "--report", folder / "resumed.json")
    return {
        "killed": killed,
        "resumed at step": again["first"],
        "of": told["steps"],
        "whole": told["sha256"],
        "resumed": again["sha256"],
        "met": killed and again["first"] > 0 and told["sha256"] == again["sha256"],
    }


# ---------------------------------------------------------------------------- a process of its own


def start(folder, *arguments):
    command = [sys.executable, __file__, "--folder", folder, "--train", *arguments]
    return subprocess.Popen(list(map(str, command)))


def run(folder, *arguments):
    """Train in a process; returns what it reported."""
    process = start(folder, *arguments)
    if process.wait():
        raise RuntimeError(f"training ended with {process.returncode}")
    return json.loads(Path(arguments[-1]).read_text())


def resident():
    """Memory of this process in MB, pages of mapped files included."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


class Memory(Callback):
    """Samples the memory in a thread of its own."""

    def on_train_begin(self, logs=None):
        self.samples, self.ended = [], threading.Event()
        self.thread = threading.Thread(target=self.sample)
        self.thread.start()

    def sample(self):
        while not self.ended.wait(SAMPLING):
            self.samples.append(resident())

    def on_train_end(self, logs=None):
        self.ended.set()
        self.thread.join()


class First(Callback):
    """Notes the step that a training goes on from, and kills the process after another one.

    But not before there is a checkpoint.
    """

    def __init__(self, last, checkpoint):
        self.last, self.checkpoint = last, checkpoint

    def on_train_begin(self, logs=None):
        self.step = self.model.iterations

    def on_epoch_begin(self, epoch, logs=None):
        self.on_train_progress(0)

    def on_train_progress(self, batch, logs=None):
        if self.last is None or self.model.iterations < self.last:
            return
        if self.checkpoint.exists():
            os.kill(os.getpid(), signal.SIGKILL)


def train(folder, report, checkpoint, resumed, last):
    X, y = load(folder)
    net, sampler, first = network(), Memory(), First(last, checkpoint)
    callbacks = [sampler, first, *([Checkpoint(checkpoint, seconds=1)] if checkpoint else [])]
    net.fit(
        X,
        y,
        epochs=EPOCHS,
        batch_size=BATCH,
        callbacks=callbacks,
        resume_from=resumed,
        verbose=0,
    )
    digest = hashlib.sha256()
    for array in (*net.weights, *net._state.slots.values()):
        digest.update(array.tobytes())
    settled = sampler.samples[int(SETTLED * len(sampler.samples)) :]
    told = {
        "sha256": digest.hexdigest(),
        "first": first.step,
        "steps": net.iterations,
        "settled": round(settled[0], 1),
        "most": round(max(settled), 1),
    }
    if report:
        report.write_text(json.dumps(told))


JOBS = {"rate": rate, "memory": memory, "resume": resume}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--folder", type=Path, help="for the files; a temporary one without it")
    parser.add_argument("--only", choices=[*JOBS, "write"])
    parser.add_argument("--keep", action="store_true", help="leave the files in the folder")
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    for name in ("report", "checkpoint", "resume"):
        parser.add_argument(f"--{name}", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--die", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.train:
        train(options.folder, options.report, options.checkpoint, options.resume, options.die)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        results = {}
        try:
            if not (folder / "X.npy").exists():
                write(folder, options.gigabytes)
            for name in [options.only] if options.only else JOBS:
                if name in JOBS:
                    results[name] = JOBS[name](folder)
                    print(json.dumps({name: results[name]}, indent=1), flush=True)
        finally:
            if not options.keep:
                for path in folder.iterdir():
                    path.unlink()
    return 0 if all(result["met"] for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
