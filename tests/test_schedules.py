"""Learning-rate schedules against Keras's classes of the same names."""

import pytest

from fastdl import schedules

CASES = [
    ("ExponentialDecay", (0.5, 10, 0.75)),
    ("ExponentialDecay", (0.5, 10, 0.75, True)),
    ("InverseTimeDecay", (0.5, 10, 0.75)),
    ("InverseTimeDecay", (0.5, 10, 0.75, True)),
    ("PiecewiseConstantDecay", ([5, 12], [0.5, 0.25, 0.125])),
    ("PolynomialDecay", (0.5, 10)),
    ("PolynomialDecay", (0.5, 10, 0.1, 2.0)),
    ("PolynomialDecay", (0.5, 10, 0.1, 0.5, True)),
    ("CosineDecay", (0.5, 10)),
    ("CosineDecay", (0.5, 10, 0.25)),
]
STEPS = (0, 1, 4, 5, 6, 9, 10, 11, 12, 13, 20, 27, 100)


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras")


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_equals_keras(keras, name, arguments):
    ours = getattr(schedules, name)(*arguments)
    theirs = getattr(keras.optimizers.schedules, name)(*arguments)
    for step in STEPS:
        # Keras computes in float32.
        assert ours(step) == pytest.approx(float(theirs(step)), rel=1e-5, abs=1e-7), step


@pytest.mark.parametrize("start", [0.0, 0.25])
def test_warmup_equals_keras(keras, start):
    settings = {"decay_steps": 10, "alpha": 0.25, "warmup_target": 0.5, "warmup_steps": 5}
    ours = schedules.CosineDecay(start, **settings)
    theirs = keras.optimizers.schedules.CosineDecay(start, **settings)
    for step in STEPS:
        assert ours(step) == pytest.approx(float(theirs(step)), rel=1e-5, abs=1e-7), step


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("ExponentialDecay", (-1, 10, 0.5), "initial_learning_rate: -1 is not"),
        ("ExponentialDecay", (0.5, 0, 0.5), "decay_steps: 0 is not"),
        ("InverseTimeDecay", (0.5, 10, -0.5), r"decay_rate: -0\.5 is not"),
        ("PolynomialDecay", (0.5, 10, -0.5), r"end_learning_rate: -0\.5 is not"),
        ("CosineDecay", (0.5, 10, 0.0, -1), "warmup_target: -1 is not"),
        ("CosineDecay", (float("inf"), 10), "initial_learning_rate: inf is not"),
        ("PiecewiseConstantDecay", ([5, 5], [1, 2, 3]), r"boundaries: .* are not increasing"),
        ("PiecewiseConstantDecay", ([5], [1, 2, 3]), "values: 3 of them, not one more"),
        ("PiecewiseConstantDecay", (5, [1, 2]), "boundaries: 5 is not a sequence of numbers"),
    ],
)
def test_settings_are_checked(name, arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        getattr(schedules, name)(*arguments)


def test_own_schedules_can_be_classes():
    with pytest.raises(NotImplementedError, match="Schedule does not define __call__"):
        schedules.Schedule()(0)
