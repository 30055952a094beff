"""Keras models trained in place: the same numbers, logs and calls as Keras's own `fit` gives.

Keras's TensorFlow backend is the oracle in this process; others have processes of their own.
"""

import itertools
import json
import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

import fastdl.keras
from fastdl import reference
from fastdl.keras import UnsupportedModelError, accelerate, restore

keras = pytest.importorskip("keras")
parity = pytest.importorskip("keras_parity")
layers, optimizers, callbacks = keras.layers, keras.optimizers, keras.callbacks
X, LABELS, ONE_HOT, NUMBERS = parity.X, parity.LABELS, parity.ONE_HOT, parity.NUMBERS

# Of weights, slots and losses after some 50 steps in single precision.
TOLERANCE = 1e-5


def python(code, *arguments, backend, **environment):
    """What a process of its own prints, under another backend of Keras."""
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ
        | {"KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join(sys.path)}
        | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def classifier(
    loss="categorical_crossentropy", optimizer="adam", metrics=("accuracy",), **settings
):
    """A small compiled model whose weights are always the same."""
    model = parity.network("relu, tanh", "softmax", parity.CLASSES, **settings)
    model.compile(optimizer, loss=loss, metrics=list(metrics), jit_compile=parity.JIT)
    return model


def assert_same_weights(model, other):
    for ours, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


# ------------------------------------------------------------------------------------- step parity


@pytest.mark.parametrize(("optimizer", "loss", "pair"), parity.SOME)
def test_steps_are_keras_own(optimizer, loss, pair):
    assert parity.hand_over(lambda: parity.case(optimizer, loss, pair)) <= TOLERANCE


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_steps_are_those_of_other_backends(backend):
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    errors = json.loads(python("import keras_parity; keras_parity.main()", backend=backend))
    # PyTorch's Nadam rounds the scalars of its first steps in another way.
    errors = {
        name: error for name, error in errors.items() if (backend, name[:5]) != ("torch", "Nadam")
    }
    assert len(errors) == 10
    assert {name: error for name, error in errors.items() if not error <= TOLERANCE} == {}


def frozen():
    optimizer = optimizers.AdamW(0.01)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model = classifier()
    model.layers[0].trainable = False
    model.compile(
        optimizer, "categorical_crossentropy", metrics=["accuracy"], jit_compile=parity.JIT
    )
    return model


def test_weight_decay_is_where_keras_has_it():
    # Excluded as a variable, and by names: TensorFlow's hold the layer's.
    def make():
        optimizer = optimizers.SGD(0.1, weight_decay=0.5)
        model = parity.network("relu, tanh", "softmax", parity.CLASSES)
        first, *_, last = model.layers
        names = ["bias", last.name]
        optimizer.exclude_from_weight_decay(var_list=[first.kernel], var_names=names)
        model.compile(optimizer, "categorical_crossentropy", jit_compile=parity.JIT)
        return model, ONE_HOT

    assert parity.hand_over(make) <= TOLERANCE


def test_averages_leave_frozen_weights_alone():
    def make():
        model = classifier()
        model.layers[0].trainable = False
        model.compile(
            optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=7),
            "categorical_crossentropy",
            jit_compile=parity.JIT,
        )
        return model, ONE_HOT

    assert parity.hand_over(make) <= TOLERANCE


def test_penalties_are_those_of_the_variables():
    def make():
        model = parity.network("relu, tanh", "softmax", parity.CLASSES, kernel_regularizer="l2")
        model.layers[0].kernel.regularizer = None
        model.layers[-1].bias.regularizer = keras.regularizers.L1(0.1)
        model.layers[-1].kernel_regularizer = keras.regularizers.L2(5.0)  # too late
        model.compile("sgd", "categorical_crossentropy", jit_compile=parity.JIT)
        return model, ONE_HOT

    assert parity.hand_over(make) <= TOLERANCE


def prepared():
    normalization = layers.Normalization()
    normalization.adapt(X + 3)
    model = keras.Sequential(
        [
            layers.Input((parity.FEATURES,)),
            layers.Rescaling(2.0, 1.0),
            normalization,
            layers.Dense(8, "relu"),
            layers.Dense(3, "softmax"),
        ]
    )
    model.compile("adam", loss="categorical_crossentropy", jit_compile=parity.JIT)
    return parity.drawn(model)


def functional():
    start = keras.Input((parity.FEATURES, 1))
    inner = layers.Dense(8, "tanh", kernel_regularizer="l2")(layers.Flatten()(start))
    model = keras.Model(start, layers.Dense(3, kernel_regularizer="l2")(inner))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    model.compile(optimizers.SGD(0.1), loss=loss, metrics=["acc"], jit_compile=parity.JIT)
    return parity.drawn(model)


class Halving(optimizers.schedules.LearningRateSchedule):
    """A schedule that fastdl does not know."""

    def __call__(self, step):
        return 0.05 * 0.5 ** (keras.ops.cast(step, "float32") / 20)


CROSS_ENTROPY = keras.losses.CategoricalCrossentropy
WEIGHTS = np.random.default_rng(7).uniform(0.2, 2, parity.ROWS)

# What goes beyond a plain chain, each as a maker of the model and more arguments of fit.
BEYOND = {
    "no bias, unit norm": (
        lambda: classifier(use_bias=False, kernel_constraint="unit_norm"),
        {},
    ),
    "penalties, constraints": (
        lambda: classifier(
            kernel_regularizer="l2",
            bias_regularizer="l1",
            kernel_constraint=keras.constraints.MaxNorm(0.8),
            bias_constraint="non_neg",
        ),
        {},
    ),
    "frozen, decay of some": (frozen, {}),
    "preparing layers": (prepared, {}),
    "functional, logits, smoothing": (functional, {"validation_split": 0.2}),
    "sum, schedule, class weights": (
        lambda: classifier(
            CROSS_ENTROPY(reduction="sum"),
            optimizers.Adam(optimizers.schedules.CosineDecay(0.02, 40, alpha=0.1)),
        ),
        {"class_weight": {0: 0.5, 2: 3.0}},
    ),
    "own schedule, average": (
        lambda: classifier(
            optimizer=optimizers.SGD(Halving(), momentum=0.9, nesterov=True, use_ema=True)
        ),
        {},
    ),
    "a list of one loss": (lambda: classifier([CROSS_ENTROPY(label_smoothing=0.1)]), {}),
    "mean by weight": (
        lambda: classifier(CROSS_ENTROPY(reduction="mean_with_sample_weight")),
        {"sample_weight": WEIGHTS},
    ),
}


@pytest.mark.parametrize("name", BEYOND)
def test_steps_beyond_the_engine_are_keras_own(name):
    make, settings = BEYOND[name]
    assert parity.hand_over(lambda: (make(), ONE_HOT), **settings) <= TOLERANCE


def test_metrics_are_keras_own():
    def make():
        model = classifier(
            metrics=[
                "accuracy",
                "mse",
                "mae",
                keras.metrics.AUC(name="auc"),
                keras.metrics.TopKCategoricalAccuracy(2, name="top"),
                keras.metrics.BinaryAccuracy(name="binary"),
            ]
        )
        return model, ONE_HOT

    settings = {"validation_data": (X[:20], ONE_HOT[:20], WEIGHTS[:20]), "validation_freq": 2}
    assert parity.hand_over(make, **settings) <= TOLERANCE


def test_weighted_metrics_are_keras_own():
    def make():
        model = classifier()
        model.compile(
            "adam",
            loss="categorical_crossentropy",
            metrics=["accuracy"],
            weighted_metrics=["accuracy", lambda y, p: keras.ops.max(p, axis=-1)],
            jit_compile=parity.JIT,
        )
        return model, ONE_HOT

    assert parity.hand_over(make, sample_weight=WEIGHTS) <= TOLERANCE


