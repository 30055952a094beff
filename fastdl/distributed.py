"""Training on the workers of a Dask cluster, each of which holds a part of the rows.

A step of `fit` is a few small tasks: one that holds the network's parameters, one on each part of
the rows, and a tree of those that add up what they return. All are functions of their arguments
alone, random numbers included. So what a worker had when it died, its rows or its part of a step,
is done again on another one, and the result is the same to the bit.
"""

import itertools
import math
import pickle
import threading
import time
from typing import NamedTuple

import numpy as np

from . import _engine, checks
from ._optional import optional_import
from .network import MLP, Position, checked_callbacks, hooks_for

# An odd number of 64 bits whose multiples keep the random numbers of the parts apart.
_PART_SEED = 0xD1B54A32D192ED03

# Seconds between two calls of `on_train_progress`.
_PROGRESS_INTERVAL = 0.2

# Seconds of waiting for workers after which to see whether they are still there.
_PATIENCE = 1.0
# So often in a row that they are idle while tasks are waited for.
_IDLE = 5


def fit(
    model,
    X,
    y,
    client,
    *,
    epochs=1,
    batch_size=32,
    optimizer=None,
    average_every=None,
    validation_data=None,
    shuffle=True,
    sample_weight=None,
    callbacks=None,
    verbose=1,
    resume_from=None,
    parts=None,
    split_every=8,
):
    """Train a network on the rows of a Dask array, where its chunks are.

    Parameters
    ----------
    model : MLP
        Ends as `MLP.fit` would leave it.
    X : dask.array.Array (n, ...)
        Its chunks of rows are loaded once, each on the worker that trains on it.
    y : dask.array.Array or array_like
        As for `MLP.fit`.
    client : dask.distributed.Client
        Its workers need fastdl.
    epochs, optimizer, validation_data, shuffle, callbacks, verbose
        As for `MLP.fit`. Validation is by the client, and so are all callbacks.
    batch_size : int, default 32
        Rows of a step, of which each worker takes its share; with `average_every`, rows of each
        worker's own steps.
    average_every : int, optional
        Without it the workers compute gradients and the client takes the steps: the training is
        that of one process, but for the choice of each batch's rows. With it each worker takes so
        many steps by itself, from parameters and moments that are the means of all, weighted by the
        rows that each has gone through: far less is sent, and the training is another one.
    sample_weight : dask.array.Array or array_like (n,), optional
    resume_from : path-like, optional
        File of a `fastdl.callbacks.Checkpoint`, which goes into `callbacks` and writes one after
        each epoch.
    parts : int, optional
        Into how many parts the rows go: without it, as many as there are workers. The result
        depends on it, and not on which worker does what.
    split_every : int, default 8
        How many results one task adds up.

    Returns
    -------
    History
        Of means over all rows, as `MLP.fit` returns it.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range, does not fit the network or has the wrong type. Nothing is
        changed then.
    ImportError
        If the packages dask or distributed are missing.

    Notes
    -----
    A worker that dies while tasks run is done without until another one has taken its place, at the
    latest with the next epoch. Without any, training waits for new ones. Dask gives a task up that
    took three workers with it.

    Examples
    --------
    >>> import dask.array as da
    >>> from dask.distributed import Client
    >>> from fastdl import MLP, distributed
    >>> X = da.random.default_rng(0).normal(size=(1000, 2), chunks=(250, 2))
    >>> y = X[:, 0] > X[:, 1]
    >>> net = MLP([2, 8, 1], seed=0)
    >>> with Client(n_workers=2, processes=False, dashboard_address=":0") as client:
    ...     history = distributed.fit(
    ...         net, X, y, client, epochs=10, average_every=4, optimizer="adam", verbose=0)
    >>> history.history["accuracy"][-1] > 0.8
    True
    """
    if not isinstance(model, MLP):
        raise TypeError(f"model: {model!r} is not a fastdl.MLP")
    dask_array = optional_import("dask.array", extra="distributed")
    dask_distributed = optional_import("distributed", extra="distributed")
    if not isinstance(client, dask_distributed.Client):
        raise TypeError(f"client: {client!r} is not a dask.distributed.Client")
    epochs = checks.integer("epochs", epochs, low=1)
    batch_size = checks.integer("batch_size", batch_size, low=1)
    if average_every is not None:
        average_every = checks.integer("average_every", average_every, low=1)
    shuffle = checks.boolean("shuffle", shuffle)
    verbose = checks.integer("verbose", verbose, low=0, high=2)
    callbacks = checked_callbacks("callbacks", callbacks)
    split_every = checks.integer("split_every", split_every, low=2)
    workers = len(client.nthreads())
    if not workers:
        raise ValueError("client: there are no workers")
    parts = workers if parts is None else checks.integer("parts", parts, low=1)
    if average_every is None and batch_size < parts:
        raise ValueError(f"batch_size: {batch_size} rows are not one for each of the {parts} parts")
    if resume_from is None or optimizer is not None:
        optimizer = model._resolved_optimizer(optimizer)
    chunks, sizes = _chunks(dask_array, model, X, y, sample_weight, parts)
    if validation_data is not None:
        validation_data = model._validation_data(validation_data, epochs)
    rows = [sum(sizes[chunk] for chunk in part) for part in _dealt(sizes, parts)]
    plan = Plan(
        range(epochs),
        batch_size,
        optimizer,
        callbacks,
        {
            "batch_size": batch_size,
            "shuffle": shuffle,
            "rows": rows,
            "average_every": average_every,
        },
    )
    if resume_from is not None:
        plan = model._resume(resume_from, plan)
    cluster = _Cluster(client, model, chunks, sizes, parts, split_every, average_every is None)
    training = _Averaged if average_every else _Synchronous
    try:
        return training(model, cluster, plan, rows, average_every).run(validation_data, verbose)
    finally:
        cluster.release()


