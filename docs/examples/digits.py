"""Digits of 8 x 8 pixels, with dropout and a falling learning rate: curves and learnt weights."""

import sys
from pathlib import Path

from sklearn.datasets import load_digits

from fastdl import MLP, plots
from fastdl.optimizers import Adam
from fastdl.schedules import CosineDecay


def main(folder):
    digits = load_digits()
    X, y = digits.data / 16, digits.target

    network = MLP([64, 64, 32, 10], activation="relu", dropout=[0.3, 0.1], seed=0)
    epochs, batch_size, split = 40, 32, 0.25
    steps = epochs * len(X) * (1 - split) // batch_size
    history = network.fit(
        X,
        y,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=Adam(CosineDecay(0.003, decay_steps=int(steps))),
        validation_split=split,
        verbose=0,
    )

    curves = plots.learning_curves(history.history, title="Digits, 64-64-32-10")
    curves.savefig(Path(folder) / "digits_curves.png", dpi=80)
    weights = plots.layer_weights(network.weights[::2], image_shape=(8, 8))
    weights.savefig(Path(folder) / "digits_weights.png", dpi=60)


if __name__ == "__main__":
    main(*sys.argv[1:])