class EachBatch(callbacks.Callback):
    def __init__(self, hook):
        super().__init__()
        setattr(self, hook, lambda batch, logs=None: None)


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_test_batch_end"])
@pytest.mark.parametrize(
    "weights",
    [
        {"class_weight": {0: 2.0, 1: 0.5, 2: 1.0}, "validation_data": (X[:21], ONE_HOT[:21])},
        {"validation_data": (X[:21], ONE_HOT[:21], WEIGHTS[:21])},
    ],
    ids=["training", "validation"],
)
def test_weights_of_training_or_validation_alone(weights, hook):
    found = []
    for model in (classifier(metrics=()), accelerate(classifier(metrics=()))):
        model.compile(
            "adam",
            "categorical_crossentropy",
            weighted_metrics=["accuracy"],
            jit_compile=parity.JIT,
        )
        history = model.fit(
            X,
            ONE_HOT,
            batch_size=16,
            epochs=3,
            shuffle=False,
            callbacks=[EachBatch(hook)],
            verbose=0,
            **weights,
        )
        found.append(list(history.history.values()))
    assert parity.error(found[1], found[0]) <= TOLERANCE


class Largest(keras.metrics.MeanSquaredError):
    """The mean over batches of the largest prediction."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        keras.metrics.Mean.update_state(self, keras.ops.max(y_pred))


@pytest.mark.parametrize(
    "make_metric",
    [
        lambda: lambda y, p: keras.ops.sqrt(keras.ops.mean(keras.ops.square(y - p))),
        lambda: keras.losses.Huber(0.1),
        lambda: Largest(),
        lambda: keras.metrics.CosineSimilarity(axis=0),
    ],
)
def test_metrics_that_do_not_add_up_get_keras_batches(make_metric):
    def make():
        return classifier(metrics=[make_metric()]), ONE_HOT

    settings = {"validation_data": (X, ONE_HOT), "validation_batch_size": 20}
    assert parity.hand_over(make, **settings) <= TOLERANCE


def test_logits_are_not_probabilities_to_a_binary_accuracy():
    def make():
        model = parity.network("relu, tanh", "linear", 1)
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        model.compile("adam", loss=loss, metrics=["accuracy"], jit_compile=parity.JIT)
        return model, parity.YES_OR_NO

    assert parity.hand_over(make) <= TOLERANCE


@pytest.mark.each_build
def test_double_precision():
    start = keras.Input((parity.FEATURES,), dtype="float64")
    model = keras.Model(start, layers.Dense(3, "softmax", dtype="float64")(start))
    model.compile("sgd", loss="categorical_crossentropy")
    parity.drawn(model)
    # Keras works the loss out in single precision.
    assert parity.hand_over(lambda: (model, ONE_HOT)) <= TOLERANCE
    assert accelerate(model).predict(X, verbose=0).dtype == np.float64


# --------------------------------------------------------------------------- scores and prediction


@pytest.fixture(scope="module")
def scored():
    """A model with dropout, and Keras's own answers."""
    model = keras.Sequential(
        [
            layers.Input((parity.FEATURES,)),
            layers.Dense(8, "relu", kernel_regularizer="l2"),
            layers.Dropout(0.5),
            layers.Dense(3, "softmax"),
        ]
    )
    metrics = ["accuracy", "mse"]
    model.compile("adam", "categorical_crossentropy", metrics=metrics, jit_compile=parity.JIT)
    return parity.drawn(model)


def in_both(model, call):
    """What Keras gives for a call, and what fastdl gives."""
    theirs = call(restore(model))
    try:
        return call(accelerate(model)), theirs
    finally:
        restore(model)


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.predict(X, verbose=0),
        lambda model: model.predict(X, batch_size=7),
        lambda model: model.predict(((X[i : i + 5],) for i in range(0, 50, 5)), steps=4, verbose=0),
        lambda model: model.predict(X[:1].astype(np.float64), verbose=2),
        lambda model: model.predict([X], verbose=0),
        lambda model: model.predict(keras.ops.convert_to_tensor(X), verbose=0),
        lambda model: model.predict_on_batch(X[:3]),
        lambda model: model.evaluate(X, ONE_HOT, verbose=0),
        lambda model: model.evaluate(X, ONE_HOT, batch_size=7, sample_weight=WEIGHTS, steps=3),
        lambda model: list(model.evaluate(X, ONE_HOT, return_dict=True).values()),
        lambda model: model.test_on_batch(X, ONE_HOT, sample_weight=WEIGHTS),
        lambda model: list(model.test_on_batch(X, ONE_HOT, return_dict=True).values()),
    ],
)
def test_scores_and_predictions_are_keras_own(scored, call):
    ours, theirs = in_both(scored, call)
    assert type(ours) is type(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_single_batches_are_trained_on():
    models = [classifier(), accelerate(classifier())]
    for _ in range(3):
        theirs, ours = (model.train_on_batch(X, ONE_HOT, class_weight={1: 2.0}) for model in models)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    theirs, ours = (
        model.train_on_batch(X, ONE_HOT, sample_weight=WEIGHTS, return_dict=True)
        for model in models
    )
    assert list(ours) == list(theirs)
    assert parity.error(models[1].get_weights(), models[0].get_weights()) <= TOLERANCE
    assert int(models[1].optimizer.iterations) == 4
    models[1].stop_training = True  # as an early stop leaves it
    models[1].train_on_batch(X, ONE_HOT)
    assert int(models[1].optimizer.iterations) == 5


def test_new_weights_are_seen_by_the_next_prediction():
    model = accelerate(classifier())
    before = model.predict(X, verbose=0)
    model.set_weights([array + 0.1 for array in model.get_weights()])
    theirs = restore(model).predict(X, verbose=0)
    ours = accelerate(model).predict(X, verbose=0)
    assert not np.allclose(ours, before)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    model.layers[0].kernel.assign(model.layers[0].kernel * 2)
    assert not np.allclose(model.predict(X, verbose=0), ours)
    # Steps of Keras's own change variables in place.
    for _ in range(3):
        type(model).fit(model, X, ONE_HOT, verbose=0)
        theirs = type(model).predict(model, X, verbose=0)
        np.testing.assert_allclose(model.predict(X, verbose=0), theirs, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "float16"])
def test_inputs_are_cast_as_by_keras(dtype):
    model = compiled(layers.Dense(3), input_dtype=dtype)
    rows = np.array([[0.0, 0.3, 1.7, 2.5, 3.9999], [1e-9, 250.2, 3.0, 4.1, 1.0]])
    ours, theirs = in_both(model, lambda model: model.predict(rows, verbose=0))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("key", ["rows", "features"])
def test_inputs_are_found_in_a_dict_by_name(key):
    start = keras.Input((parity.FEATURES,), name="rows")
    model = keras.Model(start if key == "rows" else {key: start}, layers.Dense(3)(start))
    model.compile("sgd", "mse", jit_compile=parity.JIT)
    data = {"id": np.arange(50), key: X}
    ours, theirs = in_both(model, lambda model: model.predict(data, verbose=0))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=rf"x: '{key}', the model's input, is not among"):
        accelerate(model).predict({"id": X}, verbose=0)


def test_several_arrays_are_not_one():
    with pytest.raises(ValueError, match="x: 2 arrays, where the model has one"):
        accelerate(classifier()).predict([X, X], verbose=0)


def test_layers_may_be_part_of_other_models():
    shared, start = layers.Dense(4, "relu"), keras.Input((parity.FEATURES,))
    keras.Model(start, layers.Dense(2)(shared(start)))
    other = keras.Input((parity.FEATURES,))
    model = keras.Model(other, layers.Dense(3)(shared(other)))
    model.compile("sgd", "mse", jit_compile=parity.JIT)
    ours, theirs = in_both(model, lambda model: model.predict(X, verbose=0))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_no_rows_have_no_predictions():
    assert accelerate(classifier()).predict(X[:0], verbose=0).shape == (0, parity.CLASSES)


def test_a_frozen_model_is_scored_and_not_trained():
    model = accelerate(classifier())
    expected = model.predict(X, verbose=0)
    model.trainable = False
    np.testing.assert_array_equal(model.predict(X, verbose=0), expected)
    scores = model.evaluate(X, ONE_HOT, verbose=0)
    assert scores == pytest.approx(restore(model).evaluate(X, ONE_HOT, verbose=0), rel=1e-5)
    with pytest.raises(UnsupportedModelError, match="nothing in it is trainable"):
        accelerate(model)
    model.trainable = True
    accelerate(model).trainable = False
    model.predict(X, verbose=0)
    with pytest.raises(UnsupportedModelError, match="nothing in it is trainable"):
        model.fit(X, ONE_HOT, verbose=0)
    model.trainable = True
    assert model.fit(X, ONE_HOT, verbose=0).epoch == [0]


