"""Searches: what is trained, the table, results files, processes, and what is refused."""

import functools
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastdl
from fastdl import MLP, EarlyStopping, _sweep
from fastdl.optimizers import SGD, Adam

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
Y = np.argmax(X[:, :3] + 0.3 * RNG.normal(size=(60, 3)), axis=1)
GRID = {"width": [2, 8], "rate": [0.001, 0.05, 0.2]}

pytestmark = pytest.mark.usefixtures("processes_not_measured")


def build(width, rate, seed):
    return MLP([4, width, 3], seed=seed), {"optimizer": Adam(rate)}


def search(builder=build, grid=GRID, **arguments):
    return fastdl.sweep(
        builder, grid, **{"X": X, "y": Y, "cv": 3, "epochs": 3, "verbose": 0} | arguments
    )


def content(result):
    """All that a search finds, to the bit."""
    return (
        result.candidates,
        {name: values.tolist() for name, values in result.scores.items()},
        result.rank.tolist(),
        result.best_params,
        [array.tobytes() for array in result.best_model.get_weights()],
    )


@pytest.fixture(scope="module")
def expected():
    return content(search())


# ---------------------------------------------------------------------------------------- results


def test_each_fit_is_as_if_alone():
    stopping = EarlyStopping("loss", patience=1, min_delta=0.01, restore_best_weights=True)
    seeds = []

    def builder(rate, epochs, seed):
        seeds.append(seed)
        return MLP([4, 5, 3], dropout=0.2, seed=seed), {"optimizer": SGD(rate), "epochs": epochs}

    result = search(
        builder, {"rate": [0.5, 0.01], "epochs": [9, 4]}, early_stopping=stopping, batch_size=8
    )
    # All were built once before the first was trained.
    trained = iter(seeds[4:])
    for number, candidate in enumerate(result.candidates):
        for fold, (train, test) in enumerate(_sweep._even_folds(3, 60, Y)):
            net = MLP([4, 5, 3], dropout=0.2, seed=next(trained))
            history = net.fit(
                X[train],
                Y[train],
                epochs=candidate["epochs"],
                batch_size=8,
                verbose=0,
                optimizer=SGD(candidate["rate"]),
                callbacks=[stopping],
            )
            scores = net.evaluate(X[test], Y[test]) | {"epochs": len(history.epoch)}
            assert {name: values[number, fold] for name, values in result.scores.items()} == scores
    assert len(set(seeds)) == 4 * 3 + 1  # those of the first fold twice
    best = MLP([4, 5, 3], dropout=0.2, seed=seeds[-1])
    best.fit(
        X,
        Y,
        epochs=result.best_params["epochs"],
        batch_size=8,
        verbose=0,
        optimizer=SGD(result.best_params["rate"]),
        callbacks=[stopping],
    )
    for array, other in zip(best.weights, result.best_model.weights, strict=True):
        assert (array == other).all()


def test_seeds_are_a_function_of_seed_candidate_and_fold():
    def seeds(grid, **arguments):
        found = {}

        def builder(a, seed, b=None):
            found.setdefault((a, b), []).append(seed)
            return MLP([4, 3], seed=seed)

        search(builder, grid, refit=False, **arguments)
        return found

    forward = seeds([{"a": 1}, {"a": 2, "b": 3}])
    assert seeds([{"b": np.int64(3), "a": 2}, {"a": 1}]) == forward
    assert seeds([{"a": 1}])[1, None] == forward[1, None]
    other = seeds([{"a": 1}, {"a": 2, "b": 3}], seed=1)
    assert not {seed for each in forward.values() for seed in each} & {
        seed for each in other.values() for seed in each
    }
    assert seeds([{"a": 1, "seed": 7}]) == {(1, None): [7, 7, 7, 7]}


def test_the_best_has_the_best_mean():
    result = search()
    means = result.scores["accuracy"].mean(axis=1)
    assert result.metric == "accuracy"
    assert result.best_score == means.max() == means[result.best_index]
    assert result.best_params == result.candidates[result.best_index]
    assert result.rank.tolist() == [1 + sum(means > mean) for mean in means]


