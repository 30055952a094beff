"""Train on a Dask cluster: accuracy, with and without a worker's death, and what a round costs.

    python bench/cluster.py accuracy                      MNIST on two workers and in one process
    python bench/cluster.py cost docs/distributed.md      measure, and write the page's tables

"accuracy" trains the MNIST network for some epochs in one process, on two worker processes, and
once more on these, one of which is killed in the middle; it exits with 1 where the means of the
seeds differ by more than 0.2 points, or the death changed a parameter. "cost" measures steps and
messages, and on a cluster of so many workers, all in this process, what its scheduler takes for a
round of tasks that compute nothing.
"""

import argparse
import datetime
import os
import signal
import statistics
import sys
import time
from pathlib import Path

import dask
import dask.array as da
import machine
import numpy as np
import report
from distributed import Client, LocalCluster
from distributed.protocol import serialize
from pytest_benchmark.plugin import pytest_benchmark_generate_machine_info

from fastdl import MLP, Callback, _engine, datasets, distributed
from fastdl.optimizers import Adam

SIZES = [784, 128, 128, 128, 10]
CHUNKS = 8
MOST_POINTS = 0.2
MODES = {
    "steps by the client": {"batch_size": 256, "epochs": 10, "average_every": None},
    "mean of every 50 steps": {"batch_size": 32, "epochs": 20, "average_every": 50},
}

# Of the cost: rows that each worker takes in a step of its own, the workers of the clusters, and
# those of the planned one, with bits per second of each worker's connection. (A hundred in one
# process are too slow to answer each other.)
BATCH = 32
WORKERS = (2, 5, 10, 20)
PLANNED = 100
BANDWIDTH = 1e9
EVERY = (1, 10, 50, 200, 1000)
REPEATS = 15


def network(seed):
    return MLP(SIZES, dropout=0.5, seed=seed)


# ------------------------------------------------------------------------------------ accuracy


def chunk(number):
    """A part of the training images, read where it is needed."""
    (X, y), *_ = datasets.load_mnist()
    rows = len(X) // CHUNKS
    part = slice(number * rows, (number + 1) * rows)
    return X[part].reshape(rows, -1), y[part]


def on_workers(rows):
    """The training images as Dask arrays."""
    chunks = [dask.delayed(chunk, nout=2)(number) for number in range(CHUNKS)]
    shapes = ((rows, 784), np.float32), ((rows,), np.int64)
    return [
        da.concatenate([da.from_delayed(each[i], *shapes[i]) for each in chunks]) for i in range(2)
    ]


class Kill(Callback):
    """Kills a worker in the middle of an epoch in the middle of the training."""

    def __init__(self, client):
        self.client = client
        self.killed = None

    def on_train_batch_end(self, batch, logs=None):
        middle = self.epoch == self.params["epochs"] // 2 and batch == self.params["steps"] // 2
        if middle and self.killed is None:
            self.killed = next(iter(self.client.run(os.getpid).values()))
            os.kill(self.killed, signal.SIGKILL)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch


