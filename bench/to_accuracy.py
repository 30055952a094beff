"""Time the MNIST network from new until it is right about 97.5 % of the validation images.

    python bench/to_accuracy.py            both settings, a table
    python bench/to_accuracy.py --json     the same as JSON

"default" is batches of 32 and Adam as it is, validated after each epoch; "fast" is
`mnist.train_fast`. The clock runs from the call of `fit` on a network that has been built and
images that have been loaded, and includes the checks of the data and all validations. Exits with 1
where a seed falls short of the accuracy or a limit is not kept.
"""

import argparse
import json
import statistics
import sys
import time

from fastdl.assignments import mnist
from fastdl.callbacks import StopAt

TARGET = 0.975
MOST_EPOCHS = 60
LIMITS = {"default": (statistics.median, 2.5), "fast": (max, 1.0)}  # of the seeds' seconds


def train_default(network, data):
    """Train with batches of 32 and Adam's defaults; return the accuracy after each epoch."""
    (X, y), validation, *_ = data
    history = network.fit(
        X,
        y,
        epochs=MOST_EPOCHS,
        batch_size=32,
        optimizer="adam",
        validation_data=validation,
        callbacks=[StopAt(TARGET)],
        verbose=0,
    )
    return history.history["val_accuracy"]


SETTINGS = {"default": train_default, "fast": mnist.train_fast}


def measure(train, data, seeds):
    """The seconds, the accuracy and the number of validations of each seed."""
    runs = []
    for seed in seeds:
        network = mnist.build_network(seed=seed)
        start = time.perf_counter()
        accuracies = train(network, data)
        seconds = time.perf_counter() - start
        runs.append(
            {
                "seed": seed,
                "seconds": seconds,
                "accuracy": accuracies[-1],
                "validations": len(accuracies),
            }
        )
    return runs


def summary(name, runs):
    """What the seeds of a setting come to."""
    seconds = [run["seconds"] for run in runs]
    statistic, limit = LIMITS[name]
    return {
        "setting": name,
        "runs": runs,
        "median": statistics.median(seconds),
        "limit": f"{statistic.__name__} under {limit:g} s",
        "met": statistic(seconds) < limit and all(run["accuracy"] > TARGET for run in runs),
    }


def show(result):
    print(f"\n{result['setting']}\nseed   seconds   accuracy   validations")
    for run in result["runs"]:
        accuracy = f"{100 * run['accuracy']:.2f} %"
        print(f"{run['seed']:4}{run['seconds']:10.3f}{accuracy:>11}{run['validations']:14}")
    verdict = "met" if result["met"] else "NOT MET"
    print(f"median {result['median']:.3f} s; {result['limit']}: {verdict}")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=SETTINGS, help="one of the settings")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="0 to N - 1")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    data = mnist.load_data()
    results = []
    for name in [options.only] if options.only else SETTINGS:
        results.append(summary(name, measure(SETTINGS[name], data, range(options.seeds))))
        if not options.json:
            show(results[-1])
    if options.json:
        print(json.dumps(results, indent=1))
    return 0 if all(result["met"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
