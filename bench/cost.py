"""Time an epoch against rows, hidden width and batch, beside the best peer, and draw the lines.

    python bench/cost.py .benchmarks/cost.json docs/benchmarks.md            times, tables, figure
    python bench/cost.py .benchmarks/cost.json docs/benchmarks.md --saved    from the file's times
    python bench/cost.py cost.json document.md --quick                       two points of each line

The points are those of peers/sweeps.py. All take turns as in compare.py, and the peers count with
the better number of threads at each point. The times are saved in the form that report.py reads,
the tables go between the markers of the document, the figure into the folder `images` beside it.
"""

import argparse
import datetime
import json
import sys
from operator import itemgetter
from pathlib import Path

import compare
import machine
import numpy as np
import report
from matplotlib.figure import Figure
from peers import MODULES, ours, sweeps
from peers.sweeps import BASE, SWEEPS
from pytest_benchmark.plugin import pytest_benchmark_generate_machine_info

ROW_NAMES = {"rows": "{:,} rows", "width": "{:,} units wide", "batch": "batches of {:,}"}
TITLES = {
    "rows": f"{BASE.width} units wide, batches of {BASE.batch}",
    "width": f"{BASE.rows:,} rows, batches of {BASE.batch}",
    "batch": f"{BASE.rows:,} rows, {BASE.width} units wide",
}
AXES = {"rows": "rows", "width": "units of each hidden layer", "batch": "batch"}

# Two seconds of each contestant's at a point, but two turns: where an epoch takes seconds, a point
# takes about a minute, with all contestants and their warming up.
TURNS, SECONDS, FEWEST_TURNS = 5, 0.4, 2

BLUE, ORANGE, INK, FAINT = "#0072B2", "#D55E00", "#333333", "#D9D9D9"
MARKERS = {"JAX": "^", "PyTorch": "s"}


# ------------------------------------------------------------------------------------- the times


def measure(quick=False):
    """The times in the form that pytest-benchmark saves, a table for each line."""
    found = {}
    for point in sweeps.points(quick):
        job = sweeps.epoch(point)
        results = compare.time_in_turns(sweeps.__name__, job, TURNS, SECONDS, FEWEST_TURNS)
        compare.show(job.name, results, compare.best(results, ("fastdl",)))
        found[point] = results
    return {
        "datetime": datetime.datetime.now(datetime.timezone.utc).isoformat(),
        "machine_info": pytest_benchmark_generate_machine_info() | machine.facts(sweeps.LIBRARIES),
        "benchmarks": [
            entry(dimension, getattr(point, dimension), result)
            for dimension in SWEEPS
            for point in sweeps.sweep(dimension, quick)
            for result in found[point]
        ],
    }


def entry(dimension, size, result):
    return {
        "extra_info": {
            "tables": [f"cost-{dimension}"],
            "row": ROW_NAMES[dimension].format(size),
            "column": result.library,
            "label": result.label,
            "turns": result.turns,
            "size": size,
        },
        "stats": {"median": result.seconds},
    }


# ------------------------------------------------------------------------------------- the lines


def lines(results, dimension):
    """Library -> {size: seconds}, each with its better setting, in the order of the tables."""
    found = {library: {} for library in MODULES}
    for benchmark in results["benchmarks"]:
        info, seconds = benchmark["extra_info"], benchmark["stats"]["median"]
        if info["tables"] == [f"cost-{dimension}"]:
            line = found[info["column"]]
            line[info["size"]] = min(seconds, line.get(info["size"], seconds))
    return {library: line for library, line in found.items() if line}


def best_peers(lines):
    """Size -> (seconds, library) of the fastest peer."""
    best = {}
    for library, line in lines.items():
        if not ours(library):
            for size, seconds in line.items():
                best[size] = min(best.get(size, (seconds, library)), (seconds, library))
    return best


def exponent(line):
    """The a of seconds = c * size**a that is nearest to a line, by least squares of logarithms."""
    sizes, seconds = np.log(list(line.keys())), np.log(list(line.values()))
    return float(np.polyfit(sizes, seconds, 1)[0])


def exponent_text(line):
    return f"{round(exponent(line), 2) + 0.0:.2f}"  # never -0.00


def written(results, picture):
    """Name of a place -> what stands in it, with a link to the picture."""
    tables = report.tables(results)
    for dimension in SWEEPS:
        exponents = [exponent_text(line) for line in lines(results, dimension).values()]
        tables[f"cost-{dimension}"] += f"\n| *exponent* | {' | '.join(exponents)} |"
    alternative = "Time of an epoch against rows, width and batch: fastdl and the best peer"
    tables["cost"] = f"{tables.pop('machine')}\n\n![{alternative}]({picture})"
    return tables


def draw(results, path):
    """The three lines of fastdl and of the best peer, whose markers say which one it is."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    for axes, dimension in zip(figure.subplots(1, 3, sharey=True), SWEEPS, strict=True):
        found = lines(results, dimension)
        line = found["fastdl"]
        label = f"fastdl, exponent {exponent_text(line)}"
        axes.loglog(line.keys(), line.values(), "o-", color=BLUE, label=label)
        if best := best_peers(found):
            line = {size: seconds for size, (seconds, _) in best.items()}
            label = f"best peer, exponent {exponent_text(line)}"
            axes.loglog(line.keys(), line.values(), color=ORANGE, label=label)
        for library in sorted(set(map(itemgetter(1), best.values()))):
            line = {size: seconds for size, (seconds, name) in best.items() if name == library}
            look = {"color": ORANGE, "marker": MARKERS[library], "linestyle": "none"}
            axes.loglog(line.keys(), line.values(), label=library, **look)
        axes.set_title(TITLES[dimension], loc="left", fontsize=11, color=INK)
        axes.set_xlabel(AXES[dimension], color=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=FAINT, linewidth=0.6)
        axes.legend(fontsize=9)
    figure.axes[0].set_ylabel("seconds of an epoch", color=INK)
    figure.savefig(path, dpi=80)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", type=Path, help="the times, as JSON")
    parser.add_argument("document", type=Path)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="two points of each line")
    how.add_argument("--saved", action="store_true", help="time nothing, take what the file holds")
    options = parser.parse_args(arguments)
    if not options.saved:
        results = json.dumps(measure(options.quick), indent=1)
        options.results.write_text(results, encoding="utf-8")
    results = json.loads(options.results.read_text(encoding="utf-8"))
    picture = options.document.parent / "images" / "cost.png"
    tables = written(results, "images/cost.png")
    document, found = report.place(options.document.read_text(encoding="utf-8"), tables)
    if missing := set(tables) - set(found):
        names = ", ".join(sorted(missing))
        raise ValueError(f"{options.document} has no place for: {names}")
    picture.parent.mkdir(exist_ok=True)
    draw(results, picture)
    options.document.write_text(document, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
