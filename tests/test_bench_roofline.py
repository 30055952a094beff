"""What bench/roofline.py makes of a machine's figures."""

import shutil
from pathlib import Path

import pytest
import roofline
from roofline import Densities, Phase

SIZES = (784, 128, 128, 128, 10)
SHARE = Densities(0.25, (0.5, 0.25, 0.125))
MACHINE = {
    "vector_bytes": 64.0,
    **{f"fma_{n}": n * 100e9 for n in (1, 2)},
    **{f"read_{level}_{n}": n * 100e9 for level in ("l1", "l2", "l3", "memory") for n in (1, 2)},
    **{f"modify_l2_{n}": n * 50e9 for n in (1, 2)},
    **{f"adam_l1_{n}": n * 4e9 for n in (1, 2)},
    "barrier": 40e-9,
    "create": 20e-6,
}


def test_the_network_has_as_many_parameters_as_keras_counts():
    assert roofline.parameters(SIZES) == 134_794


def test_no_gradient_of_the_inputs_is_needed():
    first, others = 784 * 128, 2 * 128 * 128 + 128 * 10
    assert roofline.dense_operations(SIZES) == 2 * 32 * (2 * first + 3 * others)


def test_nothing_skipped_makes_the_products_of_the_dense_step():
    phases = roofline.phases(SIZES, Densities(1.0, (1.0, 1.0, 1.0)))
    products = [p for p in phases if p.name.split()[0] in ("forward", "backward", "weight")]
    assert sum(p.operations for p in products) == roofline.dense_operations(SIZES)


def test_a_product_shrinks_with_the_density_of_what_it_is_fed():
    operations = {phase.name: phase.operations for phase in roofline.phases(SIZES, SHARE)}
    assert operations["forward 1, sparse"] == 2 * 32 * 784 * 0.25 * 128
    assert operations["forward 2"] == operations["backward 2"] == 2 * 32 * 128 * 0.5 * 128
    assert operations["weight gradient 4"] == 2 * 32 * 128 * 0.125 * 10


@pytest.mark.parametrize(
    ("phase", "seconds"),
    [
        (Phase("computes", 100e9, 1e9, "read_l1"), 0.5),
        (Phase("moves", 1e9, 100e9, "read_l1"), 0.5),
        (Phase("computes by single operations", 100e9, 1e9, "read_l1", 2), 1.0),
    ],
)
def test_a_phase_takes_as_long_as_the_slower_of_computing_and_moving(phase, seconds):
    assert phase.seconds(MACHINE, threads=2) == seconds


@pytest.mark.parametrize("threads", [1, 2])
def test_tables_have_a_column_for_each_number_of_threads(threads):
    machine = {n: v for n, v in MACHINE.items() if threads == 2 or not n.endswith("_2")}
    tables = roofline.written(machine, SHARE)
    names = ["1 thread", "2 threads"][:threads]
    assert tables["roofline-machine"].startswith(f"|  | {' | '.join(names)} |")
    for text in (tables["roofline-machine"], tables["roofline-step"]):
        assert len({line.count("|") for line in text.splitlines()}) == 1


def test_a_step_is_the_sum_of_its_phases():
    lines = roofline.written(MACHINE, SHARE)["roofline-step"].splitlines()
    times = [float(line.split("|")[-2].strip(" *µs")) for line in lines[2:]]
    *parts, whole, _ = times
    assert whole == pytest.approx(sum(parts), abs=0.05 * len(parts))


def test_the_document_has_a_place_for_each_table():
    document = Path(roofline.__file__).with_name("ROOFLINE.md").read_text(encoding="utf-8")
    for name in roofline.written(MACHINE, SHARE):
        assert f"<!-- bench:{name} -->" in document


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_machine_is_measured(monkeypatch):
    monkeypatch.setattr(roofline, "FLAGS", f"{roofline.FLAGS} -DREPEATS=1 -DWORK=1e-5")
    monkeypatch.setattr(roofline, "array_sizes", lambda _: dict.fromkeys("1234", 4096))
    monkeypatch.setattr(roofline.backends, "available_threads", lambda: 1)
    machine = roofline.measure()
    assert set(machine) == {n for n in MACHINE if n not in ("barrier", "create") and n[-2:] != "_2"}
    assert all(value > 0 for value in machine.values())