def accuracy(modes, seeds):
    (X, y), _, test = datasets.load_mnist()
    met = True
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        rows = on_workers(len(X) // CHUNKS)
        for mode in modes:
            settings = MODES[mode]
            points = {"one process": [], "two workers": [], "one killed": []}
            same = []
            for seed in seeds:
                single, double, killed = (network(seed) for _ in points)
                alone = {name: settings[name] for name in ("batch_size", "epochs")}
                single.fit(X, y, optimizer="adam", verbose=0, **alone)
                settings = {"optimizer": "adam", "verbose": 0} | settings
                start = time.perf_counter()
                distributed.fit(double, *rows, client, **settings)
                seconds = time.perf_counter() - start
                kill = Kill(client)
                distributed.fit(killed, *rows, client, callbacks=[kill], **settings)
                client.wait_for_workers(2, timeout=60)
                same.append(
                    kill.killed is not None
                    and all(
                        np.array_equal(a, b)
                        for a, b in zip(double.weights, killed.weights, strict=True)
                    )
                )
                for name, net in zip(points, (single, double, killed), strict=True):
                    points[name].append(100 * net.evaluate(*test)["accuracy"])
                print(f"{mode}, seed {seed}: two workers took {seconds:.1f} s", flush=True)
            for name, values in points.items():
                print(
                    f"  {name:12} {statistics.mean(values):.2f} %  {np.round(values, 2).tolist()}"
                )
            gap = statistics.mean(points["one process"]) - statistics.mean(points["two workers"])
            print(
                f"  parameters with and without the death the same: {same}; gap {gap:+.2f} points"
            )
            met = met and all(same) and gap <= MOST_POINTS
    return met


# ---------------------------------------------------------------------------------------- cost


def size(value):
    """Bytes of a message."""
    return sum(len(memoryview(frame).cast("B")) for frame in serialize(value)[1])


def seconds_of(function, repeats=REPEATS):
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def nothing(settings, state, part, number):
    """What a task returns, without the work."""
    return [state[0]], np.zeros(3)


def round_seconds(workers):
    """Seconds of a round of tasks that compute nothing, on so many workers in this process."""
    settings = {"processes": False, "threads_per_worker": 1, "dashboard_address": ":0"}
    rows = da.zeros((workers, SIZES[0]), chunks=(1, -1), dtype=np.float32)
    net = network(0)
    with (
        LocalCluster(n_workers=workers, **settings) as cluster,
        Client(cluster) as client,
    ):
        chunks, sizes = distributed._chunks(da, net, rows, np.zeros(workers), None, workers)
        held = distributed._Cluster(client, net, chunks, sizes, workers, 8, True)
        state = (net._network.parameters, 0, 0)
        numbers = [(number,) for number in range(workers)]
        return seconds_of(lambda: held.sum(nothing, state, numbers), 5)


def measure():
    """All that the tables are made of."""
    net, optimizer = network(0), Adam()
    random = np.random.default_rng(0)
    X = random.normal(size=(64 * BATCH, SIZES[0])).astype(np.float32)
    data = net._data(X, random.integers(0, 10, len(X)), None, dense=True)
    state = _engine.OptimizerState(optimizer, net._network)
    arrays = [net._network.parameters, *state.slots.values()]
    settings = distributed.pickle.dumps(net._config() | {"seed": 0})
    gradients = ((net._network.parameters, 0, 0), data, 0, BATCH, 0)
    taking = 16
    steps = ((arrays, 0, 0, 0, optimizer, BATCH, 0, np.full(taking, 0.001)), data, 0)
    return {
        "parameters": len(net._network.parameters),
        "gradients": seconds_of(lambda: distributed._gradients(settings, *gradients)),
        "step": seconds_of(lambda: distributed._steps(settings, *steps)) / taking,
        "sent": {
            "gradients": size(gradients[0]),
            "steps": size(steps[0]),
        },
        "returned": {
            "gradients": size(distributed._gradients(settings, *gradients)),
            "steps": size(distributed._steps(settings, *steps)),
        },
        "rounds": {workers: round_seconds(workers) for workers in WORKERS},
    }


def tables(measured):
    """Name of a place -> the table that stands in it."""
    lines = [
        "| workers | tasks of a round | seconds of a round without work | bytes through the client "
        "and each worker, gradients | the same, means |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    sent, returned = measured["sent"], measured["returned"]
    both = {name: sent[name] + returned[name] for name in sent}
    for workers, seconds in measured["rounds"].items():
        lines.append(
            f"| {workers} | {tasks(workers)} | {seconds:.3f} | {both['gradients']:,} | "
            f"{both['steps']:,} |"
        )
    slope, rest = np.polyfit(*zip(*measured["rounds"].items(), strict=True), 1)
    overhead = rest + slope * PLANNED
    lines.append(
        f"| {PLANNED}, on their line | {tasks(PLANNED)} | {overhead:.3f} | {both['gradients']:,} | "
        f"{both['steps']:,} |"
    )
    plan = [
        "| steps between two means | seconds of work | of sending | of the scheduler "
        "| work's share | rows per second, all workers |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    # A message takes its way once to each worker, and once up each level of the tree.
    levels = depth(PLANNED)
    rows = [("each step, by the client", measured["gradients"], both["gradients"], 1)]
    rows += [(f"{every:,}", every * measured["step"], both["steps"], every) for every in EVERY]
    for name, work, message, every in rows:
        sending = message / 2 * 8 / BANDWIDTH * (levels + 1)
        total = work + sending + overhead
        plan.append(
            f"| {name} | {work:.4f} | {sending:.4f} | {overhead:.3f} "
            f"| {100 * work / total:.0f} % | {PLANNED * BATCH * every / total:,.0f} |"
        )
    sentence = (
        f"Measured on {measured['date']} on {measured['machine']}: the network "
        f"{'-'.join(map(str, SIZES))} with dropout, {measured['parameters']:,} parameters in "
        f"float32, Adam, {BATCH} dense rows in a worker's step, on one core "
        f"{1e3 * measured['gradients']:.2f} ms for the gradients of a step and "
        f"{1e3 * measured['step']:.2f} ms for a step of its own. "
        f"A connection is taken for {BANDWIDTH / 1e9:g} Gbit/s."
    )
    return {
        "cluster-rounds": f"{sentence}\n\n" + "\n".join(lines),
        "cluster-plan": "\n".join(plan),
    }


def tasks(workers, split_every=8):
    """Tasks of a round: the state, the parts, and those that add up."""
    count, left = 1 + workers, workers
    while left > 1:
        left = -(-left // split_every)
        count += left
    return count


def depth(workers, split_every=8):
    """Levels of the tree that adds up."""
    levels = 0
    while workers > 1:
        workers, levels = -(-workers // split_every), levels + 1
    return levels


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    jobs = parser.add_subparsers(dest="job", required=True)
    job = jobs.add_parser("accuracy")
    job.add_argument("--mode", choices=MODES, help="one of the ways")
    job.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    job = jobs.add_parser("cost")
    job.add_argument("document", type=Path)
    options = parser.parse_args(arguments)
    if options.job == "accuracy":
        return 0 if accuracy([options.mode] if options.mode else MODES, options.seeds) else 1
    info = pytest_benchmark_generate_machine_info() | machine.facts(())
    measured = measure() | {
        "date": datetime.date.today().isoformat(),
        "machine": f"{info['cores']} cores of {info['cpu']['brand_raw']}",
    }
    written = tables(measured)
    text, found = report.place(options.document.read_text(encoding="utf-8"), written)
    if missing := set(written) - set(found):
        raise ValueError(f"{options.document} has no place for: {', '.join(sorted(missing))}")
    options.document.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
