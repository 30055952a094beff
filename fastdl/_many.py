"""`fit_many`: many small networks on the same rows, each core training one of them at a time."""

import collections
import contextvars
import copy
import functools
import os
import reprlib
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from . import _engine, _sparse, backends, checks
from .blocks import Blocks
from .callbacks import EarlyStopping, ProgressBar
from .network import MLP, Training, checked_callbacks

# Seconds between two looks for Ctrl-C. A network that has to stop then takes up to 50 ms more.
_LISTENING_INTERVAL = 0.02

# Seconds between two drawings of the progress bar.
_PROGRESS_INTERVAL = 0.2

# What a step costs beside its multiplications, in multiplications: some microseconds.
_STEP_COST = 10_000


def fit_many(
    networks,
    X,
    y,
    *,
    rows=None,
    epochs=1,
    batch_size=32,
    optimizer=None,
    early_stopping=None,
    validation_data=None,
    validation_split=0.0,
    shuffle=True,
    sample_weight=None,
    class_weight=None,
    callbacks=None,
    verbose=1,
    threads=None,
):
    """Train networks on the same rows, as many at a time as there are cores.

    Each of them ends with the parameters and the History, bit for bit, that its own `fit` would
    have given, whatever the number of threads. Data is checked, converted and searched for zeros
    once for all networks of one loss, dtype and selection of rows.

    `epochs`, `batch_size`, `optimizer` and `early_stopping` are one value for all networks or a
    list, tuple or array of one for each.

    Parameters
    ----------
    networks : sequence of MLP
        Different objects; their widths, dropout rates, seeds and losses are their own.
    X, y, validation_data, validation_split, shuffle, sample_weight, class_weight
        As for `MLP.fit`, but rows are arrays, not blocks.
    rows : sequence of array_like of int, optional
        For each network the numbers of the rows of X, y and sample_weight that it gets instead of
        all, such as folds or draws with replacement. Those that share an array share their data.
    epochs : int or sequence of int, default 1
    batch_size : int or sequence of int, default 32
    optimizer : str, Optimizer, or a sequence of them, optional
        None stands for the one that a network has in use, at first Adam.
    early_stopping : EarlyStopping or a sequence of EarlyStopping or None, optional
        Each network gets a copy, which is called after its other callbacks.
    callbacks : sequence of sequences of Callback, optional
        For each network its own objects. They are called in the thread that trains it.
    verbose : {0, 1, 2}, default 1
        Nothing, a progress bar over the steps of all networks, or its last line only.
    threads : int, optional
        Networks in training at a time: without it, `backends.available_threads()`.

    Returns
    -------
    list of History
        In the order of the networks.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range, does not fit a network or has the wrong type. Nothing is
        changed then.

    Notes
    -----
    An error in one network's training, and Ctrl-C, end that of all within 100 ms; each is left
    after a completed step, or as it was. A learning rate that is a Python function of one's own is
    called from several threads.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl import MLP, fit_many
    >>> from fastdl.optimizers import Adam
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 2))
    >>> y = X[:, 0] * X[:, 1] > 0
    >>> networks = [MLP([2, width, 1], activation="tanh", seed=0) for width in (1, 4, 16)]
    >>> histories = fit_many(networks, X, y, epochs=100, optimizer=Adam(0.02), verbose=0)
    >>> [history.history["accuracy"][-1] > 0.8 for history in histories]
    [False, True, True]
    """
    networks = _checked_networks(networks)
    each = functools.partial(_each, len(networks))
    positive = functools.partial(checks.integer, low=1)
    epochs = each("epochs", epochs, positive)
    batch_size = each("batch_size", batch_size, positive)
    optimizer = [
        network._resolved_optimizer(value, name)
        for network, (name, value) in zip(
            networks, each("optimizer", optimizer, lambda *named: named), strict=True
        )
    ]
    early_stopping = each("early_stopping", early_stopping, checked_stopping)
    callbacks = _checked_callbacks(len(networks), callbacks)
    verbose = checks.integer("verbose", verbose, low=0, high=2)
    shuffle = checks.boolean("shuffle", shuffle)
    if threads is None:
        threads = backends.available_threads()
    threads = checks.integer("threads", threads, low=1)
    X, validation_data = all_at_once(X, y, validation_data)
    data = _shared_data(
        networks,
        _checked_rows(len(networks), rows, X, y, sample_weight),
        (X, y, sample_weight),
        (class_weight, validation_data, validation_split),
    )
    jobs = [
        _Job(
            network,
            Training(
                *data[index],
                range(epochs[index]),
                batch_size[index],
                optimizer[index],
                shuffle,
                [*callbacks[index], *map(copy.copy, early_stopping[index])],
                verbose=0,
            ),
        )
        for index, network in enumerate(networks)
    ]
    return _Sweep(jobs, verbose).run(min(threads, len(jobs)))


