"""`sweep`: a search over networks. Every candidate is trained in every fold, through `fit_many`.

A *fit* is one candidate in one fold. What comes of it is a *record*, a dict of JSON types,
whichever process trained it; the table is made of the records alone.
"""

import contextlib
import copy
import fcntl
import functools
import hashlib
import importlib
import inspect
import itertools
import json
import os
import re
import reprlib
import sys
import threading
import types
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from . import _sparse, backends, checks
from ._declarative import Declarative, to_config
from ._many import all_at_once, checked_stopping, data_form, fit_many, row_count, taken
from ._optional import optional_import
from .callbacks import Callback
from .network import MLP

# Of results files; a reader refuses a number it does not know.
_FORMAT = 1

# The entry of a results file's first line by which it is told from other files.
_HEADER = "fastdl_sweep"

# What a builder may return beside its network: what `fit_many` takes for each network.
_OWN_SETTINGS = ("epochs", "batch_size", "optimizer", "early_stopping")

# Fits of a call of `fit_many`, for each of its threads. The more there are, the less a thread waits
# for the others at the end of a call, and the more networks are in memory.
_FITS_PER_THREAD = 32

# Tasks of a search for each process, so that all of them are busy until its end.
_TASKS_PER_PROCESS = 8

# Candidates that a result shows of itself, and the width of a score.
_SHOWN = 10
_SCORE_WIDTH = 9


