"""The lines of bench/cost.py: their points, exponents, tables and figure, from times made up."""

import json
from pathlib import Path

import cost
import peers
import pytest
import report
from compare import Result
from peers import sweeps
from peers.sweeps import BASE, SWEEPS

import fastdl
from fastdl import MLP

DOCUMENT = "".join(
    f"<!-- bench:{name} -->\n<!-- /bench:{name} -->\n"
    for name in ("cost", *(f"cost-{dimension}" for dimension in SWEEPS))
)
LAWS = {  # seconds by setting: of rows, width and batch
    "fastdl": lambda p: 1e-9 * p.rows * p.width**2 / p.batch,
    "JAX": lambda p: 9e-9 * p.rows * p.width**1.5 / p.batch**0.5,
    "JAX, 1 thread": lambda p: 3e-9 * p.rows * p.width**1.5 / p.batch**0.5,
    "PyTorch": lambda p: 2e-5 * p.rows / p.batch,
}


def results(*labels):
    """As `cost.measure` gives them, with times that follow the laws."""
    return {
        "machine_info": {
            "cpu": {"brand_raw": "A CPU"},
            "python_implementation": "CPython",
            "python_version": "3.12.1",
            "versions": {"fastdl": "9.8.7"},
            "cpu_level": "v3",
            "cores": 4,
        },
        "datetime": "2026-01-02T03:04:05",
        "benchmarks": [
            cost.entry(
                dimension,
                getattr(point, dimension),
                Result(label, label.partition(",")[0], LAWS[label](point), 1.0, 5),
            )
            for dimension in SWEEPS
            for point in sweeps.sweep(dimension)
            for label in labels or LAWS
        ],
    }


