"""Augmentation: what may move, by how much, and that a seed says exactly how."""

import sys

import numpy as np
import pytest

from fastdl.augment import augment_images

STILL = {"shift": 0, "rotate": 0, "zoom": 0, "noise": 0}
CENTRE = 13.5


def spot(row, column, size=28):
    """A soft spot of light: an image whose centroid is where it was put."""
    rows, columns = np.mgrid[:size, :size]
    distance = np.hypot(rows - row, columns - column)
    return np.maximum(0, 1 - (distance / 5) ** 2).astype(np.float32)


def centroids(images):
    """Row and column of each image's centroid, about the centre of the image."""
    rows, columns = np.mgrid[: images.shape[1], : images.shape[2]]
    total = images.sum(axis=(1, 2), dtype=float)
    return (
        np.stack(
            [(images * rows).sum(axis=(1, 2)) / total, (images * columns).sum(axis=(1, 2)) / total],
            axis=1,
        )
        - (np.array(images.shape[1:]) - 1) / 2
    )


def copies_of(image, **changes):
    """Forty random versions of one image, of which only the named change is on."""
    augmented, _ = augment_images(image[np.newaxis], [0], copies=41, **STILL | changes)
    return augmented[1:]


@pytest.fixture
def images():
    return np.random.RandomState(0).random_sample((6, 28, 28)).astype(np.float32)


def test_originals_come_first_and_labels_repeat(images):
    labels = np.array([3, 1, 4, 1, 5, 9])
    augmented, repeated = augment_images(images, labels)
    assert augmented.shape == (30, 28, 28)
    assert augmented.dtype == np.float32
    np.testing.assert_array_equal(augmented[:6], images)
    np.testing.assert_array_equal(repeated, np.tile(labels, 5))
    assert repeated.dtype == labels.dtype


def test_every_copy_belongs_to_the_label_at_its_place():
    places = [(8, 8), (8, 19), (19, 8), (19, 19)]
    augmented, labels = augment_images(np.stack([spot(*place) for place in places]), range(4))
    found = 2 * (centroids(augmented)[:, 0] > 0) + (centroids(augmented)[:, 1] > 0)
    np.testing.assert_array_equal(found, labels)


def test_one_hot_labels_repeat_by_row(images):
    one_hot = np.eye(6, 10, dtype=np.float32)
    _, repeated = augment_images(images, one_hot, copies=3)
    np.testing.assert_array_equal(repeated, np.concatenate([one_hot] * 3))


def test_values_stay_between_0_and_1(images):
    augmented, _ = augment_images(np.round(images), np.zeros(6), noise=0.5)
    assert augmented.min() == 0
    assert augmented.max() == 1


def test_inputs_and_global_generator_are_left_alone(images):
    before, state = images.copy(), np.random.get_state()[1].copy()
    augmented, _ = augment_images(images, np.zeros(6), copies=1)
    augmented[...] = 0
    augment_images(images, np.zeros(6), copies=2)
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_one_seed_is_one_result(images):
    first, again, other = (augment_images(images, range(6), seed=s)[0] for s in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[6:], other[6:])


def test_copies_differ_from_each_other(images):
    augmented, _ = augment_images(images[:1], [0], copies=6)
    assert len(np.unique(augmented.reshape(6, -1), axis=0)) == 6


def test_more_images_or_copies_change_none_before_them(images):
    few, _ = augment_images(images[:2], range(2), copies=3)
    many, _ = augment_images(images, range(6), copies=5)
    np.testing.assert_array_equal(few.reshape(3, 2, 28, 28), many.reshape(5, 6, 28, 28)[:3, :2])


def test_nothing_happens_when_all_is_0(images):
    augmented, _ = augment_images(images, range(6), copies=3, **STILL)
    np.testing.assert_allclose(augmented, np.concatenate([images] * 3), atol=1e-6)


def test_shift_moves_by_up_to_so_many_pixels():
    moved = centroids(copies_of(spot(CENTRE, CENTRE), shift=3.0))
    assert np.abs(moved).max() <= 3.01
    assert (moved.max(axis=0) > 2).all()
    assert (moved.min(axis=0) < -2).all()


def test_shift_along_one_axis_says_nothing_about_the_other():
    moved = centroids(copies_of(spot(CENTRE, CENTRE), shift=3.0))
    assert abs(np.corrcoef(moved.T)[0, 1]) < 0.4


def test_rotation_turns_about_the_centre():
    moved = centroids(copies_of(spot(CENTRE, CENTRE + 8), rotate=30.0))
    radius, angle = np.hypot(*moved.T), np.rad2deg(np.arctan2(*moved.T))
    np.testing.assert_allclose(radius, 8, atol=0.1)
    assert np.abs(angle).max() <= 30.5
    assert angle.max() > 20
    assert angle.min() < -20


def test_zoom_scales_about_the_centre():
    moved = centroids(copies_of(spot(CENTRE + 6, CENTRE), zoom=0.2))
    np.testing.assert_allclose(moved[:, 1], 0, atol=0.05)
    scale = moved[:, 0] / 6
    assert 0.79 <= scale.min() < 0.87
    assert 1.13 < scale.max() <= 1.21