def sweep(
    builder,
    grid,
    X,
    y,
    *,
    cv=5,
    scoring=None,
    results=None,
    n_jobs=None,
    refit=True,
    seed=0,
    epochs=1,
    batch_size=32,
    optimizer=None,
    early_stopping=None,
    validation_data=None,
    validation_split=0.0,
    shuffle=True,
    sample_weight=None,
    class_weight=None,
    verbose=1,
):
    """Train every candidate in every fold; find the best, and train it on all rows.

    Parameters
    ----------
    builder : callable
        Called with a candidate's parameters and `seed`, by name, it returns an `MLP` with that
        seed, or a tuple of it and a dict with any of "epochs", "batch_size", "optimizer" and
        "early_stopping", which then hold for this candidate.
    grid : dict of sequences, or iterable of dict
        A dict from each parameter to its values stands for all their combinations; a list or a
        sampler of dicts holds the candidates themselves. Values are numbers, strings, bools, None,
        objects of `fastdl.optimizers` and the like, or lists and dicts of these. One that comes
        twice is trained once. A candidate that has a `seed` gets this one in every fold.
    X : array_like or scipy.sparse matrix (n, features)
    y : array_like
        As for `MLP.fit`.
    cv : int, splitter or iterable of pairs, default 5
        Number of folds: one label for each row is spread evenly over them, and they are those of
        scikit-learn's StratifiedKFold, or KFold; an object with `split(X, y)`; or pairs of row
        numbers (or masks), to train on and to score with.
    scoring : {"accuracy", "loss"} or callable, optional
        What decides. Without it accuracy for classification, else the loss, where less is better.
        A function is called with the trained network and the rows and targets of the fold, and
        returns a number, where more is better.
    results : path-like, optional
        File that every fit is appended to, as a line of JSON, once it is done. A search that was
        ended goes on from there: what the file holds is not trained again. (The builder has to use
        its seed for that, or its networks are others every time.)
    n_jobs : int, optional
        Processes, by joblib. Without it as many as `joblib.parallel_config` says around the call,
        else only this one, in which `fit_many` uses all cores.
    refit : bool, default True
        Whether to train the best candidate on all rows.
    seed : int, default 0
        The seed of a fit is a function of this, the candidate and the fold.
    epochs, batch_size, optimizer, early_stopping
        As for `fit_many`, one value for all candidates that don't bring their own.
    validation_data, validation_split, shuffle, class_weight
        As for `MLP.fit`: a split is taken from the rows that a fold trains on.
    sample_weight : array_like (n,), optional
        Weights of the rows, also in the losses of the table.
    verbose : {0, 1}, default 1
        1 prints a row for every candidate that is done, on a terminal with tqdm's progress bar
        below if tqdm is there.

    Returns
    -------
    SweepResult
        The table, the best parameters and the best model: the same, bit for bit, whatever the
        backend and number of processes, and however often the search was interrupted.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range, does not fit a network or has the wrong type, or `results`
        is the file of another search. Nothing has been trained or written then. Also if none of
        the candidates has a score other than NaN.
    ImportError
        If more than one process is asked for without joblib.
    BlockingIOError
        If another search is writing to `results`.

    Notes
    -----
    In one process the rows of each fold are copied, converted and searched for zeros once for all
    candidates of a group. With several processes X and y go to each of them once, unless they are
    small: joblib maps them into the memory of its own, Dask scatters them, Ray has its object
    store. A task is some candidates in one fold, trained on its process's share of the cores.

    Examples
    --------
    >>> import fastdl
    >>> from fastdl.optimizers import Adam
    >>> X, y = fastdl.datasets.load_circle(n_samples=200)
    >>> def build(width, learning_rate, seed):
    ...     net = fastdl.MLP([2, width, 1], activation="tanh", seed=seed)
    ...     return net, {"optimizer": Adam(learning_rate)}
    >>> result = fastdl.sweep(
    ...     build, {"width": [1, 8], "learning_rate": [1e-5, 0.02]}, X, y, epochs=60, verbose=0)
    >>> result.best_params
    {'width': 8, 'learning_rate': 0.02}
    >>> result.best_model.sizes, result.scores["accuracy"].shape
    ((2, 8, 1), (4, 5))
    """
    checks.functions(builder=builder)
    seed = checks.seed("seed", seed)
    checks.boolean("refit", refit)
    verbose = checks.integer("verbose", verbose, low=0, high=1)
    joblib, processes = _processes(n_jobs)
    candidates = _candidates(grid)
    X, validation_data = all_at_once(X, y, validation_data)
    rows = _Rows(*map(_as_rows, (X, y, sample_weight)))
    settings = {
        "epochs": epochs,
        "batch_size": batch_size,
        "optimizer": optimizer,
        "early_stopping": early_stopping,
    }
    shared = {
        "validation_data": validation_data,
        "validation_split": validation_split,
        "shuffle": checks.boolean("shuffle", shuffle),
        "class_weight": class_weight,
    }
    recipe = _Recipe(builder, settings, shared, seed)
    first, classifiers, networks = _try_all(recipe, candidates, rows, digest=results is not None)
    metric = _metric(scoring, classifiers)
    names = ["epochs", *["accuracy"] * any(classifiers), "loss", *["score"] * (metric == "score")]
    folds = _folds(cv, rows, first)
    recipe = recipe._replace(scoring=scoring if callable(scoring) else None)
    search = {
        "X and y": (*rows, validation_data),
        "grid": [candidate.key for candidate in candidates],
        "builder, or how it is trained": (networks, seed, shared | {"validation_data": None}),
        "cv": folds,
        "scoring": scoring,
    }
    with contextlib.ExitStack() as stack:
        records = {}
        if results is not None:
            file = stack.enter_context(_ResultsFile(results, search, candidates, len(folds)))
            records = file.records
        board = stack.enter_context(_Board(candidates, len(folds), names, records, verbose))

        def report(record):
            if results is not None:
                file.append(record)
            board.add(record)

        fits = [
            _Fit(number, fold, candidate)
            for number, candidate in enumerate(candidates)
            for fold in range(len(folds))
            if (number, fold) not in records
        ]
        if processes == 1 or not fits:
            _train_here(recipe, fits, rows, folds, report)
        else:
            _train_elsewhere(recipe, fits, rows, folds, joblib, n_jobs, processes, report)
    result = SweepResult(
        [candidate.parameters for candidate in candidates],
        _scores(board.records, names, len(candidates), len(folds)),
        metric,
    )
    if refit:
        result.best_model = recipe.train(candidates[result.best_index], rows)
    return result


