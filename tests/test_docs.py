"""What README.md and docs/ say: their examples run, their links and commands exist."""

import doctest
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@pages
def test_code_runs_as_printed(page, tmp_path, monkeypatch, processes_not_measured):
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    names = {}
    for block in re.finditer(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
        line = text.count("\n", 0, block.start(1))
        test = doctest.DocTestParser().get_doctest(block[1], names, page.name, str(page), line)
        assert test.examples, f"{page.name}:{line}: a block with nothing to run"
        runner.run(test, clear_globs=False)
        names = test.globs
    assert runner.summarize(verbose=False).failed == 0


@pages
def test_links_lead_to_files(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (page.parent / target).exists(), target


@pages
def test_make_targets_exist(page):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for name in re.findall(r"(?:^|`)make ([\w-]+)", page.read_text(), flags=re.MULTILINE):
        assert name in targets


def test_readme_lists_the_extras():
    project = (ROOT / "pyproject.toml").read_text()
    section = project.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    extras = re.findall(r"^(\w+) = \[", section, flags=re.MULTILINE)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("| extra |")[2].partition("\n\n")[0]
    first_cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    assert [name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)] == extras


def test_no_text_installs_the_other_project_of_this_name():
    wrong = re.compile(r"pip install\s+(-\S+\s+)*['\"]?fastdl(?!-kernels)")
    for path in [*PAGES, *ROOT.glob("fastdl/**/*.py"), *EXAMPLES]:
        assert not wrong.search(path.read_text(encoding="utf-8")), path


def test_every_example_is_in_the_gallery():
    gallery = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    linked = re.findall(r"\(examples/(\w+\.py)\)", gallery)
    assert sorted(linked) == [path.name for path in EXAMPLES]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_writes_the_pictures_of_the_gallery(path, tmp_path):
    specification = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    module.main(tmp_path)

    gallery = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    section = gallery.partition(f"(examples/{path.name})")[2].partition("\n## ")[0]
    shown = re.findall(r"\(images/(\w+\.png)\)", section)
    assert sorted(picture.name for picture in tmp_path.iterdir()) == sorted(shown)
    for name in shown:
        picture = (tmp_path / name).read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > 10_000  # more than an empty frame
