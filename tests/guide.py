"""The examples of scikit-learn's user guide on neural networks and on SGD, each as a score.

An example is a function of a namespace with the classes `MLPClassifier`, `MLPRegressor` and
`SGDClassifier`: scikit-learn's, or fastdl's under these names. Those on SGD are the ones for which
a logistic regression is what the guide trains, or may stand in. Run as a program, this prints the
scores of all with both, MNIST's filters included:

    python tests/guide.py

The two longest have less to do where `quick` is set, for the tests.
"""

import time
import warnings
from types import SimpleNamespace

import numpy as np
from sklearn import datasets, linear_model, neural_network
from sklearn.datasets import (
    load_digits,
    load_iris,
    make_blobs,
    make_circles,
    make_classification,
    make_moons,
    make_regression,
)
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import fastdl
from fastdl.sklearn import MLPClassifier, MLPRegressor, SGDLogisticRegression

THEIRS = SimpleNamespace(
    MLPClassifier=neural_network.MLPClassifier,
    MLPRegressor=neural_network.MLPRegressor,
    SGDClassifier=linear_model.SGDClassifier,
)
OURS = SimpleNamespace(
    MLPClassifier=MLPClassifier, MLPRegressor=MLPRegressor, SGDClassifier=SGDLogisticRegression
)

CORNERS = np.array([[0.0, 0.0], [1.0, 1.0]])


# ---------------------------------------------------------------------------------- neural networks


def two_points(models):
    """Classification: two rows, and what is asked of the model afterwards."""
    model = models.MLPClassifier(
        solver="lbfgs", alpha=1e-5, hidden_layer_sizes=(5, 2), random_state=1
    )
    model.fit(CORNERS, [0, 1])
    assert [coef.shape for coef in model.coefs_] == [(2, 5), (5, 2), (2, 1)]
    assert model.predict_proba([[2.0, 2.0], [1.0, 2.0]]).shape == (2, 2)
    return float((model.predict([[2.0, 2.0], [-1.0, -2.0]]) == [1, 0]).mean())


def two_points_of_two_labels(models):
    model = models.MLPClassifier(
        solver="lbfgs", alpha=1e-5, hidden_layer_sizes=(15,), random_state=1
    )
    model.fit(CORNERS, [[0, 1], [1, 1]])
    return float((model.predict([[1.0, 2.0], [0.0, 0.0]]) == [[1, 1], [0, 1]]).mean())


def iteration_by_iteration(models):
    """More control: ten fits of one iteration with warm_start."""
    model = models.MLPClassifier(
        hidden_layer_sizes=(15,), random_state=1, max_iter=1, warm_start=True
    )
    for _ in range(10):
        model.fit(CORNERS, [0, 1])
    assert len(model.loss_curve_) == 10
    return -model.loss_


def reference_classifier(models):
    X, y = make_classification(n_samples=100, random_state=1)
    X, X_test, y, y_test = train_test_split(X, y, stratify=y, random_state=1)
    return models.MLPClassifier(random_state=1, max_iter=300).fit(X, y).score(X_test, y_test)


def reference_regressor(models):
    X, y = make_regression(n_samples=200, n_features=20, random_state=1)
    X, X_test, y, y_test = train_test_split(X, y, random_state=1)
    model = models.MLPRegressor(random_state=1, max_iter=2000, tol=0.1)
    return model.fit(X, y).score(X_test, y_test)


def scaled_with_searched_alpha(models):
    """Tips on practical use: scale, and search alpha in powers of ten."""
    X, y = load_iris(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), models.MLPClassifier(solver="lbfgs", random_state=0))
    grid = {"mlpclassifier__alpha": 10.0 ** -np.arange(1, 7, 2)}
    return GridSearchCV(pipeline, grid, cv=3).fit(X, y).best_score_


def alphas(models, quick=False):
    """Varying regularisation: five alphas on three shapes of two classes."""
    X, y = make_classification(
        n_features=2, n_redundant=0, n_informative=2, random_state=0, n_clusters_per_class=1
    )
    X += 2 * np.random.RandomState(2).uniform(size=X.shape)
    shapes = [
        make_moons(noise=0.3, random_state=0),
        make_circles(noise=0.2, factor=0.5, random_state=1),
        (X, y),
    ]
    scores = []
    for X, y in shapes:
        X, X_test, y, y_test = train_test_split(X, y, test_size=0.4, random_state=42)
        for alpha in np.logspace(-1, 1, 2 if quick else 5):
            model = models.MLPClassifier(
                solver="lbfgs",
                alpha=alpha,
                random_state=1,
                max_iter=2000,
                early_stopping=True,
                hidden_layer_sizes=[10, 10],
            )
            scores.append(make_pipeline(StandardScaler(), model).fit(X, y).score(X_test, y_test))
    return float(np.mean(scores))


CURVES = [
    {"solver": "sgd", "learning_rate": "constant", "momentum": 0},
    {"solver": "sgd", "learning_rate": "constant", "nesterovs_momentum": False},
    {"solver": "sgd", "learning_rate": "constant"},
    {"solver": "sgd", "learning_rate": "invscaling", "momentum": 0},
    {"solver": "sgd", "learning_rate": "invscaling"},
    {"solver": "sgd", "learning_rate": "invscaling", "nesterovs_momentum": False},
    {"solver": "adam", "learning_rate_init": 0.01},
]


