"""The tables of bench/cluster.py, from times made up."""

import pytest

pytest.importorskip("distributed")

import cluster

MEASURED = {
    "date": "2026-01-02",
    "machine": "4 cores of A CPU",
    "parameters": 1000,
    "gradients": 0.001,
    "step": 0.002,
    "sent": {"gradients": 500_000, "steps": 1_500_000},
    "returned": {"gradients": 500_000, "steps": 1_500_000},
    "rounds": {2: 0.012, 10: 0.02, 20: 0.03},
}


def test_tables_follow_from_the_measurement():
    written = cluster.tables(MEASURED)
    rounds = written["cluster-rounds"].splitlines()
    assert "on 4 cores of A CPU" in rounds[0]
    assert "| 10 | 14 | 0.020 | 1,000,000 | 3,000,000 |" in rounds
    assert rounds[-1] == "| 100, on their line | 117 | 0.110 | 1,000,000 | 3,000,000 |"
    plan = written["cluster-plan"].splitlines()
    # 4 ms to send half a megabyte, four times, and 110 ms for the scheduler.
    assert plan[2] == "| each step, by the client | 0.0010 | 0.0160 | 0.110 | 1 % | 25,197 |"
    assert plan[-1].startswith("| 1,000 | 2.0000 | 0.0480 | 0.110 | 93 % |")


def test_tasks_and_levels_of_the_tree():
    assert [cluster.tasks(workers) for workers in (1, 2, 8, 9)] == [2, 4, 10, 13]
    assert [cluster.depth(workers) for workers in (1, 2, 8, 9)] == [0, 1, 1, 2]
