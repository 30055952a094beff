"""Keras models as people run them: `fit` and `predict`, by Keras and, accelerated, by fastdl.

The model is the exercise's, with its metric, progress bar, validation data and early stopping. What
fastdl is to Keras here is under Keras's TensorFlow backend, whose variables it reads and writes.
"""

import contextlib
import functools
import os

import numpy as np

from fastdl.assignments import mnist
from fastdl.keras import restore

from . import Job
from .training import _same_work

FIT = "fit of a Keras model, MNIST"
PREDICT = "predict of a Keras model, one MNIST row"


def jobs():
    return [
        Job(
            FIT,
            {library: fit(library) for library in ("fastdl", "Keras", "Keras (JAX)")},
            together={"fastdl": 13},
            size=1,
            check_size=1,
            agree=functools.partial(_same_work, tolerance=0.1),
            prepare=images,
        ),
        Job(
            PREDICT,
            {library: predict(library) for library in ("fastdl", "Keras", "Keras (JAX)")},
            size=1,
            check_size=1,
            agree=functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
            prepare=images,
        ),
    ]


@functools.cache
def images():
    """Images and one-hot rows, to train on and to validate with."""
    (X, y), (X_val, y_val), _ = mnist.load_data()
    one_hot = np.eye(10, dtype=np.float32)
    return X, one_hot[y], X_val, one_hot[y_val]


def model(library):
    import keras

    keras.utils.set_random_seed(0)
    made = mnist.build_model()
    return made if library == "fastdl" else restore(made)


def fit(library):
    trained = functools.cache(functools.partial(model, library))

    def run(epochs):
        import keras

        X, y, X_val, y_val = images()
        stop = keras.callbacks.EarlyStopping(
            monitor="val_accuracy", patience=epochs, restore_best_weights=True
        )
        # The bar is drawn as on a terminal; a worker's own output is for answers.
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            history = trained().fit(
                X, y, epochs=epochs, validation_data=(X_val, y_val), callbacks=[stop]
            )
        return history.history["loss"][0]

    return run


def predict(library):
    @functools.cache
    def ready():
        made = model(library)
        generator = np.random.default_rng(0)
        made.set_weights([generator.normal(size=w.shape) / 12 for w in made.get_weights()])
        return made, images()[2][:1].copy()

    def run(times):
        made, row = ready()
        for _ in range(times):
            answer = made.predict(row, verbose=0)
        return answer

    return run