@pytest.mark.parametrize("metrics", [["accuracy"], ["accuracy", "mse"], []])
def test_metrics_can_be_asked_for_afterwards(metrics):
    calls = [
        lambda model: model.fit(X, ONE_HOT, shuffle=False, verbose=0),
        lambda model: model.fit(
            Sequence(), validation_data=(X[:7], ONE_HOT[:7]), shuffle=False, verbose=0
        ),
        lambda model: model.evaluate(X, ONE_HOT, verbose=0),
        lambda model: model.train_on_batch(X, ONE_HOT),
    ]
    models = classifier(metrics=metrics), accelerate(classifier(metrics=metrics))
    for call in calls:
        theirs, ours = ((call(model), model.get_metrics_result())[1] for model in models)
        assert list(ours) == list(theirs)
        for name, value in theirs.items():
            assert float(ours[name]) == pytest.approx(float(value), rel=1e-5), name


def failing_batches():
    for start in range(0, 40, 10):
        yield X[start : start + 10], ONE_HOT[start : start + 10]
    raise RuntimeError("no more")


@pytest.mark.parametrize("metrics", [["accuracy"], ["accuracy", "mse"]])
@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_metrics_hold_what_was_counted_before_a_failure(method, metrics):
    found = []
    for model in (classifier(metrics=metrics), accelerate(classifier(metrics=metrics))):
        model.fit(X, ONE_HOT, shuffle=False, verbose=0)
        with pytest.raises(Exception, match="no more"):
            getattr(model, method)(failing_batches(), verbose=0)
        found.append([float(each) for each in model.get_metrics_result().values()])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)


def test_the_shape_of_inputs_is_checked():
    model = accelerate(classifier())
    with pytest.raises(ValueError, match=r"x: shape \(50, 4\) is not rows of shape \(5,\)"):
        model.predict(X[:, :4], verbose=0)
    with pytest.raises(ValueError, match=r"x: .* is not rows of numbers"):
        model.predict(np.array([["a"] * 5]), verbose=0)


# --------------------------------------------------------------------------------- arguments of fit


def batches():
    for start in range(0, parity.ROWS, parity.BATCH):
        yield X[start : start + parity.BATCH], ONE_HOT[start : start + parity.BATCH]


class Sequence(keras.utils.PyDataset):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        rows = slice(index * parity.BATCH, (index + 1) * parity.BATCH)
        return X[rows], ONE_HOT[rows]


def endless():
    while True:
        yield from batches()


def tf_data():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((X, ONE_HOT)).batch(parity.BATCH)


@pytest.mark.parametrize(
    ("data", "settings"),
    [
        (tf_data, {}),
        (lambda: tf_data().repeat(), {"steps_per_epoch": 5}),
        (endless, {"steps_per_epoch": 5}),
        (Sequence, {}),
        (lambda: X, {"y": ONE_HOT, "steps_per_epoch": 5, "batch_size": parity.BATCH}),
        (lambda: {"rows": X}, {"y": [ONE_HOT], "batch_size": parity.BATCH}),
    ],
)
def test_batches_from_anywhere_give_the_steps_of_arrays(data, settings):
    arrays, streamed = accelerate(classifier()), accelerate(classifier())
    expected = arrays.fit(X, ONE_HOT, batch_size=10, epochs=2, shuffle=False, verbose=0)
    found = streamed.fit(data(), epochs=2, shuffle=False, verbose=0, **settings)
    assert_same_weights(streamed, arrays)
    for name, numbers in expected.history.items():
        assert found.history[name] == pytest.approx(numbers, rel=1e-12)
    scores = arrays.evaluate(X, ONE_HOT, verbose=0)
    assert streamed.evaluate(Sequence(), verbose=0) == pytest.approx(scores, rel=1e-6)


def test_sparse_matrices_give_the_steps_of_arrays():
    sparse = pytest.importorskip("scipy.sparse")
    x = np.where(np.random.default_rng(0).uniform(size=X.shape) < 0.2, X, 0)
    found = []
    for data in (x, sparse.csr_matrix(x)):
        model = accelerate(classifier(), seed=0)
        model.fit(data, ONE_HOT, epochs=2, validation_split=0.2, verbose=0)
        found.append([*model.get_weights(), model.predict(data, verbose=0)])
    for dense, skipping in zip(*found, strict=True):
        np.testing.assert_array_equal(skipping, dense)


class Predicting(Sequence):
    """A model predicts between epochs, as when the next one's rows are drawn by the errors."""

    def on_epoch_end(self):
        self.model.predict(X, verbose=0)


def predicting(model):
    """Endless batches, before each of which the model predicts."""
    for batch in endless():
        model.predict(X, verbose=0)
        yield batch


@pytest.mark.parametrize("kind", ["dataset", "generator", "scheduler"])
def test_predictions_during_a_fit_leave_the_training_alone(kind):
    plain, model = accelerate(classifier()), accelerate(classifier())
    plain.fit(Sequence(), epochs=3, shuffle=False, verbose=0)
    dataset = Predicting() if kind == "dataset" else Sequence()
    dataset.model = model
    schedule = callbacks.LearningRateScheduler(
        lambda epoch, rate: (model.evaluate(X, ONE_HOT, verbose=0), rate)[1]
    )
    model.fit(
        predicting(model) if kind == "generator" else dataset,
        steps_per_epoch=5 if kind == "generator" else None,
        epochs=3,
        shuffle=False,
        callbacks=[schedule] if kind == "scheduler" else [],
        verbose=0,
    )
    assert_same_weights(model, plain)


def test_what_makes_batches_finds_the_weights():
    model, seen = accelerate(classifier()), []

    def watching():
        for batch in batches():
            seen.append(model.get_weights()[0])
            yield batch

    model.fit(watching(), shuffle=False, verbose=0)
    # Keras draws some in advance, to see their shapes.
    assert not np.array_equal(seen[-1], seen[-2])


def test_a_schedule_of_ones_own_finds_the_weights():
    found = []
    for model in (classifier(), accelerate(classifier())):
        scores = []

        def rate(epoch, rate, model=model, scores=scores):
            scores.append(model.evaluate(X, ONE_HOT, verbose=0)[0])
            return rate

        schedule = callbacks.LearningRateScheduler(rate)
        model.fit(X, ONE_HOT, epochs=3, shuffle=False, callbacks=[schedule], verbose=0)
        found.append(scores)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)


def test_metrics_of_streams():
    metrics = ["accuracy", "mse"]
    arrays, streamed = (accelerate(classifier(metrics=metrics)) for _ in range(2))
    expected = arrays.fit(X, ONE_HOT, batch_size=10, shuffle=False, verbose=0)
    found = streamed.fit(Sequence(), shuffle=False, validation_data=Sequence(), verbose=0)
    for name, numbers in expected.history.items():
        assert found.history[name] == pytest.approx(numbers, rel=1e-6)
    assert set(found.history) == {*expected.history, *(f"val_{name}" for name in expected.history)}


def test_rows_are_shuffled_by_the_seed():
    models = [accelerate(classifier(), seed=seed) for seed in (1, 1, 2)]
    for model in models:
        model.fit(X, ONE_HOT, batch_size=8, verbose=0)
    assert_same_weights(models[0], models[1])
    assert not np.array_equal(models[0].get_weights()[0], models[2].get_weights()[0])
    seeds = []
    for _ in range(2):
        keras.utils.set_random_seed(5)
        seeds.append(accelerate(classifier()).fit.__self__._plan.network.seed)
    assert seeds[0] == seeds[1]


def test_rows_are_counted_from_the_initial_epoch():
    history = accelerate(classifier()).fit(X, ONE_HOT, epochs=5, initial_epoch=3, verbose=0)
    assert history.epoch == [3, 4]