class SweepResult:
    """What `sweep` found.

    Attributes
    ----------
    candidates : list of dict
        The parameters of each, in the order of the grid.
    scores : dict of str to ndarray (candidates, folds)
        "loss", for classification "accuracy", with a `scoring` function "score", all on the rows
        that the fold does not train on; and "epochs", how many were trained.
    metric : str
        The one of them that decides.
    rank : ndarray of int (candidates,)
        1 for the best mean; equal ones share a rank.
    best_index : int
        The first candidate of rank 1.
    best_params : dict
    best_score : float
        Its mean.
    best_model : MLP or None
        Trained with these parameters on all rows, with `refit`.
    """

    def __init__(self, candidates, scores, metric):
        self.candidates = candidates
        self.scores = scores
        self.metric = metric
        self.best_model = None
        means = scores[metric].mean(axis=1)
        loss = means if metric == "loss" else -means
        if np.isnan(loss).all():
            raise ValueError(f"scoring: the {metric} of every candidate is NaN in a fold")
        # Whoever has NaN in a fold comes last: NaN is sorted there.
        self.rank = 1 + np.searchsorted(np.sort(loss), loss)
        self.best_index = int(self.rank.argmin())
        self.best_params = candidates[self.best_index]
        self.best_score = float(means[self.best_index])

    @functools.cached_property
    def table(self):
        """One row for each candidate, as a pandas.DataFrame, or without pandas a dict of columns.

        Parameters have columns of their names behind "param_"; every entry of `scores` has its
        mean and standard deviation over the folds, "mean_loss" and "std_loss"; then there is
        "rank".
        """
        columns = {
            f"param_{name}": _column([candidate.get(name) for candidate in self.candidates])
            for name in dict.fromkeys(itertools.chain(*self.candidates))
        }
        for name, values in self.scores.items():
            columns[f"mean_{name}"] = values.mean(axis=1)
            with np.errstate(invalid="ignore"):  # of infinite losses
                columns[f"std_{name}"] = values.std(axis=1)
        columns["rank"] = self.rank
        try:
            pandas = importlib.import_module("pandas")
        except ImportError:
            return columns
        return pandas.DataFrame(columns)

    def __repr__(self):
        order = np.argsort(self.rank, kind="stable")[:_SHOWN]
        layout = _Layout(self.candidates, self.scores)
        scores = {name: values.mean(axis=1) for name, values in self.scores.items()}
        count, folds = self.scores[self.metric].shape
        lines = [f"{count} candidates in {folds} folds, best {self.metric} first", layout.head]
        for i in order.tolist():
            lines.append(layout.row(self.candidates[i], {name: scores[name][i] for name in scores}))
        if count > _SHOWN:
            lines.append(f"and {count - _SHOWN} more")
        return "\n".join(lines)


# --------------------------------------------------------------------------- candidates and folds


class _Candidate(NamedTuple):
    parameters: dict
    key: str  # the same as JSON, in the parameters' alphabetical order

    def __str__(self):
        return ", ".join(f"{name}={value!r}" for name, value in self.parameters.items())


class _Fit(NamedTuple):
    number: int
    fold: int
    candidate: _Candidate


class _Rows(NamedTuple):
    X: object
    y: object
    sample_weight: object

    def part(self, rows):
        """Some of them, as copies."""
        return _Rows(*(taken(array, rows) for array in self))


def _as_rows(value):
    """What rows can be taken from: an array, or a sparse matrix of a format that allows it."""
    if value is None:
        return None
    return value.tocsr() if _sparse.is_sparse(value) else np.asarray(value)


