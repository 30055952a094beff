"""What bench/compare.py makes of the times that it took, and the jobs that its promises name."""

import contextlib

import compare
import peers
import pytest
from compare import Limit, Result
from peers import estimators, keras_models, loops, predict, searches, training

MODULES = (loops, training, predict, keras_models, searches, estimators)

RESULTS = [
    Result("fastdl", "fastdl", 1.0, 1.0, 7),
    Result("fastdl (1 thread)", "fastdl (1 thread)", 2.0, 1.0, 7),
    Result("JAX", "JAX", 8.0, 1.0, 7),
    Result("JAX, 1 thread", "JAX", 6.0, 1.0, 7),
    Result("PyTorch", "PyTorch", 3.0, 1.0, 7),
]


@pytest.fixture
def judge(monkeypatch):
    def judge(*limits, most=None):
        monkeypatch.setattr(compare, "LIMITS", limits)
        monkeypatch.setattr(compare, "MOST_SECONDS", {"job": most} if most else {})
        return list(compare.judge("job", RESULTS))

    return judge


@pytest.mark.parametrize(("ratio", "met"), [(5.9, True), (6, True), (6.1, False)])
def test_a_library_counts_with_its_best_setting(judge, ratio, met):
    assert judge(Limit("job", ratio, ("JAX",))) == [
        (f"fastdl: 6.00 times JAX, at least {ratio}", met)
    ]


@pytest.mark.parametrize(("ratio", "met"), [(3, True), (3.1, False)])
def test_any_means_the_best_of_the_others_not_another_fastdl(judge, ratio, met):
    assert judge(Limit("job", ratio, compare.ANY)) == [
        (f"fastdl: 3.00 times the best peer, at least {ratio}", met)
    ]


def test_a_variant_of_fastdl_has_limits_of_its_own(judge):
    limit = Limit("job", 3, ("JAX", "PyTorch"), "fastdl (1 thread)")
    assert judge(limit) == [("fastdl (1 thread): 1.50 times JAX and PyTorch, at least 3", False)]


def test_limits_of_other_jobs_and_absent_libraries_say_nothing(judge):
    assert judge(Limit("another job", 100, ("JAX",)), Limit("job", 100, ("Keras",))) == []


@pytest.mark.parametrize(("most", "met"), [(1.0, True), (0.9, False)])
def test_seconds_have_limits_too(judge, most, met):
    assert judge(most=most) == [(f"fastdl: 1000000.00 µs, at most {most * 1e6:g}", met)]


def test_one_broken_promise_breaks_all(capsys):
    assert compare.announce([("a", True), ("b", True)])
    assert not compare.announce([("a", False), ("b", True)])
    assert capsys.readouterr().out.splitlines()[2:] == ["a: NOT MET", "b: met"]


@pytest.mark.parametrize(("keras", "met"), [(0.9814, True), (0.9820, False), (0.97, False)])
def test_accuracies_agree_within_the_margin(monkeypatch, keras, met):
    values = {"fastdl": [0.979, 0.981], "Keras": [keras, keras]}
    monkeypatch.setattr(compare.training, "accuracies", lambda library, *_: values[library])
    assert compare.compare_accuracy() == met


def test_promises_name_jobs_and_libraries_that_exist():
    jobs = {job.name: job for module in MODULES for job in module.jobs()}
    for limit in compare.LIMITS:
        for library in (limit.library, *limit.opponents):
            assert library in jobs[limit.job].libraries, limit
    assert set(compare.MOST_SECONDS) <= set(jobs)


def test_every_contestant_has_a_module_and_fastdl_comes_first():
    for module in MODULES:
        for job in module.jobs():
            assert set(job.libraries) <= set(peers.MODULES)
            assert next(iter(job.libraries)) == "fastdl"


def test_settings_of_a_library_with_threads(monkeypatch):
    monkeypatch.setattr(peers.backends, "available_threads", lambda: 4)
    assert list(peers.settings("Keras (JAX)")) == [
        ("", {"KERAS_BACKEND": "jax"}),
        (", 1 thread", {"KERAS_BACKEND": "jax", **peers.ONE_THREAD}),
    ]
    assert list(peers.settings("Numba")) == [("", {})]
    monkeypatch.setattr(peers.backends, "available_threads", lambda: 1)
    assert list(peers.settings("JAX")) == [("", {})]


# ------------------------------------------------------------------------------------------ turns