def training_curves(models, quick=False):
    """Stochastic learning strategies: seven of them on four sets."""
    sets = [
        (load_iris(return_X_y=True), 400),
        (load_digits(return_X_y=True), 15),
        (make_circles(noise=0.2, factor=0.5, random_state=1), 400),
        (make_moons(noise=0.3, random_state=0), 400),
    ]
    scores = []
    for (X, y), max_iter in sets[1:2] if quick else sets:
        X = MinMaxScaler().fit_transform(X)
        for parameters in CURVES:
            parameters = {"learning_rate_init": 0.2, "max_iter": max_iter, **parameters}
            model = models.MLPClassifier(random_state=0, **parameters)
            scores.append(model.fit(X, y).score(X, y))
            assert len(model.loss_curve_) == model.n_iter_
    return float(np.mean(scores))


def mnist_filters(models):
    """Weights on MNIST: a layer of 40 by plain descent, eight iterations."""
    (X, y), *_, (X_test, y_test) = fastdl.datasets.load_mnist()
    model = models.MLPClassifier(
        hidden_layer_sizes=(40,),
        max_iter=8,
        alpha=1e-4,
        solver="sgd",
        random_state=1,
        learning_rate_init=0.2,
    )
    model.fit(X.reshape(len(X), -1), y)
    assert model.coefs_[0].T[0].reshape(28, 28).shape == (28, 28)
    return model.score(X_test.reshape(len(X_test), -1), y_test)


# --------------------------------------------------------------------- stochastic gradient descent


def sgd_two_points(models):
    model = models.SGDClassifier(loss="log_loss", penalty="l2", max_iter=5, random_state=0)
    model.fit(CORNERS, [0, 1])
    assert (model.coef_.shape, model.intercept_.shape) == ((1, 2), (1,))
    assert model.decision_function([[2.0, 2.0]]) > 0
    assert model.predict_proba([[1.0, 1.0]]).shape == (1, 2)
    return float((model.predict([[2.0, 2.0]]) == [1]).mean())


def sgd_separating(models):
    X, y = make_blobs(n_samples=50, centers=2, random_state=0, cluster_std=0.60)
    model = models.SGDClassifier(loss="log_loss", alpha=0.01, max_iter=200, random_state=0)
    return model.fit(X, y).score(X, y)


def sgd_iris(models):
    """Several classes, two features, standardised."""
    X, y = load_iris(return_X_y=True)
    X = StandardScaler().fit_transform(X[:, :2])
    model = models.SGDClassifier(loss="log_loss", alpha=0.001, max_iter=100, random_state=0)
    return model.fit(X, y).score(X, y)


def sgd_weighted(models):
    """Weighted rows: the weighted accuracy of a model that was told of the weights."""
    random = np.random.RandomState(0)
    X = np.r_[1 + random.randn(10, 2), random.randn(10, 2)]
    y = [1] * 10 + [-1] * 10
    weights = 100 * np.abs(random.randn(20))
    weights[:10] *= 10
    model = models.SGDClassifier(loss="log_loss", alpha=0.01, max_iter=100, random_state=0)
    return model.fit(X, y, sample_weight=weights).score(X, y, sample_weight=weights)


def sgd_early_stopping(models):
    """No criterion, the loss and the score on rows held back as what ends training."""
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X / 16, y, test_size=0.5, random_state=0)
    scores = []
    for parameters in (
        {"n_iter_no_change": 3},
        {"early_stopping": False, "n_iter_no_change": 3, "tol": 0.1},
        {"early_stopping": True, "n_iter_no_change": 3, "tol": 1e-4, "validation_fraction": 0.2},
    ):
        model = models.SGDClassifier(loss="log_loss", random_state=0, max_iter=50, **parameters)
        scores.append(model.fit(X, y).score(X_test, y_test))
    return float(np.mean(scores))


def sgd_penalties(models):
    X, y = datasets.load_breast_cancer(return_X_y=True)
    scores = []
    for penalty in ("l2", "l1", "elasticnet"):
        model = models.SGDClassifier(loss="log_loss", penalty=penalty, random_state=0)
        scores.append(make_pipeline(StandardScaler(), model).fit(X, y).score(X, y))
    return float(np.mean(scores))


def sgd_comparison(models):
    """Solvers of the same task: the guide's number of iterations on digits."""
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.3, random_state=0)
    model = make_pipeline(
        StandardScaler(), models.SGDClassifier(loss="log_loss", max_iter=110, random_state=0)
    )
    return model.fit(X, y).score(X_test, y_test)


def sgd_out_of_core(models):
    """Documents in batches, hashed into sparse rows, one partial_fit each."""
    random = np.random.RandomState(0)
    words = [np.array([f"{topic}{number}" for number in range(40)]) for topic in "ab"]
    common = np.array([f"c{number}" for number in range(40)])
    y = random.randint(2, size=600)
    texts = [" ".join([*random.choice(words[label], 3), *random.choice(common, 12)]) for label in y]
    rows = HashingVectorizer(n_features=2**12).transform(texts)
    model = models.SGDClassifier(loss="log_loss", random_state=0)
    for start in range(0, 400, 100):
        model.partial_fit(rows[start : start + 100], y[start : start + 100], classes=[0, 1])
    return model.score(rows[400:], y[400:])


EXAMPLES = [
    two_points,
    two_points_of_two_labels,
    iteration_by_iteration,
    reference_classifier,
    reference_regressor,
    scaled_with_searched_alpha,
    alphas,
    training_curves,
    mnist_filters,
    sgd_two_points,
    sgd_separating,
    sgd_iris,
    sgd_weighted,
    sgd_early_stopping,
    sgd_penalties,
    sgd_comparison,
    sgd_out_of_core,
]


def score(example, models):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the guide's examples don't all converge
        return example(models)


def main():
    print(f"{'':<30}{'scikit-learn':>20}{'fastdl':>20}")
    for example in EXAMPLES:
        cells = []
        for models in (THEIRS, OURS):
            start = time.perf_counter()
            found = score(example, models)
            cells.append(f"{found:>10.4f}{time.perf_counter() - start:>8.2f} s")
        print(f"{example.__name__:<30}{''.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