class Plan(NamedTuple):
    """What `fit` is asked for, as `MLP._resume` looks at it."""

    epochs: range
    batch_size: int
    optimizer: object
    callbacks: list
    settings: dict
    resumed: dict | None = None


# --------------------------------------------------------------------------------- on the client


class _Training:
    """The epochs of a training, a round of tasks after the other."""

    def __init__(self, model, cluster, plan, rows, average_every):
        self.model = model
        self.network = model._network
        self.cluster = cluster
        self.plan = plan
        self.rows = rows
        self.average_every = average_every
        model._use(plan.optimizer)
        self.state = model._state
        self.workspace = _engine.Workspace(self.network)

    def run(self, validation, verbose):
        """Train; returns the History."""
        model, plan, epochs = self.model, self.plan, self.plan.epochs
        model.stop_training = False
        hooks, history = hooks_for(model, plan.callbacks, epochs.stop, self.rounds, verbose)
        hooks.call("on_train_begin", {})
        if plan.resumed:
            hooks.restore(plan.resumed["callbacks"])
            start = plan.resumed["position"]["epoch"]
            epochs = range(start, start if plan.resumed["stopped"] else epochs.stop)
        logs, shown = {}, time.perf_counter()
        try:
            for epoch in epochs:
                model._position = None  # nothing to go on from, within an epoch
                hooks.call("on_epoch_begin", epoch, {})
                ending = model.stop_training
                self.cluster.place()
                totals = np.zeros(3)
                self.network.epochs += 1
                for number in range(self.rounds):
                    hooks.call("on_train_batch_begin", number, {})
                    totals += self.round(number)
                    logs = model._metrics(totals) if totals[2] else {}
                    hooks.call("on_train_batch_end", number, logs)
                    if time.perf_counter() - shown >= _PROGRESS_INTERVAL:
                        hooks.call("on_train_progress", number, logs)
                        shown = time.perf_counter()
                    if model.stop_training and not ending:
                        break
                if validation is not None:
                    scores = model._metrics(model._scores(validation))
                    logs |= {f"val_{name}": value for name, value in scores.items()}
                model._position = Position(epoch + 1, 0, np.zeros(3), plan.settings)
                hooks.call("on_epoch_end", epoch, logs)
                if model.stop_training:
                    break
        finally:
            model._position = None
        hooks.call("on_train_end", logs)
        return history

    def pass_number(self):
        """What the order of the rows is a function of, None for their own."""
        return self.network.epochs - 1 if self.plan.settings["shuffle"] else None


