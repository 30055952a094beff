"""A curve through noisy points: regression that stops when the validation points say so."""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fastdl import MLP, EarlyStopping
from fastdl.optimizers import Adam


def main(folder):
    rng = np.random.default_rng(0)
    x = rng.uniform(-3, 3, (400, 1))
    y = np.sin(2 * x[:, 0]) + 0.2 * x[:, 0] + 0.2 * rng.standard_normal(400)

    network = MLP([1, 32, 32, 1], activation="tanh", loss="mean_squared_error", seed=0)
    stop = EarlyStopping(patience=30, restore_best_weights=True)
    network.fit(
        x, y, epochs=500, optimizer=Adam(0.01), validation_split=0.25, callbacks=[stop], verbose=0
    )

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(x, y, ".", color="silver", label="points")
    grid = np.linspace(-3, 3, 400)[:, None]
    axes.plot(grid, network.predict(grid), label=f"network of epoch {stop.best_epoch + 1}")
    axes.legend()
    figure.savefig(Path(folder) / "regression.png", dpi=80)


if __name__ == "__main__":
    main(*sys.argv[1:])
