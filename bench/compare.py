"""Time fastdl and its peers in turns, in one process, and print medians and their ratios.

    python bench/compare.py loops        the training loops of the first two assignments
    python bench/compare.py mnist        an epoch of the third's network

Turns share what the machine is doing besides, so ratios are worth more than times. That all get the
same numbers is checked first, which also compiles what is to be compiled. NumPy runs with one BLAS
thread and with as many as there are cores, and counts with the better one. Exits with 1 where a
ratio that the project promises is not reached.
"""

import argparse
import contextlib
import functools
import math
import os
import statistics
import sys
import time

import peers
from peers import loops, mnist

LIMITS = {  # (job, peer) -> at least this many times as fast
    ("momentum, 100 steps, the loss at each", "NumPy"): 20,
    ("SGD, 1,000 steps", "NumPy"): 100,
    ("nn_model, 4 hidden units, 10,000 iterations", "NumPy"): 20,
    ("nn_model, 4 hidden units, 10,000 iterations", "JAX"): 4,
}
SHORTEST_SAMPLE = 0.02  # seconds; what is shorter is called several times


def contestants(job):
    """(label, library, what makes the context to run it in)."""
    import threadpoolctl

    for library in filter(peers.installed, job.libraries):
        if not library.startswith("NumPy"):
            yield library, library, contextlib.nullcontext
            continue
        for threads in sorted({1, len(os.sched_getaffinity(0))}):
            limit = functools.partial(
                threadpoolctl.threadpool_limits, limits=threads, user_api="blas"
            )
            yield f"{library}, {threads} BLAS thread{'s'[: threads > 1]}", library, limit


def seconds_per_call(function, calls):
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls


def time_in_turns(job, repeats):
    """(label, library, median seconds of a run) of each contestant, over `repeats` turns of all."""
    entries = []
    for label, library, context in contestants(job):
        run = functools.partial(job.run, library)
        with context():
            run()
            job.check(library)
            calls = math.ceil(SHORTEST_SAMPLE / seconds_per_call(run, 1))
        entries.append((label, library, context, run, calls, []))
    for turn in range(repeats):
        # Back and forth, so that none always follows the same one.
        for _, _, context, run, calls, samples in entries[:: -1 if turn % 2 else 1]:
            with context():
                samples.append(seconds_per_call(run, calls))
    return [(label, library, statistics.median(samples)) for label, library, *_, samples in entries]


def compare(jobs, repeats):
    """Print a table for each job; return whether all limits are met."""
    all_met = True
    for job in jobs:
        results = time_in_turns(job, repeats)
        best = {}
        for _, library, seconds in results:
            best[library] = min(seconds, best.get(library, math.inf))
        print(f"\n{job.name}\n{'':<30}{'median':>12}{'ratio':>9}")
        for label, _, seconds in results:
            print(f"{label:<30}{seconds * 1e3:>9.3f} ms{seconds / best['fastdl']:>8.1f}x")
        for (name, peer), limit in LIMITS.items():
            if name == job.name and peer in best:
                ratio = best[peer] / best["fastdl"]
                met = ratio >= limit
                all_met = all_met and met
                print(f"{ratio:.1f} times {peer}, at least {limit}: {'met' if met else 'NOT MET'}")
    return all_met


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("jobs", choices=["loops", "mnist"])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args(arguments)
    jobs = {"loops": loops, "mnist": mnist}[options.jobs].jobs()
    return 0 if compare(jobs, options.repeats) else 1


if __name__ == "__main__":
    sys.exit(main())
