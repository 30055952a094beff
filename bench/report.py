"""Write the tables of Markdown documents from the results that pytest-benchmark saved.

    python bench/report.py .benchmarks/latest.json README.md docs/benchmarks.md

A document says where a table goes by a pair of lines, and what is between them is replaced:

    <!-- bench:loops -->
    <!-- /bench:loops -->

The table "machine" is a sentence about where the numbers come from. Results for which no document
has a place are an error, and then nothing is written; a place without results keeps what it has.
"""

import argparse
import json
import math
import re
import sys
from operator import itemgetter
from pathlib import Path

from peers import MODULES

OURS = "fastdl"


def tables(results):
    """Table name -> Markdown, of everything that the results hold."""
    rows = {}
    for benchmark in results["benchmarks"]:
        info = benchmark["extra_info"]
        seconds = benchmark["stats"]["median"] / info.get("calls", 1)
        cells = {"": seconds, "first_call": info.get("first_call")}
        for table in info["tables"]:
            row = rows.setdefault(table, {}).setdefault(info["row"], {})
            # A library that ran with several settings counts with its best.
            row[info["column"]] = min(row.get(info["column"], cells), cells, key=itemgetter(""))
    written = {table: _table(content) for table, content in rows.items()}
    return {**written, "machine": _machine(results)}


def _table(rows):
    columns = [library for library in MODULES if any(library in row for row in rows.values())]
    lines = [["", *columns], ["---", *["---:"] * len(columns)]]
    for name, row in rows.items():
        lines.append([name, *_cells(row, columns, "")])
        if any(cell["first_call"] is not None for cell in row.values()):
            lines.append(
                ["*the first time, with compilation*", *_cells(row, columns, "first_call")]
            )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(row, columns, kind):
    """Times, the shortest one in bold, with the ratio to fastdl's."""
    seconds = {column: row[column][kind] for column in columns if column in row}
    ours = seconds.get(OURS)
    for column in columns:
        if column not in seconds:
            yield ""
            continue
        text = duration(seconds[column])
        if seconds[column] == min(seconds.values()):
            text = f"**{text}**"
        if ours and column != OURS and not kind:
            text += f" ({ratio(seconds[column] / ours)})"
        yield text


def duration(seconds):
    """Three significant digits and the unit that suits them: 12.3 ms."""
    seconds = float(f"{seconds:.3g}")
    unit, size = next(
        (unit for unit in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)) if seconds >= unit[1]),
        ("ns", 1e-9),
    )
    value = seconds / size
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f} {unit}"


def ratio(value):
    """Two significant digits, or a whole number: 0.85x, 3.1x, 120x."""
    decimals = max(0, 1 - math.floor(math.log10(value)))
    return f"{value:.{decimals}f}x"


def _machine(results):
    machine = results["machine_info"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"Medians, measured on {results['datetime'][:10]} on {machine['cores']} cores of "
        f"{machine['cpu']['brand_raw']} (fastdl's build for level {machine['cpu_level']}), "
        f"{machine['python_implementation']} {machine['python_version']}, {versions}. "
        f"In parentheses: how many times as long as fastdl."
    )


def place(document, written):
    """The document with each table in its place, and the names of those that had one."""
    found = []

    def replace(match):
        name = match["name"]
        if name not in written:
            return match[0]
        found.append(name)
        return f"<!-- bench:{name} -->\n{written[name]}\n<!-- /bench:{name} -->"

    pattern = r"<!-- bench:(?P<name>[\w-]+) -->\n(.*?\n)??<!-- /bench:(?P=name) -->"
    document = re.sub(pattern, replace, document, flags=re.DOTALL)
    for name in re.findall(r"<!-- /?bench:([\w-]+) -->", re.sub(pattern, "", document, flags=re.S)):
        raise ValueError(f"bench:{name}: a marker without its pair")
    return document, found


def report(results, documents):
    """Write the tables into the documents, a list of paths."""
    written = tables(results)
    texts, found = {}, set()
    for path in documents:
        texts[path], names = place(path.read_text(encoding="utf-8"), written)
        found.update(names)
    if missing := set(written) - found:
        raise ValueError(f"no document has a place for: {', '.join(sorted(missing))}")
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("documents", type=Path, nargs="+")
    options = parser.parse_args(arguments)
    try:
        report(json.loads(options.results.read_text(encoding="utf-8")), options.documents)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
