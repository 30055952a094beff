"""The script that writes benchmark results into documents (bench/report.py)."""

import json

import pytest
import report

DOCUMENT = """\
# Results

<!-- bench:loops -->
<!-- /bench:loops -->

Text between.

<!-- bench:ops -->
| an older table |
<!-- /bench:ops -->

<!-- bench:machine -->
<!-- /bench:machine -->
"""


def benchmark(tables, row, column, median, **info):
    return {
        "extra_info": {"tables": tables, "row": row, "column": column, **info},
        "stats": {"median": median, "mean": 123.0},
    }


def results():
    return {
        "machine_info": {
            "cpu": {"brand_raw": "A CPU"},
            "python_implementation": "CPython",
            "python_version": "3.12.1",
            "versions": {"fastdl": "9.8.7", "numpy": "2.0.0"},
            "cpu_level": "v3",
            "cores": 4,
        },
        "datetime": "2026-01-02T03:04:05.678",
        "benchmarks": [
            benchmark(["ops"], "`exp`", "PyTorch", 3e-6),
            benchmark(["ops"], "`exp`", "fastdl", 1.5e-6),
            benchmark(["ops"], "`log`", "fastdl", 2e-6),
            benchmark(["loops"], "momentum", "fastdl", 0.010, first_call=0.011),
            benchmark(["loops"], "momentum", "JAX", 0.004, first_call=1.5),
        ],
    }


@pytest.fixture
def document(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(DOCUMENT, encoding="utf-8")
    return path


def test_tables_stand_between_their_markers(document):
    report.report(results(), [document])
    assert (
        document.read_text(encoding="utf-8")
        == """\
# Results

<!-- bench:loops -->
|  | fastdl | JAX |
| --- | ---: | ---: |
| momentum | 10.0 ms | **4.00 ms** (0.40x) |
| *the first time, with compilation* | **11.0 ms** | 1.50 s |
<!-- /bench:loops -->

Text between.

<!-- bench:ops -->
|  | fastdl | PyTorch |
| --- | ---: | ---: |
| `exp` | **1.50 µs** | 3.00 µs (2.0x) |
| `log` | **2.00 µs** |  |
<!-- /bench:ops -->

<!-- bench:machine -->
Medians, measured on 2026-01-02 on 4 cores of A CPU (fastdl's build for level v3), CPython 3.12.1, \
fastdl 9.8.7, numpy 2.0.0. In parentheses: how many times as long as fastdl.
<!-- /bench:machine -->
"""
    )


@pytest.mark.parametrize("order", [1, -1])
def test_a_library_with_several_settings_counts_with_its_best(document, order):
    several = results()
    several["benchmarks"] += [
        benchmark(["loops"], "SGD", "fastdl", 0.010, first_call=0.020),
        *[
            benchmark(["loops"], "SGD", "JAX", 0.030, first_call=0.5),
            benchmark(["loops"], "SGD", "JAX", 0.020, first_call=0.7),
        ][::order],
    ]
    report.report(several, [document])
    text = document.read_text(encoding="utf-8")
    assert "| SGD | **10.0 ms** | 20.0 ms (2.0x) |" in text
    assert "| **20.0 ms** | 700 ms |" in text


def test_calls_that_were_timed_together_are_told_apart(document):
    several = results()
    several["benchmarks"] += [benchmark(["ops"], "`tanh`", "fastdl", 0.020, calls=10_000)]
    report.report(several, [document])
    assert "| `tanh` | **2.00 µs** |" in document.read_text(encoding="utf-8")


def test_writing_twice_changes_nothing(document):
    report.report(results(), [document])
    once = document.read_bytes()
    report.report(results(), [document])
    assert document.read_bytes() == once


def test_each_document_gets_the_tables_it_has_a_place_for(tmp_path):
    first, second = tmp_path / "first.md", tmp_path / "second.md"
    first.write_text("<!-- bench:loops -->\n<!-- /bench:loops -->\n")
    second.write_text(
        "<!-- bench:ops -->\n<!-- /bench:ops -->\n<!-- bench:machine -->\n<!-- /bench:machine -->\n"
    )
    report.report(results(), [first, second])
    assert "momentum" in first.read_text(encoding="utf-8")
    assert "`exp`" not in first.read_text(encoding="utf-8")
    assert "`exp`" in second.read_text(encoding="utf-8")


def test_a_place_without_results_keeps_what_it_has(document):
    partial = results()
    partial["benchmarks"] = [
        b for b in partial["benchmarks"] if "ops" not in b["extra_info"]["tables"]
    ]
    report.report(partial, [document])
    text = document.read_text(encoding="utf-8")
    assert "| an older table |" in text
    assert "momentum" in text


def test_results_without_a_place_are_refused(document):
    document.write_text(DOCUMENT.replace("bench:ops", "bench:operations"), encoding="utf-8")
    before = document.read_bytes()
    with pytest.raises(ValueError, match="no document has a place for: ops"):
        report.report(results(), [document])
    assert document.read_bytes() == before


@pytest.mark.parametrize("half", ["<!-- bench:ops -->", "<!-- /bench:ops -->"])
def test_half_a_pair_of_markers_is_refused(document, half):
    document.write_text(DOCUMENT.replace(half, ""), encoding="utf-8")
    before = document.read_bytes()
    with pytest.raises(ValueError, match="bench:ops: a marker without its pair"):
        report.report(results(), [document])
    assert document.read_bytes() == before


def test_the_command_reads_the_saved_file(tmp_path, document, capsys):
    saved = tmp_path / "bench.json"
    saved.write_text(json.dumps(results()))
    assert report.main([str(saved), str(document)]) == 0
    assert "momentum" in document.read_text(encoding="utf-8")
    saved.write_text("not JSON")
    assert report.main([str(saved), str(document)]) == 1
    assert "Expecting value" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1.2345e-9, "1.23 ns"),
        (12.345e-9, "12.3 ns"),
        (999.4e-9, "999 ns"),
        (999.6e-9, "1.00 µs"),
        (123.45e-6, "123 µs"),
        (12.345e-3, "12.3 ms"),
        (1.0, "1.00 s"),
        (123.4, "123 s"),
    ],
)
def test_durations_have_three_digits(seconds, text):
    assert report.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0612, "0.061x"), (0.85, "0.85x"), (3.14, "3.1x"), (31.4, "31x"), (314.1, "314x")],
)
def test_ratios_have_two_digits(value, text):
    assert report.ratio(value) == text
