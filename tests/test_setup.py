"""What setup.py builds again; nothing is compiled here."""

import runpy
from pathlib import Path

import pytest
import setuptools
from setuptools.command.build_ext import build_ext

SETUP = Path(__file__).parent.parent / "setup.py"


@pytest.fixture
def settled(monkeypatch):
    """Names of setup.py, as run with these environment variables."""

    def run(**variables):
        for name in ("FASTDL_DEBUG", "FASTDL_SANITIZE"):
            monkeypatch.setenv(name, variables.get(name, ""))
        monkeypatch.setattr("setuptools.setup", lambda **_: None)
        monkeypatch.setattr("Cython.Build.cythonize", lambda *_, **__: None)
        return runpy.run_path(str(SETUP))

    return run


@pytest.mark.parametrize(
    ("variables", "kept"),
    [
        ({}, True),
        ({"FASTDL_DEBUG": "1"}, False),
        ({"FASTDL_SANITIZE": "thread"}, False),
        ({"FASTDL_SANITIZE": "thread,undefined"}, False),
    ],
)
@pytest.mark.parametrize("reverse", [False, True])
def test_what_has_other_options_is_built_again(
    settled, variables, kept, reverse, tmp_path, monkeypatch
):
    first, second = (variables, {}) if reverse else ({}, variables)
    there = []
    monkeypatch.setattr(build_ext, "build_extension", lambda *_: there.append(built.exists()))
    left = settled(**first)["OPTIONS"]
    names = settled(**second)
    extension = names["kernel_module"]("baseline", [])
    command = names["BuildLevels"](setuptools.Distribution({"ext_modules": [extension]}))
    command.build_lib = str(tmp_path)
    command.ensure_finalized()
    built = Path(command.get_ext_fullpath(extension.name))
    built.parent.mkdir()
    built.write_bytes(b"\x7fELF " + left.encode() + b"\0")
    command.build_extension(extension)
    assert there == [kept]
