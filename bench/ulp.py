"""Measure the largest error of fastdl's elementary functions, in units in the last place.

    python bench/ulp.py                  the CPU level in use
    python bench/ulp.py --all-levels     each level that this CPU supports and fastdl was built for

float32 results are compared with NumPy's float64 functions, float64 results with its long double
ones (where that type is wider than float64). The unit is the spacing of floating-point numbers at
the correctly rounded result, so a correctly rounded function scores at most 0.5. A NaN, an infinity
or the sign of a zero that should or should not be there counts as an infinite error. Exits with 1
where a function of `BOUNDED` is more than `LIMIT` off.
"""

import argparse
import functools
import os
import subprocess
import sys

import numpy as np

import fastdl
from fastdl import backends, ops

LIMIT = 2.0
BOUNDED = ("exp", "expm1", "log", "log1p", "tanh", "sigmoid")
INFORMATIVE = ("softplus", "silu", "gelu")

# Points are computed in pieces of this many, which stay in the cache.
CHUNK = 1 << 16


# ---------------------------------------------------------------------------------- exact results
#
# Each takes and returns arrays of the wide type, which has more bits in the exponent too: where the
# narrow type overflows or loses bits to subnormals, these do not.


def exact_sigmoid(x):
    return 1 / (1 + np.exp(-x))


def exact_softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def exact_silu(x):
    return x * exact_sigmoid(x)


def exact_gelu(x):
    if x.dtype == np.float64:
        from scipy.special import ndtr

        return x * ndtr(x)
    import mpmath

    with mpmath.workprec(100):
        inputs = [mpmath.mpf(value) for value in x.astype(np.float64).tolist()]
        values = [value * mpmath.erfc(-value / mpmath.sqrt(2)) / 2 for value in inputs]
        high = [float(value) for value in values]
        low = [float(value - part) for value, part in zip(values, high, strict=True)]
    # mpmath has no negative zero.
    return np.copysign(np.array(high, x.dtype) + np.array(low, x.dtype), x)


EXACT = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "sigmoid": exact_sigmoid,
    "softplus": exact_softplus,
    "silu": exact_silu,
    "gelu": exact_gelu,
}


# ----------------------------------------------------------------------------------------- points


def special_points(dtype):
    """Zeros, infinities, NaN, the largest and smallest numbers, and their neighbours."""
    limits = np.finfo(dtype)
    positive = [0, limits.smallest_subnormal, limits.tiny, limits.eps, 1, limits.max, np.inf]
    points = np.array([*positive, np.nan], dtype)
    with np.errstate(over="ignore", under="ignore"):
        neighbours = [np.nextafter(points, dtype(1)), np.nextafter(points, dtype(np.inf))]
    points = np.concatenate([points, *neighbours])
    return np.concatenate([points, -points])


def any_bits(rng, count, dtype):
    """Random bit patterns: every exponent alike, subnormals, infinities and NaN included."""
    unsigned = f"u{np.dtype(dtype).itemsize}"
    return rng.integers(0, np.iinfo(unsigned).max, count, unsigned, endpoint=True).view(dtype)


def subnormals(rng, count, dtype):
    unsigned = f"u{np.dtype(dtype).itemsize}"
    return rng.integers(0, 1 << np.finfo(dtype).nmant, count, unsigned).view(dtype) * rng.choice(
        np.array([-1, 1], dtype), count
    )


def small(rng, count, dtype):
    """Both signs, all magnitudes from 1 down to eps**2, below which the functions are linear."""
    lowest = 2 * np.log2(np.finfo(dtype).eps)
    return (np.exp2(rng.uniform(lowest, 0, count)) * rng.choice([-1, 1], count)).astype(dtype)