# --------------------------------------------------------------------------------------- the sweep


class _Job(NamedTuple):
    network: MLP
    training: Training

    @property
    def steps(self):
        return len(self.training.epochs) * self.training.steps

    @property
    def cost(self):
        """What it takes, in multiplications."""
        rows = len(self.training.epochs) * len(self.training.data.inputs)
        return rows * len(self.network._network.parameters) + self.steps * _STEP_COST


class _StopError(Exception):
    """Ends a network's training between two steps."""


class _Sweep:
    """Threads take one job after the other, and the caller's own waits and listens."""

    def __init__(self, jobs, verbose):
        self._jobs = jobs
        # What takes longest first, so that no core is left alone with it at the end.
        self._waiting = collections.deque(
            sorted(range(len(jobs)), key=lambda index: jobs[index].cost, reverse=True)
        )
        self._histories = [None] * len(jobs)
        self._taken = [0] * len(jobs)  # steps; each number is changed by one thread only
        self._error = None
        self._stop = False
        for network, training in jobs:
            # Before the threads start, or several would.
            _engine.cut(network._network, training.data)
        self._bar = None
        if verbose:
            self._bar = ProgressBar()
            steps = sum(job.steps for job in jobs)
            self._bar.set_params({"epochs": 1, "steps": steps, "verbose": verbose})

    def run(self, threads):
        """Do all jobs on so many threads; returns the histories."""
        # They see the backend of the caller's context.
        workers = [
            threading.Thread(target=contextvars.copy_context().run, args=(self._work,))
            for _ in range(threads)
        ]
        if self._bar:
            self._bar.on_epoch_begin(0)
        shown = time.perf_counter()
        # Ctrl-C reaches the main thread alone: held here, it is raised once the others have ended.
        with _engine.interrupts_held() as interrupts:
            try:
                for worker in workers:
                    worker.start()
                for worker in workers:
                    while worker.is_alive():
                        worker.join(_LISTENING_INTERVAL)
                        if interrupts:
                            self._stop = True
                        if self._bar and time.perf_counter() - shown >= _PROGRESS_INTERVAL:
                            self._show()
                            shown = time.perf_counter()
            finally:
                self._stop = True
                for worker in workers:
                    if worker.ident is not None:  # it was started
                        worker.join()
        if self._error:
            raise self._error
        if self._bar:
            self._bar.on_epoch_end(0, self._logs())
        return self._histories

    def _work(self):
        try:
            while not self._stop:
                try:
                    index = self._waiting.popleft()
                except IndexError:
                    return
                self._train(index)
        except _StopError:
            return
        except BaseException as error:  # to be raised where fit_many was called
            self._error = self._error or error
            self._stop = True

    def _train(self, index):
        network, training = self._jobs[index]

        def listen(taken):
            self._taken[index] += taken
            if self._stop:
                raise _StopError

        workspace = _engine.Workspace(network._network, threads=1)
        self._histories[index] = network._train(training, workspace, listen)
        self._taken[index] = self._jobs[index].steps

    def _show(self):
        taken = sum(self._taken)
        if taken:
            self._bar.on_train_progress(taken - 1, self._logs())

    def _logs(self):
        return {"networks": len(self._histories) - self._histories.count(None)}


# -------------------------------------------------------------------------------- checks, and data


def _checked_networks(networks):
    if not isinstance(networks, Sequence):
        raise TypeError(f"networks: {networks!r} is not a sequence of fastdl.MLP")
    if not networks:
        raise ValueError(f"networks: {networks!r} holds none")
    for index, network in enumerate(networks):
        if not isinstance(network, MLP):
            raise TypeError(f"networks[{index}]: {network!r} is not a fastdl.MLP")
    _apart("networks", networks)
    return list(networks)


