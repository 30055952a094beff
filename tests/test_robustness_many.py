"""Networks trained together have the bits that each has alone: robustness.py's digits."""

import pytest
from robustness import DIGITS, DIGITS_FIT, digest, digits_digest, in_forked_child, sparse_digits

import fastdl
from fastdl import MLP

pytestmark = pytest.mark.each_build


@pytest.fixture(scope="module")
def digits():
    return sparse_digits(200)


def digests_together(X, y, threads=None):
    nets = [MLP(**DIGITS, seed=seed) for seed in range(5)]
    fastdl.fit_many(nets, X, y, threads=threads, **DIGITS_FIT)
    return [digest(net) for net in nets]


@pytest.fixture(scope="module")
def alone(digits):
    return [digits_digest(*digits, seed) for seed in range(5)]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_together_as_alone(count, digits, alone):
    assert digests_together(*digits, threads=count) == alone


def test_together_in_a_forked_child(digits, alone):
    digests_together(*digits)
    assert in_forked_child(lambda: " ".join(digests_together(*digits))) == " ".join(alone)