@pytest.fixture
def document(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(DOCUMENT)
    return path


# ---------------------------------------------------------------------------------------- points


def test_the_lines_reach_from_end_to_end():
    assert (min(SWEEPS["rows"]), max(SWEEPS["rows"])) == (1024, 1024**2)
    assert (min(SWEEPS["width"]), max(SWEEPS["width"])) == (16, 4096)
    assert (min(SWEEPS["batch"]), max(SWEEPS["batch"])) == (1, 1024)


@pytest.mark.parametrize("dimension", SWEEPS)
def test_a_line_varies_one_thing_and_goes_through_the_base(dimension):
    line = sweeps.sweep(dimension)
    assert BASE in line
    assert {point._replace(**{dimension: None}) for point in line} == {
        BASE._replace(**{dimension: None})
    }
    assert sweeps.sweep(dimension, quick=True) == line[:2]


def test_every_step_is_a_full_one():
    assert all(point.rows % point.batch == 0 for point in sweeps.points())


def test_a_point_is_timed_once_though_lines_share_it():
    points = sweeps.points()
    assert len(points) == len(set(points)) == sum(map(len, SWEEPS.values())) - len(SWEEPS) + 1
    assert set(sweeps.points(quick=True)) < set(points)


def test_a_worker_finds_each_job_by_its_name():
    names = [job.name for job in sweeps.jobs()]
    assert names == [point.name for point in sweeps.points()]
    assert len(set(names)) == len(names)


def test_an_epoch_is_one_fit_of_the_network_that_its_name_says(monkeypatch):
    fits = []
    monkeypatch.setattr(
        MLP, "fit", lambda self, X, y, **how: fits.append((self.sizes, X.shape, how)) or History()
    )
    point = sweeps.Point(rows=32, width=16, batch=8)
    assert point.name == "64-16-16-10, 32 rows, batches of 8"
    sweeps.epoch(point).run("fastdl")
    [(sizes, shape, how)] = fits
    assert (sizes, shape) == ((64, 16, 16, 10), (32, 64))
    assert (how["epochs"], how["batch_size"]) == (1, 8)


class History:
    history = {"loss": [1.0]}  # noqa: RUF012, of a fit that was not made


# ----------------------------------------------------------------------------------------- lines


@pytest.mark.parametrize("power", [1.0, -0.5, 0.0, 2.0])
def test_the_exponent_of_a_power(power):
    line = {size: 3e-6 * size**power for size in (1, 4, 64, 1024)}
    assert cost.exponent(line) == pytest.approx(power, abs=1e-12)


def test_the_exponent_is_the_slope_of_least_squares():
    # Logarithms to base 10: (0, 0), (1, 2), (2, 1), whose slope is 1/2.
    assert cost.exponent({1: 1.0, 10: 100.0, 100: 10.0}) == pytest.approx(0.5)


def test_a_library_counts_with_its_better_setting_at_each_point():
    both = results("JAX", "JAX, 1 thread")
    first = both["benchmarks"][0]
    first["stats"]["median"] = 1e-9
    line = cost.lines(both, "rows")["JAX"]
    assert list(line) == SWEEPS["rows"]
    assert line[1024] == 1e-9
    assert line[4096] == LAWS["JAX, 1 thread"](BASE)


def test_the_best_peer_is_another_one_at_either_end():
    lines = cost.lines(results(), "width")
    best = cost.best_peers(lines)
    assert list(best) == SWEEPS["width"]
    assert [library for _, library in best.values()] == ["JAX"] * 2 + ["PyTorch"] * 3
    assert all(seconds == lines[library][size] for size, (seconds, library) in best.items())


def test_fastdl_is_nobodys_peer():
    assert cost.best_peers(cost.lines(results("fastdl"), "rows")) == {}


# ---------------------------------------------------------------------------------------- tables


def test_tables_have_the_times_and_end_with_the_exponents():
    tables = cost.written(results(), "images/cost.png")
    assert set(tables) == {"cost", "cost-rows", "cost-width", "cost-batch"}
    lines = tables["cost-width"].splitlines()
    assert lines[0] == "|  | fastdl | JAX | PyTorch |"
    assert lines[2].startswith("| 16 units wide | **16.4 µs** | 98.3 µs (6.0x) |")
    assert lines[-1] == "| *exponent* | 2.00 | 1.50 | 0.00 |"
    assert len({line.count("|") for line in lines}) == 1
    assert tables["cost-rows"].endswith("| *exponent* | 1.00 | 1.00 | 1.00 |")
    assert tables["cost-batch"].endswith("| *exponent* | -1.00 | -0.50 | -1.00 |")


def test_the_sentence_and_the_picture():
    sentence, _, link = cost.written(results(), "images/cost.png")["cost"].splitlines()
    assert sentence.startswith("Medians, measured on 2026-01-02 on 4 cores of A CPU")
    assert link.startswith("![")
    assert link.endswith("](images/cost.png)")


def test_the_documentation_has_a_place_for_each_table():
    page = Path(cost.__file__).parents[1] / "docs" / "benchmarks.md"
    tables = cost.written(results(), "images/cost.png")
    _, found = report.place(page.read_text(encoding="utf-8"), tables)
    assert sorted(found) == sorted(tables)


# --------------------------------------------------------------------------------------- command


@pytest.mark.parametrize("labels", [LAWS, ["fastdl"]], ids=["peers", "no peers"])
def test_saved_times_are_written_and_drawn(tmp_path, document, labels):
    saved = tmp_path / "cost.json"
    saved.write_text(json.dumps(results(*labels)))
    assert cost.main([str(saved), str(document), "--saved"]) == 0
    for table in cost.written(results(*labels), "images/cost.png").values():
        assert table in document.read_text(encoding="utf-8")
    picture = (tmp_path / "images" / "cost.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000  # more than empty frames


def test_the_figure_names_the_lines_and_their_exponents(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(cost.Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    cost.draw(results(), tmp_path / "cost.png")
    panels = drawn[0].axes
    assert [axes.get_xscale() for axes in panels] == ["log"] * 3
    assert {axes.get_yscale() for axes in panels} == {"log"}
    legend = [text.get_text() for text in panels[1].get_legend().get_texts()]
    peer = cost.exponent(
        {p.width: min(LAWS["JAX, 1 thread"](p), LAWS["PyTorch"](p)) for p in sweeps.sweep("width")}
    )
    assert legend == [
        "fastdl, exponent 2.00",
        f"best peer, exponent {peer:.2f}",
        "JAX",
        "PyTorch",
    ]


def test_a_document_without_a_place_is_refused_and_the_times_are_kept(tmp_path, document):
    saved = tmp_path / "cost.json"
    saved.write_text(json.dumps(results()))
    document.write_text(DOCUMENT.replace("cost-width", "cost-breadth"))
    before = document.read_bytes()
    with pytest.raises(ValueError, match="has no place for: cost-width"):
        cost.main([str(saved), str(document), "--saved"])
    assert document.read_bytes() == before
    assert saved.exists()


def test_a_quick_run_from_the_clock_to_the_tables(tmp_path, document, monkeypatch, capsys):
    # Of fastdl alone: peers take seconds to load.
    monkeypatch.setattr(peers, "installed", lambda library: library == "fastdl")
    saved = tmp_path / "cost.json"
    assert cost.main([str(saved), str(document), "--quick"]) == 0
    shown = capsys.readouterr().out
    assert all(point.name in shown for point in sweeps.points(quick=True))
    text = document.read_text(encoding="utf-8")
    for name in ("1,024 rows", "4,096 rows", "16 units wide", "batches of 1 ", "batches of 4 "):
        assert f"| {name.strip()} | **" in text
    assert text.count("*exponent*") == len(SWEEPS)
    assert f", fastdl {fastdl.__version__}" in text
