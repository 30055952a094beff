"""More training images from those at hand: small shifts, rotations, zooms, noise, and no flips."""

import numpy as np

from . import checks
from ._optional import optional_import


def augment_images(
    images, labels, *, copies=5, shift=2.0, rotate=10.0, zoom=0.1, noise=0.05, seed=0
):
    """Repeat a set of images, each new copy moved, turned, scaled and roughened at random.

    A new image is the old one zoomed and rotated about its centre and then shifted, by one affine
    map with bilinear interpolation and zeros from outside, then given normal noise on every pixel
    and clipped to [0, 1]. Nothing is mirrored: a mirrored digit is not a digit.

    Parameters
    ----------
    images : array_like of float, shape (n, height, width)
        Values in [0, 1].
    labels : array_like, shape (n, ...)
        One label, or one row of a one-hot matrix, per image.
    copies : int, default 5
        The result holds this many times as many images, at least 1.
    shift : float, default 2.0
        Largest shift along each axis, in pixels.
    rotate : float, default 10.0
        Largest rotation, in degrees.
    zoom : float, default 0.1
        Largest change of scale, below 1: the factor is between `1 - zoom` and `1 + zoom`.
    noise : float, default 0.05
        Standard deviation of the noise. It also lands on black pixels: with 0 those stay exactly 0.
    seed : int, default 0
        Not negative. What an image becomes depends on the seed, on its place in `images` and on
        the number of its copy: more images or more copies change none of those before them.

    Returns
    -------
    images : ndarray of float32, shape (copies * n, height, width)
        The originals first, in order, then each further copy of the whole set in that order.
    labels : ndarray, shape (copies * n, ...)
        `labels` repeated to match.

    Raises
    ------
    TypeError
        If `images` is not floating point.
    ValueError
        If a shape or a value breaks the rules above.

    Notes
    -----
    A new 28 x 28 image takes 30 to 50 microseconds, on one thread. MNIST's 50,000 at `copies=5`
    take under 10 seconds, and the result 784 MB.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.augment import augment_images
    >>> images = np.zeros((2, 28, 28), dtype=np.float32)
    >>> images[:, 10:18, 13:15] = 1
    >>> more, labels = augment_images(images, np.array([1, 1]), copies=5, seed=0)
    >>> more.shape, labels.shape
    ((10, 28, 28), (10,))
    >>> bool(np.array_equal(more[:2], images))
    True
    """
    images, labels = _checked_images(images, labels)
    copies = checks.integer("copies", copies, low=1)
    shift = checks.number("shift", shift, low=0)
    rotate = checks.number("rotate", rotate, low=0)
    zoom = checks.number("zoom", zoom, low=0, high=1, high_open=True)
    noise = checks.number("noise", noise, low=0)
    seed = checks.integer("seed", seed, low=0)
    ndimage = optional_import("scipy.ndimage", extra="data")

    n = len(images)
    originals = images.astype(np.float32)
    augmented = np.empty((copies, *images.shape), dtype=np.float32)
    augmented[0] = originals
    for copy in range(1, copies):
        # Two streams, because each then uses the same amount of itself for every image.
        placing, roughening = (
            np.random.default_rng(child)
            for child in np.random.SeedSequence(seed, spawn_key=(copy,)).spawn(2)
        )
        matrices, offsets = _inverse_maps(
            placing.uniform(-1, 1, (n, 4)), images.shape[1:], shift, rotate, zoom
        )
        new = augmented[copy]
        for i in range(n):
            ndimage.affine_transform(
                originals[i], matrices[i], offsets[i], output=new[i], order=1, prefilter=False
            )
        if noise:
            new += np.float32(noise) * roughening.standard_normal(new.shape, dtype=np.float32)
        np.clip(new, 0, 1, out=new)
    return augmented.reshape(copies * n, *images.shape[1:]), np.concatenate([labels] * copies)


def _checked_images(images, labels):
    images, labels = checks.array("images", images), checks.array("labels", labels)
    if images.dtype.kind != "f":
        raise TypeError(f"images: {images.dtype} is not floating point (bytes: divide by 255)")
    if images.ndim != 3:
        raise ValueError(f"images: shape {images.shape} is not (n, height, width)")
    if labels.ndim < 1 or len(labels) != len(images):
        raise ValueError(f"labels: shape {labels.shape} does not match images {images.shape}")
    # NaN fails this comparison too.
    if images.size and not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(f"images: values in [{images.min()}, {images.max()}] are not in [0, 1]")
    return images, labels


def _inverse_maps(fractions, size, shift, rotate, zoom):
    """Matrices (n, 2, 2) and offsets (n, 2) that take a new pixel's indices to an old position.

    `fractions` (n, 4) in [-1, 1) say how much of the largest shift down, shift right, rotation and
    zoom each image gets. New positions are `centre + move + scale * R @ (old - centre)`, so old
    ones are `centre + R.T / scale @ (new - centre - move)`.
    """
    move = shift * fractions[:, :2]
    angle = np.deg2rad(rotate) * fractions[:, 2]
    scale = 1 + zoom * fractions[:, 3]
    cosine, sine = np.cos(angle) / scale, np.sin(angle) / scale
    matrices = np.stack([cosine, sine, -sine, cosine], axis=1).reshape(-1, 2, 2)
    centre = (np.array(size) - 1) / 2
    offsets = centre - np.einsum("nij,nj->ni", matrices, centre + move)
    return matrices, offsets
