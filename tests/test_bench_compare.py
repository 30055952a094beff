"""What bench/compare.py makes of the times that it took, and the jobs that its promises name."""

import compare
import peers
import pytest
from compare import Limit, Result
from peers import keras_models, loops, predict, training

RESULTS = [
    Result("fastdl", "fastdl", 1.0, 1.0),
    Result("fastdl (1 thread)", "fastdl (1 thread)", 2.0, 1.0),
    Result("JAX", "JAX", 8.0, 1.0),
    Result("JAX, 1 thread", "JAX", 6.0, 1.0),
    Result("PyTorch", "PyTorch", 3.0, 1.0),
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
    jobs = {
        job.name: job
        for module in (loops, training, predict, keras_models)
        for job in module.jobs()
    }
    for limit in compare.LIMITS:
        for library in (limit.library, *limit.opponents):
            assert library in jobs[limit.job].libraries, limit
    assert set(compare.MOST_SECONDS) <= set(jobs)


def test_every_contestant_has_a_module_and_fastdl_comes_first():
    for module in (loops, training, predict, keras_models):
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
