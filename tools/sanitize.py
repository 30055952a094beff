"""Run tests on a build that one of GCC's sanitizers watches.

    python tools/sanitize.py thread|address TEST...

The build, made with FASTDL_SANITIZE, is in build/thread or build/address (`make sanitize` makes
both). Neither Python nor NumPy is instrumented, so that nothing has to be suppressed but their
leaks. Ends with status 1 where a test fails or anything is reported, in the tests' own process or
in one that they start.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# The libraries that have to be loaded before Python. An exception of C++ in another package's
# module (Numba's, say) ends a process in which AddressSanitizer was loaded without libstdc++.
PRELOADED = {"thread": ["libtsan.so"], "address": ["libasan.so", "libstdc++.so.6"]}
PACKAGES = {"thread": "libtsan2", "address": "libasan8 and libubsan1"}

# Each sanitizer's options, in the variable that it reads. Reports decide, not exit statuses.
OPTIONS = {
    # Processes that tests start may fork, and then start threads.
    "TSAN_OPTIONS": {"exitcode": 0, "die_after_fork": 0},
    # Whose a leak is, is who called malloc: everything else on the stack comes from everywhere.
    "ASAN_OPTIONS": {"exitcode": 0, "detect_leaks": 1, "malloc_context_size": 2},
    "LSAN_OPTIONS": {"exitcode": 0},
    "UBSAN_OPTIONS": {"print_stacktrace": 1},
}


def library(name, sanitizer):
    """The path of one of GCC's libraries."""
    compiler = shutil.which("gcc")
    if compiler is None:
        raise SystemExit("sanitize: there is no gcc; on Debian and Ubuntu: apt-get install gcc")
    path = subprocess.check_output([compiler, f"-print-file-name={name}"], text=True).strip()
    if not Path(path).is_absolute():
        raise SystemExit(
            f"sanitize: gcc has no {name}; on Debian and Ubuntu: apt-get install "
            f"{PACKAGES[sanitizer]} (the number is that of the gcc in use)"
        )
    return path


def environment(sanitizer, build, reports):
    """What the tests' process needs to be watched."""
    added = {
        "LD_PRELOAD": " ".join(library(name, sanitizer) for name in PRELOADED[sanitizer]),
        "PYTHONPATH": str(build),
        # Python's own allocator would hide where an array ends and who still has it.
        "PYTHONMALLOC": "malloc",
        # Threads of BLAS are not instrumented: they would seem to meet nowhere.
        "OPENBLAS_NUM_THREADS": "1",
        # Small networks train on one thread, where there is nothing to see.
        "FASTDL_TEST_THREADS": "2",
    }
    if sanitizer == "thread":
        # It gives up where a thread of the child has the address of one of the parent.
        added["FASTDL_TEST_FORKS"] = "0"
    for variable, options in OPTIONS.items():
        options = {**options, "log_path": reports / variable.partition("_")[0].lower()}
        added[variable] = ":".join(f"{name}={value}" for name, value in options.items())
    return os.environ | added


def instrumented(build):
    """Whether a build has the calls of a sanitizer."""
    modules = list(build.glob("fastdl/_kernels_*.so"))
    return bool(modules) and all(
        any(mark in path.read_bytes() for mark in (b"__tsan_init", b"__asan_init"))
        for path in modules
    )


def counts(report):
    """Whether a report is about fastdl: not the leaks of other programs, Python among them."""
    text = report.read_text(errors="replace")
    if report.name == "stderr":
        return "runtime error:" in text
    return "detected memory leaks" not in text or "fastdl/_" in text


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sanitizer", choices=PRELOADED)
    parser.add_argument("pytest_arguments", nargs=argparse.REMAINDER, metavar="TEST")
    given = parser.parse_args(arguments)
    build = ROOT / "build" / given.sanitizer
    if not instrumented(build):
        raise SystemExit(f"sanitize: no such build in {build}; `make sanitize` makes it")
    reports = build / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir()
    # Next to AddressSanitizer, the one for undefined behaviour heeds no log_path: it writes to the
    # error output, which pytest must not take away from tests that pass.
    errors = reports / "stderr"
    with errors.open("w") as file:
        status = subprocess.call(
            [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "--rootdir", ROOT,
             "-p", "no:cacheprovider", "--capture=sys", *given.pytest_arguments],
            cwd=build, env=environment(given.sanitizer, build, reports), stderr=file,
        )  # fmt: skip
    written = [report for report in sorted(reports.iterdir()) if counts(report)]
    for report in written:
        print(f"---- {report}\n{report.read_text(errors='replace')}")
    print(f"sanitize {given.sanitizer}: tests ended with {status}, {len(written)} reports")
    return 1 if status or written else 0


if __name__ == "__main__":
    sys.exit(main())