def _candidates(grid):
    """The candidates that a grid or an iterable stands for, each once."""
    if isinstance(grid, Mapping):
        for name, values in grid.items():
            if isinstance(values, str) or not isinstance(values, Iterable):
                raise TypeError(f"grid[{name!r}]: {values!r} is not a sequence of values")
        grid = [
            dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())
        ]
    elif isinstance(grid, str) or not isinstance(grid, Iterable):
        raise TypeError(f"grid: {grid!r} is neither a dict nor an iterable of dicts")
    found = {}
    for index, parameters in enumerate(grid):
        if not isinstance(parameters, Mapping):
            raise TypeError(f"grid[{index}]: {parameters!r} is not a dict")
        for name in parameters:
            if not isinstance(name, str):
                raise TypeError(f"grid[{index}]: {name!r} is not the name of a parameter")
        plain = {name: _plain(f"grid: {name}", value) for name, value in parameters.items()}
        key = json.dumps(plain, sort_keys=True)
        found.setdefault(key, _Candidate(dict(parameters), key))
    if not found:
        raise ValueError("grid: there is no candidate in it")
    return list(found.values())


def _plain(name, value):
    """A parameter's value in JSON types."""
    if isinstance(value, Declarative):
        value = to_config(value)
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {_plain(name, key): _plain(name, each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(name, each) for each in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"{name}: {reprlib.repr(value)} is neither a number, string, bool or None nor one of "
        "fastdl's declarative objects: let the builder make it of one"
    )


def _folds(cv, rows, network):
    """Pairs of int64 arrays: the rows to train on, and those to score with."""
    count = row_count(rows.X)
    if hasattr(cv, "split") and not isinstance(cv, str):
        pairs = cv.split(rows.X, rows.y)
    elif isinstance(cv, Iterable) and not isinstance(cv, str):
        pairs = cv
    else:
        cv = checks.integer("cv", cv, low=2, high=count)
        return _even_folds(cv, count, _strata(rows, network))
    folds = []
    for index, pair in enumerate(pairs):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"cv[{index}]: {reprlib.repr(pair)} is not a pair of row numbers")
        folds.append(tuple(_row_numbers(f"cv[{index}]", part, count) for part in pair))
    if not folds:
        raise ValueError("cv: there is no fold in it")
    return folds


def _row_numbers(name, value, count):
    value = np.asarray(value)
    if value.dtype == bool:
        value = np.flatnonzero(checks.matches(name, value, (count,), "the rows", (count,)))
    return checks.nonempty(name, checks.as_labels(name, value, classes=count))


def _strata(rows, network):
    """The label of each row, or None where there is not just one."""
    loss = network.loss
    _, labels = loss.targets("y", rows.y, row_count(rows.X), network.sizes[-1], network.dtype)
    if labels is None or labels.size != len(labels):
        return None
    return np.round(labels).astype(np.int64).reshape(-1)


def _even_folds(folds, count, strata):
    """So many folds: of consecutive rows, or of consecutive rows of each stratum.

    Where there are strata, the rows in their order are dealt out like cards, which settles how many
    of each a fold gets, as in scikit-learn's StratifiedKFold.
    """
    if strata is None:
        fold = np.repeat(
            np.arange(folds), [len(part) for part in np.array_split(range(count), folds)]
        )
    else:
        # By their first rows, so that other names for the labels make no other folds.
        _, firsts, codes = np.unique(strata, return_index=True, return_inverse=True)
        codes = np.argsort(np.argsort(firsts))[codes]
        order = np.argsort(codes, kind="stable")
        dealt = np.arange(count) % folds
        fold = np.empty(count, np.int64)
        fold[order] = dealt[np.lexsort((dealt, codes[order]))]
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(folds)]


def _metric(scoring, classifiers):
    """The name among the scores that decides, for networks with and without accuracies."""
    if scoring is None:
        return "accuracy" if all(classifiers) else "loss"
    if callable(scoring):
        return "score"
    checks.choice("scoring", scoring, ("accuracy", "loss"))
    if scoring == "accuracy" and not all(classifiers):
        raise ValueError("scoring: 'accuracy' is unknown to the loss of a regression")
    return scoring


# --------------------------------------------------------------------------------------- training


