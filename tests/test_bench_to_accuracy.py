"""The script that times training to an accuracy (bench/to_accuracy.py), on trainings made up."""

import json

import numpy as np
import pytest
import to_accuracy

from fastdl.assignments import mnist


@pytest.fixture
def made_up(monkeypatch):
    """Set what each seed's seconds and accuracies are to be: name -> seed -> (seconds, list)."""
    clock = [0.0]
    monkeypatch.setattr(to_accuracy.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(mnist, "load_data", lambda: None)

    def install(**settings):
        def train(outcomes, network, data):
            seconds, accuracies = outcomes[network.seed]
            clock[0] += seconds
            return accuracies

        trainings = {
            name: lambda network, data, outcomes=outcomes: train(outcomes, network, data)
            for name, outcomes in settings.items()
        }
        monkeypatch.setattr(to_accuracy, "SETTINGS", trainings)

    return install


def test_the_table(made_up, capsys):
    made_up(fast=[(0.5, [0.97, 0.976]), (0.75, [0.9751])])
    assert to_accuracy.main(["--seeds", "2"]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert [line.split() for line in lines[3:5]] == [
        ["0", "0.500", "97.60", "%", "2"],
        ["1", "0.750", "97.51", "%", "1"],
    ]
    assert lines[5] == "median 0.625 s; max under 1 s: met"


@pytest.mark.parametrize(
    ("name", "outcomes", "code"),
    [
        ("fast", [(0.5, [0.98]), (1.0, [0.98])], 1),
        ("fast", [(0.5, [0.98]), (0.5, [0.975])], 1),
        ("default", [(2.0, [0.98]), (2.5, [0.98]), (9.0, [0.98])], 1),
        ("default", [(2.0, [0.98]), (2.25, [0.98]), (9.0, [0.98])], 0),
    ],
    ids=["one too slow", "one not accurate enough", "median too slow", "median in time"],
)
def test_the_exit_code(made_up, name, outcomes, code, capsys):
    made_up(**{name: outcomes})
    assert to_accuracy.main(["--only", name, "--seeds", str(len(outcomes)), "--json"]) == code
    [result] = json.loads(capsys.readouterr().out)
    assert result["met"] == (code == 0)
    assert [run["accuracy"] for run in result["runs"]] == [values[-1] for _, values in outcomes]


def test_the_default_setting_stops_at_the_target():
    # Ten rows that are learnt at once, as often as 500.
    images, labels = np.tile(np.eye(10, 784, dtype=np.float32), (500, 1)), np.arange(5000) % 10
    network = mnist.build_network(seed=0)
    accuracies = to_accuracy.train_default(network, ((images, labels), (images, labels)))
    assert accuracies[-1] > to_accuracy.TARGET
    assert all(accuracy <= to_accuracy.TARGET for accuracy in accuracies[:-1])
    assert network.iterations == len(accuracies) * 157