def checked_stopping(name, value):
    """None or one of them as a list."""
    if value is not None and not isinstance(value, EarlyStopping):
        raise TypeError(f"{name}: {value!r} is neither None nor a fastdl.EarlyStopping")
    return [] if value is None else [value]


def _checked_callbacks(count, callbacks):
    """A list of callbacks for each network, each of which serves only one."""
    if callbacks is None:
        return [[]] * count

    def check(name, value):
        if not isinstance(value, Sequence):
            raise TypeError(f"{name}: {value!r} is not a sequence of callbacks, one network's own")
        return checked_callbacks(name, value)

    lists = _each(count, "callbacks", callbacks, check)
    _apart("callbacks", [callback for each in lists for callback in each])
    return lists


def _apart(name, objects):
    seen = set()
    for value in objects:
        if id(value) in seen:
            raise ValueError(f"{name}: {value!r} is there twice")
        seen.add(id(value))


def _each(count, name, value, check):
    """One checked value for each network."""
    several = isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, (str, bytes))
    if not several or getattr(value, "ndim", 1) == 0:
        return [check(name, value)] * count
    if len(value) != count:
        raise ValueError(f"{name}: {len(value)} values for {count} networks")
    return [check(f"{name}[{index}]", each) for index, each in enumerate(value)]


def _checked_rows(count, rows, *arrays):
    """The numbers of each network's rows, None for all; the same array where the same was given."""
    if rows is None:
        return [None] * count
    if not isinstance(rows, Sequence):
        raise TypeError(f"rows: {reprlib.repr(rows)} is not a sequence of arrays, one a network")
    lengths = [row_count(array) for array in arrays if array is not None]
    if len(set(lengths)) > 1:
        raise ValueError(f"rows: X, y and sample_weight have {lengths} rows to choose from")
    checked = {}

    def check(name, value):
        if id(value) not in checked:
            numbers = checks.as_labels(name, value, classes=lengths[0])
            # With the value itself, since another one may be made in its place.
            checked[id(value)] = checks.nonempty(name, numbers), value
        return checked[id(value)][0]

    return _each(count, "rows", rows, check)


def all_at_once(X, y, validation_data):
    """X and validation_data, if they are arrays that many networks can share.

    Those of a file stay mapped, from which `MLP.fit` would read block by block.
    """
    X = _mapped("X", X, y)
    if isinstance(validation_data, (tuple, list)) and len(validation_data) > 1:
        rows, targets, *weights = validation_data
        rows = _mapped("validation_data[0]", rows, targets)
        return X, (rows, targets, *weights)
    if isinstance(validation_data, Blocks):
        _mapped("validation_data", validation_data, None)
    return X, validation_data


def _mapped(name, X, y):
    if y is None or isinstance(X, (Blocks, str, os.PathLike)):
        raise TypeError(
            f"{name}: rows that are read block by block train one network, by its fit; many take "
            "arrays and their targets"
        )
    return X.view(np.ndarray) if isinstance(X, np.memmap) else X


def row_count(array):
    """How many rows an array_like or sparse matrix has."""
    return array.shape[0] if hasattr(array, "shape") else len(array)


def taken(array, rows):
    """These rows of an array_like or sparse matrix, as a copy; what is None stays None."""
    if array is None or rows is None:
        return array
    if _sparse.is_sparse(array):
        return array.tocsr()[rows]
    return np.asarray(array)[rows]


def data_form(network):
    """Networks of one form train on the same prepared arrays."""
    shifts = _engine.wants_shifts(network._network)
    return network.loss, network.sizes[0], network.sizes[-1], network.dtype, shifts


def _shared_data(networks, rows, arrays, others):
    """Rows to train on and to evaluate for each network: the same arrays wherever they fit.

    They are those that `fit` takes, to the bit.
    """
    prepared, data = {}, []
    for index, network in enumerate(networks):
        form = data_form(network), id(rows[index])
        if form not in prepared:
            try:
                parts = (taken(array, rows[index]) for array in arrays)
                prepared[form] = network._training_data(*parts, *others)
            except (TypeError, ValueError) as error:
                if not prepared:
                    raise
                raise type(error)(f"networks[{index}]: {error}") from error
        data.append(prepared[form])
    return data
