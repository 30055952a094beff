"""Files: a network comes back as it was, and nothing else is taken for one."""

import json
import os
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastdl
from fastdl import MLP, callbacks, network, schedules
from fastdl._declarative import Declarative
from fastdl.activations import ELU, LeakyReLU
from fastdl.losses import CategoricalCrossentropy
from fastdl.optimizers import SGD, Adam, RMSprop

safetensors = pytest.importorskip("safetensors.numpy")

X = np.random.default_rng(0).normal(size=(20, 4))
Y = np.arange(20) % 3

NETWORKS = {
    "plain": {"sizes": [4, 3]},
    "all settings": {
        "sizes": [4, 6, 5, 3],
        "activation": [LeakyReLU(0.1), ELU(0.5)],
        "output_activation": "sigmoid",
        "dropout": [0.25, 0.1],
        "loss": CategoricalCrossentropy(label_smoothing=0.1),
        "l1": 1e-4,
        "l2": 1e-3,
        "dtype": "float64",
        "seed": 2**64 - 1,
        "kernel_initializer": "he_uniform",
    },
}
OPTIMIZERS = [
    SGD(0.1),
    SGD(0.1, 0.9, nesterov=True, clipnorm=1.0),
    RMSprop(),
    Adam(schedules.CosineDecay(0.1, 10, warmup_target=0.2, warmup_steps=2)),
    Adam(schedules.PiecewiseConstantDecay([1, 3], [0.1, 0.01, 0.001]), weight_decay=0.01),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_comes_back(name, path):
    net = MLP(**NETWORKS[name])
    net.save(path)
    again = fastdl.load(path)
    assert again._config() == net._config()
    assert again.optimizer is None
    for array, expected in zip(again.weights, net.weights, strict=True):
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)
    np.testing.assert_array_equal(again.predict(X), net.predict(X))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", NETWORKS)
def test_training_goes_on_exactly(name, optimizer, path):
    net = MLP(**NETWORKS[name])
    net.fit(X, Y, epochs=2, batch_size=8, optimizer=optimizer, verbose=0)
    net.save(str(path))
    again = MLP.load(str(path))
    assert again.optimizer == optimizer
    for other in (net, again):
        other.history = other.fit(X, Y, epochs=2, batch_size=8, verbose=0).history
    assert again.history == net.history
    assert again.iterations == net.iterations == 12
    for array, expected in zip(again.weights, net.weights, strict=True):
        np.testing.assert_array_equal(array, expected)


def test_a_changed_learning_rate_comes_back(path):
    net = MLP([4, 3])
    net.fit(X, Y, optimizer=SGD(0.5), verbose=0)
    net.learning_rate = 0.25
    net.save(path)
    again = MLP.load(path)
    assert again.learning_rate == 0.25
    again.fit(X, Y, optimizer=SGD(0.5), verbose=0)
    assert again.learning_rate == 0.25


def test_without_the_optimizer(path):
    net = MLP([4, 3])
    net.fit(X, Y, optimizer=SGD(lambda step: 0.1), verbose=0)
    with pytest.raises(TypeError, match=r"learning_rate: .* include_optimizer=False"):
        net.save(path)
    assert not path.exists()
    net.save(path, include_optimizer=False)
    again = MLP.load(path)
    assert again.optimizer is None
    np.testing.assert_array_equal(again.predict(X), net.predict(X))
    with pytest.raises(TypeError, match="include_optimizer: 0 is not"):
        net.save(path, include_optimizer=0)


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(0.1, 0.9, nesterov=np.bool_(True)),
        SGD(schedules.ExponentialDecay(0.1, 5, 0.5, staircase=np.bool_(True))),
        SGD(schedules.PolynomialDecay(0.1, 5, cycle=np.bool_(False))),
    ],
)
def test_numpys_bools_are_saved(optimizer, path):
    net = MLP([4, 3])
    net.fit(X, Y, optimizer=optimizer, verbose=0)
    net.save(path)
    assert fastdl.load(path).optimizer == optimizer


