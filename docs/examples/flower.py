"""How many hidden units does the flower need? Seven networks, trained in one compiled call."""

import sys
from pathlib import Path

from fastdl.assignments import planar


def main(folder):
    X, Y = planar.load_planar_dataset()
    study = planar.hidden_size_study(X, Y, sizes=(1, 2, 3, 4, 5, 20, 50))
    figure = planar.plot_hidden_sizes(study, X, Y)
    figure.savefig(Path(folder) / "flower.png", dpi=60)


if __name__ == "__main__":
    main(*sys.argv[1:])
