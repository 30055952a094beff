"""The measure of errors in units in the last place (bench/ulp.py), on errors made on purpose."""

import numpy as np
import pytest
import ulp

pytestmark = pytest.mark.skipif(
    np.finfo(np.longdouble).nmant <= np.finfo(np.float64).nmant,
    reason="long double is no wider than float64",
)
WIDE = {np.float32: np.float64, np.float64: np.longdouble}


@pytest.fixture(params=WIDE, ids=lambda dtype: dtype.__name__)
def dtype(request):
    return request.param


def error(result, exact, dtype):
    return ulp.ulp_error(np.array([result], dtype), np.array([exact], WIDE[dtype]))[0]


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_counts_steps_from_an_exact_result(dtype, steps):
    result = dtype(1.5)
    for _ in range(steps):
        result = np.nextafter(result, dtype(2))
    assert error(result, 1.5, dtype) == steps


def test_a_correctly_rounded_result_is_half_a_unit_off_at_most(dtype):
    wide = WIDE[dtype]
    exact = wide(1) + wide(np.finfo(dtype).eps) / 2  # halfway between two neighbours
    assert error(dtype(1), exact, dtype) == 0.5


def test_the_unit_among_subnormal_numbers_is_the_smallest_one(dtype):
    smallest = np.finfo(dtype).smallest_subnormal
    assert error(dtype(4 * smallest), WIDE[dtype](smallest), dtype) == 3
    assert error(dtype(0), WIDE[dtype](smallest), dtype) == 1


def test_infinity_is_one_unit_beyond_the_largest_number(dtype):
    largest = np.finfo(dtype).max
    beyond = WIDE[dtype](largest) * 2
    assert error(np.inf, beyond, dtype) == 0
    assert error(largest, beyond, dtype) == 1
    assert error(np.inf, WIDE[dtype](largest), dtype) == 1
    assert error(-np.inf, -beyond, dtype) == 0
    assert error(-np.inf, beyond, dtype) > 1e5


@pytest.mark.parametrize(
    ("result", "exact"), [(np.nan, 1.0), (1.0, np.nan), (np.inf, np.nan), (-0.0, 0.0), (0.0, -0.0)]
)
def test_a_wrong_nan_or_sign_of_zero_is_an_infinite_error(dtype, result, exact):
    assert error(result, exact, dtype) == np.inf


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, -0.0])
def test_right_special_values_have_no_error(dtype, value):
    assert error(value, value, dtype) == 0


@pytest.mark.parametrize("name", ulp.EXACT)
def test_points_reach_everything(dtype, name):
    points = ulp.points(name, dtype, 20_000)
    tiny = np.finfo(dtype).tiny
    assert points.dtype == dtype
    assert len(points) > 15_000
    assert np.any((np.abs(points) > 0) & (np.abs(points) < tiny))
    assert np.any(np.signbit(points[points == 0]))
    if name not in ("silu", "gelu"):
        assert np.isnan(points).any()
        assert {np.inf, -np.inf} <= set(points[np.isinf(points)])


def test_a_function_that_is_too_far_off_is_reported(monkeypatch, capsys):
    real = ulp.ops.tanh
    monkeypatch.setattr(ulp.ops, "tanh", lambda x: real(x) * np.asarray(1 + 1e-6, x.dtype))
    assert ulp.main(["tanh", "--points=1000"]) == 1
    assert "more than 2" in capsys.readouterr().out


@pytest.mark.parametrize("name", ulp.BOUNDED)
def test_every_bounded_function_is_within_its_limit(name, capsys):
    assert ulp.main([name, "--points=200000"]) == 0, capsys.readouterr().out


def test_the_exact_functions_agree_with_mpmath():
    import mpmath

    x = np.array([-700.0, -30.5, -1.25, -1e-9, 1e-9, 0.75, 30.5, 700.0], np.longdouble)
    with mpmath.workprec(120):
        arguments = [mpmath.mpf(float(value)) for value in x]
        formulas = {
            "sigmoid": lambda v: 1 / (1 + mpmath.exp(-v)),
            "softplus": lambda v: mpmath.log1p(mpmath.exp(v)),
            "silu": lambda v: v / (1 + mpmath.exp(-v)),
            "gelu": lambda v: v * mpmath.ncdf(v),
        }
        for name, formula in formulas.items():
            wanted = [float(formula(value)) for value in arguments]
            result = ulp.EXACT[name](x).astype(np.float64)
            np.testing.assert_allclose(result, wanted, rtol=1e-15, err_msg=name)
