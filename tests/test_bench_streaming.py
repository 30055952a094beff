"""The script that trains from 4 GB on the disk (bench/streaming.py), on a file of a few rows."""

import json
import os

import pytest
import streaming

pytestmark = [
    pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads Linux's files"),
    pytest.mark.usefixtures("processes_not_measured"),
]


def test_rates_are_compared(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(streaming, "LEAST_RATE", 0.0)
    monkeypatch.setattr(streaming, "HIDDEN", {"narrow": (4,)})
    assert streaming.main(["--gigabytes", "0.02", "--folder", str(tmp_path), "--only", "rate"]) == 0
    result = json.loads(capsys.readouterr().out)["rate"]
    assert result["met"]
    assert 0 < result["narrow"]["share"] < 10
    assert not list(tmp_path.iterdir())


def test_a_killed_training_comes_to_the_same(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(streaming, "DEATH", 0.5)  # when the second epoch begins
    arguments = ["--gigabytes", "0.03", "--folder", str(tmp_path), "--only", "resume"]
    assert streaming.main(arguments) == 0
    result = json.loads(capsys.readouterr().out)["resume"]
    assert result["killed"]
    assert 0 < result["resumed at step"] < result["of"]
    assert result["whole"] == result["resumed"]