def test_zoom_keeps_the_shape_and_changes_the_size():
    areas = copies_of(spot(CENTRE, CENTRE), zoom=0.2).sum(axis=(1, 2))
    assert areas.max() / areas.min() > 1.5


def test_images_need_not_be_square():
    wide = np.zeros((1, 20, 40), dtype=np.float32)
    wide[0, 8:12, 30:34] = 1
    augmented, _ = augment_images(wide, [0], copies=20, **STILL | {"rotate": 15.0})
    np.testing.assert_allclose(np.hypot(*centroids(augmented).T), 12, atol=0.1)


def test_nothing_is_mirrored():
    image = spot(8, 8) + spot(8, 19) + spot(19, 8)  # A corner: no rotation makes its mirror image.
    augmented, _ = augment_images(np.minimum(image, 1)[np.newaxis], [0], copies=50)
    quarters = augmented.reshape(50, 2, 14, 2, 14).sum(axis=(2, 4)).reshape(50, 4)
    assert (quarters.argmin(axis=1) == 3).all()


def test_noise_has_its_standard_deviation():
    grey = np.full((1, 28, 28), 0.5, dtype=np.float32)
    noise = copies_of(grey[0], noise=0.05) - 0.5
    assert abs(noise.std() - 0.05) < 0.001
    assert abs(noise.mean()) < 0.001


def test_black_stays_black_without_noise():
    image = np.zeros((1, 28, 28), dtype=np.float32)
    image[0, 12:16, 12:16] = 1
    augmented, _ = augment_images(image, [0], copies=20, noise=0)
    assert (augmented == 0).mean() > 0.9


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_are_taken(dtype, images):
    given = images.astype(dtype)
    augmented, _ = augment_images(given, range(6), copies=2)
    np.testing.assert_array_equal(augmented[:6], given.astype(np.float32))
    assert augmented.dtype == np.float32


def test_no_images_give_no_images():
    augmented, labels = augment_images(np.zeros((0, 28, 28)), np.zeros(0), copies=4)
    assert augmented.shape == (0, 28, 28)
    assert labels.shape == (0,)


ONE = np.zeros((1, 4, 4))


@pytest.mark.parametrize(
    ("images", "labels", "options", "error", "message"),
    [
        (ONE.astype(np.uint8), [0], {}, TypeError, "images: uint8 is not floating point"),
        (ONE[0], [0], {}, ValueError, r"images: shape \(4, 4\) is not \(n, height, width\)"),
        (ONE + 2, [0], {}, ValueError, r"images: values in \[2.0, 2.0\] are not in \[0, 1\]"),
        (ONE - 1, [0], {}, ValueError, "images: values in"),
        (ONE * np.nan, [0], {}, ValueError, r"images: values in \[nan, nan\]"),
        (ONE, [0, 1], {}, ValueError, r"labels: shape \(2,\) does not match images \(1, 4, 4\)"),
        (ONE, 0, {}, ValueError, r"labels: shape \(\) does not match"),
        ([[[0.5]], [[0.5, 1]]], [0, 1], {}, ValueError, "images: setting an array element"),
        (np.ma.masked_equal(ONE, 0), [0], {}, ValueError, "images: 16 of its elements are masked"),
        (ONE, [[0], [1, 2]], {}, ValueError, "labels: setting an array element"),
        (ONE, [0], {"copies": 0}, ValueError, "copies: 0 is not an integer >= 1"),
        (ONE, [0], {"copies": 2.5}, TypeError, "copies: 2.5 is not an integer >= 1"),
        (ONE, [0], {"seed": -1}, ValueError, "seed: -1 is not an integer >= 0"),
        (ONE, [0], {"seed": None}, TypeError, "seed: None is not an integer >= 0"),
        (ONE, [0], {"shift": -1}, ValueError, "shift: -1 is not a finite number >= 0"),
        (ONE, [0], {"rotate": np.inf}, ValueError, "rotate: inf is not"),
        (ONE, [0], {"noise": np.nan}, ValueError, "noise: nan is not"),
        (ONE, [0], {"noise": "much"}, TypeError, "noise: 'much' is not a finite number >= 0"),
        (ONE, [0], {"zoom": 1.0}, ValueError, r"zoom: 1\.0 is not a finite number in \[0, 1\)"),
    ],
)
def test_refusals(images, labels, options, error, message):
    with pytest.raises(error, match=message):
        augment_images(images, labels, **options)


@pytest.mark.parametrize("shape", [(0, 4, 4), (3, 4, 0)])
def test_nothing_becomes_nothing(shape):
    images, labels = augment_images(np.ones(shape), np.zeros(shape[0]), copies=2)
    assert images.shape == (2 * shape[0], *shape[1:])
    assert labels.shape == (2 * shape[0],)


def test_scipy_is_named_when_missing(images, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.ndimage", None)
    with pytest.raises(ImportError, match=r"fastdl-kernels\[data\]"):
        augment_images(images, range(6))