@pytest.fixture
def limits():
    if not hasattr(keras.config, "set_max_epochs"):
        pytest.skip("this version of Keras has no limits")
    keras.config.set_max_epochs(2)
    keras.config.set_max_steps_per_epoch(3)
    yield
    keras.config.set_max_epochs(None)
    keras.config.set_max_steps_per_epoch(None)


@pytest.mark.usefixtures("limits")
@pytest.mark.filterwarnings("ignore:Limiting")
def test_limits_for_debugging_are_kept():
    found = []
    for model in (classifier(), accelerate(classifier())):
        history = model.fit(X, ONE_HOT, batch_size=10, epochs=5, shuffle=False, verbose=0)
        scores = model.evaluate(X, ONE_HOT, batch_size=10, verbose=0)
        rows = len(model.predict(X, batch_size=10, verbose=0))
        found.append([len(history.epoch), int(model.optimizer.iterations), rows, *scores])
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert found[0][:3] == [2, 5, 30]  # the second epoch has what is left of the rows


@pytest.mark.usefixtures("limits")
def test_a_limit_is_warned_of():
    model = accelerate(classifier())
    with pytest.warns(UserWarning, match="Limiting epochs to 2"):
        model.fit(X, ONE_HOT, epochs=5, verbose=0)


def test_the_callers_arrays_stay_as_they_are():
    x, y, weights = X.copy(), ONE_HOT.copy(), WEIGHTS.copy()
    accelerate(classifier()).fit(x, y, sample_weight=weights, epochs=2, verbose=0)
    for array, before in ((x, X), (y, ONE_HOT), (weights, WEIGHTS)):
        np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("verbose", [1, 2])
def test_progress_is_keras_own(capsys, verbose):
    lines = []
    for model in (classifier(), accelerate(classifier())):
        model.fit(X, ONE_HOT, epochs=2, shuffle=False, validation_split=0.2, verbose=verbose)
        # But for the times.
        text = capsys.readouterr().out.replace("\x08", "").replace("\r", "\n")
        lines.append([line.split("step - ")[-1] for line in text.splitlines() if "val" in line])
        assert "Epoch 2/2" in text
    assert lines[0] == lines[1]
    assert len(lines[0]) == 2


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ((X, ONE_HOT[:9]), {}, "y: 9 rows do not go with the 50 rows of x"),
        ((X, LABELS), {}, r"y: shape \(50,\) is not \(50, 3\)"),
        ((X,), {}, "y: missing"),
        ((X, ONE_HOT), {"sample_weight": WEIGHTS[:, None] * [1, 2]}, "sample_weight: shape"),
        ((X, ONE_HOT), {"sample_weight": WEIGHTS, "class_weight": {0: 1}}, "class_weight: can't"),
        ((X, ONE_HOT), {"batch_size": 0}, "batch_size: 0 is not an integer >= 1"),
        ((X[:, :2], ONE_HOT), {}, r"x: shape \(50, 2\) is not rows of shape \(5,\)"),
    ],
)
def test_wrong_data_is_refused_and_changes_nothing(arguments, settings, message):
    model = accelerate(classifier())
    with pytest.raises(ValueError, match=message):
        model.fit(*arguments, verbose=0, **settings)
    assert_same_weights(model, classifier())
    assert not model.optimizer.built


@pytest.mark.parametrize("labels", [LABELS + 1, LABELS - 1, LABELS + 0.5])
def test_labels_out_of_range_are_refused(labels):
    model = accelerate(classifier("sparse_categorical_crossentropy"))
    with pytest.raises(ValueError, match=r"y: labels are not all integers in \[0, 3\)"):
        model.fit(X, labels, verbose=0)


# ---------------------------------------------------------------------------------------- callbacks


class Record(callbacks.Callback):
    """All calls with the names of their logs, and the weights that some of them see."""

    def __init__(self):
        super().__init__()
        self.calls, self.seen = [], []

    def __getattribute__(self, name):
        if not name.startswith("on_"):
            return super().__getattribute__(name)

        def hook(*arguments, logs=None):
            *numbers, logs = (*arguments, logs) if len(arguments) < 2 else arguments
            self.calls.append(
                (name, *[n for n in numbers if isinstance(n, int)], sorted(logs or {}))
            )
            if name in ("on_train_batch_end", "on_epoch_end"):
                self.seen.append(self.model.get_weights()[0].copy())
                self.seen.append(np.array(int(self.model.optimizer.iterations)))

        return hook


def test_callbacks_are_called_as_by_keras(tmp_path):
    def run(model, folder):
        record = Record()
        history = model.fit(
            X,
            ONE_HOT,
            batch_size=20,
            epochs=6,
            shuffle=False,
            validation_data=(X[:30], ONE_HOT[:30]),
            validation_batch_size=15,
            verbose=0,
            callbacks=[
                record,
                callbacks.LearningRateScheduler(lambda epoch, rate: 0.9 * rate),
                callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1.0),
                callbacks.ModelCheckpoint(folder / "best.keras", save_best_only=True),
                callbacks.BackupAndRestore(folder / "backup"),
                callbacks.CSVLogger(folder / "log.csv"),
                callbacks.TensorBoard(folder / "board"),
                callbacks.TerminateOnNaN(),
                callbacks.EarlyStopping("val_accuracy", patience=2, restore_best_weights=True),
            ],
        )
        return record, history.history, folder

    models = classifier(), accelerate(classifier())
    (theirs, expected, their_folder), (ours, found, our_folder) = (
        run(model, tmp_path / name) for model, name in zip(models, ("keras", "fastdl"), strict=True)
    )
    assert ours.calls == theirs.calls
    assert len(theirs.calls) > 40
    assert parity.error(ours.seen, theirs.seen) <= TOLERANCE
    assert list(found) == list(expected)
    assert "learning_rate" in found
    assert parity.error(found.values(), expected.values()) <= TOLERANCE
    assert parity.error(models[1].get_weights(), models[0].get_weights()) <= TOLERANCE
    logs = [(folder / "log.csv").read_text().splitlines() for folder in (our_folder, their_folder)]
    assert logs[0][0] == logs[1][0]
    assert len(logs[0]) == len(logs[1])
    best = [keras.models.load_model(folder / "best.keras") for folder in (our_folder, their_folder)]
    assert parity.error(best[0].get_weights(), best[1].get_weights()) <= TOLERANCE
    assert parity.error(*(values_of(model.optimizer) for model in best)) <= TOLERANCE
    assert any((our_folder / "board").rglob("*tfevents*"))


class Results(callbacks.Callback):
    """What the model's metrics hold at each call."""

    def __init__(self):
        super().__init__()
        self.seen = []
        for kind, when in itertools.product(("epoch", "train_batch", "test_batch"), BOTH_ENDS):
            setattr(self, f"on_{kind}_{when}", lambda number, logs=None: self.note())
        for kind in ("train", "test"):
            setattr(self, f"on_{kind}_begin", lambda logs=None: self.note())

    def note(self):
        self.seen.append([float(each) for each in self.model.get_metrics_result().values()])


BOTH_ENDS = "begin", "end"


@pytest.mark.parametrize("metrics", [["accuracy"], ["accuracy", "mse"]])
@pytest.mark.parametrize("data", [(X, ONE_HOT), None], ids=["arrays", "batches"])
def test_callbacks_find_the_results_so_far(metrics, data):
    seen = []
    for model in (classifier(metrics=metrics), accelerate(classifier(metrics=metrics))):
        results = Results()
        model.fit(X, ONE_HOT, shuffle=False, verbose=0)  # builds the metrics
        model.fit(
            *(data or [Sequence()]),
            batch_size=20 if data else None,
            epochs=2,
            shuffle=False,
            validation_data=(X[:30], ONE_HOT[:30]),
            validation_batch_size=15,
            callbacks=[results],
            verbose=0,
        )
        seen.append(results.seen)
    assert len(seen[0]) == len(seen[1]) > 20
    np.testing.assert_allclose(*seen[::-1], rtol=1e-5, atol=1e-7)


def values_of(optimizer):
    return [variable.numpy() for variable in optimizer.variables]