def test_less_loss_is_better_and_more_score():
    by_loss = search(scoring="loss", refit=False)
    means = by_loss.scores["loss"].mean(axis=1)
    assert by_loss.best_score == means.min()
    assert by_loss.best_model is None

    def steps(network, rows, targets):
        assert len(rows) == len(targets) == 20
        return network.sizes[1]

    by_score = search(scoring=steps, refit=False)
    assert by_score.metric == "score"
    assert by_score.rank.tolist() == [4, 4, 4, 1, 1, 1]


def test_regression_is_judged_by_its_loss():
    def builder(width, seed):
        return MLP([4, width, 1], loss="mse", seed=seed)

    result = search(builder, {"width": [1, 9]}, y=X[:, 0], cv=[(range(40), range(40, 60))])
    assert result.metric == "loss"
    assert list(result.scores) == ["epochs", "loss"]
    assert result.scores["loss"].shape == (2, 1)


def test_losses_of_both_kinds():
    def builder(loss, seed):
        return MLP([4, 1], loss=loss, seed=seed)

    result = search(builder, {"loss": ["mse", "binary_crossentropy"]}, y=Y > 0, refit=False)
    assert result.metric == "loss"
    assert np.isnan(result.scores["accuracy"]).tolist() == [[True] * 3, [False] * 3]


def test_nan_comes_last():
    def builder(rate, seed):
        return MLP([4, 1], loss="mse", seed=seed), {"optimizer": SGD(rate)}

    grid = {"rate": [1e30, 0.01]}
    with np.errstate(all="ignore"):
        result = search(builder, grid, y=X[:, 0], epochs=9)
        assert np.isnan(result.scores["loss"][0]).any()
        assert result.rank.tolist() == [2, 1]
        with pytest.raises(ValueError, match=r"^scoring: the loss of every candidate is NaN"):
            search(builder, {"rate": [1e30]}, y=X[:, 0], epochs=9)


def test_table_of_pandas():
    pandas = pytest.importorskip("pandas")
    result = search()
    table = result.table
    assert isinstance(table, pandas.DataFrame)
    assert list(table) == [
        "param_width",
        "param_rate",
        "mean_epochs",
        "std_epochs",
        "mean_accuracy",
        "std_accuracy",
        "mean_loss",
        "std_loss",
        "rank",
    ]
    assert table["param_width"].dtype == np.int64
    assert table["mean_loss"].tolist() == result.scores["loss"].mean(axis=1).tolist()


def test_table_without_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    table = search(grid=[{"width": 2, "rate": 0.1}, {"width": 3, "rate": 1}]).table
    assert isinstance(table, dict)
    assert table["param_rate"].tolist() == [0.1, 1.0]
    assert table["rank"].dtype.kind == "i"


def test_candidates_of_different_parameters_have_a_table():
    def builder(seed, width=3, activation="relu"):
        return MLP([4, width, 3], activation=activation, seed=seed)

    result = search(builder, [{"width": 2}, {"activation": "tanh"}, {}], refit=False)
    table = result.table
    assert table["param_width"][0] == 2
    assert table["param_activation"][1] == "tanh"
    assert "activation" in repr(result).splitlines()[1]


def test_a_result_shows_its_best():
    shown = repr(search(grid={"width": range(1, 13), "rate": [0.1]}, refit=False)).splitlines()
    assert shown[0] == "12 candidates in 3 folds, best accuracy first"
    assert shown[1].split() == ["width", "rate", "epochs", "accuracy", "loss"]
    accuracies = [float(line.split()[3]) for line in shown[2:12]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert shown[12:] == ["and 2 more"]


# ------------------------------------------------------------------------------- grids and folds


def names_of(grid):
    return [candidate.parameters for candidate in _sweep._candidates(grid)]


def test_grids():
    assert names_of({"a": [1, 2], "b": ["x", "y"]}) == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
    ]
    assert names_of({}) == [{}]
    assert names_of({"a": value} for value in (1, 2.5, None, (3, 4))) == [
        {"a": 1},
        {"a": 2.5},
        {"a": None},
        {"a": (3, 4)},
    ]
    twice = [{"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": np.float32(0.5)}, {"a": 0.5}]
    assert names_of(twice) == [{"a": 1, "b": 2}, {"a": 0.5}]
    optimizers = [SGD(0.1), SGD(0.2), SGD(0.1, momentum=0.9), SGD(0.1)]
    assert names_of({"optimizer": optimizers}) == [{"optimizer": each} for each in optimizers[:3]]


