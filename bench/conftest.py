"""What all benchmarks record: where a number belongs in the tables, and what ran it."""

import functools
import importlib
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow loads

import machine
import pytest
from peers import MODULES
from worker import Worker


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info.update(machine.facts(MODULES))


@pytest.fixture
def record(benchmark):
    """Say where a benchmark's number goes: a row and column of these tables of bench/report.py."""

    def record(tables, row, column, **more):
        benchmark.group = f"{tables[-1]}: {row}"
        benchmark.extra_info.update(tables=tables, row=row, column=column, **more)

    return record


@pytest.fixture
def first_call():
    """Seconds that a function of a library takes the first time: the rest, and to compile it."""

    def first_call(library, function):
        importlib.import_module(MODULES[library])
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    return first_call


@pytest.fixture(scope="session")
def fastdl_result():
    """What fastdl's first call gives, by module and job."""

    @functools.cache
    def fastdl_result(module, job):
        with Worker(module, job, "fastdl", {}) as worker:
            return worker.first()[1]

    return fastdl_result


@pytest.fixture
def bench_worker(benchmark, record, fastdl_result):
    """Check a contestant against fastdl, and time it in a process of its own."""

    def bench_worker(module, job, library, environment, rounds):
        with Worker(module, job.name, library, environment) as worker:
            seconds, result = worker.first()
            job.agree(result, fastdl_result(module, job.name))
            calls = worker.enough_calls()
            table = module.rpartition(".")[2]
            pieces = calls * job.pieces(library)
            record([table], job.name, library, first_call=seconds, calls=pieces)
            benchmark.pedantic(worker.time, args=(calls,), rounds=rounds)

    return bench_worker