def test_checkpoints_hold_what_callbacks_note(path):
    class Note(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["score"] = np.float32(0.5)

    kept = [Note(), callbacks.Checkpoint(path)]
    MLP([4, 3]).fit(X, Y, shuffle=np.bool_(True), callbacks=kept, verbose=0)
    history = MLP([4, 3]).fit(X, Y, epochs=2, resume_from=path, callbacks=[Note()], verbose=0)
    assert history.history["score"] == [0.5, 0.5]


def test_own_schedules_come_back(path):
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Halving(schedules.Schedule):
        rate: float

        def __call__(self, step):
            return self.rate / 2**step

    net = MLP([4, 3])
    net.fit(X, Y, optimizer=SGD(Halving(0.5)), verbose=0)
    net.save(path)
    assert MLP.load(path).optimizer == SGD(Halving(0.5))
    del Declarative._classes["Halving"]
    with pytest.raises(ValueError, match=r"net.safetensors: .*'Halving' is not one of"):
        MLP.load(path)


def namesake():
    """A schedule of a user's class that has the name of one of fastdl's."""

    class CosineDecay(schedules.CosineDecay):
        pass

    return CosineDecay(0.5, 10)


def test_own_classes_do_not_stand_for_those_of_the_same_name(path):
    net = MLP([4, 3])
    net.fit(X, Y, optimizer=SGD(schedules.CosineDecay(0.5, 10)), verbose=0)
    net.save(path)
    namesake()
    assert type(MLP.load(path).optimizer.learning_rate) is schedules.CosineDecay


def test_own_classes_of_the_same_name_are_refused(path):
    net = MLP([4, 3])
    net.fit(X, Y, optimizer=SGD(namesake()), verbose=0)
    with pytest.raises(TypeError, match=r"\.CosineDecay: fastdl has a class of that name"):
        net.save(path)
    assert not path.exists()


def test_the_file_is_safetensors_with_a_json_header(path):
    net = MLP([4, 3], seed=5)
    net.fit(X, Y, verbose=0)
    net.save(path)
    tensors = safetensors.load_file(path)
    assert sorted(tensors) == [
        f"{slot}dense_1.{kind}"
        for slot in ("", "first_moment.", "second_moment.")
        for kind in ("bias", "weights")
    ]
    np.testing.assert_array_equal(tensors["dense_1.weights"], net.weights[0])
    with safetensors.safe_open(path, "numpy") as file:
        header = json.loads(file.metadata()["fastdl"])
    assert header["format"] == 1
    assert header["network"]["seed"] == 5
    assert header["optimizer"]["current"]["class"] == "Adam"


# ------------------------------------------------------------------------------------- crash safety


@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_a_failed_write_leaves_the_old_file(failing, path, monkeypatch):
    MLP([4, 3], seed=1).save(path)
    before = path.read_bytes()

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(OSError, match="No space left"):
            MLP([4, 3], seed=2).save(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_saving_replaces_the_file(path):
    MLP([4, 3], seed=1).save(path)
    MLP([4, 3], seed=2).save(path)
    assert MLP.load(path).seed == 2
    assert os.listdir(path.parent) == [path.name]


def test_folders_that_do_not_exist(path):
    with pytest.raises(FileNotFoundError):
        MLP([4, 3]).save(path / "nowhere")
    with pytest.raises(FileNotFoundError):
        MLP.load(path)


def test_paths_are_paths():
    with pytest.raises(TypeError):
        MLP([4, 3]).save(3)
    with pytest.raises(TypeError):
        MLP.load(3)


# ------------------------------------------------------------------------------------ damaged files


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_truncated_files_are_refused(data, path):
    net = MLP([4, 3], seed=1)
    net.fit(X, Y, verbose=0)
    net.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(ValueError, match=r"net\.safetensors: not a whole safetensors file"):
        MLP.load(path)


@pytest.mark.parametrize("content", [b"PK\x03\x04" * 100, b"\x80\x04K\x01.", b"{}", bytes(1000)])
def test_files_of_other_formats_are_refused(content, path):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"net\.safetensors: "):
        MLP.load(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_safetensors_of_others_are_refused(metadata, path):
    safetensors.save_file({"dense_1.weights": np.ones((4, 3))}, path, metadata)
    with pytest.raises(ValueError, match=r"net\.safetensors: .* not one saved by fastdl"):
        MLP.load(path)


def saved(path):
    """Tensors and header of a saved network."""
    net = MLP([4, 3], seed=1)
    net.fit(X, Y, verbose=0)
    net.save(path)
    with safetensors.safe_open(path, "numpy") as file:
        return safetensors.load_file(path), json.loads(file.metadata()["fastdl"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, h: h.update(format=2), "format 2 is not 1"),
        (lambda t, h: h.pop("format"), "format"),
        (lambda t, h: h.pop("network"), "network"),
        (lambda t, h: h.update(network=[]), "mapping"),
        (lambda t, h: h.update(iterations=-1), "iterations: -1"),
        (lambda t, h: h.update(optimizer=[1]), "indices"),
        (lambda t, h: h["network"].update(sizes=[4]), r"sizes: \(4,\) has no layer"),
        (lambda t, h: h["network"].update(sizes=[4, 4]), r"dense_1.weights: float32 \(4, 3\)"),
        (lambda t, h: h["network"].update(colour=1), "colour"),
        (lambda t, h: h["network"].update(dtype="float64"), "float32 .* is not float64"),
        (lambda t, h: h["network"].update(loss={"class": "Adam"}), "loss: Adam.* is not of"),
        (lambda t, h: h["network"].update(loss={"class": "os"}), "class: 'os' is not one of"),
        (lambda t, h: h["optimizer"]["given"].update(learning_rate=-1), "learning_rate: -1"),
        (lambda t, h: t.pop("dense_1.bias"), "missing or unknown: dense_1.bias"),
        (lambda t, h: t.pop("first_moment.dense_1.bias"), "missing or unknown: first_moment"),
        (lambda t, h: t.update(more=t["dense_1.bias"]), "missing or unknown: more"),
    ],
)
def test_headers_and_tensors_are_checked(change, message, path):
    tensors, header = saved(path)
    change(tensors, header)
    safetensors.save_file(tensors, path, {"fastdl": json.dumps(header)})
    with pytest.raises(ValueError, match=rf"net\.safetensors: not a network .*{message}"):
        MLP.load(path)


@pytest.mark.parametrize("text", ["", "{", "[1]", "3"])
def test_headers_that_are_no_settings(text, path):
    safetensors.save_file({}, path, {"fastdl": text})
    with pytest.raises(ValueError, match=r"net\.safetensors: "):
        MLP.load(path)


def test_a_missing_package_is_named(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match=r"fastdl-kernels\[save\]"):
        MLP([4, 3]).save(path)


def test_the_module_has_load():
    assert fastdl.load == network.load == MLP.load