def around(rng, count, dtype, centre):
    """The `count` floating-point numbers nearest to `centre`."""
    unsigned = f"u{np.dtype(dtype).itemsize}"
    middle = np.array(abs(centre), dtype).view(unsigned)
    steps = np.arange(count, dtype=unsigned) - np.array(count // 2, unsigned)
    return np.copysign((middle + steps).view(dtype), dtype(centre))


def uniform(rng, count, dtype, low, high):
    return rng.uniform(low, high, count).astype(dtype)


def edges(name, dtype):
    """Where a function overflows, loses bits to subnormals, becomes zero or reaches its limit."""
    limits = np.finfo(dtype)
    overflow = float(np.log(limits.max))
    subnormal = float(np.log(limits.tiny))
    zero = float(np.log(limits.smallest_subnormal)) - np.log(2)
    saturation = float(-np.log(limits.epsneg)) + np.log(2)
    return {
        "exp": [overflow, subnormal, zero, 1, -1],
        "expm1": [overflow, -saturation, np.log(2), -np.log(2)],
        "log": [1, 0.5, 2, np.sqrt(2), np.sqrt(0.5), limits.tiny, limits.max],
        "log1p": [-1, -0.5, 1, np.sqrt(2) - 1, np.sqrt(0.5) - 1, limits.max],
        "tanh": [saturation / 2, -saturation / 2, 0.625, 1, -1],
        "sigmoid": [saturation, -saturation, -overflow, subnormal, zero],
        "softplus": [saturation, -saturation, subnormal, zero],
        "silu": [saturation, subnormal, zero],
        "gelu": [-8, 8, 1, -1],
    }[name]


def points(name, dtype, count):
    """About `count` inputs of the function: the whole range, and densely where it is hard."""
    rng = np.random.default_rng(0)
    low, high = np.log(np.finfo(dtype).smallest_subnormal) - 5, np.log(np.finfo(dtype).max) + 5
    generators = [any_bits, subnormals, small]
    if name.startswith("log"):
        around_one = name == "log"
        generators += [
            lambda rng, count, dtype: small(rng, count, dtype) + dtype(around_one),
            lambda rng, count, dtype: np.abs(any_bits(rng, count, dtype)),
            lambda rng, count, dtype: uniform(rng, count, dtype, around_one - 1, 4),
        ]
    else:
        generators += [
            lambda rng, count, dtype: uniform(rng, count, dtype, low, high),
            lambda rng, count, dtype: uniform(rng, count, dtype, -20, 20),
            lambda rng, count, dtype: uniform(rng, count, dtype, -1, 1),
        ]
    generators += [functools.partial(around, centre=centre) for centre in edges(name, dtype)]
    share = -(-count // len(generators))
    inputs = np.concatenate(
        [special_points(dtype), *(generate(rng, share, dtype) for generate in generators)]
    )
    # Beyond 1000 these two are x or 0, but NaN at -inf by the way in which they are written.
    return inputs[np.abs(inputs) < 1000] if name in ("silu", "gelu") else inputs


# ----------------------------------------------------------------------------------------- errors


def ulp_error(results, exact):
    """The distance of `results` from `exact` (of a wider type) in units in the last place."""
    dtype = results.dtype
    largest = np.finfo(dtype).max
    coarsest = 2 * np.spacing(largest / 2)  # np.spacing gives infinity or NaN for the ends
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        rounded = exact.astype(dtype)
        unit = np.fmin(np.spacing(np.abs(rounded)), coarsest).astype(exact.dtype)
        # Infinity stands where the next number after the largest would be.
        beyond = exact.dtype.type(largest) + coarsest
        value = np.where(np.isinf(results), np.copysign(beyond, results), results)
        target = np.clip(exact, -beyond, beyond)
        error = np.abs(value - target) / unit
    error[np.isinf(rounded) & (results == rounded)] = 0
    error[np.isnan(exact) & np.isnan(results)] = 0
    error[np.isnan(exact) != np.isnan(results)] = np.inf
    error[(exact == 0) & (np.signbit(results) != np.signbit(exact))] = np.inf
    return error.astype(np.float64)


def largest_error(name, dtype, count):
    """(number of points, largest error in ulp, the input that has it)."""
    wide = np.float64 if dtype == np.float32 else np.longdouble
    inputs = points(name, dtype, count)
    function = getattr(ops, name)
    worst, where = -1.0, None
    with np.errstate(all="ignore"):
        for start in range(0, len(inputs), CHUNK):
            piece = inputs[start : start + CHUNK]
            error = ulp_error(function(piece), EXACT[name](piece.astype(wide)))
            index = int(np.argmax(error))
            if not error[index] <= worst:
                worst, where = float(error[index]), piece[index]
    return len(inputs), worst, where


def measure(names, count):
    """Print a line for each function and dtype; return whether the bounded ones are in bounds."""
    print(f"CPU level {backends.cpu_level()}, backend {fastdl.get_backend()}")
    print(f"{'function':<10}{'dtype':<9}{'points':>12}{'ulp':>9}   at")
    fine = True
    for name in names:
        for dtype in (np.float32, np.float64):
            # mpmath, the only oracle of the error function wider than float64, is a slow one.
            slow = name == "gelu" and dtype == np.float64
            number, worst, where = largest_error(name, dtype, min(count, 20_000) if slow else count)
            remark = ""
            if name not in BOUNDED:
                remark = "  (not bounded)"
            elif not worst <= LIMIT:
                remark, fine = f"  more than {LIMIT:g}", False
            line = f"{name:<10}{np.dtype(dtype).name:<9}{number:>12,}{worst:>9.3f}"
            print(f"{line}   {where!r}{remark}", flush=True)
    return fine


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("functions", nargs="*", metavar="FUNCTION", help="all, if none is named")
    parser.add_argument("--points", type=int, default=10_000_000, help="for each function, dtype")
    parser.add_argument("--all-levels", action="store_true", help="in a process for each CPU level")
    options = parser.parse_args(arguments)
    unknown = set(options.functions) - set(EXACT)
    if unknown:
        parser.error(f"no such function: {', '.join(sorted(unknown))}")
    if np.finfo(np.longdouble).nmant <= np.finfo(np.float64).nmant:
        parser.error("long double is no wider than float64 on this machine")
    if not options.all_levels:
        return 0 if measure(options.functions or EXACT, options.points) else 1
    levels = [
        level for level in backends.built_cpu_levels() if level in backends.supported_cpu_levels()
    ]
    command = [sys.executable, __file__, *options.functions, f"--points={options.points}"]
    codes = [
        subprocess.run(command, env={**os.environ, "FASTDL_CPU": level}, check=False).returncode
        for level in levels
    ]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
