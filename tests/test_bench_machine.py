"""What the benchmarks say of the machine and the libraries (bench/machine.py)."""

import importlib.metadata

import machine

import fastdl
from fastdl import backends


def test_versions_are_of_distributions_with_fastdl_first():
    facts = machine.facts(["scikit-learn", "NumPy (tuned)", "NumPy", "fastdl (1 thread)"])
    assert list(facts["versions"].items()) == [
        ("fastdl", fastdl.__version__),
        ("numpy", importlib.metadata.version("numpy")),
        ("scikit-learn", importlib.metadata.version("scikit-learn")),
    ]


def test_a_library_that_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setattr(machine, "installed", lambda library: library == "NumPy")
    assert list(machine.facts(["JAX", "NumPy"])["versions"]) == ["fastdl", "numpy"]


def test_the_build_and_the_cores(monkeypatch):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: {0, 3, 5})
    facts = machine.facts([])
    assert (facts["cpu_level"], facts["cores"]) == (backends.cpu_level(), 3)
