"""A contestant in a process of its own: warm, with an environment of its own, run on command.

Some contestants can't share a process: Keras has one framework behind it, fastdl one build, and a
thread pool is made when a library loads. A worker times its calls itself, and between commands it
waits for the next one without using the processor, so contestants can still take turns.

    with Worker("peers.training", job, "Keras (JAX)", {"KERAS_BACKEND": "jax"}) as worker:
        seconds, loss = worker.first()
        seconds = worker.time(calls=1)
"""

import contextlib
import importlib
import itertools
import math
import os
import pickle
import subprocess
import sys
import tempfile
import time

SHORTEST_SAMPLE = 0.02  # seconds; what is shorter is called several times
MESSAGE = 2000  # characters of what a worker that failed had to say


class Worker:
    """The process of one contestant.

    Parameters
    ----------
    module : str
        One that can be imported and has `jobs()`.
    job, library : str
        The job's name, and a key of its `libraries`.
    environment : dict of str to str
        On top of this process's.
    """

    def __init__(self, module, job, library, environment):
        self.name = f"{library} on {job!r}"
        path = os.pathsep.join(filter(None, sys.path))
        self._log = tempfile.TemporaryFile()  # noqa: SIM115, `close` closes it
        self._process = subprocess.Popen(
            [sys.executable, __file__, module, job, library],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": path, **environment},
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def first(self):
        """(seconds, result) of the first call, at the size at which results are compared."""
        return self._ask("first")

    def time(self, calls=1):
        """Seconds of each of some calls, on average."""
        return self._ask("time", calls)

    def enough_calls(self):
        """How many calls take long enough to be timed together."""
        calls = 1
        while (seconds := self.time(calls)) * calls < SHORTEST_SAMPLE / 10:
            calls *= 10
        return math.ceil(SHORTEST_SAMPLE / seconds)

    def close(self):
        """End the process; a worker that waits for a command ends by itself."""
        with contextlib.suppress(OSError):  # what it did not take any more
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def _ask(self, *command):
        try:
            pickle.dump(command, self._process.stdin)
            self._process.stdin.flush()
            return pickle.load(self._process.stdout)
        except (EOFError, OSError) as error:
            self._process.wait()
            self._log.seek(0)
            said = self._log.read().decode(errors="replace")[-MESSAGE:]
            raise RuntimeError(f"{self.name} failed:\n{said}") from error


def seconds_per_call(function, calls):
    start = time.perf_counter()
    for _ in itertools.repeat(None, calls):
        function()
    return (time.perf_counter() - start) / calls


def serve(job, library, commands, replies):
    """Carry out commands until there are no more."""
    import numpy as np
    from peers import MODULES

    def plain(result):
        """As NumPy arrays and numbers, which the other process can read without the library."""
        if isinstance(result, (tuple, list)):
            return tuple(plain(part) for part in result)
        if result is None or isinstance(result, float):
            return result
        return np.asarray(result.numpy() if hasattr(result, "numpy") else result)

    def first():
        importlib.import_module(MODULES[library])
        job.prepare()
        start = time.perf_counter()
        result = job.result(library)
        return time.perf_counter() - start, plain(result)

    actions = {
        "first": first,
        "time": lambda calls: seconds_per_call(job.call(library), calls) / job.pieces(library),
    }
    while True:
        try:
            name, *arguments = pickle.load(commands)
        except EOFError:
            return
        pickle.dump(actions[name](*arguments), replies)
        replies.flush()


def main(module, name, library):
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the library prints
    jobs = importlib.import_module(module).jobs()
    serve(next(job for job in jobs if job.name == name), library, sys.stdin.buffer, replies)


if __name__ == "__main__":
    main(*sys.argv[1:])
