"""What ran the benchmarks, for the sentence that report.py writes, besides pytest-benchmark's."""

import importlib.metadata
import os

from peers import MODULES, installed

import fastdl
from fastdl import backends

# What a library's module comes from, where that has another name.
DISTRIBUTIONS = {"sklearn": "scikit-learn"}


def facts(libraries):
    """Versions of those of the libraries that are installed, fastdl's build, and the cores."""
    modules = {MODULES[library] for library in filter(installed, libraries)} - {"fastdl"}
    versions = {
        name: importlib.metadata.version(name)
        for name in sorted(DISTRIBUTIONS.get(module, module) for module in modules)
    }
    return {
        "versions": {"fastdl": fastdl.__version__} | versions,
        "cpu_level": backends.cpu_level(),
        "cores": len(os.sched_getaffinity(0)),
    }