def test_samplers_of_scikit_learn():
    selection = pytest.importorskip("sklearn.model_selection")
    sampler = selection.ParameterSampler({"a": [1, 2, 3], "b": [0.5, 1.5]}, 4, random_state=0)
    assert names_of(sampler) == list(sampler)


@pytest.mark.parametrize("folds", [2, 3, 7])
def test_folds_are_those_of_scikit_learn(folds):
    selection = pytest.importorskip("sklearn.model_selection")
    labels = np.random.default_rng(folds).choice([5, 0, 3], p=[0.2, 0.5, 0.3], size=50)
    for strata, splitter in ((labels, "StratifiedKFold"), (None, "KFold")):
        ours = _sweep._even_folds(folds, 50, strata)
        theirs = getattr(selection, splitter)(folds).split(np.zeros(50), strata)
        for pair, other in zip(ours, theirs, strict=True):
            assert all((a == b).all() for a, b in zip(pair, other, strict=True))


def test_what_is_spread_over_the_folds():
    flags = X[:, :1] > 0.5
    for network, y, strata in (
        (MLP([4, 3]), Y, Y),
        (MLP([4, 3]), np.eye(3)[Y], Y),
        (MLP([4, 1]), flags, flags.ravel()),
        (MLP([4, 3], loss="binary_crossentropy"), np.eye(3)[Y], None),
        (MLP([4, 1], loss="mse"), X[:, 0], None),
    ):
        found = _sweep._strata(_sweep._Rows(X, y, None), network)
        assert found is None if strata is None else (found == strata).all()


def test_ways_to_say_which_folds():
    selection = pytest.importorskip("sklearn.model_selection")
    splitter = selection.StratifiedKFold(3)
    pairs = list(splitter.split(X, Y))
    mask = np.zeros(60, bool)
    expected = content(search())
    for cv in (splitter, pairs, iter(pairs), [(train.tolist(), test) for train, test in pairs]):
        assert content(search(cv=cv)) == expected
    masks = []
    for train, test in pairs:
        mask = np.zeros(60, bool)
        mask[train] = True
        masks.append((mask, test))
    assert content(search(cv=masks)) == expected


def test_other_forms_of_rows():
    sparse = pytest.importorskip("scipy.sparse")
    rare = X * (X > 1.2)
    dense = content(search(X=rare))
    assert content(search(X=sparse.coo_matrix(rare))) == dense
    assert content(search(X=rare.tolist(), y=Y.tolist())) == dense
    pandas = pytest.importorskip("pandas")
    assert content(search(X=pandas.DataFrame(rare), y=pandas.Series(Y))) == dense


def test_weights_go_with_their_rows():
    weights = RNG.random(60)
    result = search(grid={"width": [2], "rate": [0.1]}, sample_weight=weights)
    seeds = []
    search(lambda seed: seeds.append(seed) or MLP([4, 3], seed=seed), {})
    for fold, (train, test) in enumerate(_sweep._even_folds(3, 60, Y)):
        net, _ = build(2, 0.1, fit_seed({"rate": 0.1, "width": 2}, fold))
        net.fit(
            X[train],
            Y[train],
            sample_weight=weights[train],
            epochs=3,
            optimizer=Adam(0.1),
            verbose=0,
        )
        assert (
            result.scores["loss"][0, fold]
            == net.evaluate(X[test], Y[test], sample_weight=weights[test])["loss"]
        )


def fit_seed(parameters, fold):
    seen = []
    recipe = _sweep._Recipe(lambda seed, **_: seen.append(seed) or MLP([4, 3]), {}, {}, 0)
    recipe.build(_sweep._candidates([parameters])[0], fold)
    return seen[0]


# ------------------------------------------------------------------------------------- live table


