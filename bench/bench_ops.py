"""Each operation of tests/cases.py at its largest size: fastdl's backends and its peers.

The backends' kernels are called directly; `fastdl.ops` adds the checks of the arguments, one or two
microseconds. Peers get their arrays in their own form, so that no conversion is timed.
"""

import numpy as np
import pytest
from cases import CASES, DTYPES
from peers import installed, operations

from fastdl import backends

# The operations of a small network's training step: these stand in the README, all in docs/.
SELECTED = (
    "exp",
    "tanh",
    "activation_forward[gelu]",
    "activation_forward[softmax]",
    "matmul[plain]",
    "dense_forward[relu]",
    "dense_backward[relu]",
    "binary_crossentropy[logits]",
    "categorical_crossentropy[logits]",
    "dropout[0.5]",
    "sgd_update[momentum]",
    "adam_update[plain]",
    "quadratic_features",
)
BACKENDS = {"fastdl": "cython", "fastdl (numba)": "numba", "fastdl (reference)": "reference"}


def contestants():
    for case in CASES:
        for library in [*BACKENDS, *operations.libraries(case)]:
            if installed(library):
                yield pytest.param(case, library, id=f"{case}-{library}")


def kernel(backend, case, arguments):
    """The backend's kernel as a function of no arguments that names its results."""
    with backends.use_backend(backend):
        function = getattr(backends.current(), case.operation)
    values = tuple(arguments.values())
    written = [name for name in (*case.outputs, *case.in_place) if arguments[name] is not None]

    def run():
        loss = function(*values)
        return {"loss": loss, **{name: arguments[name] for name in written}}

    return run


def agree(results, reference):
    """Most elements are the same to a few digits: enough to see that the work is the same.

    Most, since XLA reads subnormal numbers as zeros, a tenth of those that `log` is given.
    """
    for name, values in results.items():
        if name != "loss" or values is not None:
            close = np.isclose(values, reference[name], rtol=1e-3, atol=1e-4, equal_nan=True)
            assert close.mean() > 0.9, name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("case", "library"), list(contestants()))
def bench_operation(benchmark, record, case, library, dtype):
    def arguments():
        return case.make(dtype, case.sizes[-1], np.random.default_rng(0))

    if library in BACKENDS:
        run = kernel(BACKENDS[library], case, arguments())
    else:
        run = operations.make(library, case, arguments())
    size = case.size_name(case.sizes[-1])
    tables = [f"ops-{dtype}"]
    if case.name in SELECTED and dtype == np.float32:
        tables.append("ops")
    record(tables, f"`{case}` {size}", library)
    with np.errstate(
        all="ignore"
    ):  # to warn at each infinity would cost NumPy more than to compute
        agree(run(), kernel("reference", case, arguments())())
        benchmark(run)
