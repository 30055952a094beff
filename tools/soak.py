"""Hold trainings to their promises for some minutes: the same bits, Ctrl-C, no memory left behind.

    python tools/soak.py [bits] [interrupts] [memory]

Without a name, all of them. Ends with status 1 if a promise is broken. The tests do the same in
small numbers; times mean something on an idle machine only.
"""

import argparse
import concurrent.futures
import random
import statistics
import sys
from pathlib import Path

import joblib

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import robustness

import fastdl
from fastdl import _engine, datasets

PRESSES = 50
LONGEST_DELAY = 2.0  # seconds
LONGEST_END = 0.1  # seconds from Ctrl-C to KeyboardInterrupt
FITS = 100_000
MOST_MEMORY = 1000  # kB


def bits():
    """Yield (what, whether it held) for MNIST, three epochs."""
    (X, y), *_ = datasets.load_mnist()
    digest, elsewhere = robustness.digits_digest, robustness.digits_digest_elsewhere

    def threads(count):
        _engine._threads = lambda *_: count

    threads(1)
    wanted = digest(X, y)
    print(f"  one thread: {wanted}")
    for count in (2, 3, 4):
        threads(count)
        yield f"{count} threads", digest(X, y) == wanted
    threads(2)
    yield "a forked child", robustness.in_forked_child(digest, X, y) == wanted
    runs = joblib.Parallel(n_jobs=2, backend="loky")(
        joblib.delayed(elsewhere)(X, y, count) for count in (1, 2, 3)
    )
    yield "joblib, processes", set(runs) == {wanted}
    runs = joblib.Parallel(n_jobs=3, backend="threading")(
        joblib.delayed(digest)(X, y) for _ in range(3)
    )
    yield "joblib, threads", set(runs) == {wanted}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        runs = [pool.submit(digest, X, y) for _ in range(8)]
        yield "eight Python threads", {run.result() for run in runs} == {wanted}
    nets = [fastdl.MLP(**robustness.DIGITS, seed=0) for _ in range(3)]
    fastdl.fit_many(nets, X, y, **robustness.DIGITS_FIT)
    yield "fit_many", {robustness.digest(net) for net in nets} == {wanted}


def interrupts():
    """Yield (what, whether it held) for Ctrl-C at random moments of each training."""
    moments = random.Random(0)
    cases = list(robustness.INTERRUPTED)
    taken = {case: [] for case in cases}
    broken = 0
    for press in range(PRESSES):
        case, delay = cases[press % len(cases)], moments.uniform(0, LONGEST_DELAY)
        stop, seconds = robustness.interrupt(case, delay)
        taken[case].append(seconds)
        faults = robustness.faults(case, stop)
        broken += bool(faults)
        if faults:
            yield f"{case}, Ctrl-C after {delay:.3f} s: {'; '.join(faults)}", False
    yield f"{PRESSES - broken} of {PRESSES} Ctrl-C left a completed step", not broken
    for case, times in taken.items():
        yield (
            f"{case}: Ctrl-C took {1e3 * statistics.median(times):.0f} ms at the median, "
            f"{1e3 * max(times):.0f} at the most",
            max(times) < LONGEST_END,
        )


def memory():
    """Yield (what, whether it held) for many small fits."""
    for kind in ("reuse", "fresh"):
        left = robustness.memory_left(FITS, kind)
        yield f"{FITS:,} fits, {kind}: {left} kB left behind", left < MOST_MEMORY


CHECKS = {"bits": bits, "interrupts": interrupts, "memory": memory}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checks", nargs="*", metavar="check", help=f"of {', '.join(CHECKS)}; all")
    names = parser.parse_args(arguments).checks or list(CHECKS)
    if unknown := set(names) - set(CHECKS):
        parser.error(f"no check is called {', '.join(sorted(unknown))}")
    sound = True
    for name in names:
        print(f"{name}:", flush=True)
        for what, held in CHECKS[name]():
            print(f"  {'ok    ' if held else 'BROKEN'}  {what}", flush=True)
            sound &= held
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