def test_a_row_for_each_candidate(capsys):
    result = search(verbose=1)
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["width", "rate", "epochs", "accuracy", "loss"]
    assert len(rows) == 6
    found = {tuple(row.split()[:2]): float(row.split()[4]) for row in rows}
    for number, candidate in enumerate(result.candidates):
        shown = found[str(candidate["width"]), f"{candidate['rate']:g}"]
        assert shown == pytest.approx(result.scores["loss"][number].mean(), rel=1e-3)


def test_rows_without_tqdm(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    search(verbose=1)
    assert len(capsys.readouterr().out.splitlines()) == 7


def test_a_terminal_has_a_bar_below(monkeypatch, capsys):
    tqdm = pytest.importorskip("tqdm")
    monkeypatch.setattr(tqdm, "tqdm", functools.partial(tqdm.tqdm, file=sys.stdout, mininterval=0))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    search(verbose=1)
    printed = capsys.readouterr().out
    assert "18/18" in printed
    assert len(re.findall(r"0\.05 +3 ", printed)) == 2


def test_silence(capsys):
    search()
    assert capsys.readouterr() == ("", "")


# ---------------------------------------------------------------------------------- results files


@pytest.fixture
def path(tmp_path):
    return tmp_path / "results.jsonl"


def test_every_fit_has_a_line(path, expected):
    assert content(search(results=path)) == expected
    header, *lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert header["fastdl_sweep"] == 1
    assert sorted((line["candidate"], line["fold"]) for line in lines) == [
        (candidate, fold) for candidate in range(6) for fold in range(3)
    ]
    assert {tuple(line["parameters"]) for line in lines} == {("rate", "width")}


def test_what_is_done_is_not_done_again(path, expected):
    search(results=path)
    before = path.read_text()
    trained = []

    def builder(width, rate, seed):
        trained.append((width, rate))
        return build(width, rate, seed)

    assert content(search(builder, results=path)) == expected
    assert len(trained) == 6 + 1  # each once to compare, and the best
    assert path.read_text() == before


@pytest.mark.parametrize("cut", [0, 10, 200, 700, 1500, -1])
def test_a_file_that_was_cut_off_is_completed(path, expected, cut):
    search(results=path)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    kept = whole[:cut].rpartition(b"\n")[0]
    assert content(search(results=path)) == expected
    assert path.read_bytes().startswith(kept)
    assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())


@given(st.permutations(range(18)), st.integers(0, 18))
@settings(max_examples=15)
def test_whatever_is_missing_is_trained(expected, order, count):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.jsonl"
        search(results=path)
        header, *lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join([header, *(lines[index] for index in order[:count])]))
        assert content(search(results=path)) == expected
        assert sorted(path.read_text().splitlines(keepends=True)[1:]) == sorted(lines)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"X": X + 1}, "X and y"),
        ({"y": (Y + 1) % 3}, "X and y"),
        ({"sample_weight": np.ones(60)}, "X and y"),
        ({"grid": GRID | {"rate": [0.001, 0.05, 0.3]}}, "grid; builder, or how it is trained"),
        (
            {
                "builder": lambda width, rate, seed: (
                    MLP([4, width, 3], seed=seed, l2=0.1),
                    {"optimizer": Adam(rate)},
                )
            },
            "builder, or how it is trained",
        ),
        ({"epochs": 4}, "builder, or how it is trained"),
        ({"early_stopping": EarlyStopping("loss")}, "builder, or how it is trained"),
        ({"seed": 1}, "builder, or how it is trained"),
        ({"cv": 4}, "cv"),
        ({"scoring": lambda *_: 1.0}, "scoring"),
    ],
)
def test_another_searchs_file_is_refused(path, change, named):
    search(results=path)
    before = path.read_bytes()
    message = rf"^results: '.*results.jsonl' is of another search, with another {named}$"
    with pytest.raises(ValueError, match=message):
        search(**change, results=path)
    assert path.read_bytes() == before


def scoring_with(module, weight):
    def scoring(network, X, y, *, power=weight):
        return module.sqrt(power) * float((network.predict(X).argmax(axis=1) == y).mean())

    return scoring