@pytest.fixture
def in_turns(monkeypatch):
    """Let contestants take made-up seconds; return their results, and who had each turn."""

    def in_turns(contestants, pieces=None, calls=1, **options):
        log = []

        class Worker(contextlib.nullcontext):
            def __init__(self, module, job, library, environment):
                super().__init__(self)
                self.label = environment["label"]

            def first(self):
                return 9.0, 0.5

            def enough_calls(self):
                return calls

            def time(self, count):
                assert count == calls
                log.append(self.label)
                seconds = contestants[self.label]
                return seconds.pop(0) if isinstance(seconds, list) else seconds

        monkeypatch.setattr(compare, "Worker", Worker)
        found = [(label, label.partition(",")[0], {"label": label}) for label in contestants]
        monkeypatch.setattr(peers, "contestants", lambda job: found)
        libraries = {library: None for _, library, _ in found}
        job = peers.Job("job", libraries, 1, 1, lambda *_: None, together=pieces or {})
        return compare.time_in_turns("module", job, **{"repeats": 7, "seconds": 1, **options}), log

    return in_turns


def test_all_have_all_turns_back_and_forth_where_none_is_slow(in_turns):
    results, log = in_turns({"fastdl": 0.1, "JAX": 0.9, "PyTorch": 1.0}, repeats=3)
    assert log == ["fastdl", "JAX", "PyTorch", "PyTorch", "JAX", "fastdl", *log[:3]]
    assert results[1] == Result("JAX", "JAX", 0.9, 9.0, 3)


def test_the_slow_have_fewer_turns_from_the_first_to_the_last(in_turns):
    results, log = in_turns({"fastdl": 0.1, "Keras": 3.7})
    assert [result.turns for result in results] == [7, 3]
    there = "fastdl Keras, fastdl, fastdl, Keras fastdl, fastdl, fastdl, fastdl Keras"
    assert log == there.replace(",", "").split()


def test_a_turn_is_all_pieces_of_all_calls(in_turns):
    one = {"fastdl": 0.1, "JAX": 0.1}
    assert [result.turns for result in in_turns(one, pieces={"fastdl": 20})[0]] == [3, 7]
    assert [result.turns for result in in_turns(one, calls=12)[0]] == [5, 5]


def test_the_median_is_over_the_turns_it_had(in_turns):
    [result], _ = in_turns({"fastdl": [4.0, 2.0, 3.0]})
    assert (result.seconds, result.turns) == (3.0, 3)


@pytest.mark.parametrize(
    ("needed", "turns"),
    [
        (0.5, {0, 1, 2, 3, 4, 5, 6}),
        (1.0, {0, 1, 2, 3, 4, 5, 6}),
        (1.3, {0, 1, 3, 4, 6}),
        (1.7, {0, 2, 4, 6}),
        (2.3, {0, 3, 6}),
        (100, {0, 3, 6}),
    ],
)
def test_turns_that_fit_are_spread_evenly(needed, turns):
    assert compare.turns_within(1.0, 7, needed) == turns


def test_no_more_turns_than_there_are():
    assert compare.turns_within(1.0, 2, 100) == {0, 1}
    assert compare.turns_within(1.0, 1, 100) == {0}
    assert compare.turns_within(1.0, 7, 100, fewest=1) == {0}
    assert compare.turns_within(1.0, 7, 100, fewest=2) == {0, 6}


@pytest.mark.parametrize(("slower", "turns"), [(0.109, 7), (0.111, 3)])
def test_the_clearly_slower_setting_stops_after_three_turns(in_turns, slower, turns):
    results, log = in_turns({"JAX": 0.1, "JAX, 1 thread": slower, "PyTorch": 0.2})
    assert [result.turns for result in results] == [7, turns, 7]
    assert results[1].seconds == slower
    assert log.index("JAX, 1 thread") < 3


def test_either_setting_may_be_the_slower_one(in_turns):
    results, _ = in_turns({"JAX": 0.2, "JAX, 1 thread": 0.1})
    assert [result.turns for result in results] == [3, 7]


def test_one_slow_turn_is_not_enough_to_stop(in_turns):
    results, _ = in_turns({"JAX": [0.9] + [0.1] * 6, "JAX, 1 thread": 0.1})
    assert [result.turns for result in results] == [7, 7]


def test_the_table_says_how_many_turns_each_had(capsys):
    compare.show("job", [*RESULTS[:2], Result("JAX, 1 thread", "JAX", 6.0, 1.5, 3)], own=1.0)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[2][0] == "median"
    assert lines[-1] == ["JAX,", "1", "thread", "6000.0000", "ms", "6.00x", "3", "1500.0", "ms"]
