"""Print the polynomial coefficients of fastdl/_math.h: minimax fits by Remez's exchange in mpmath.

Each fit minimises the largest error of a polynomial p on an interval, weighted so that it is the
relative error of the function computed from p. Run it to see where the numbers come from:

    python tools/fit_polynomials.py
"""

import struct

import mpmath as mp

mp.mp.prec = 200
LN2 = mp.log(2)


def remez(function, weight, low, high, degree, sweeps=12):
    """Coefficients, lowest first, and error of the weighted minimax polynomial on [low, high]."""
    count = degree + 2
    nodes = [
        (low + high) / 2 + (high - low) / 2 * mp.cos(mp.pi * (2 * i + 1) / (2 * count))
        for i in range(count)
    ]
    grid = [
        (low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * i / (40 * count))
        for i in range(40 * count + 1)
    ]
    values = [(x, function(x), weight(x)) for x in grid]
    for _ in range(sweeps):
        matrix, right = mp.matrix(count, count), mp.matrix(count, 1)
        for i, x in enumerate(nodes):
            for j in range(degree + 1):
                matrix[i, j] = x**j
            matrix[i, degree + 1] = (-1) ** i / weight(x)
            right[i] = function(x)
        solution = mp.lu_solve(matrix, right)
        coefficients = [solution[j] for j in range(degree + 1)]
        errors = [(x, (f - mp.polyval(coefficients[::-1], x)) * w) for x, f, w in values]
        extrema, run = [], [errors[0]]
        for point in errors[1:]:
            if (point[1] > 0) == (run[-1][1] > 0):
                run.append(point)
            else:
                extrema.append(max(run, key=lambda p: abs(p[1])))
                run = [point]
        extrema.append(max(run, key=lambda p: abs(p[1])))
        if len(extrema) < count:
            break
        while len(extrema) > count:
            extrema.pop(0 if abs(extrema[0][1]) < abs(extrema[-1][1]) else -1)
        nodes = [x for x, _ in extrema]
    return coefficients, max(abs(e) for _, e in errors)


def taylor_safe(function, series, small="1e-12"):
    """`function`, replaced by its series near 0, where it is a quotient of small numbers."""
    return lambda x: series(x) if abs(x) < mp.mpf(small) else function(x)


def show(name, fit):
    coefficients, error = fit
    print(f"{name}: relative error 2**{float(mp.log(error, 2)):.1f}")
    for c in coefficients:
        print(f"    {float(c)!r},  /* {float(c).hex()} */")


def main():
    # exp(r) = 1 + r + r**2 * q(r), also used as expm1(r) = r + r**2 * q(r): relative to expm1.
    half = LN2 / 2 * mp.mpf("1.0001")
    q = taylor_safe(lambda r: (mp.expm1(r) - r) / r**2, lambda r: mp.mpf(1) / 2 + r / 6)
    weight = taylor_safe(lambda r: abs(r**2 / mp.expm1(r)), lambda r: abs(r) + mp.mpf("1e-30"))
    for name, degree in (("exp, float", 5), ("exp, double", 10)):
        show(f"{name}, degree {degree}", remez(q, weight, -half, half, degree))

    # 2**r = 1 + r * p(r) for |r| <= 1/32, beside a table of the sixteenth powers of 2.
    power = taylor_safe(lambda r: (mp.mpf(2) ** r - 1) / r, lambda r: LN2 + LN2**2 / 2 * r)
    bound = mp.mpf("1.0001") / 32
    fit = remez(power, lambda r: abs(r) + mp.mpf("1e-30"), -bound, bound, 5)
    show("power of two on 1/32, double, degree 5", fit)
    print("its table, 2**(i/16) less i << 48 in the bits:")
    for i in range(16):
        bits = struct.unpack("<q", struct.pack("<d", float(mp.mpf(2) ** (mp.mpf(i) / 16))))[0]
        print(f"    {bits - (i << 48):#x},")

    # log(1 + f) = 2*atanh(s), s = f / (2 + f): 2*s + s * z * l(z), z = s**2, 1 + f in
    # [sqrt(1/2), sqrt(2)]; relative to log.
    top = ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2 * mp.mpf("1.0001")
    log_tail = taylor_safe(
        lambda z: (2 * mp.atanh(mp.sqrt(z)) / mp.sqrt(z) - 2) / z,
        lambda z: mp.mpf(2) / 3 + 2 * z / 5,
    )
    unit = mp.mpf(1) / 9  # z of f = 1, for log1p on [0, 1] without splitting off a power of two
    for name, high, degree in (
        ("log, float", top, 2),
        ("log, double", top, 6),
        ("log1p on [0, 1], float", unit, 3),
        ("log1p on [0, 1], double", unit, 9),
    ):
        show(
            f"{name}, degree {degree}",
            remez(log_tail, lambda z: z / 2 + mp.mpf("1e-30"), mp.mpf(0), high, degree),
        )

    # erfc(x) = exp(-x**2) / (1 + 2*x) * e(t), t = (x - K) / (x + K), x >= 0: the mapping of
    # Shepherd and Laframboise, "Chebyshev approximation of (1 + 2x) exp(x**2) erfc(x)", 1981.
    def scaled_erfc(k):
        def function(t):
            x = k * (1 + t) / (1 - t)
            if x > 1e4:
                return (1 + 2 * x) / (x * mp.sqrt(mp.pi)) * (1 - 1 / (2 * x**2))
            return (1 + 2 * x) * mp.exp(x**2) * mp.erfc(x)

        return function

    for name, k, largest, degree in (
        ("erfc, float", mp.mpf(2), mp.mpf(11), 11),
        ("erfc, double", mp.mpf(4), mp.mpf(28), 24),
    ):
        function = scaled_erfc(k)
        high = (largest - k) / (largest + k)
        fit = remez(function, lambda t, f=function: 1 / f(t), mp.mpf(-1), high, degree, sweeps=8)
        show(f"{name}, K = {k}, degree {degree}", fit)


if __name__ == "__main__":
    main()
