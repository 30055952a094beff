"""Two classes about a circle: a small network finds the boundary between them."""

import sys
from pathlib import Path

from fastdl import MLP, datasets, plots
from fastdl.optimizers import Adam


def main(folder):
    X, y = datasets.load_circle(n_samples=826, seed=0)

    network = MLP([2, 16, 16, 1], activation="tanh", seed=0)
    history = network.fit(X, y, epochs=60, batch_size=32, optimizer=Adam(0.01), verbose=0)

    figure = plots.decision_surface(
        lambda points: network.predict(points)[:, 0],
        X,
        y,
        history.history["loss"],
        title="2-16-16-1, tanh",
    )
    figure.axes[1].set_title("Training loss", loc="left")
    figure.axes[1].set_xlabel("epoch")
    figure.savefig(Path(folder) / "circle.png", dpi=80)


if __name__ == "__main__":
    main(*sys.argv[1:])