class _Recipe(NamedTuple):
    """How a candidate becomes a trained network."""

    builder: object
    settings: dict  # what a builder can replace
    shared: dict  # the other arguments of `fit`
    seed: int
    scoring: object = None

    def build(self, candidate, fold):
        """The new network of a candidate for a fold, and its settings."""
        text = json.dumps([self.seed, candidate.key, fold])
        # 32 bits, which is what other libraries take as a seed, too.
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
        arguments = {"seed": seed} | candidate.parameters
        with contextlib.suppress(ValueError):  # of builtins, which have no signature
            try:
                inspect.signature(self.builder).bind(**arguments)
            except TypeError as error:
                raise TypeError(f"builder: called with {', '.join(arguments)}: {error}") from error
        built = self.builder(**arguments)
        network, own = built if isinstance(built, tuple) and len(built) == 2 else (built, {})
        if not isinstance(network, MLP) or not isinstance(own, Mapping):
            raise TypeError(
                f"builder: {built!r} is neither a fastdl.MLP nor a tuple of it and a dict"
            )
        for name in own:
            checks.choice("builder", name, _OWN_SETTINGS)
        return network, self.settings | own

    def check(self, candidate):
        """`build`, with the settings checked as `fit_many` does."""
        network, settings = self.build(candidate, 0)
        for name in ("epochs", "batch_size"):
            checks.integer(name, settings[name], low=1)
        network._resolved_optimizer(settings["optimizer"])
        checked_stopping("early_stopping", settings["early_stopping"])
        return network, settings

    def train(self, candidate, rows):
        """The network of a candidate, trained on all rows."""
        network, settings = self.build(candidate, "all")
        stopping = settings.pop("early_stopping")
        network.fit(
            rows.X,
            rows.y,
            sample_weight=rows.sample_weight,
            callbacks=stopping and [copy.copy(stopping)],
            verbose=0,
            **settings,
            **self.shared,
        )
        return network


def _try_all(recipe, candidates, rows, digest):
    """Build all candidates once and hold them against the data, so that errors come first.

    Returns the first network, whether each has an accuracy, and, if asked for, a digest of each.
    """
    first, classifiers, digests, forms = None, [], [], set()
    arguments = {**recipe.shared, "sample_weight": rows.sample_weight}
    del arguments["shuffle"]
    for candidate in candidates:
        with _errors_of(candidate):
            network, settings = recipe.check(candidate)
        form = data_form(network)
        if form not in forms:
            # What the first one can't be trained on is rather a fault of the data.
            with _errors_of(candidate) if forms else contextlib.nullcontext():
                network._training_data(rows.X, rows.y, **arguments)
            forms.add(form)
        first = first or network
        classifiers.append(network.loss.classification)
        if digest:
            weights = network._network.parameters
            digests.append(_digest((network._config(), weights, settings)))
    return first, classifiers, digests