def test_functions_may_hold_modules(path):
    first = search(scoring=scoring_with(math, 1.0), results=path)
    again = search(scoring=scoring_with(math, 1.0), results=path)
    assert content(again) == content(first)
    with pytest.raises(ValueError, match="is of another search, with another scoring"):
        search(scoring=scoring_with(math, 4.0), results=path)
    with pytest.raises(ValueError, match="is of another search, with another scoring"):
        search(scoring=scoring_with(np, 1.0), results=path)


_HELD = """
import sys
import numpy as np
from fastdl import EarlyStopping
from fastdl._sweep import _digest

class Slots:
    __slots__ = "power"
    def __init__(self):
        self.power = 2

values = {"accuracy", "loss", "score", 1, 2.5}
scoring = lambda *_, generator=np.random.default_rng(0), marker=object(): "a" in {"a", "b", "c"}
print(_digest([values, scoring, Slots(), EarlyStopping("loss")]))
"""


def test_what_a_search_is_does_not_depend_on_the_process():
    digests = {
        subprocess.run(
            [sys.executable, "-c", _HELD],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_a_used_early_stopping_is_the_same(path):
    stopping = EarlyStopping("loss", patience=1)
    first = search(early_stopping=stopping, results=path)
    stopping.wait, stopping.best = 3, 0.1
    assert content(search(early_stopping=stopping, results=path)) == content(first)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("shopping list", "is not a results file of a sweep"),
        ("milk\neggs\n", "is not a results file of a sweep"),
        ('{"fastdl_sweep": 2}\n', "has format 2, not 1"),
        ("[1]\n", "is not a results file of a sweep"),
    ],
)
def test_other_files_are_refused(path, content, message):
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        search(results=path)
    assert path.read_text() == content


@pytest.mark.parametrize("line", ["{}", "x", '{"candidate": 6, "fold": 0, "parameters": {}}', "3"])
def test_a_damaged_line_is_named(path, line):
    search(results=path)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match=r"^results: line 20 of '.*' is no result of this search$"):
        search(results=path)


def test_two_searches_do_not_share_a_file(path):
    def intrude(*_):
        with pytest.raises(BlockingIOError, match="another search is writing to this file"):
            search(scoring=intrude, results=path)
        return 1.0

    search(grid={"width": [2], "rate": [0.1]}, scoring=intrude, results=path)