def test_calls_of_evaluation_and_prediction_are_keras_own(scored):
    def calls(model):
        record = Record()
        model.evaluate(X, ONE_HOT, batch_size=20, callbacks=[record], verbose=0)
        model.predict(X, batch_size=20, callbacks=[record], verbose=0)
        return record.calls

    ours, theirs = in_both(scored, calls)
    assert ours == theirs
    assert len(theirs) == 16


def test_hooks_of_batches_come_every_so_many_steps():
    def calls(model):
        record = Record()
        model.fit(X, ONE_HOT, batch_size=10, callbacks=[record], verbose=0)
        model.evaluate(X, ONE_HOT, batch_size=10, callbacks=[record], verbose=0)
        return record.calls

    models = classifier(), classifier()
    for model in models:
        settings = {"steps_per_execution": 3, "jit_compile": parity.JIT}
        model.compile("sgd", "categorical_crossentropy", **settings)
    accelerate(models[1])
    theirs, ours = map(calls, models)
    assert ours == theirs


def test_callbacks_may_change_the_model():
    class Change(callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.set_weights([0.5 * array for array in self.model.get_weights()])

        def on_train_batch_end(self, batch, logs=None):
            self.model.optimizer.learning_rate = 0.01 / (batch + 1)
            self.model.stop_training = batch == 2

    models = (
        classifier(optimizer=optimizers.SGD(0.1, momentum=0.5)),
        accelerate(classifier(optimizer=optimizers.SGD(0.1, momentum=0.5))),
    )
    for model in models:
        history = model.fit(
            X, ONE_HOT, batch_size=10, epochs=3, shuffle=False, callbacks=[Change()], verbose=0
        )
        assert history.epoch == [0]
        assert int(model.optimizer.iterations) == 3
    assert parity.error(models[1].get_weights(), models[0].get_weights()) <= TOLERANCE


class Doubling(callbacks.Callback):
    def on_predict_begin(self, logs=None):
        self.model.set_weights([2 * array for array in self.model.get_weights()])


class DoublingEachBatch(Doubling):
    def on_predict_batch_begin(self, batch, logs=None):
        self.on_predict_begin()


@pytest.mark.parametrize("kind", [Doubling, DoublingEachBatch])
def test_callbacks_may_change_the_weights_to_predict_with(kind):
    theirs, ours = (
        model.predict(X, batch_size=20, callbacks=[kind()], verbose=0)
        for model in (classifier(), accelerate(classifier()))
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_stop_before_the_first_step_leaves_one():
    class Stop(callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.stop_training = True

    for model in (classifier(), accelerate(classifier())):
        history = model.fit(X, ONE_HOT, batch_size=10, epochs=3, callbacks=[Stop()], verbose=0)
        assert history.epoch == [0]
        assert int(model.optimizer.iterations) == 1


def test_a_stop_from_outside_ends_the_epoch(monkeypatch):
    model, take = accelerate(classifier()), fastdl.keras._training.Arrays._take_steps

    def stopping(self, rows, order, batch_size, first, steps, totals):
        # As if time were up after two steps, and another thread had set the flag meanwhile.
        model.stop_training = True
        return take(self, rows, order, batch_size, first, min(steps, 2), totals)

    monkeypatch.setattr(fastdl.keras._training.Arrays, "_take_steps", stopping)
    history = model.fit(X, ONE_HOT, batch_size=10, epochs=3, verbose=0)
    assert history.epoch == [0]
    assert int(model.optimizer.iterations) == 2


def test_training_ends_at_a_loss_that_is_no_number():
    models = [compiled(layers.Dense(3), optimizer=optimizers.SGD(1e30)) for _ in range(2)]
    accelerate(models[1])
    for model in models:
        stop = callbacks.TerminateOnNaN()
        history = model.fit(X, NUMBERS, epochs=50, callbacks=[stop], verbose=0)
        assert history.epoch == [0]
        assert int(model.optimizer.iterations) == 2
        assert not np.isfinite(history.history["loss"][-1])


def test_rows_that_are_no_numbers_make_the_loss_none():
    bad = X.copy()
    bad[3, 0] = np.nan
    history = accelerate(classifier()).fit(bad, ONE_HOT, verbose=0)
    assert np.isnan(history.history["loss"][0])


def test_training_goes_on_from_a_backup(tmp_path):
    class Fail(callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise RuntimeError("power cut")

    settings = {"batch_size": 10, "epochs": 4, "shuffle": False, "verbose": 0}
    whole, broken = accelerate(classifier()), accelerate(classifier())
    whole.fit(X, ONE_HOT, **settings)
    with pytest.raises(RuntimeError, match="power cut"):
        broken.fit(X, ONE_HOT, callbacks=[callbacks.BackupAndRestore(tmp_path), Fail()], **settings)
    again = accelerate(classifier())
    history = again.fit(X, ONE_HOT, callbacks=[callbacks.BackupAndRestore(tmp_path)], **settings)
    assert history.epoch == [2, 3]
    assert parity.error(again.get_weights(), whole.get_weights()) <= TOLERANCE


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("on_train_batch_end", KeyboardInterrupt),
        ("on_epoch_end", ValueError),
        ("on_test_begin", KeyboardInterrupt),
    ],
)
def test_a_fit_that_fails_leaves_the_state_of_a_step(where, error):
    def fail(*arguments, **settings):
        raise error

    failing = callbacks.Callback()
    setattr(failing, where, fail)
    model = accelerate(classifier())
    with pytest.raises(error):
        model.fit(
            X,
            ONE_HOT,
            batch_size=10,
            shuffle=False,
            validation_split=0.2,
            callbacks=[failing],
            verbose=0,
        )
    steps = int(model.optimizer.iterations)
    assert steps == (1 if where == "on_train_batch_end" else 4)
    expected = classifier()
    for step in range(steps):
        rows = slice(10 * step, 10 * step + 10)
        expected.train_on_batch(X[rows], ONE_HOT[rows])
    assert parity.error(model.get_weights(), expected.get_weights()) <= TOLERANCE
    assert parity.error(values_of(model.optimizer), values_of(expected.optimizer)) <= TOLERANCE


class FailsInThirdCall(keras.constraints.Constraint):
    calls = 0

    def __call__(self, weights):
        self.calls += 1
        if self.calls == 3:
            raise RuntimeError("third call")
        return weights


@pytest.mark.parametrize("optimizer", ["adam", "nadam"])
def test_a_constraint_that_fails_leaves_the_state_of_a_step(optimizer):
    models = [
        parity.drawn(
            compiled(
                layers.Dense(4, "tanh", bias_constraint="non_neg"),
                layers.Dense(3, kernel_constraint=constraint),
                optimizer=optimizer,
            )
        )
        for constraint in (None, FailsInThirdCall())
    ]
    batches = [(X[i : i + 10], NUMBERS[i : i + 10]) for i in range(0, 50, 10)]
    for batch in batches[:2]:
        accelerate(models[0]).train_on_batch(*batch)
    with pytest.raises(RuntimeError, match="third call"):
        accelerate(models[1]).fit(X, NUMBERS, batch_size=10, shuffle=False, verbose=0)
    assert int(models[1].optimizer.iterations) == 2
    assert_same_weights(*models)
    assert parity.error(values_of(models[1].optimizer), values_of(models[0].optimizer)) == 0
    for model in models:  # and goes on from there
        model.train_on_batch(*batches[2])
    assert_same_weights(*models)


def test_ctrl_c_leaves_the_state_of_a_step(ctrl_c_in_third_call):
    model = accelerate(classifier(), seed=0)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, ONE_HOT, batch_size=1, epochs=10**9, verbose=0)
    steps = int(model.optimizer.iterations)
    assert steps > 0

    class Stop(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.left -= 1
            self.model.stop_training = self.left == 0

    stop = Stop()
    stop.left = steps % parity.ROWS
    expected = accelerate(classifier(), seed=0)
    expected.fit(X, ONE_HOT, batch_size=1, epochs=steps // parity.ROWS, verbose=0)
    if stop.left:
        expected.fit(X, ONE_HOT, batch_size=1, callbacks=[stop], verbose=0)
    assert_same_weights(model, expected)
    assert parity.error(values_of(model.optimizer), values_of(expected.optimizer)) == 0


# ------------------------------------------------------------------------------- what can't be done


def two_outputs():
    start = keras.Input((parity.FEATURES,))
    model = keras.Model(start, [layers.Dense(1)(start), layers.Dense(1)(start)])
    model.compile("sgd", loss="mse")
    return model


def named_output():
    start = keras.Input((parity.FEATURES,))
    model = keras.Model(start, {"out": layers.Dense(1)(start)})
    model.compile("sgd", loss="mse")
    return model


def compiled(*parts, features=(parity.FEATURES,), input_dtype=None, **settings):
    model = keras.Sequential([layers.Input(features, dtype=input_dtype), *parts])
    model.compile(**{"optimizer": "sgd", "loss": "mse", "jit_compile": parity.JIT} | settings)
    return model


class OwnStep(keras.Sequential):
    def train_step(self, data):
        return super().train_step(data)


class OwnFit(keras.Sequential):
    def fit(self, *arguments, **settings):
        return super().fit(*arguments, **settings)


def own(kind):
    model = kind([layers.Input((parity.FEATURES,)), layers.Dense(1)], name="mine")
    model.compile("sgd", "mse")
    return model


def with_method(name):
    model = compiled(layers.Dense(1))
    setattr(model, name, lambda *arguments: {})
    return model


def own_metric():
    model = compiled(layers.Dense(1))
    model.seen = keras.metrics.Mean(name="seen")
    return model


def layer_used_twice():
    start, layer = keras.Input((4,)), layers.Dense(4, name="twice")
    model = keras.Model(start, layer(layer(start)))
    model.compile("sgd", "mse")
    return model


def all_frozen():
    model = compiled(layers.Dense(1))
    model.trainable = False
    return model


def distributed():
    import tensorflow as tf

    with tf.distribute.OneDeviceStrategy("cpu:0").scope():
        return compiled(layers.Dense(1))


UNSUPPORTED = {
    r"mine \(OwnStep\): has a train_step of its own": lambda: own(OwnStep),
    r"mine \(OwnFit\): has a fit of its own": lambda: own(OwnFit),
    r"\(Sequential\): has a train_step of its own": lambda: with_method("train_step"),
    "metrics: seen was not given to compile": own_metric,
    r"twice \(Dense\): stands at two places": layer_used_twice,
    r"slope \(ELU\): alpha: -0.5 is not a finite number >= 0": lambda: compiled(
        layers.Dense(1), layers.ELU(alpha=-0.5, name="slope")
    ),
    r"act \(ReLU\): has a max_value or a threshold": lambda: compiled(
        layers.Dense(1), layers.ReLU(6, name="act")
    ),
    r"act \(Softmax\): axis is 0": lambda: compiled(
        layers.Dense(1), layers.Softmax(axis=0, name="act")
    ),
    "loss: delta: 0.0 is not a finite number > 0": lambda: compiled(
        layers.Dense(1), loss=keras.losses.Huber(0.0)
    ),
    "loss: label_smoothing: -0.1 is not": lambda: compiled(
        layers.Dense(3, "softmax"),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=-0.1),
    ),
    "loss: dtype float16 is not": lambda: compiled(
        layers.Dense(1), loss=keras.losses.MeanSquaredError(dtype="float16")
    ),
    r"conv \(Conv2D\): stands before the first Dense": lambda: compiled(
        layers.Conv2D(2, 3, name="conv"), layers.Flatten(), layers.Dense(1), features=(8, 8, 1)
    ),
    r"norm \(BatchNormalization\): BatchNormalization is not supported": lambda: compiled(
        layers.Dense(3), layers.BatchNormalization(name="norm"), layers.Dense(1)
    ),
    "dtype: bfloat16, float32 is not": lambda: compiled(layers.Dense(1, dtype="mixed_bfloat16")),
    "not one input and one output": two_outputs,
    "loss: hinge is not supported": lambda: compiled(layers.Dense(1), loss="hinge"),
    "loss: 'crossentropy' is not supported": lambda: compiled(layers.Dense(1), loss="crossentropy"),
    "loss: <lambda> is not supported": lambda: compiled(
        layers.Dense(1), loss=lambda y, p: keras.ops.mean(p)
    ),
    "loss: reduction 'none' is not supported": lambda: compiled(
        layers.Dense(1), loss=keras.losses.MeanSquaredError(reduction="none")
    ),
    "loss_weights: not supported": lambda: compiled(layers.Dense(1), loss_weights=[0.5]),
    "loss: BinaryCrossentropy of softmax outputs is not the same": lambda: compiled(
        layers.Dense(2, "softmax"), loss="binary_crossentropy"
    ),
    "optimizer: Adadelta is not supported": lambda: compiled(layers.Dense(1), optimizer="adadelta"),
    "optimizer: gradient_accumulation_steps=2": lambda: compiled(
        layers.Dense(1), optimizer=optimizers.SGD(gradient_accumulation_steps=2)
    ),
    "a learning_rate that is a function": lambda: compiled(
        layers.Dense(1), optimizer=optimizers.SGD(lambda: 0.1)
    ),
    "optimizer: end_learning_rate: -0.1 is not": lambda: compiled(
        layers.Dense(1),
        optimizer=optimizers.SGD(optimizers.schedules.PolynomialDecay(0.1, 10, -0.1)),
    ),
    "the model is not compiled": lambda: keras.Sequential([layers.Input((5,)), layers.Dense(1)]),
    "without an optimizer or a loss": lambda: compiled(layers.Dense(1), loss=None),
    "nothing in it is trainable": all_frozen,
    "made under a strategy of tf.distribute": distributed,
    r"twice \(Dropout\): follows Dropout": lambda: compiled(
        layers.Dropout(0.5), layers.Dropout(0.5, name="twice"), layers.Dense(1)
    ),
    "has an activity_regularizer": lambda: compiled(layers.Dense(1, activity_regularizer="l2")),
    r"act \(ReLU\): has an activity_regularizer": lambda: compiled(
        layers.Dense(1), layers.ReLU(activity_regularizer="l2", name="act")
    ),
    r"inner \(ReLU\): has an activity_regularizer": lambda: compiled(
        layers.Dense(1, activation=layers.ReLU(activity_regularizer="l2", name="inner"))
    ),
    r"flat \(Flatten\): has an activity_regularizer": lambda: compiled(
        layers.Flatten(activity_regularizer="l2", name="flat"), layers.Dense(1)
    ),
    "dtype: float16, float32 is not float32": lambda: compiled(
        layers.Dense(1), layers.Activation("relu", dtype="float16")
    ),
    "dtype: float32, float64 is not float32": lambda: compiled(
        layers.Dense(1, dtype="float64"), layers.ReLU(dtype="float32")
    ),
    "its outputs are a dict": named_output,
    "kernel_regularizer OrthogonalRegularizer": lambda: compiled(
        layers.Dense(1, kernel_regularizer=keras.regularizers.OrthogonalRegularizer())
    ),
}


@pytest.mark.parametrize("message", UNSUPPORTED)
def test_what_is_not_supported_is_named_and_left_alone(message):
    model = UNSUPPORTED[message]()
    before = dict(vars(model))
    with pytest.raises(UnsupportedModelError, match=message):
        accelerate(model)
    with pytest.raises(UnsupportedModelError, match=message):
        fastdl.keras.fit(model, X, X[:, 0], verbose=0)
    with pytest.warns(UserWarning, match=message) as warned:
        assert accelerate(model, fallback=True) is model
    assert len(warned) == 1
    assert vars(model).keys() == before.keys()
    assert model.fit.__func__ is type(model).fit


def test_methods_of_the_objects_own_are_not_replaced():
    model = with_method("predict_on_batch")
    with pytest.raises(UnsupportedModelError, match="has a predict_on_batch of its own"):
        accelerate(model)
    with pytest.warns(UserWarning, match="has a predict_on_batch of its own"):
        assert accelerate(model, fallback=True).predict_on_batch(X) == {}
    assert fastdl.keras.fit(model, X, X[:, 0], verbose=0).epoch == [0]


def test_fit_falls_back_to_keras():
    model = compiled(layers.Dense(1), loss="hinge")
    with pytest.warns(UserWarning, match="hinge is not supported; left to Keras") as warned:
        history = fastdl.keras.fit(model, X, np.ones(50), fallback=True, epochs=2, verbose=0)
    assert len(warned) == 1
    assert history.epoch == [0, 1]


def test_a_model_that_is_compiled_anew_is_read_anew():
    model = accelerate(classifier())
    model.compile("adadelta", loss="categorical_crossentropy")
    with pytest.raises(UnsupportedModelError, match="Adadelta"):
        model.fit(X, ONE_HOT, verbose=0)
    model.compile(optimizers.SGD(0.1), loss="mse")
    model.fit(X, ONE_HOT, batch_size=50, verbose=0)
    expected = classifier(loss="mse", optimizer=optimizers.SGD(0.1))
    expected.fit(X, ONE_HOT, batch_size=50, verbose=0)
    assert parity.error(model.get_weights(), expected.get_weights()) <= TOLERANCE

    model = accelerate(classifier(), fallback=True)
    model.compile("adadelta", loss="categorical_crossentropy")
    settings = {"validation_data": (X, ONE_HOT), "epochs": 2, "verbose": 0}
    with pytest.warns(UserWarning, match="Adadelta is not supported; left to Keras") as warned:
        assert model.fit(X, ONE_HOT, **settings).epoch == [0, 1]
    assert len(warned) == 1


def changeable():
    model = parity.drawn(
        compiled(
            layers.Dense(8, "relu"),
            layers.Dropout(0.5),
            layers.Dense(3, activation=layers.LeakyReLU(0.5)),
            optimizer=optimizers.Adam(0.01, weight_decay=0.5),
        )
    )
    model.layers[1].rate = 0.0
    return model


def replace_last(model):
    model.pop()
    model.add(layers.Dense(3, "tanh"))
    parity.drawn(model)


# What takes effect without another `compile`.
CHANGES = {
    "exclusion": lambda model: model.optimizer.exclude_from_weight_decay(var_names=["bias"]),
    "clipping": lambda model: setattr(model.optimizer, "clipnorm", 0.01),
    "beta": lambda model: setattr(model.optimizer, "beta_1", 0.5),
    "layers": replace_last,
    "activation": lambda model: setattr(model.layers[0], "activation", keras.activations.tanh),
    "slope": lambda model: setattr(model.layers[2].activation, "negative_slope", 0.1),
    "penalty": lambda model: setattr(
        model.layers[0].kernel, "regularizer", keras.regularizers.L2(0.3)
    ),
    "constraint": lambda model: setattr(
        model.layers[0].bias, "constraint", keras.constraints.NonNeg()
    ),
    "constraint of two axes": lambda model: setattr(
        model.layers[0].kernel, "constraint", keras.constraints.MaxNorm(0.5, axis=[0, 1])
    ),
    "frozen": lambda model: setattr(model.layers[0].kernel, "trainable", False),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_without_another_compile_are_seen(name):
    models = changeable(), changeable()
    models[1].layers[1].rate = 0.5
    accelerate(models[1]).layers[1].rate = 0.0
    for model in models:
        CHANGES[name](model)
        model.fit(X, NUMBERS, epochs=2, shuffle=False, verbose=0)
    assert parity.error(models[1].get_weights(), models[0].get_weights()) <= TOLERANCE


def test_weights_that_are_trained_again():
    models = changeable(), changeable()
    for model in models:
        model.layers[0].kernel.trainable = False
    accelerate(models[1])
    for model in models:
        model.layers[0].kernel.trainable = True
        model.fit(X, NUMBERS, epochs=2, shuffle=False, verbose=0)
    assert parity.error(models[1].get_weights(), models[0].get_weights()) <= TOLERANCE


def test_a_step_of_the_objects_own_is_seen():
    model = accelerate(classifier())
    model.train_step = lambda data: {}
    with pytest.raises(UnsupportedModelError, match="has a train_step of its own"):
        model.fit(X, ONE_HOT, verbose=0)


def test_methods_may_be_wrapped_afterwards():
    models = classifier(), accelerate(classifier())
    for model in models:
        fit, predict = model.fit, model.predict
        model.fit = lambda *data, fit=fit: fit(*data, batch_size=10, shuffle=False, verbose=0)
        model.predict = lambda x, predict=predict: predict(x, verbose=0) * 2
        model.fit(X, ONE_HOT)
        model.evaluate(X, ONE_HOT, verbose=0)
    assert parity.error(models[1].get_weights(), models[0].get_weights()) <= TOLERANCE
    theirs, ours = (model.predict(X) for model in models)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_predictions_see_a_step_of_the_objects_own():
    model = accelerate(classifier())
    model.predict(X, verbose=0)
    model.predict_step = lambda data: data
    with pytest.raises(UnsupportedModelError, match="has a predict_step of its own"):
        model.predict(X, verbose=0)


def test_a_layer_without_weights_may_stand_at_two_places():
    def make():
        relu, start = layers.ReLU(), keras.Input((parity.FEATURES,))
        end = layers.Dense(3, "softmax")(relu(layers.Dense(6)(relu(layers.Dense(8)(start)))))
        model = keras.Model(start, end)
        model.compile("adam", "categorical_crossentropy", jit_compile=parity.JIT)
        return parity.drawn(model), ONE_HOT

    assert parity.hand_over(make) <= TOLERANCE


def test_metrics_may_be_attributes_too():
    def make():
        model = classifier()
        model.own = keras.metrics.CategoricalAccuracy()
        model.compile("sgd", "mse", metrics=[model.own], jit_compile=parity.JIT)
        return model, ONE_HOT

    assert accelerate(make()[0]).fit(X, ONE_HOT, verbose=0).epoch == [0]
    assert parity.hand_over(make) <= TOLERANCE


@pytest.mark.parametrize("name", ["layers", "activation", "slope"])
def test_predictions_are_those_of_the_layers_there_are(name):
    models = changeable(), accelerate(changeable())
    models[1].predict(X, verbose=0)
    for model in models:
        CHANGES[name](model)
    theirs, ours = (model.predict(X, verbose=0) for model in models)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_fit_goes_on_with_what_it_began_with():
    class Change(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.optimizer.clipnorm = 1e-3
            self.model.evaluate(X, NUMBERS, verbose=0)

    models = changeable(), changeable()
    for model in models:
        accelerate(model).fit(
            X,
            NUMBERS,
            epochs=3,
            shuffle=False,
            callbacks=[Change()] if model is models[1] else [],
            verbose=0,
        )
    assert_same_weights(*models)


def test_an_optimizer_of_other_weights_is_refused():
    optimizer = optimizers.Adam()
    classifier(optimizer=optimizer).fit(X, ONE_HOT, verbose=0)
    model = accelerate(classifier(optimizer=optimizer))
    with pytest.raises(ValueError, match="optimizer: it was built for other variables"):
        model.fit(X, ONE_HOT, verbose=0)


def test_an_optimizer_of_other_weights_is_left_to_keras():
    model = classifier()
    model.fit(X, ONE_HOT, verbose=0)
    model.layers[0].trainable = False
    model.compile(model.optimizer, "categorical_crossentropy", jit_compile=parity.JIT)
    accelerate(model, fallback=True)
    with pytest.warns(UserWarning, match="optimizer: it was built for other variables"):
        assert model.fit(X, ONE_HOT, verbose=0).epoch == [0]


def test_a_frozen_model_left_to_keras_is_validated():
    model = accelerate(classifier(), fallback=True)
    model.trainable = False
    model.compile("sgd", "categorical_crossentropy", jit_compile=parity.JIT)
    with pytest.warns(UserWarning, match="nothing in it is trainable"):
        history = model.fit(X, ONE_HOT, validation_data=(X, ONE_HOT), verbose=0).history
    assert history["val_loss"] == pytest.approx(history["loss"], rel=1e-5)


def test_arguments_are_checked():
    with pytest.raises(TypeError, match=r"model: .* is not a Keras model"):
        accelerate(fastdl.MLP([2, 1]))
    with pytest.raises(TypeError, match=r"model: .* is not a Keras model"):
        restore(fastdl.MLP([2, 1]))
    with pytest.raises(TypeError, match="fallback"):
        accelerate(classifier(), fallback=1)
    with pytest.raises(ValueError, match="seed: -1"):
        accelerate(classifier(), seed=-1)
    with pytest.raises(ValueError, match="Arguments not recognized"):
        accelerate(classifier()).evaluate(X, ONE_HOT, batches=3)


def test_summary_says_what_trains_the_model(capsys):
    accelerate(classifier()).summary()
    assert capsys.readouterr().out.endswith("Trained by fastdl's engine\n")
    lines = []
    model = accelerate(classifier(optimizer="nadam", metrics=["mse"], use_bias=False))
    model.fit(X, ONE_HOT, verbose=0)
    model.summary(print_fn=lines.append)
    assert lines[-1] == (
        "Trained by fastdl, kernel by kernel: a Dense layer without bias, optimizer Nadam, "
        "metrics that Keras counts"
    )
    restore(model).summary()
    assert "fastdl" not in capsys.readouterr().out


def test_accelerating_twice_and_restoring_are_harmless():
    model = accelerate(accelerate(classifier()))
    model.fit(X, ONE_HOT, verbose=0)
    assert fastdl.keras.fit(model, X, ONE_HOT, verbose=0).epoch == [0]
    assert restore(restore(model)).fit.__func__ is keras.Sequential.fit
    plain = classifier()
    fastdl.keras.fit(plain, X, ONE_HOT, verbose=0)
    assert "fit" not in vars(plain)


# --------------------------------------------------------------------------------- dropout and luck


def test_dropout_learns_as_keras_does():
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 10)).astype(np.float32)
    y = (x[:, :5].prod(axis=1) + x[:, 5] > 0).astype(np.float32)[:, None]
    model = compiled(
        layers.Dense(32, "relu"),
        layers.Dropout(0.5),
        layers.Dense(32, "relu"),
        layers.Dropout(0.5),
        layers.Dense(1, "sigmoid"),
        features=(10,),
        optimizer=optimizers.Adam(0.03),
        loss="binary_crossentropy",
        metrics=["accuracy"],
    )
    model.optimizer.build(model.trainable_variables)

    def losses(run):
        found = []
        for seed in range(12):
            keras.utils.set_random_seed(seed)
            parity.drawn(model, seed)
            for variable in model.optimizer.variables:
                if "learning_rate" not in variable.path:
                    variable.assign(np.zeros(variable.shape))
            history = run(model).fit(x, y, batch_size=25, epochs=3, verbose=0).history
            found.append((history["loss"][-1], history["accuracy"][-1]))
        return np.array(found)

    # Keras traces a model anew whenever it is handed over: once is enough.
    restore(model)
    theirs, ours = losses(lambda model: model), losses(accelerate)
    # The difference of two means, in units of its standard deviation.
    spread = np.sqrt((theirs.var(axis=0, ddof=1) + ours.var(axis=0, ddof=1)) / 12)
    difference = np.abs(theirs.mean(axis=0) - ours.mean(axis=0))
    assert (difference < 3 * spread).all(), (theirs, ours)
    assert ours[:, 1].mean() > 0.6


@pytest.mark.each_build
@pytest.mark.parametrize("shuffle", [False, True])
def test_inputs_are_dropped(shuffle):
    model = parity.drawn(compiled(layers.Dropout(0.3), layers.Dense(3)))
    model.compile(optimizers.SGD(0.0), loss="mse")
    before = X.copy()
    accelerate(model, seed=5)
    weights, bias = model.get_weights()
    for step in range(2):
        found = model.fit(X, NUMBERS, batch_size=50, shuffle=shuffle, verbose=0).history["loss"][0]
        order = np.arange(50)
        if shuffle:
            reference.permutation(5, step, order)
        kept = np.empty_like(X)
        reference.dropout(X[order], 0.3, 5, step, 1, kept)
        expected = np.mean((kept @ weights + bias - NUMBERS[order]) ** 2)
        assert found == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(X, before)
    loss = model.evaluate(X, NUMBERS, verbose=0)
    assert loss == pytest.approx(np.mean((X @ weights + bias - NUMBERS) ** 2), rel=1e-5)


# ----------------------------------------------------------------------------------- other backends

ELSEWHERE = """
import sys

import numpy as np

import keras_parity as parity
from fastdl.keras import accelerate, import_keras

keras = import_keras()
assert not {"tensorflow", "jax", "torch"} & set(sys.modules), sys.modules.keys()
folder = sys.argv[1]
model = accelerate(keras.models.load_model(folder + "/start.keras"), seed=3)
stop = keras.callbacks.EarlyStopping("val_loss", patience=3, restore_best_weights=True)
best = keras.callbacks.ModelCheckpoint(folder + "/best.keras", save_best_only=True)
history = model.fit(
    parity.X, parity.ONE_HOT, epochs=8, validation_split=0.2, verbose=2, callbacks=[stop, best]
)
model.train_on_batch(parity.X, parity.ONE_HOT)
scores = model.evaluate(parity.X, parity.ONE_HOT, verbose=0)
np.savez(folder + "/numpy.npz", scores, model.predict(parity.X, verbose=0), *model.get_weights())
model.save(folder + "/end.keras")
keras.models.load_model(folder + "/best.keras")
"""


NUMPY_ALONE = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("jax", "scipy", "sklearn", "tensorflow", "torch"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
"""


def test_keras_trains_with_numpy_alone(tmp_path):
    model = keras.Sequential(
        [
            layers.Input((parity.FEATURES,)),
            layers.Dense(8, "relu"),
            layers.Dropout(0.5),
            layers.Dense(3, "softmax"),
        ]
    )
    model.compile("adam", loss="categorical_crossentropy", metrics=["accuracy"])
    parity.drawn(model).save(tmp_path / "start.keras")
    printed = python(NUMPY_ALONE + ELSEWHERE, tmp_path, backend="numpy")
    assert "Epoch 8/8" in printed

    stop = callbacks.EarlyStopping("val_loss", patience=3, restore_best_weights=True)
    accelerate(model, seed=3).fit(
        X, ONE_HOT, epochs=8, validation_split=0.2, verbose=0, callbacks=[stop]
    )
    model.train_on_batch(X, ONE_HOT)
    with np.load(tmp_path / "numpy.npz") as found:
        scores, predictions, *weights = found.values()
    for ours, theirs in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(predictions, model.predict(X, verbose=0))
    np.testing.assert_array_equal(scores, model.evaluate(X, ONE_HOT, verbose=0))
    again = keras.models.load_model(tmp_path / "end.keras")
    assert_same_weights(again, model)
    assert parity.error(values_of(again.optimizer), values_of(model.optimizer)) == 0


def test_the_exercise_runs_with_numpy_alone():
    code = """
import numpy as np
from fastdl.assignments.mnist import *

random = np.random.default_rng(0)
labels = random.integers(0, 10, 500)
images = random.uniform(0, 0.3, (500, 28, 28)).astype("float32")
images[np.arange(500), 2 * labels] += 0.7
data = (images[:400], labels[:400]), (images[400:], labels[400:])
model = build_model(dropout=0.1)
model.fit(images, np.eye(10)[labels], validation_data=(images, np.eye(10)[labels]), epochs=2)
history = train(model, data, epochs=10, verbose=0)
print(max(history.history["val_accuracy"]))
"""
    *progress, accuracy = python(NUMPY_ALONE + code, backend="numpy").splitlines()
    assert "Epoch 2/2" in progress
    assert float(accuracy) > 0.9


def test_what_numpy_alone_can_not_do_names_the_package():
    code = """
from fastdl.keras import import_keras

keras = import_keras()
try:
    keras.ops.max_pool(keras.ops.ones((1, 4, 4, 1)), 2)
except ImportError as error:
    print(error)
assert not {"jax", "scipy", "keras.src.backend.jax"} & set(sys.modules)
"""
    printed = python(NUMPY_ALONE + code, backend="numpy")
    assert printed == "jax.lax.reduce_window: needs the package jax\n"