@contextlib.contextmanager
def _errors_of(candidate):
    """Name the candidate in errors, unless their class has rules of its own."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if type(error) not in (TypeError, ValueError):
            raise
        raise type(error)(f"candidate {candidate}: {error}") from error


class _Scorer(Callback):
    """Scores a network once it is trained, in the thread that trained it."""

    def __init__(self, fit, rows, scoring, report):
        self._fit, self._rows, self._scoring, self._report = fit, rows, scoring, report

    def on_train_begin(self, logs=None):
        """Remember where training began."""
        self._begun = self.model.iterations

    def on_train_end(self, logs=None):
        """Score and report."""
        network, rows = self.model, self._rows
        epochs = -(-(network.iterations - self._begun) // self.params["steps"])
        scores = network.evaluate(rows.X, rows.y, sample_weight=rows.sample_weight)
        if self._scoring is not None:
            scores["score"] = float(self._scoring(network, rows.X, rows.y))
        self._report(
            {"candidate": self._fit.number, "fold": self._fit.fold, "epochs": epochs} | scores
        )


def _train(recipe, fits, rows, folds, threads, report):
    """Train some fits in this process, and report the record of each when it is done."""
    networks, callbacks, settings = [], [], {name: [] for name in _OWN_SETTINGS}
    tests = {fold: rows.part(folds[fold][1]) for fold in {fit.fold for fit in fits}}
    for fit in fits:
        network, own = recipe.build(fit.candidate, fit.fold)
        networks.append(network)
        # Before the scorer, which is to see the weights that it restores.
        stopping = own["early_stopping"]
        callbacks.append([copy.copy(stopping)] if stopping else [])
        callbacks[-1].append(_Scorer(fit, tests[fit.fold], recipe.scoring, report))
        for name in settings:
            settings[name].append(own[name])
    del settings["early_stopping"]
    fit_many(
        networks,
        rows.X,
        rows.y,
        sample_weight=rows.sample_weight,
        rows=[folds[fit.fold][0] for fit in fits],
        callbacks=callbacks,
        threads=threads,
        verbose=0,
        **settings,
        **recipe.shared,
    )


def _train_here(recipe, fits, rows, folds, report):
    """Train all fits in this process."""
    threads = backends.available_threads()
    for group in _groups(fits, _FITS_PER_THREAD * threads):
        _train(recipe, group, rows, folds, threads, report)


def _train_elsewhere(recipe, fits, rows, folds, joblib, n_jobs, processes, report):
    """Train all fits in so many processes of joblib's."""
    threads = max(1, backends.available_threads() // processes)
    backend, _ = joblib.parallel.get_active_backend()
    share, own = _ways_to_share(backend)
    arrays = [share(array) for array in rows]
    pairs = [tuple(map(share, pair)) for pair in folds]
    size = max(1, min(_FITS_PER_THREAD, len(fits) // (processes * _TASKS_PER_PROCESS)))
    groups = [
        group
        for fold in range(len(folds))
        for group in _groups([fit for fit in fits if fit.fold == fold], size)
    ]
    # One fold each, for the sake of memory, but the candidates one after the other.
    groups.sort(key=lambda group: group[0].number)
    tasks = [
        joblib.delayed(_task)(
            recipe, group, *arrays, *pairs[group[0].fold], threads, own, backends.get_backend()
        )
        for group in groups
    ]
    at_once = backend.supports_return_generator
    with joblib.Parallel(
        n_jobs=n_jobs, batch_size=1, return_as="generator_unordered" if at_once else "list"
    ) as parallel:
        # A backend that can't say what is ready gets a few tasks at a time.
        for some in [tasks] if at_once else _groups(tasks, 2 * processes):
            for records in parallel(some):
                for record in records:
                    report(record)


def _task(recipe, fits, X, y, sample_weight, train, test, threads, own, backend):
    """What a process is given to do: candidates in one fold. Returns their records."""
    records = []
    rows = _Rows(own(X), own(y), own(sample_weight))
    folds = {fits[0].fold: (own(train), own(test))}
    with backends.use_backend(backend):
        # On a cluster the process may have fewer cores than its share of those here.
        threads = min(threads, backends.available_threads())
        _train(recipe, fits, rows, folds, threads, records.append)
    return records


def _processes(n_jobs):
    """joblib and the number of processes; joblib is not imported for one."""
    if n_jobs is not None:
        n_jobs = checks.integer("n_jobs", n_jobs)
        if n_jobs == 0:
            raise ValueError("n_jobs: 0 is not a number of processes, nor one below 0, as joblib's")
    if n_jobs == 1 or (n_jobs is None and "joblib" not in sys.modules):
        return None, 1
    joblib = optional_import("joblib", extra="sweep")
    return joblib, joblib.effective_n_jobs(n_jobs)


def _ways_to_share(backend):
    """How an array that many tasks need is put into a task, and how it is taken out of there.

    joblib's own backends and Dask's see by themselves that it is the same each time.
    """
    if type(backend).__module__.startswith("ray."):
        ray = importlib.import_module("ray")
        return ray.put, ray.get
    return _as_is, _as_is


def _as_is(value):
    return value


def _groups(items, size):
    """The items in lists of `size`, the last one of those that are left."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def _scores(records, names, candidates, folds):
    """Arrays (candidates, folds) by name, from the records of all fits."""
    scores = {name: np.empty((candidates, folds)) for name in names}
    for place, record in records.items():
        for name in names:
            scores[name][place] = record.get(name, np.nan)
    return scores


# ----------------------------------------------------------------------------------- results file


class _ResultsFile:
    """A file of records, one a line, that belongs to one search and grows at its end only.

    A line is written in one call. Of one that was cut off, by a kill in its middle, nothing is
    kept.
    """

    def __init__(self, path, search, candidates, folds):
        self._path = os.fspath(path)
        self._candidates, self._folds = candidates, folds
        self._header = {_HEADER: _FORMAT} | {name: _digest(part) for name, part in search.items()}

    def __enter__(self):
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.records = self._read()
        except BaseException as error:
            os.close(self._file)
            if isinstance(error, BlockingIOError):
                raise BlockingIOError(
                    error.errno, "results: another search is writing to this file", self._path
                ) from None
            raise
        return self

    def __exit__(self, *_):
        os.close(self._file)

    def append(self, record):
        """Add a record, with its candidate's parameters."""
        parameters = json.loads(self._candidates[record["candidate"]].key)
        self._write(record | {"parameters": parameters})

    def _write(self, line):
        content = json.dumps(line).encode() + b"\n"
        if os.write(self._file, content) != len(content):
            raise OSError(f"results: {self._path!r} took a part of a line only")

    def _read(self):
        """The records by (candidate, fold), after a header that is this search's."""
        with open(self._path, "rb") as file:
            content = file.read()
        whole = content.rpartition(b"\n")[0] + b"\n" if b"\n" in content else b""
        cut_off = not whole and (json.dumps(self._header) + "\n").encode().startswith(content)
        if whole or not cut_off:
            self._check_header(content.partition(b"\n")[0])
        if len(whole) < len(content):
            os.ftruncate(self._file, len(whole))
        if not whole:
            self._write(self._header)
            return {}
        records = {}
        for number, line in enumerate(whole.splitlines()[1:], 2):
            try:
                record = json.loads(line)
                del record["parameters"]
                place = record["candidate"], record["fold"]
                candidate = range(len(self._candidates)).index(place[0])
                records[candidate, range(self._folds).index(place[1])] = record
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"results: line {number} of {self._path!r} is no result of this search"
                ) from error
        return records

    def _check_header(self, line):
        try:
            header = json.loads(line)
            known = header[_HEADER] == _FORMAT
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"results: {self._path!r} is not a results file of a sweep") from None
        if not known:
            raise ValueError(f"results: {self._path!r} has format {header[_HEADER]}, not {_FORMAT}")
        others = [name for name in self._header if header.get(name) != self._header[name]]
        if others:
            raise ValueError(
                f"results: {self._path!r} is of another search, with another {'; '.join(others)}"
            )


# In the representation of an object, where it lies in memory.
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def _digest(value):
    """A hash of a value's content, the same in every process."""
    digest = hashlib.sha256()
    _feed(digest.update, value)
    return digest.hexdigest()


def _feed(update, value, around=()):
    """Give what a value consists of to `update`, as bytes, each part with its type and length.

    `around` are the values that it is a part of: functions may refer to themselves.
    """
    update(f"({type(value).__qualname__}".encode())
    parts = _parts(value)
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        update(f"{value.dtype.str}{value.shape}".encode())
        update(np.ascontiguousarray(value).view(np.uint8).data if value.size else b"")
    elif parts is None:
        update(_ADDRESS.sub("", repr(value)).encode())
    elif not any(value is each for each in around):
        update(str(len(parts)).encode())
        for part in parts:
            _feed(update, part, (*around, value))
    update(b")")


def _parts(value):
    """What a value is made of, or None where that is itself."""
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, (set, frozenset)):  # in an order that differs between processes
        return sorted(map(_digest, value))
    if isinstance(value, types.ModuleType):
        return [value.__name__]
    if isinstance(value, types.CodeType):
        return value.co_code, value.co_consts, value.co_names
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        defaults = value.__defaults__, value.__kwdefaults__
        return value.__qualname__, value.__code__, *defaults, cells
    if isinstance(value, types.MethodType):
        return value.__func__, value.__self__
    if isinstance(value, functools.partial):
        return value.func, value.args, value.keywords
    if _sparse.is_sparse(value):
        rows = value.tocsr()
        return rows.shape, rows.data, rows.indices, rows.indptr
    if isinstance(value, np.ndarray):
        return value.tolist()
    if hasattr(value, "__array__"):
        return [np.asarray(value)]
    if isinstance(value, np.random.Generator):
        return [value.bit_generator.state]
    if isinstance(value, np.random.RandomState):
        return [value.get_state(legacy=False)]
    if isinstance(value, Callback):  # not what it has noted in a training
        names = inspect.signature(type(value)).parameters
        return [(name, getattr(value, name, None)) for name in names]
    if isinstance(value, type):
        return None
    slots = [slot for each in type(value).__mro__ for slot in _slots(each)]
    if slots or hasattr(value, "__dict__"):
        held = [(slot, getattr(value, slot)) for slot in slots if hasattr(value, slot)]
        return held + list(getattr(value, "__dict__", {}).items())
    return None