KILLED = """
import sys, time
import numpy as np
import fastdl

def build(width, seed):
    return fastdl.MLP([2, width, 1], seed=seed)

def slowly(network, X, y):
    time.sleep(float(sys.argv[3]))
    return network.evaluate(X, y)["accuracy"]

X, y = fastdl.datasets.load_circle(90)
result = fastdl.sweep(build, {"width": range(1, 7)}, X, y, cv=3, scoring=slowly, verbose=0,
                      results=sys.argv[1], n_jobs=int(sys.argv[2]))
print(result.scores, result.rank, [w.tolist() for w in result.best_model.weights])
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_a_search_that_was_killed_goes_on(path, processes):
    if processes > 1:
        pytest.importorskip("joblib")

    def command(file, processes, seconds):
        return [sys.executable, "-c", KILLED, str(file), str(processes), str(seconds)]

    def lines():
        return path.read_bytes().splitlines(keepends=True) if path.exists() else []

    def finish(*arguments):
        return subprocess.run(
            command(*arguments),
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout

    process = subprocess.Popen(command(path, processes, 0.05), start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while len(lines()) < 9 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    killed = lines()
    assert 9 <= len(killed) < 19
    found = finish(path, processes, 0)
    done = lines()
    assert done[: len(killed) - 1] == killed[:-1]  # the last one may have been cut off
    fits = [(line["candidate"], line["fold"]) for line in map(json.loads, done[1:])]
    assert sorted(fits) == [(candidate, fold) for candidate in range(6) for fold in range(3)]
    assert found == finish(path.with_name("undisturbed"), 1, 0)


# -------------------------------------------------------------------------------------- processes


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_processes_find_the_same(backend, expected, path):
    joblib = pytest.importorskip("joblib")
    with joblib.parallel_config(backend, n_jobs=2):
        assert content(search(results=path)) == expected
    assert len(path.read_text().splitlines()) == 19


def test_processes_have_the_callers_backend():
    joblib = pytest.importorskip("joblib")
    with fastdl.use_backend("reference"):
        here = content(search())
        with joblib.parallel_config("threading", n_jobs=2):
            assert content(search()) == here
    with joblib.parallel_config("threading", n_jobs=2):
        assert content(search()) != here


def test_dask_finds_the_same(expected):
    joblib = pytest.importorskip("joblib")
    distributed = pytest.importorskip("distributed")
    cluster = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with (
        distributed.LocalCluster(**cluster) as workers,
        distributed.Client(workers),
        joblib.parallel_config("dask"),
    ):
        assert content(search()) == expected


def test_ray_finds_the_same(expected):
    joblib = pytest.importorskip("joblib")
    ray = pytest.importorskip("ray")
    from ray.util.joblib import register_ray

    def builder(width, rate, seed):  # its processes can't import this file
        return MLP([4, width, 3], seed=seed), {"optimizer": Adam(rate)}

    register_ray()
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error")
    try:
        with joblib.parallel_config("ray", n_jobs=2):
            assert content(search(builder)) == expected
    finally:
        ray.shutdown()


def test_processes_finish_candidates_one_after_the_other(path):
    joblib = pytest.importorskip("joblib")
    with joblib.parallel_config("threading", n_jobs=2):
        search(results=path)
    numbers = [json.loads(line)["candidate"] for line in path.read_text().splitlines()[1:]]
    assert max(numbers[:6]) <= 2  # of the first seven fits


def test_processes_share_the_cores(monkeypatch):
    joblib = pytest.importorskip("joblib")
    threads = []
    real = _sweep.fit_many
    monkeypatch.setattr(
        _sweep, "fit_many", lambda *a, **how: (threads.append(how["threads"]), real(*a, **how))[1]
    )
    monkeypatch.setattr(_sweep.backends, "available_threads", lambda: 8)
    with joblib.parallel_config("threading", n_jobs=3):
        search()
    assert set(threads) == {2}
    threads.clear()
    search()
    assert threads == [8]


def test_networks_are_in_memory_by_groups(monkeypatch):
    counts = []
    real = _sweep.fit_many
    monkeypatch.setattr(
        _sweep,
        "fit_many",
        lambda nets, *a, **how: (counts.append(len(nets)), real(nets, *a, **how))[1],
    )
    monkeypatch.setattr(_sweep, "_FITS_PER_THREAD", 4)
    monkeypatch.setattr(_sweep.backends, "available_threads", lambda: 2)
    search()
    assert counts == [8, 8, 2]


def test_joblib_is_left_alone_where_nobody_asks_for_it():
    code = """
        import sys
        import numpy as np, fastdl
        fastdl.sweep(lambda seed: fastdl.MLP([2, 2], seed=seed), {}, np.eye(2).repeat(9, 0),
                     np.arange(18) // 9, verbose=0)
        assert not {"joblib", "pandas", "tqdm", "dask", "ray"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_processes_need_joblib(monkeypatch):
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(ImportError, match=r"pip install 'fastdl-kernels\[sweep\]'"):
        search(n_jobs=2)


# ------------------------------------------------------------------------------------------ errors


def no_network(width, rate, seed):
    return width


def fails(width, rate, seed):
    raise ValueError("no such width")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"builder": 3}, TypeError, r"builder: 3 is not a function"),
        ({"X": "rows.npy"}, TypeError, r"X: rows that are read block by block train one network.*"),
        (
            {"builder": no_network},
            TypeError,
            r"candidate width=2, rate=0.001: builder: 2 is neither a fastdl.MLP nor .*",
        ),
        ({"builder": fails}, ValueError, r"candidate width=2, rate=0.001: no such width"),
        (
            {"builder": lambda width, rate: None},
            TypeError,
            r".*: builder: called with seed, width, rate: got an unexpected keyword .* 'seed'",
        ),
        (
            {"builder": lambda width, rate, seed: (MLP([4, 3]), {"lr": 1})},
            ValueError,
            r".*: builder: 'lr' is not one of epochs, .*",
        ),
        (
            {"builder": lambda width, rate, seed: (MLP([4, 3]), {"epochs": 0})},
            ValueError,
            r".*: epochs: 0 is not an integer >= 1",
        ),
        (
            {"builder": lambda width, rate, seed: MLP([4 if width == 2 else 5, 3])},
            ValueError,
            r"candidate width=8, rate=0.001: X: shape .*",
        ),
        ({"grid": 3}, TypeError, r"grid: 3 is neither a dict nor an iterable of dicts"),
        ({"grid": []}, ValueError, r"grid: there is no candidate in it"),
        ({"grid": {"width": []}}, ValueError, r"grid: there is no candidate in it"),
        ({"grid": {"width": 3}}, TypeError, r"grid\['width'\]: 3 is not a sequence of values"),
        (
            {"grid": {"width": "ab"}},
            TypeError,
            r"grid\['width'\]: 'ab' is not a sequence of values",
        ),
        ({"grid": [{"width": 3}, 4]}, TypeError, r"grid\[1\]: 4 is not a dict"),
        ({"grid": [{3: 4}]}, TypeError, r"grid\[0\]: 3 is not the name of a parameter"),
        (
            {"grid": {"width": [len]}},
            TypeError,
            r"grid: width: <built-in function len> is neither a number, .*",
        ),
        ({"cv": 1}, ValueError, r"cv: 1 is not an integer in \[2, 60\]"),
        ({"cv": "three"}, TypeError, r"cv: 'three' is not an integer in \[2, 60\]"),
        ({"cv": []}, ValueError, r"cv: there is no fold in it"),
        ({"cv": [3]}, TypeError, r"cv\[0\]: 3 is not a pair of row numbers"),
        (
            {"cv": [([0], [60])]},
            ValueError,
            r"cv\[0\]: 60 at index 0 is not an integer in \[0, 59\]",
        ),
        ({"cv": [([0], [])]}, ValueError, r"cv\[0\]: shape \(0,\) holds no data"),
        ({"scoring": "auc"}, ValueError, r"scoring: 'auc' is not one of accuracy, loss"),
        ({"seed": -1}, ValueError, r"seed: -1 is not an integer in .*"),
        ({"n_jobs": 0}, ValueError, r"n_jobs: 0 is not a number of processes.*"),
        ({"n_jobs": 1.5}, TypeError, r"n_jobs: 1.5 is not an integer"),
        ({"refit": 1}, TypeError, r"refit: 1 is not True or False"),
        ({"verbose": 2}, ValueError, r"verbose: 2 is not an integer in \[0, 1\]"),
        ({"shuffle": "no"}, TypeError, r"shuffle: 'no' is not True or False"),
        ({"X": X[:50]}, ValueError, r"y: shape \(60,\) is neither 50 labels .*"),
        ({"early_stopping": 3}, TypeError, r".*: early_stopping: 3 is neither None nor a .*"),
        ({"validation_split": 2}, ValueError, r"validation_split: 2.* is not a finite .*"),
    ],
)
def test_errors_come_before_anything_is_done(arguments, error, message, path, monkeypatch):
    monkeypatch.setattr(_sweep, "fit_many", None)
    with pytest.raises(error, match=f"^{message}$"):
        search(**{"results": path} | arguments)
    assert not path.exists()


def test_accuracy_is_not_for_regression():
    with pytest.raises(ValueError, match=r"^scoring: 'accuracy' is unknown to the loss of"):
        search(lambda seed: MLP([4, 1], loss="mse", seed=seed), {}, y=X[:, 0], scoring="accuracy")


class Scoring:
    """A scoring function that fails when it is called for the fifth time."""

    calls = 0

    def __call__(self, network, rows, targets):
        type(self).calls += 1
        if self.calls == 5:
            raise RuntimeError("enough")
        return network.evaluate(rows, targets)["accuracy"]


def test_an_error_while_training_leaves_what_is_done(path, expected):
    with pytest.raises(RuntimeError, match=r"^enough$"):
        search(scoring=Scoring(), results=path)
    assert 5 <= len(path.read_text().splitlines()) < 19
    result = search(scoring=Scoring(), results=path)
    assert result.scores["loss"].tolist() == expected[1]["loss"]