class _Synchronous(_Training):
    """All workers take part in each step."""

    @property
    def rounds(self):
        return math.ceil(sum(self.rows) / self.plan.batch_size)

    def round(self, number):
        """Take a step; returns its totals."""
        network, rounds = self.network, self.rounds
        gradients, totals = self.cluster.sum(
            _gradients,
            (network.parameters, network.iterations, self.pass_number()),
            [
                (rows * number // rounds, rows * (number + 1) // rounds, _part_seed(network, part))
                for part, rows in enumerate(self.rows)
            ],
        )
        if not totals[2]:
            return totals  # rounding left it without a row
        workspace = self.workspace
        np.divide(gradients[0], totals[2], out=workspace.gradients)
        penalty = _engine.take_step(network, self.state, workspace, self.state.rates(1)[0])
        totals[0] += penalty * totals[2]
        return totals


class _Averaged(_Training):
    """Each worker takes steps by itself, then the mean of all goes on."""

    @property
    def rounds(self):
        return math.ceil(self.steps(max(self.rows)) / self.average_every)

    def steps(self, rows):
        return math.ceil(rows / self.plan.batch_size)

    def round(self, number):
        """Take steps everywhere; returns their totals."""
        network, state, size = self.network, self.state, self.plan.batch_size
        first = number * self.average_every
        steps = min(self.average_every, self.steps(max(self.rows)) - first)
        rates = [state.optimizer.rate(state.iterations + step) for step in range(steps)]
        sums, totals = self.cluster.sum(
            _steps,
            (
                [network.parameters, *state.slots.values()],
                network.iterations,
                state.iterations,
                self.pass_number(),
                state.optimizer,
                size,
                first,
                np.array(rates),
            ),
            [(_part_seed(network, part),) for part in range(len(self.rows))],
        )
        for array, total in zip([network.parameters, *state.slots.values()], sums, strict=True):
            array[...] = total / totals[2]
        network.iterations += steps
        state.iterations += steps
        return totals


class _Cluster:
    """The parts of the rows on the workers of a client."""

    def __init__(self, client, model, chunks, sizes, parts, split_every, dense):
        self._client = client
        dask_distributed = optional_import("distributed", extra="distributed")
        self._wait, self._timeout = dask_distributed.wait, dask_distributed.TimeoutError
        cloudpickle = optional_import("cloudpickle", extra="distributed")
        self._settings = cloudpickle.dumps(model._config() | {"seed": 0})
        self._chunks = [[chunks[chunk] for chunk in part] for part in _dealt(sizes, parts)]
        self._split_every = split_every
        self._dense = dense
        self._workers = None
        self.place()

    def place(self):
        """Have each worker hold its parts, where workers have come or gone."""
        while (workers := sorted(self._client.nthreads())) != self._workers:
            if not workers:
                self._client.wait_for_workers(1)
                continue
            self._workers = workers
            self._parts, self._chunk_futures = [], []
            for number, chunks in enumerate(self._chunks):
                place = {"workers": workers[number % len(workers)], "allow_other_workers": True}
                # Anywhere: others may hold tasks of these keys, and Dask forgets about those that
                # wait for a worker which is lost.
                columns = [
                    self._client.compute(list(column)) for column in zip(*chunks, strict=True)
                ]
                self._chunk_futures += itertools.chain(*columns)
                self._parts.append(
                    self._client.submit(
                        _held, self._settings, self._dense, *columns, pure=False, **place
                    )
                )
            counts = [self._client.submit(_count, part) for part in self._parts]
            if self._done(counts):
                self._client.gather(counts)

    def _done(self, futures):
        """Wait for futures; returns False once nobody will see to them, and `place` has to.

        Tasks that were left without any worker Dask keeps for those, though they may go elsewhere,
        and others that need the same chunks would wait with them: all are given up where the
        workers with parts are lost and others there, or where workers are there and stay idle.
        """
        idle = 0
        while True:
            try:
                self._wait(futures, timeout=_PATIENCE)
                return True
            except self._timeout:
                there = self._client.nthreads()
                lost = not any(worker in there for worker in self._workers)
                idle = 0 if any(self._client.processing().values()) else idle + 1
                if there and (lost or idle >= _IDLE):
                    self.release(*futures)
                    return False

    def release(self, *futures):
        """Have the workers forget these futures and the parts."""
        for future in (*futures, *self._parts, *self._chunk_futures):
            future.release()
        self._workers = None

    def sum(self, function, state, arguments):
        """What a function returns on all parts, added up."""
        while not self._done([total := self._total(function, state, arguments)]):
            self.place()
        return total.result()

    def _total(self, function, state, arguments):
        # One task holds what all need, and workers send it on to each other.
        state = self._client.submit(_identity, state, pure=False)
        results = [
            self._client.submit(function, self._settings, state, part, *each, pure=False)
            for part, each in zip(self._parts, arguments, strict=True)
        ]
        while len(results) > 1:
            results = [
                self._client.submit(_added, results[start : start + self._split_every], pure=False)
                for start in range(0, len(results), self._split_every)
            ]
        return results[0]


# ---------------------------------------------------------------------------------- on a worker

# A worker may run several tasks at a time, each in a thread.
_local = threading.local()


def _held(settings, dense, X, y, sample_weight=None):
    """Chunks of rows as one part, ready for training."""
    model = _model(settings)
    parts = [None if part is None else np.concatenate(part) for part in (X, y, sample_weight)]
    return model._data(*parts, dense=dense)


def _count(part):
    return len(part.inputs)


def _identity(state):
    return state


def _model(settings):
    """A network of these settings, which the thread keeps from task to task."""
    if getattr(_local, "settings", None) != settings:
        _local.model, _local.settings = MLP(**pickle.loads(settings)), settings
        _local.workspace = _engine.Workspace(_local.model._network)
        _local.order = None, None
    return _local.model


def _order(network, number, rows):
    """The order of a pass, which is made once for all tasks that take rows of it."""
    if number is None:
        return None
    key = network.seed, number, rows
    if _local.order[0] != key:
        order = np.empty(rows, np.int64)
        _engine.shuffle(network, number, order)
        _local.order = key, order
    return _local.order[1]


def _gradients(settings, state, part, start, stop, seed):
    """Gradients of some rows of a part, times their number, and their totals."""
    parameters, iterations, number = state
    network = _model(settings)._network
    network.seed = seed
    network.parameters[...] = parameters
    if start == stop:
        return [np.zeros_like(parameters)], np.zeros(3)
    order = _order(network, number, len(part.inputs))
    totals = _engine.add_up(network, _local.workspace, part, order, start, stop, iterations)
    return [_local.workspace.gradients * parameters.dtype.type(stop - start)], totals


def _steps(settings, state, part, seed):
    """What some steps on a part make of parameters and slots, times the rows, and the totals."""
    arrays, iterations, steps_taken, number, optimizer, batch_size, first, rates = state
    network = _model(settings)._network
    network.seed = seed
    network.iterations = iterations
    network.epochs = (number or 0) + (first > 0)
    optimizer_state = _engine.OptimizerState(optimizer, network)
    optimizer_state.iterations = steps_taken
    mine = [network.parameters, *optimizer_state.slots.values()]
    for array, given in zip(mine, arrays, strict=True):
        array[...] = given
    rows, totals = len(part.inputs), np.zeros((1, 3))
    order = _order(network, number, rows)
    rates = rates[: max(math.ceil(rows / batch_size) - first, 0)]
    while len(rates):
        taken = _engine.train_steps(
            network,
            optimizer_state,
            _local.workspace,
            part,
            order,
            batch_size,
            first,
            rates,
            totals,
            math.inf,
        )
        first, rates = first + taken, rates[taken:]
    weight = network.parameters.dtype.type(totals[0, 2])
    return [array * weight for array in mine], totals[0]


def _added(results):
    """The sums of what several tasks returned, in their order."""
    arrays, totals = zip(*results, strict=True)
    return [sum(column[1:], column[0]) for column in zip(*arrays, strict=True)], sum(totals)


# ------------------------------------------------------------------------------------- the rows


def _chunks(dask_array, model, X, y, sample_weight, parts):
    """For each chunk of rows X, y and, if given, weights, not yet computed; and their rows."""
    if not isinstance(X, dask_array.Array):
        raise TypeError(f"X: {type(X).__name__} is not a dask.array.Array")
    if any(math.isnan(rows) for rows in X.chunks[0]):
        raise ValueError("X: its chunks are of unknown size: call compute_chunk_sizes() first")
    if X.ndim < 2 or math.prod(X.shape[1:]) != model.sizes[0]:
        raise ValueError(
            f"X: shape {X.shape} is not rows of {model.sizes[0]} features, as the first layer takes"
        )
    if len(X) < parts:
        raise ValueError(f"parts: {parts} are more than the {len(X)} rows of X")
    rows = X.chunks[0] if len(X.chunks[0]) >= parts else math.ceil(len(X) / parts)
    columns = [X := _by_rows(X, rows)]
    for name, value in (("y", y), ("sample_weight", sample_weight)):
        if value is None:
            continue
        if not isinstance(value, dask_array.Array):
            value = dask_array.from_array(np.asarray(value), chunks=-1)
        if len(value) != len(X):
            raise ValueError(f"{name}: {len(value)} rows are not the {len(X)} of X")
        columns.append(_by_rows(value, X.chunks[0]))
    chunks = zip(*(column.to_delayed().reshape(-1) for column in columns), strict=True)
    return list(chunks), X.chunks[0]


def _by_rows(array, chunks):
    """An array in chunks of whole rows."""
    return array.rechunk({0: chunks} | dict.fromkeys(range(1, array.ndim), -1))


def _dealt(sizes, parts):
    """Chunks of these sizes as parts of about the same: largest first, each to the smallest."""
    dealt, rows = [[] for _ in range(parts)], [0] * parts
    for chunk in sorted(range(len(sizes)), key=lambda chunk: -sizes[chunk]):
        part = rows.index(min(rows))
        dealt[part].append(chunk)
        rows[part] += sizes[chunk]
    return [sorted(part) for part in dealt]


def _part_seed(network, part):
    return (network.seed + (part + 1) * _PART_SEED) % 2**64