def _slots(kind):
    slots = vars(kind).get("__slots__", ())
    return [slots] if isinstance(slots, str) else slots


# ------------------------------------------------------------------------------------------ shown


class _Board:
    """The records so far, and the table that grows on the screen as candidates are done."""

    def __init__(self, candidates, folds, names, records, verbose):
        self.records = dict(records)
        self._candidates = [candidate.parameters for candidate in candidates]
        self._folds, self._names = folds, names
        self._left = dict.fromkeys(range(len(candidates)), folds)
        self._lock = threading.Lock()
        self._verbose = verbose
        self._layout = _Layout(self._candidates, names)
        self._bar = None

    def __enter__(self):
        for number, _ in self.records:
            self._left[number] -= 1
        if self._verbose:
            with contextlib.suppress(ImportError):
                self._bar = importlib.import_module("tqdm").tqdm(
                    total=len(self._candidates) * self._folds,
                    initial=len(self.records),
                    unit="fit",
                    disable=None,  # where there is no terminal
                    leave=False,
                )
            self._print(self._layout.head)
            for number, left in self._left.items():
                if not left:
                    self._show(number)
        return self

    def __exit__(self, *_):
        if self._bar is not None:
            self._bar.close()

    def add(self, record):
        """Take in a record, from any thread."""
        with self._lock:
            number = record["candidate"]
            self.records[number, record["fold"]] = record
            self._left[number] -= 1
            if self._bar is not None:
                self._bar.update()
            if self._verbose and not self._left[number]:
                self._show(number)

    def _show(self, number):
        records = [self.records[number, fold] for fold in range(self._folds)]
        means = {
            name: np.mean([record.get(name, np.nan) for record in records]) for name in self._names
        }
        self._print(self._layout.row(self._candidates[number], means))

    def _print(self, line):
        if self._bar is None or self._bar.disable:
            print(line, flush=True)
        else:
            self._bar.write(line)


class _Layout:
    """Columns of text, parameters and then scores, that are wide enough for all candidates."""

    def __init__(self, candidates, scores):
        self._names = list(dict.fromkeys(itertools.chain(*candidates)))
        self._scores = list(scores)
        self._widths = [
            max(len(name), *(len(_text(candidate.get(name))) for candidate in candidates))
            for name in self._names
        ] + [max(len(name), _SCORE_WIDTH) for name in scores]
        self.head = self._line([*self._names, *scores])

    def row(self, parameters, scores):
        """The line of a candidate."""
        shown = [_text(parameters.get(name)) for name in self._names]
        return self._line(shown + [_text(float(scores[name])) for name in self._scores])

    def _line(self, texts):
        return "  ".join(map(str.rjust, texts, self._widths))


def _text(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _column(values):
    """A column of a parameter: of numbers where all values are, else of objects."""
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    kinds = {type(value) for value in values}
    if kinds <= {int, float}:
        return np.array(values)
    column = np.empty(len(values), object)
    column[:] = values
    return column
