"""The one table of operations: inputs, domain and tolerance, for parity tests and benchmarks.

`CASES` holds every operation of `fastdl.backends.OPERATIONS` with every activation and every option
that changes the code that runs. A test or a benchmark goes through it like this::

    for case in CASES:
        for size in case.sizes:
            arguments = case.make(dtype, size, np.random.default_rng(0))
            result = getattr(backend, case.operation)(*arguments.values())
            wanted = case.tolerance[np.dtype(dtype)]

`make` gives all arguments by the kernel's parameter names and in its order. Arrays named in
`outputs` come filled with NaN (int64: the least number), and the kernel must write each element;
those in `in_place` are read and updated; all
others stay as they are. The first size in `sizes` has no rows where the operation allows that; the
last is the largest and the one to time. `aliases` lists pairs (written, read) of arguments that may
be one array.

`tolerance` bounds the distance to the reference, `relative * |reference| + absolute` for each
element and the returned loss alike; (0, 0) asks for equal numbers. Its `reason` says why no less is
asked for. The bounds count rounding of operands of order one: that is why `make` scales weights and
gradients so that sums stay of order one at every size.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fastdl import reference

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True)
class Tolerance:
    relative: float
    absolute: float
    reason: str

    def assert_close(self, actual, expected, message=""):
        np.testing.assert_allclose(
            actual, expected, rtol=self.relative, atol=self.absolute, err_msg=message
        )


@dataclass(frozen=True)
class Case:
    name: str
    operation: str
    domain: str
    dimensions: tuple[str, ...]
    sizes: tuple[tuple[int, ...], ...]
    make: Callable[[np.dtype, tuple[int, ...], np.random.Generator], dict[str, object]]
    outputs: tuple[str, ...]
    tolerance: dict[np.dtype, Tolerance]
    in_place: tuple[str, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()

    def __str__(self):
        return self.name

    def size_name(self, size):
        """A size in words, for test and benchmark ids: 'B=3,O=17'."""
        return ",".join(f"{name}={n}" for name, n in zip(self.dimensions, size, strict=True))


def rounding(relative, absolute, reason):
    """A tolerance for each dtype, in units of its machine epsilon.

    Some subnormal steps are always allowed: below the normal range epsilon says nothing.
    """
    return {
        dtype: Tolerance(
            relative * float(np.finfo(dtype).eps),
            absolute * float(np.finfo(dtype).eps) + 4 * float(np.finfo(dtype).smallest_subnormal),
            reason,
        )
        for dtype in DTYPES
    }


def exact(reason):
    return {dtype: Tolerance(0.0, 0.0, reason) for dtype in DTYPES}


# ------------------------------------------------------------------------------------- ingredients


def _unwritten(shape, dtype):
    dtype = np.dtype(dtype)
    return np.full(shape, np.nan if dtype.kind == "f" else np.iinfo(dtype).min, dtype)


def _normal(rng, shape, dtype, scale=1.0):
    return (scale * rng.standard_normal(shape)).astype(dtype)


def _with_specials(values, largest, rng):
    """Scatter NaN and, with both signs, 0, subnormals and the largest numbers among many values."""
    info = np.finfo(values.dtype)
    magnitudes = np.array([0, 1, info.smallest_subnormal, info.tiny, info.eps, *largest])
    specials = [*magnitudes, *-magnitudes, np.nan]
    if values.size > 2 * len(specials):
        values.flat[rng.choice(values.size, len(specials), replace=False)] = specials
    return values


def _one_hot(rng, rows, classes, dtype):
    return np.eye(classes, dtype=dtype)[rng.integers(classes, size=rows)]


def _logits(rng, shape, dtype):
    """Logits of order one with some large ones, where naive formulas overflow or give log(0)."""
    logits = _normal(rng, shape, dtype, 3.0)
    logits.flat[::11] *= 200
    return logits


def _probabilities(rng, shape, dtype):
    """Numbers in [0.001, 0.999] with some exact zeros and ones, which are clipped."""
    probabilities = rng.uniform(0.001, 0.999, shape).astype(dtype)
    probabilities.flat[::11] = 0
    probabilities.flat[5::11] = 1
    return probabilities


# ---------------------------------------------------------------------------- elementwise functions


def _uniform(low, high):
    """Uniform between bounds given for each dtype as (float32, float64)."""

    def sample(dtype, n, rng):
        kind = DTYPES.index(dtype)
        return rng.uniform(low[kind], high[kind], n)

    return sample


def _magnitudes(low, high, signed):
    """Numbers spread evenly over the powers of ten between bounds given for each dtype."""

    def sample(dtype, n, rng):
        kind = DTYPES.index(dtype)
        values = 10.0 ** rng.uniform(low[kind], high[kind], n)
        return values * rng.choice([-1.0, 1.0], n) if signed else values

    return sample


def _elementwise_case(operation, domain, sample):
    def make(dtype, size, rng):
        values = sample(dtype, *size, rng).astype(dtype)
        inputs = _with_specials(values, (np.finfo(dtype).max, np.inf), rng)
        return {"inputs": inputs, "outputs": _unwritten(size, dtype)}

    return Case(
        name=operation,
        operation=operation,
        domain=f"{domain}; zeros, infinities, NaN, subnormals",
        dimensions=("n",),
        sizes=((0,), (1,), (7,), (129,), (10007,)),
        make=make,
        outputs=("outputs",),
        aliases=(("outputs", "inputs"),),
        tolerance=rounding(8, 0, "NumPy is off by up to 4 ulp, the kernels by up to 2"),
    )


def _elementwise_cases():
    yield _elementwise_case("exp", "results from 0 to infinity", _uniform((-105, -746), (90, 711)))
    yield _elementwise_case("log", "all magnitudes", _magnitudes((-45, -323), (38, 308), False))
    yield _elementwise_case("log1p", "all magnitudes", _magnitudes((-45, -323), (38, 308), True))
    yield _elementwise_case("expm1", "all magnitudes", _magnitudes((-45, -323), (2, 2.8), True))
    yield _elementwise_case("tanh", "all magnitudes", _magnitudes((-45, -323), (2, 2), True))
    yield _elementwise_case("sigmoid", "both tails", _uniform((-100, -740), (100, 740)))


# ------------------------------------------------------------------------------------- activations

# The largest input: silu's and gelu's formulas at infinity are inf * 0.
_LARGE = 1e4

# What leaky_relu and elu are tried with; the others must not care.
_SLOPES = {reference.LEAKY_RELU: 0.2, reference.ELU: 1.3}


def _activation_cases():
    sizes = ((0, 5), (1, 1), (3, 17), (33, 129), (256, 128))
    for activation, name in enumerate(reference.ACTIVATIONS):
        slope = _SLOPES.get(activation, 0.0)

        def forward(dtype, size, rng, activation=activation, slope=slope):
            return {
                "inputs": _with_specials(_normal(rng, size, dtype, 3.0), (_LARGE,), rng),
                "activation": activation,
                "slope": slope,
                "outputs": _unwritten(size, dtype),
            }

        def backward(dtype, size, rng, activation=activation, slope=slope):
            inputs = _with_specials(_normal(rng, size, dtype, 3.0), (_LARGE,), rng)
            outputs = np.empty_like(inputs)
            reference.activation_forward(inputs, activation, slope, outputs)
            return {
                "inputs": inputs,
                "outputs": outputs,
                "grad_outputs": _normal(rng, size, dtype),
                "activation": activation,
                "slope": slope,
                "grad_inputs": _unwritten(size, dtype),
            }

        copies = activation in (reference.LINEAR, reference.RELU)
        yield Case(
            name=f"activation_forward[{name}]",
            operation="activation_forward",
            domain="normal, deviation 3; zeros, 1e4, NaN, subnormals",
            dimensions=("B", "O"),
            sizes=sizes,
            make=forward,
            outputs=("outputs",),
            aliases=(("outputs", "inputs"),),
            tolerance=exact("a choice between the input and 0")
            if copies
            else rounding(16, 8, "a few rounded steps; sums over a row in another order"),
        )
        yield Case(
            name=f"activation_backward[{name}]",
            operation="activation_backward",
            domain="normal, deviation 3; zeros, 1e4, NaN, subnormals",
            dimensions=("B", "O"),
            sizes=sizes,
            make=backward,
            outputs=("grad_inputs",),
            aliases=(("grad_inputs", "grad_outputs"),),
            tolerance=exact("a choice between the gradient and 0")
            if copies
            else rounding(16, 32, "a few rounded steps; sums over a row in another order"),
        )


# ------------------------------------------------------------------------------------ dense layers

_PRODUCT_REASON = "sums over up to 784 terms in another order, with or without fused multiply-add"


def _matmul_cases():
    for transpose_left, transpose_right in itertools.product((False, True), repeat=2):

        def make(dtype, size, rng, flags=(transpose_left, transpose_right)):
            rows, depth, columns = size
            left_shape = (depth, rows) if flags[0] else (rows, depth)
            right_shape = (columns, depth) if flags[1] else (depth, columns)
            return {
                "left": _normal(rng, left_shape, dtype),
                "right": _normal(rng, right_shape, dtype, 1 / math.sqrt(depth or 1)),
                "transpose_left": flags[0],
                "transpose_right": flags[1],
                "outputs": _unwritten((rows, columns), dtype),
            }

        sides = ("left" * transpose_left, "right" * transpose_right)
        yield Case(
            name=f"matmul[{'-'.join(filter(None, sides)) or 'plain'}]",
            operation="matmul",
            domain="normal, scaled to results of order one",
            dimensions=("M", "K", "N"),
            sizes=(
                (0, 3, 5),
                (3, 0, 5),
                (1, 1, 1),
                (1, 17, 33),
                (3, 17, 1),
                (17, 33, 3),
                (33, 3, 129),
                (5, 600, 1),
                (13, 600, 37),
                (129, 129, 129),
                (32, 784, 128),
            ),
            make=make,
            outputs=("outputs",),
            tolerance=rounding(32, 64, _PRODUCT_REASON),
        )


def _dense_arguments(dtype, size, rng, activation):
    rows, inputs, outputs = size
    return {
        "inputs": _normal(rng, (rows, inputs), dtype),
        "weights": _normal(rng, (inputs, outputs), dtype, 1 / math.sqrt(inputs)),
        "bias": _normal(rng, (outputs,), dtype),
        "activation": activation,
        "slope": _SLOPES.get(activation, 0.0),
        "preactivations": _unwritten((rows, outputs), dtype),
        "outputs": _unwritten((rows, outputs), dtype),
    }


def _dense_cases():
    small = ((0, 3, 5), (1, 1, 1), (3, 17, 33), (33, 129, 17))
    more = ((1, 784, 128), (17, 2, 1), (129, 33, 3), (13, 600, 37), (7, 600, 10), (128, 784, 128))
    for activation, name in enumerate(reference.ACTIVATIONS):

        def forward(dtype, size, rng, activation=activation):
            return _dense_arguments(dtype, size, rng, activation)

        def backward(dtype, size, rng, activation=activation, first_layer=False):
            forward = _dense_arguments(dtype, size, rng, activation)
            reference.dense_forward(**forward)
            rows, inputs, outputs = size
            return {
                "inputs": forward["inputs"],
                "weights": forward["weights"],
                "preactivations": forward["preactivations"],
                "outputs": forward["outputs"],
                "grad_outputs": _normal(rng, (rows, outputs), dtype, 1 / math.sqrt(rows or 1)),
                "activation": activation,
                "slope": forward["slope"],
                "grad_preactivations": _unwritten((rows, outputs), dtype),
                "grad_inputs": None if first_layer else _unwritten((rows, inputs), dtype),
                "grad_weights": _unwritten((inputs, outputs), dtype),
                "grad_bias": _unwritten((outputs,), dtype),
            }

        def first_backward(dtype, size, rng, backward=backward):
            return backward(dtype, size, rng, first_layer=True)

        sizes = small + more if activation in (reference.LINEAR, reference.RELU) else small
        needs_preactivations = activation in (reference.SILU, reference.GELU)
        yield Case(
            name=f"dense_forward[{name}]",
            operation="dense_forward",
            domain="normal, weights scaled to results of order one",
            dimensions=("B", "I", "O"),
            sizes=sizes,
            make=forward,
            outputs=("preactivations", "outputs"),
            aliases=() if needs_preactivations else (("preactivations", "outputs"),),
            tolerance=rounding(32, 64, _PRODUCT_REASON),
        )
        variants = {name: backward}
        if activation == reference.RELU:
            variants["relu-first_layer"] = first_backward
        for variant, make in variants.items():
            grad_inputs = () if make is first_backward else ("grad_inputs",)
            yield Case(
                name=f"dense_backward[{variant}]",
                operation="dense_backward",
                domain="normal, scaled to gradients of order one",
                dimensions=("B", "I", "O"),
                sizes=sizes,
                make=make,
                outputs=("grad_preactivations", *grad_inputs, "grad_weights", "grad_bias"),
                aliases=(("grad_preactivations", "grad_outputs"),),
                tolerance=rounding(32, 64, _PRODUCT_REASON),
            )


# ------------------------------------------------------------------------------------------ losses


def _weights(rng, rows, dtype, weighted):
    return rng.uniform(0, 2, rows).astype(dtype) if weighted else None


def _crossentropy_cases():
    def binary_targets(rng, rows, outputs, dtype):
        return rng.integers(0, 2, (rows, outputs)).astype(dtype)

    def labels(rng, rows, classes, dtype):
        return rng.integers(0, classes, rows)

    for operation, make_targets in (
        ("binary_crossentropy", binary_targets),
        ("categorical_crossentropy", _one_hot),
        ("sparse_categorical_crossentropy", labels),
    ):
        for from_logits, weighted, label_smoothing in itertools.product(
            (True, False), (False, True), (0.0, 0.1)
        ):

            def make(
                dtype,
                size,
                rng,
                make_targets=make_targets,
                from_logits=from_logits,
                weighted=weighted,
                label_smoothing=label_smoothing,
            ):
                predictions = _logits if from_logits else _probabilities
                return {
                    "targets": make_targets(rng, *size, dtype),
                    "predictions": predictions(rng, size, dtype),
                    "sample_weight": _weights(rng, size[0], dtype, weighted),
                    "from_logits": from_logits,
                    "label_smoothing": label_smoothing,
                    "gradients": _unwritten(size, dtype),
                }

            words = ["logits" if from_logits else "probabilities"]
            words += ["weights"] * weighted + ["smoothing"] * bool(label_smoothing)
            yield Case(
                name=f"{operation}[{'-'.join(words)}]",
                operation=operation,
                domain="logits to +-1800" if from_logits else "0, 1 and [0.001, 0.999]",
                dimensions=("B", "O"),
                # A single probability of 0 divided by its sum is 0/0: one class needs logits.
                sizes=((0, 5), (1, 1 if from_logits else 2), (3, 17), (33, 129), (128, 10)),
                make=make,
                outputs=("gradients",),
                tolerance=rounding(16, 4, "an error of 2 ulp in the logits' exponential")
                if from_logits
                else rounding(16, 128, "1/p, up to 1000, less its mean over the row"),
            )


def _regression_cases():
    for operation, weighted in itertools.product(
        ("mean_squared_error", "mean_absolute_error", "huber", "poisson"), (False, True)
    ):

        def make(dtype, size, rng, operation=operation, weighted=weighted):
            targets = _normal(rng, size, dtype)
            predictions = targets + _normal(rng, size, dtype)
            predictions.flat[::7] = targets.flat[::7]  # where the absolute error has its corner
            if operation == "poisson":
                targets = np.abs(targets)
                targets.flat[::3] = 0  # whose logarithm does not count
            return {
                "targets": targets,
                "predictions": predictions,
                "sample_weight": _weights(rng, size[0], dtype, weighted),
                **({"delta": 0.8} if operation == "huber" else {}),
                "gradients": _unwritten(size, dtype),
            }

        yield Case(
            name=f"{operation}[{'weights' if weighted else 'plain'}]",
            operation=operation,
            domain="normal, some predictions exactly right",
            dimensions=("B", "O"),
            sizes=((0, 5), (1, 1), (3, 17), (33, 129), (256, 128)),
            make=make,
            outputs=("gradients",),
            tolerance=rounding(8, 64, "an error of 2 ulp in the exponential, less the target")
            if operation == "poisson"
            else rounding(8, 0, "a few rounded steps"),
        )


# ---------------------------------------------------------------------------------- random numbers


def _random_cases():
    for rate in (0.0, 0.3, 0.5, 1.0):

        def make(dtype, size, rng, rate=rate):
            inputs = _normal(rng, size, dtype)
            inputs.flat[::13] = np.inf  # 0 where dropped, not NaN
            return {
                "inputs": inputs,
                "rate": rate,
                "seed": 2**64 - 3,
                "step": 5,
                "layer": 2,
                "outputs": _unwritten(size, dtype),
            }

        yield Case(
            name=f"dropout[{rate}]",
            operation="dropout",
            domain="normal and infinite",
            dimensions=("B", "O"),
            sizes=((0, 5), (1, 1), (3, 17), (33, 129), (256, 128)),
            make=make,
            outputs=("outputs",),
            aliases=(("outputs", "inputs"),),
            tolerance=exact("integer arithmetic and one product"),
        )

    def make_permutation(dtype, size, rng):
        return {"seed": 2**63 + 11, "epoch": 3, "outputs": _unwritten(size, np.int64)}

    yield Case(
        name="permutation",
        operation="permutation",
        domain="no inputs",
        dimensions=("n",),
        sizes=((0,), (1,), (2,), (17,), (129,), (10000,)),
        make=make_permutation,
        outputs=("outputs",),
        tolerance=exact("integer arithmetic"),
    )


# ------------------------------------------------------------------------------- optimizer updates


def _update_case(operation, variant, make, in_place, tolerance):
    return Case(
        name=f"{operation}[{variant}]",
        operation=operation,
        domain="normal, optimizer state as after some steps",
        dimensions=("n",),
        sizes=((0,), (1,), (7,), (129,), (10007,)),
        make=make,
        outputs=(),
        in_place=in_place,
        tolerance=tolerance,
    )


def _update_cases():
    few_steps = rounding(8, 8, "a few rounded steps, with or without fused multiply-add")
    whole_sum = rounding(64, 8, "a float64 sum over all elements in another order")
    for weight_decay, (variant, momentum, nesterov) in itertools.product(
        (0.0, 0.01),
        (("plain", 0.0, False), ("momentum", 0.9, False), ("nesterov", 0.9, True)),
    ):

        def sgd(dtype, size, rng, options=(momentum, nesterov, weight_decay)):
            return {
                "parameters": _normal(rng, size, dtype),
                "gradients": _normal(rng, size, dtype),
                "velocity": _normal(rng, size, dtype) if options[0] else None,
                "learning_rate": 0.05,
                "momentum": options[0],
                "nesterov": options[1],
                "weight_decay": options[2],
            }

        yield _update_case(
            "sgd_update",
            variant + "-decay" * bool(weight_decay),
            sgd,
            ("parameters", "velocity") if momentum else ("parameters",),
            few_steps,
        )

    for weight_decay in (0.0, 0.01):

        def rmsprop(dtype, size, rng, weight_decay=weight_decay):
            return {
                "parameters": _normal(rng, size, dtype),
                "gradients": _normal(rng, size, dtype),
                "mean_square": _normal(rng, size, dtype) ** 2,
                "learning_rate": 0.05,
                "rho": 0.9,
                "epsilon": 1e-7,
                "weight_decay": weight_decay,
            }

        def adam(dtype, size, rng, weight_decay=weight_decay):
            return {
                "parameters": _normal(rng, size, dtype),
                "gradients": _normal(rng, size, dtype),
                "first_moment": _normal(rng, size, dtype, 0.3),
                "second_moment": _normal(rng, size, dtype) ** 2 + dtype.type(0.1),
                "learning_rate": 0.05,
                "beta_1": 0.9,
                "beta_2": 0.999,
                "epsilon": 1e-7,
                "step": 7,
                "weight_decay": weight_decay,
            }

        variant = "decay" if weight_decay else "plain"
        state = ("parameters", "mean_square")
        yield _update_case("rmsprop_update", variant, rmsprop, state, few_steps)
        state = ("parameters", "first_moment", "second_moment")
        yield _update_case("adam_update", variant, adam, state, few_steps)

    for variant, l1, l2 in (("l1", 0.01, 0.0), ("l2", 0.0, 0.02), ("both", 0.01, 0.02)):

        def penalty(dtype, size, rng, l1=l1, l2=l2):
            parameters = _normal(rng, size, dtype)
            parameters[::7] = 0  # where |w| has its corner
            return {
                "parameters": parameters,
                "l1": l1,
                "l2": l2,
                "gradients": _normal(rng, size, dtype),
            }

        yield _update_case("add_penalty", variant, penalty, ("gradients",), whole_sum)


# --------------------------------------------------------------------------------- features, loops


def _feature_cases():
    def make(dtype, size, rng):
        rows, inputs = size
        columns = 2 * inputs + inputs * (inputs - 1) // 2 + 1
        return {
            "inputs": _normal(rng, size, dtype),
            "outputs": _unwritten((rows, columns), dtype),
        }

    yield Case(
        name="quadratic_features",
        operation="quadratic_features",
        domain="normal",
        dimensions=("B", "I"),
        sizes=((0, 2), (1, 1), (3, 2), (33, 17), (826, 2)),
        make=make,
        outputs=("outputs",),
        tolerance=exact("copies and single products"),
    )


def _logistic_cases():
    for (method, name), recorded in itertools.product(
        enumerate(reference.DESCENT_METHODS), (False, True)
    ):

        def make(dtype, size, rng, method=method, recorded=recorded):
            rows, features, steps, batch = size
            inputs = _normal(rng, (rows, features), dtype)
            return {
                "inputs": inputs,
                "targets": rng.integers(0, 2, rows).astype(dtype),
                "weights": _normal(rng, (features,), dtype),
                "batches": rng.integers(0, rows, (steps, batch)),
                "method": method,
                "learning_rate": 0.05,
                "decay": 0.9,
                "epsilon": 1e-8,
                "state": np.zeros(features, dtype),
                "columns": np.ascontiguousarray(inputs.T) if recorded else None,
                "losses": _unwritten((steps,), dtype) if recorded else None,
                "history": _unwritten((steps + 1, features), dtype) if recorded else None,
            }

        yield Case(
            name=f"logistic_descent[{name}{'-recorded' * recorded}]",
            operation="logistic_descent",
            domain="normal features, random labels",
            dimensions=("n", "I", "steps", "batch"),
            sizes=((5, 6, 0, 4), (1, 1, 3, 1), (17, 3, 5, 33), (129, 33, 9, 70), (826, 6, 100, 4)),
            make=make,
            outputs=("losses", "history") if recorded else (),
            in_place=("weights", "state"),
            tolerance=rounding(32, 32, "rounding carried through up to 100 steps")
            if method != reference.RMSPROP
            else rounding(32, 256, "g / sqrt(s + 1e-8) multiplies the rounding of a small g"),
        )


def _planar_cases():
    for networks, threads in ((1, 1), (1, 2), (3, 2)):

        def make(dtype, size, rng, networks=networks, threads=threads):
            n_x, n_y, samples, iterations = size
            hidden_sizes = np.array((4, 1, 20)[:networks])
            cost_every = 10
            parameters = [
                part
                for n_h in hidden_sizes
                for part in (
                    _normal(rng, n_h * n_x, dtype),
                    np.zeros(n_h, dtype),
                    _normal(rng, n_y * n_h, dtype),
                    np.zeros(n_y, dtype),
                )
            ]
            return {
                "inputs": _normal(rng, (n_x, samples), dtype),
                "targets": rng.integers(0, 2, (n_y, samples)).astype(dtype),
                "hidden_sizes": hidden_sizes,
                "parameters": np.concatenate(parameters),
                "learning_rate": 1.2,
                "iterations": iterations,
                "cost_every": cost_every,
                "threads": threads,
                "costs": _unwritten((networks, -(-iterations // cost_every)), np.float64),
            }

        yield Case(
            name=f"planar_descent[{networks}, threads={threads}]",
            operation="planar_descent",
            domain="normal points, random labels",
            dimensions=("n_x", "n_y", "m", "iterations"),
            sizes=((2, 1, 5, 0), (1, 1, 1, 3), (3, 2, 33, 11), (2, 1, 129, 21), (2, 1, 400, 50)),
            make=make,
            outputs=("costs",),
            in_place=("parameters",),
            tolerance=rounding(32, 64, "rounding carried through up to 50 iterations"),
        )


CASES = (
    *_elementwise_cases(),
    *_activation_cases(),
    *_matmul_cases(),
    *_dense_cases(),
    *_crossentropy_cases(),
    *_regression_cases(),
    *_random_cases(),
    *_update_cases(),
    *_feature_cases(),
    *_logistic_cases(),
    *_planar_cases(),
)
