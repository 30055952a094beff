"""The estimators of fastdl.sklearn: scikit-learn's rules, and scikit-learn's own numbers."""

import copy
import functools
import inspect
import os
import pickle
import warnings

import guide
import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn import config_context, linear_model, neural_network
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning, NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, RandomizedSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_estimator
from threadpoolctl import threadpool_limits

import fastdl
from fastdl import activations, backends, losses, optimizers
from fastdl.schedules import CosineDecay
from fastdl.sklearn import MLPClassifier, MLPRegressor, SGDLogisticRegression, load

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

ESTIMATORS = [MLPClassifier, MLPRegressor, SGDLogisticRegression]
CLASSIFIERS = [MLPClassifier, SGDLogisticRegression]
SMALL = {
    MLPClassifier: {"hidden_layer_sizes": (8,), "max_iter": 5, "random_state": 0},
    MLPRegressor: {"hidden_layer_sizes": (8,), "max_iter": 5, "random_state": 0},
    SGDLogisticRegression: {"max_iter": 5, "random_state": 0},
}

rows = np.random.default_rng(0)
X = rows.normal(size=(120, 6))
TWO = (X[:, 0] * X[:, 1] > 0).astype(int)
THREE = np.digitize(X[:, 0] + X[:, 1], [-0.7, 0.7])
LABELS = (X[:, :3] > 0).astype(int)
NUMBER = np.sin(X[:, 0]) + 0.1 * X[:, 1]
NUMBERS = np.column_stack([NUMBER, X[:, 2] ** 2])
WEIGHTS = rows.integers(1, 4, 120).astype(float)


def small(kind, **parameters):
    return kind(**{**SMALL[kind], **parameters})


def target_of(kind):
    return NUMBER if kind is MLPRegressor else THREE


def answers(model, X=X):
    return model.predict_proba(X) if hasattr(model, "predict_proba") else model.predict(X)


def parameters_of(model):
    return model.network_._network.parameters


# ---------------------------------------------------------------------------- scikit-learn's checks

# Rows with whole weights train as rows that are there as often: to more digits than single
# precision has, the default here, and only where a step takes all rows, which the linear model's
# does not. Both are so in scikit-learn's own perceptron: see the two tests below.
EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data",
    "check_sample_weight_equivalence_on_sparse_data",
}


@pytest.mark.parametrize("estimator", [kind() for kind in ESTIMATORS], ids=repr)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks_pass(estimator):
    results = check_estimator(estimator, on_fail=None, on_skip=None)
    failed = {result["check_name"] for result in results if result["status"] == "failed"}
    assert failed <= EXPECTED_FAILURES, results
    assert sum(result["status"] == "passed" for result in results) >= 55


@pytest.mark.parametrize("check", sorted(EXPECTED_FAILURES))
@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.filterwarnings("ignore:batch_size")
def test_what_fails_passes_in_double_precision_with_whole_batches(kind, check):
    model = kind(dtype="float64", batch_size=200, max_iter=20)
    getattr(estimator_checks, check)(kind.__name__, model)


class InSinglePrecision(neural_network.MLPClassifier):
    """scikit-learn's own, which takes its dtype from the data."""

    def fit(self, X, y, sample_weight=None):
        return super().fit(X.astype(np.float32), y, sample_weight)


class InDoublePrecision(neural_network.MLPClassifier):
    """scikit-learn's own, under a name for which it makes no exceptions."""


@pytest.mark.parametrize(
    "theirs", [InSinglePrecision(), InDoublePrecision(batch_size=8, max_iter=20)], ids=repr
)
def test_what_fails_does_so_for_scikit_learns_own(theirs):
    with pytest.raises(AssertionError, match="not equivalent"):
        estimator_checks.check_sample_weight_equivalence_on_dense_data("theirs", theirs)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (MLPClassifier, neural_network.MLPClassifier),
        (MLPRegressor, neural_network.MLPRegressor),
    ],
)
def test_parameters_and_defaults_are_scikit_learns(ours, theirs):
    own, wanted = (inspect.signature(kind).parameters for kind in (ours, theirs))
    assert list(own.values())[: len(wanted)] == list(wanted.values())


def test_the_linear_model_shares_the_names_of_sgd_classifier():
    own = inspect.signature(SGDLogisticRegression).parameters
    wanted = inspect.signature(linear_model.SGDClassifier).parameters
    missing = {"fit_intercept", "epsilon", "n_jobs", "average"}
    assert set(wanted) - set(own) == missing
    same = {name for name in set(own) & set(wanted) if own[name].default == wanted[name].default}
    assert (set(own) & set(wanted)) - same <= {"loss", "learning_rate", "eta0", "verbose"}


# --------------------------------------------------------------------------- scikit-learn's numbers

# With the rows in order and a batch that divides them, training is scikit-learn's to rounding.
IN_ORDER = {"shuffle": False, "batch_size": 30, "max_iter": 12, "random_state": 3}
CLASSIFICATION = {
    "two classes": (TWO, {}),
    "three classes": (THREE, {}),
    "several labels": (LABELS, {}),
    "two hidden layers": (THREE, {"hidden_layer_sizes": (7, 5)}),
    "no hidden layer": (THREE, {"hidden_layer_sizes": ()}),
    "logistic": (THREE, {"activation": "logistic"}),
    "tanh": (TWO, {"activation": "tanh"}),
    "identity": (THREE, {"activation": "identity"}),
    "penalty": (THREE, {"alpha": 0.5}),
    "decays of Adam": (THREE, {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3}),
    "momentum": (THREE, {"solver": "sgd", "learning_rate_init": 0.1, "nesterovs_momentum": False}),
    "Nesterov": (THREE, {"solver": "sgd", "learning_rate_init": 0.1}),
    "plain descent": (TWO, {"solver": "sgd", "learning_rate_init": 0.1, "momentum": 0}),
    "invscaling": (
        THREE,
        {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.5},
    ),
    "adaptive": (
        THREE,
        {
            "solver": "sgd",
            "learning_rate": "adaptive",
            "learning_rate_init": 0.5,
            "tol": 0.05,
            "n_iter_no_change": 1,
        },
    ),
    "stops": (THREE, {"tol": 0.05, "n_iter_no_change": 2, "max_iter": 50}),
    "early stopping": (
        TWO,
        {"early_stopping": True, "validation_fraction": 0.25, "max_iter": 40, "tol": 0.01},
    ),
    "L-BFGS": (THREE, {"solver": "lbfgs", "max_iter": 20}),
    "L-BFGS, several labels": (LABELS, {"solver": "lbfgs", "max_iter": 20}),
}
REGRESSION = {
    "one output": (NUMBER, {}),
    "several outputs": (NUMBERS, {}),
    "several outputs, descent": (NUMBERS, {"solver": "sgd", "learning_rate_init": 0.01}),
    "early stopping": (
        NUMBERS,
        {"early_stopping": True, "validation_fraction": 0.25, "max_iter": 30, "tol": 0.01},
    ),
    "L-BFGS": (NUMBER, {"solver": "lbfgs", "max_iter": 20}),
}


def trained_alike(ours, theirs, y, parameters, fit):
    parameters = {"hidden_layer_sizes": (9,), **IN_ORDER, **parameters}
    own, wanted = ours(dtype="float64", **parameters), theirs(**parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for model in (own, wanted):
            fit(model, y)
    for name in ("coefs_", "intercepts_"):
        for array, expected in zip(getattr(own, name), getattr(wanted, name), strict=True):
            np.testing.assert_allclose(array, expected, rtol=1e-6, atol=1e-8)
    return own, wanted


def compare_attributes(own, wanted, names):
    for name in names:
        expected = getattr(wanted, name)
        if expected is None or isinstance(expected, (int, str)):
            assert getattr(own, name) == expected, name
        else:
            np.testing.assert_allclose(getattr(own, name), expected, rtol=1e-6, err_msg=name)


ATTRIBUTES = ["loss_", "n_iter_", "n_layers_", "n_outputs_", "out_activation_", "t_"]
CURVES = ["loss_curve_", "best_loss_", "validation_scores_", "best_validation_score_"]


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix], ids=["dense", "sparse"])
@pytest.mark.parametrize("name", CLASSIFICATION)
def test_classifiers_train_as_scikit_learns(name, form):
    y, parameters = CLASSIFICATION[name]
    own, wanted = trained_alike(
        MLPClassifier,
        neural_network.MLPClassifier,
        y,
        parameters,
        lambda model, y: model.fit(form(X), y),
    )
    lbfgs = own.solver == "lbfgs"
    compare_attributes(own, wanted, ATTRIBUTES + ["classes_"] + CURVES * (not lbfgs))
    np.testing.assert_array_equal(own.predict(form(X)), wanted.predict(X))
    np.testing.assert_allclose(own.predict_proba(form(X)), wanted.predict_proba(X), rtol=1e-5)
    np.testing.assert_allclose(own.predict_log_proba(X), wanted.predict_log_proba(X), rtol=1e-4)
    assert own.score(X, y) == wanted.score(X, y)


@pytest.mark.parametrize("name", REGRESSION)
def test_regressors_train_as_scikit_learns(name):
    y, parameters = REGRESSION[name]
    own, wanted = trained_alike(
        MLPRegressor,
        neural_network.MLPRegressor,
        y,
        parameters,
        lambda model, y: model.fit(X, y),
    )
    # The penalty counts in full there, by the outputs here: in the loss that is reported alone.
    if y.ndim == 1:
        lbfgs = own.solver == "lbfgs"
        compare_attributes(own, wanted, ATTRIBUTES + CURVES * (not lbfgs))
    else:
        compare_attributes(own, wanted, ["n_iter_", "t_", *CURVES[2:]])
        assert abs(own.loss_ / wanted.loss_ - 1) < 1e-3
    np.testing.assert_allclose(own.predict(X), wanted.predict(X), rtol=1e-5)
    assert abs(own.score(X, y) - wanted.score(X, y)) < 1e-9


def test_a_whole_batch_has_its_weights_as_in_scikit_learn():
    fit = lambda model, y: model.fit(X, y, sample_weight=WEIGHTS)  # noqa: E731
    parameters = {"batch_size": 120}
    trained_alike(MLPClassifier, neural_network.MLPClassifier, THREE, parameters, fit)
    trained_alike(MLPRegressor, neural_network.MLPRegressor, NUMBERS, parameters, fit)


def test_partial_fit_goes_on_as_in_scikit_learn():
    def fit(model, y):
        options = {"classes": [0, 1, 2]} if hasattr(model, "predict_proba") else {}
        for part in (slice(0, 60), slice(60, 120), slice(0, 60), slice(0, 30)):
            model.partial_fit(X[part], y[part], **options)

    own, wanted = trained_alike(MLPClassifier, neural_network.MLPClassifier, THREE, {}, fit)
    compare_attributes(own, wanted, [*ATTRIBUTES, "loss_curve_"])
    trained_alike(MLPRegressor, neural_network.MLPRegressor, NUMBERS, {}, fit)


def test_a_warm_start_goes_on_as_in_scikit_learn():
    def fit(model, y):
        model.fit(X, y).set_params(learning_rate_init=0.01, alpha=0.1).fit(X, y)

    own, wanted = trained_alike(
        MLPClassifier, neural_network.MLPClassifier, THREE, {"warm_start": True}, fit
    )
    compare_attributes(own, wanted, [*ATTRIBUTES, "loss_curve_"])


def test_a_warm_start_after_a_stop_is_as_impatient_as_scikit_learns():
    lengths = []

    def fit(model, y):
        lengths.append([model.fit(X, y).n_iter_ for _ in range(3)])

    parameters = {"warm_start": True, "tol": 10, "n_iter_no_change": 3}
    trained_alike(MLPClassifier, neural_network.MLPClassifier, THREE, parameters, fit)
    assert lengths[0] == lengths[1]


def test_a_warm_start_learns_other_rows_than_those_it_stopped_on():
    model = small(MLPClassifier, warm_start=True, early_stopping=True, max_iter=60)
    model.set_params(learning_rate_init=0.03, n_iter_no_change=3).fit(X, THREE)
    others = 2 - THREE
    before = model.score(X, others)
    for _ in range(5):
        model.fit(X, others)
    assert model.score(X, others) > before + 0.3


def test_another_loss_brings_its_own_outputs():
    counts = np.abs(X[:20, 0])
    model = small(MLPRegressor, loss="poisson", solver="lbfgs", warm_start=True, max_iter=3)
    model.fit(X[:20], counts).set_params(loss="squared_error").fit(X[:20], counts)
    assert model.out_activation_ == "identity"
    np.testing.assert_array_equal(model.predict(X), model.network_.predict(X)[:, 0])


def test_regression_on_shares_predicts_shares():
    shares = (X[:, 0] > 0) * 0.5 + 0.25
    loss = losses.BinaryCrossentropy()
    model = small(MLPRegressor, loss=loss, early_stopping=True, max_iter=20).fit(X, shares)
    np.testing.assert_array_equal(model.predict(X), model.network_.predict(X)[:, 0])
    assert ((model.predict(X) > 0) & (model.predict(X) < 1)).all()
    assert max(model.validation_scores_) <= 1


def test_scores_that_are_no_numbers_are_not_the_best():
    model = small(
        MLPRegressor,
        activation="identity",
        solver="sgd",
        learning_rate_init=0.03,
        early_stopping=True,
        max_iter=20,
    ).fit(100 * X, NUMBER)
    assert np.isnan(model.validation_scores_[-1])
    assert model.best_validation_score_ == model.validation_scores_[0]


def test_the_best_so_far_is_forgotten_where_nothing_asks_for_it():
    model = small(MLPClassifier, early_stopping=True).partial_fit(X, THREE, classes=[0, 1, 2])
    before = parameters_of(model).copy()
    model.set_params(early_stopping=False, warm_start=True).fit(X, THREE)
    assert (parameters_of(model) != before).any()


def test_first_weights_do_not_depend_on_how_an_activation_is_called():
    names = ["logistic", "sigmoid", activations.get("sigmoid"), ["logistic", "logistic"]]
    firsts = set()
    for name in [*names, np.array(["logistic", "sigmoid"])]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = MLPClassifier((4, 3), name, max_iter=1, random_state=0).fit(X, THREE)
        firsts.add(parameters_of(model).tobytes())
    assert len(firsts) == 1


def test_poisson_regression_is_scikit_learns():
    counts = np.exp(X[:, 0]).round()
    own, wanted = trained_alike(
        MLPRegressor,
        neural_network.MLPRegressor,
        counts,
        {"loss": "poisson", "max_iter": 20},
        lambda model, y: model.fit(X, y),
    )
    np.testing.assert_allclose(own.predict(X), wanted.predict(X), rtol=1e-6)
    assert own.out_activation_ == "exp"
    assert own.loss_ == pytest.approx(wanted.loss_)


def test_logistic_regression_finds_the_optimum():
    # scikit-learn's C is 1 / (rows * alpha).
    model = SGDLogisticRegression(
        alpha=0.01, optimizer="sgd", eta0=1.0, batch_size=120, tol=0, dtype="float64"
    ).fit(X, THREE)
    best = linear_model.LogisticRegression(C=1 / (120 * 0.01), tol=1e-8).fit(X, THREE)
    np.testing.assert_allclose(model.coef_, best.coef_, atol=1e-3)
    np.testing.assert_allclose(
        model.intercept_ - model.intercept_.mean(), best.intercept_, atol=1e-3
    )
    np.testing.assert_allclose(
        model.decision_function(X).argmax(axis=1), best.predict(X), atol=1e-3
    )


@pytest.mark.parametrize(("penalty", "ratio"), [("l1", 0.15), ("elasticnet", 0.7)])
def test_penalties_are_those_of_the_formula(penalty, ratio):
    model = small(SGDLogisticRegression, penalty=penalty, l1_ratio=ratio, alpha=0.1, tol=0)
    model.fit(X, THREE)
    share = 1 if penalty == "l1" else ratio
    assert (model.network_.l1, model.network_.l2) == (
        0.1 * share,
        pytest.approx(0.05 * (1 - share)),
    )
    free = small(SGDLogisticRegression, penalty=None, alpha=0.1).fit(X, THREE)
    assert (free.network_.l1, free.network_.l2) == (0, 0)
    assert np.abs(model.coef_).sum() < np.abs(free.coef_).sum()


@pytest.mark.parametrize("course", ["optimal", "invscaling", "adaptive", "constant"])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_logistic_regression_learns_at_each_rate(optimizer, course):
    model = SGDLogisticRegression(
        optimizer=optimizer, learning_rate=course, eta0=0.1, alpha=0.01, random_state=0
    )
    assert model.fit(X, THREE).score(X, THREE) > 0.8


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", optimizers.AdamW(0.05)])
def test_logistic_regression_learns_with_each_optimizer(optimizer):
    model = SGDLogisticRegression(optimizer=optimizer, random_state=0).fit(X, THREE)
    assert model.score(X, THREE) > 0.9
    assert model.stopped_


def test_the_linear_model_takes_classes_as_sgd_classifier_does():
    ours, theirs = (
        list(inspect.signature(kind.partial_fit).parameters)
        for kind in (SGDLogisticRegression, linear_model.SGDClassifier)
    )
    assert ours == theirs
    model = SGDLogisticRegression().partial_fit(X, THREE, [0, 1, 2])
    assert model.classes_.tolist() == [0, 1, 2]


def test_rows_for_validation_have_no_class_weights():
    held = X[THREE != 1][:9], THREE[THREE != 1][:9]
    model = small(MLPClassifier, class_weight="balanced", validation_data=held).fit(X, THREE)
    assert len(model.validation_scores_) == model.n_iter_


# ------------------------------------------------------------------------------ what y and X may be


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.parametrize(
    "names",
    [["b", "a", "c"], [True, False], [30, -7, 5], [1.0, 0.0, 2.0], ["one"]],
    ids=["strings", "bools", "integers", "floats", "one class"],
)
def test_classes_are_what_they_are_called(kind, names):
    names = np.array(names)
    codes = THREE % len(names)
    model = small(kind).fit(X, names[codes])
    assert model.classes_.tolist() == sorted(names.tolist())
    order = np.argsort(np.argsort(names))
    plain = small(kind).fit(X, order[codes])
    assert (parameters_of(model) == parameters_of(plain)).all()
    assert (model.predict(X) == model.classes_[plain.predict(X)]).all()
    assert model.predict_proba(X).shape == (120, len(names))
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1, rtol=1e-6)


def test_objects_are_classes_too():
    names = np.array(["no", "yes"], dtype=object)[TWO]
    assert set(small(MLPClassifier).fit(X, names).predict(X)) <= {"no", "yes"}


def test_sparse_labels_give_sparse_answers():
    dense = small(MLPClassifier).fit(X, LABELS)
    model = small(MLPClassifier).fit(X, sparse.csr_matrix(LABELS))
    assert sparse.issparse(model.predict(X))
    assert (model.predict(X).toarray() == dense.predict(X)).all()
    assert model.predict_proba(X).shape == LABELS.shape


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csr_array, sparse.coo_matrix])
def test_sparse_rows_train_as_dense_ones(kind, form):
    few = np.where(np.random.default_rng(1).random(X.shape) < 0.2, X, 0)
    dense, other = (small(kind).fit(rows, target_of(kind)) for rows in (few, form(few)))
    assert (parameters_of(dense) == parameters_of(other)).all()
    assert (answers(dense, few) == answers(other, form(few))).all()


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_arguments_stay_as_they_were(kind):
    arrays = X.copy(), target_of(kind).copy(), WEIGHTS.copy()
    for array in arrays:
        array.flags.writeable = False
    small(kind).fit(*arrays)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_the_seed_settles_training(kind):
    first, again, other = (
        small(kind, random_state=seed, dropout=0.2)
        if kind is not SGDLogisticRegression
        else small(kind, random_state=seed)
        for seed in (1, 1, 2)
    )
    for model in (first, again, other):
        model.fit(X, target_of(kind))
    assert (parameters_of(first) == parameters_of(again)).all()
    assert (parameters_of(first) != parameters_of(other)).any()


def test_answers_have_the_dtype_of_the_network_and_numbers_that_of_x():
    assert small(MLPClassifier).fit(X, TWO).predict_proba(X).dtype == np.float32
    model = small(MLPRegressor).fit(X, NUMBER)
    assert model.predict(X).dtype == np.float64
    assert model.predict(X.astype(np.float32)).dtype == np.float32
    assert small(MLPRegressor, dtype="float64").fit(X, NUMBER).network_.dtype == np.float64
    assert small(MLPRegressor, solver="lbfgs").fit(X, NUMBER).network_.dtype == np.float64


# ----------------------------------------------------------------- what scikit-learn's doesn't have


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_layers_have_activations_and_dropout_of_their_own(kind):
    model = small(
        kind,
        hidden_layer_sizes=(8, 6),
        activation=["logistic", activations.LeakyReLU(0.1)],
        dropout=[0.1, 0.3],
    ).fit(X, target_of(kind))
    names = [each.name for each in model.network_.activations[:2]]
    assert names == ["sigmoid", "leaky_relu"]
    assert model.network_.dropout == (0.1, 0.3)


def test_a_linear_model_is_the_network_without_hidden_layers():
    linear = SGDLogisticRegression(penalty=None, eta0=0.01, random_state=0, max_iter=40, tol=0)
    layer = MLPClassifier(
        (), alpha=0, optimizer=optimizers.Adam(0.01), batch_size=8, max_iter=40, tol=0
    )
    losses = [model.fit(X, THREE).loss_curve_[-1] for model in (linear, layer)]
    assert losses[0] == pytest.approx(losses[1], rel=0.2)


def test_an_optimizer_takes_the_solvers_place():
    optimizer = optimizers.SGD(CosineDecay(0.5, 20), momentum=0.9, clipnorm=1.0)
    model = small(MLPClassifier, optimizer=optimizer, solver="lbfgs").fit(X, THREE)
    assert model.network_.optimizer == optimizer
    assert model.network_.dtype == np.float32
    named = small(MLPClassifier, optimizer="rmsprop").fit(X, THREE)
    assert named.network_.optimizer == optimizers.RMSprop()


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_class_weights_are_sample_weights(kind):
    by_class = {0: 3.0, 1: 1.0, 2: 0.5}
    weights = np.array([by_class[label] for label in THREE])
    one = small(kind, class_weight=by_class).fit(X, THREE, sample_weight=WEIGHTS)
    other = small(kind).fit(X, THREE, sample_weight=WEIGHTS * weights)
    np.testing.assert_allclose(parameters_of(one), parameters_of(other), rtol=1e-4, atol=1e-6)
    counts = np.bincount(THREE)
    balanced = small(kind, class_weight="balanced").fit(X, THREE)
    other = small(kind).fit(X, THREE, sample_weight=1 / counts[THREE])
    tolerance = {"rtol": 1e-3, "atol": 1e-4}
    weights = [model.network_.weights[0] for model in (balanced, other)]
    np.testing.assert_allclose(*weights, **tolerance)


def test_labels_have_class_weights_of_their_own():
    weights = [{0: 1, 1: 2}, {0: 1, 1: 1}, {0: 3, 1: 1}]
    by_row = (1 + LABELS[:, 0]) * (3 - 2 * LABELS[:, 2])
    one = small(MLPClassifier, class_weight=weights).fit(X, LABELS)
    other = small(MLPClassifier).fit(X, LABELS, sample_weight=by_row)
    assert (parameters_of(one) == parameters_of(other)).all()


@given(st.floats(1e-3, 1e3))
@settings(max_examples=10)
def test_only_ratios_of_weights_count(factor):
    parameters = {"alpha": 0, "dtype": "float64", "max_iter": 2}
    one = small(MLPRegressor, **parameters).fit(X, NUMBERS, WEIGHTS)
    other = small(MLPRegressor, **parameters).fit(X, NUMBERS, WEIGHTS * factor)
    np.testing.assert_allclose(parameters_of(one), parameters_of(other), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_of_ones_own_are_scored(kind, weighted):
    y = NUMBERS if kind is MLPRegressor else np.array(["c", "a", "b"])[THREE]
    given = (X[80:], y[80:], WEIGHTS[80:])[: 2 + weighted]
    model = small(kind, validation_data=given, max_iter=3).fit(X[:80], y[:80])
    assert len(model.validation_scores_) == 3
    assert model.validation_scores_[-1] == pytest.approx(model.score(*given))
    assert model.best_validation_score_ == max(model.validation_scores_)
    assert model.best_loss_ == min(model.loss_curve_)


@pytest.mark.parametrize("y", [TWO, THREE, LABELS], ids=["two", "three", "labels"])
def test_early_stopping_goes_back_to_the_best(y):
    model = MLPClassifier(
        (8,),
        learning_rate_init=0.05,
        early_stopping=True,
        n_iter_no_change=3,
        random_state=0,
        validation_data=(X[80:], y[80:]),
    ).fit(X[:80], y[:80])
    assert model.stopped_
    assert model.n_iter_ < 200
    assert model.best_loss_ is None
    assert model.score(X[80:], y[80:]) == model.best_validation_score_
    assert model.best_validation_score_ == max(model.validation_scores_)


def test_rows_held_back_are_not_trained_on():
    model = small(MLPClassifier, early_stopping=True, validation_fraction=0.25).fit(X, THREE)
    assert model.t_ == 90 * model.n_iter_


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_partial_fit_stops_early_too(kind):
    y = target_of(kind)
    options = {} if kind is MLPRegressor else {"classes": [0, 1, 2]}
    model = small(kind, early_stopping=True, n_iter_no_change=4, validation_data=(X[80:], y[80:]))
    stopped = False
    while not stopped:
        model.partial_fit(X[:80], y[:80], **options)
        stopped = model.stopped_
        assert len(model.loss_curve_) < 2000
    assert model.score(X[80:], y[80:]) == pytest.approx(model.best_validation_score_)
    assert len(model.validation_scores_) == len(model.loss_curve_) == model.t_ // 80
    best = model.best_validation_score_
    model.partial_fit(X[:80], y[:80])
    assert not model.stopped_
    assert model.best_validation_score_ >= best


def test_partial_fit_holds_back_rows_of_its_own():
    model = small(MLPClassifier, early_stopping=True)
    for start in (0, 60):
        model.partial_fit(X[start : start + 60], THREE[start : start + 60], classes=[0, 1, 2])
    assert len(model.validation_scores_) == 2
    assert model.t_ == 2 * 54


def test_a_warm_start_may_change_what_is_not_of_the_weights():
    model = small(MLPClassifier, warm_start=True).fit(X, THREE)
    weights = [array.copy() for array in model.coefs_]
    model.set_params(max_iter=1, learning_rate_init=1e-12, dropout=0.5, dtype="float64")
    model.fit(X, THREE)
    assert model.network_.dropout == (0.5,)
    assert model.network_.dtype == np.float64
    for array, expected in zip(model.coefs_, weights, strict=True):
        np.testing.assert_allclose(array, expected, atol=1e-6)
    model.set_params(hidden_layer_sizes=(9,))
    with pytest.raises(ValueError, match=r"^hidden_layer_sizes: layers of \(6, 9, 3\) units"):
        model.fit(X, THREE)


def test_threads_are_as_many_as_allowed(monkeypatch):
    seen = []
    fit = fastdl.MLP._train

    def train(*arguments):
        seen.append(backends.available_threads())
        return fit(*arguments)

    monkeypatch.setattr(fastdl.MLP, "_train", train)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for threads in (1, 3, None):
        small(MLPClassifier, n_threads=threads).fit(X, THREE)
    assert seen == [1, 3, 8]


def test_processes_of_joblib_share_the_cores(processes_not_measured):
    counts = joblib.Parallel(n_jobs=2)(joblib.delayed(backends.available_threads)() for _ in "ab")
    assert counts == [max(1, backends.available_threads() // 2)] * 2


def test_verbose_prints_epochs_and_why_it_ends(capsys):
    small(MLPClassifier, verbose=True, early_stopping=True, tol=1, n_iter_no_change=1).fit(X, TWO)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Iteration 1, loss = 0.")
    assert lines[1].startswith("Validation score: 0.")
    assert lines[-1] == (
        "Validation score did not improve more than tol=1.000000 for 1 consecutive epochs. "
        "Stopping."
    )


def test_warnings_name_the_line_that_trains():
    for solver in ("adam", "lbfgs"):
        with pytest.warns(ConvergenceWarning, match="converge") as caught:
            small(MLPClassifier, solver=solver).fit(X, THREE)
        assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match=r"^batch_size: 500 is clipped") as caught:
        small(MLPClassifier, batch_size=500).fit(X, THREE)
    assert caught[0].filename == __file__
    with pytest.warns(DataConversionWarning):
        small(MLPClassifier).fit(X, THREE[:, None])


@pytest.mark.usefixtures("ctrl_c_in_third_call")
def test_ctrl_c_ends_training_with_a_warning():
    model = MLPClassifier((4,), max_iter=10**6, tol=0, n_iter_no_change=10**6)
    with pytest.warns(UserWarning, match="interrupted"):
        model.fit(X, THREE)
    assert 0 < model.n_iter_ < 10**6
    assert not model.stopped_


# ---------------------------------------------------------------------- among scikit-learn's others


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["copied", "pickled"],
)
def test_copies_go_on_alike(kind, copied):
    y = target_of(kind)
    model = small(kind).fit(X, y)
    twin = copied(model)
    assert (answers(model) == answers(twin)).all()
    for each in (model, twin):
        each.partial_fit(X, y)
    assert (parameters_of(model) == parameters_of(twin)).all()
    assert parameters_of(model) is not parameters_of(twin)


def test_joblib_writes_and_reads(tmp_path):
    model = small(MLPClassifier).fit(X, THREE)
    joblib.dump(model, tmp_path / "model.joblib")
    assert (joblib.load(tmp_path / "model.joblib").predict(X) == model.predict(X)).all()


def test_clones_have_the_parameters_and_no_network():
    model = small(
        MLPClassifier,
        optimizer=optimizers.AdamW(CosineDecay(0.1, 10)),
        activation=["relu"],
        validation_data=(X, THREE),
    ).fit(X, THREE)
    twin = clone(model)
    assert not hasattr(twin, "network_")
    assert twin.optimizer == model.optimizer
    assert (twin.fit(X, THREE).predict(X) == model.predict(X)).all()


@pytest.mark.parametrize("search", [GridSearchCV, RandomizedSearchCV, HalvingGridSearchCV])
def test_searches_run(search):
    pipeline = make_pipeline(StandardScaler(), small(MLPClassifier, max_iter=20))
    grid = {
        "mlpclassifier__hidden_layer_sizes": [(1,), (16,)],
        "mlpclassifier__learning_rate_init": [1e-6, 0.01],
    }
    options = {"n_iter": 4} if search is RandomizedSearchCV else {}
    found = search(pipeline, grid, cv=2, **options).fit(X, THREE)
    assert found.best_params_["mlpclassifier__learning_rate_init"] == 0.01


def test_weights_are_routed():
    with config_context(enable_metadata_routing=True):
        model = small(MLPClassifier).set_fit_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = make_pipeline(scaler, model)
        pipeline.fit(X, THREE, sample_weight=WEIGHTS)
    alone = small(MLPClassifier).fit(StandardScaler().fit_transform(X), THREE, WEIGHTS)
    assert (parameters_of(pipeline[-1]) == parameters_of(alone)).all()


@pytest.mark.parametrize("package", ["pandas", "polars"])
@pytest.mark.parametrize("kind", ESTIMATORS)
def test_tables_have_feature_names(kind, package):
    frames = pytest.importorskip(package)
    names = [f"x{column}" for column in range(6)]
    table = frames.DataFrame({name: X[:, column] for column, name in enumerate(names)})
    y = frames.Series(target_of(kind))
    model = small(kind).fit(table, y)
    assert model.feature_names_in_.tolist() == names
    assert (answers(model, table) == answers(small(kind).fit(X, target_of(kind)))).all()
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(
            table.rename(dict(zip(names, reversed(names), strict=True)))
            if package == "polars"
            else table.rename(columns={"x0": "other"})
        )
    scaled = make_pipeline(
        ColumnTransformer([("scale", StandardScaler(), names[:3])], remainder="passthrough"),
        small(kind),
    ).set_output(transform=package)
    assert len(scaled.fit(table, y)[-1].feature_names_in_) == 6


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_notebooks_show_it(kind):
    html = small(kind).fit(X, target_of(kind))._repr_html_()
    assert kind.__name__ in html
    assert "fitted" in html
    assert repr(kind(alpha=0.5)) == f"{kind.__name__}(alpha=0.5)"


# -------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize(
    "y", [TWO, LABELS, np.array(["b", "a", "c"])[THREE]], ids=["two", "labels", "strings"]
)
def test_files_bring_it_back(kind, y, tmp_path):
    y = NUMBERS if kind is MLPRegressor else y
    parameters = {"early_stopping": True, "validation_fraction": 0.2}
    if kind is not SGDLogisticRegression:
        parameters |= {
            "activation": ("relu", activations.ELU(0.5)),
            "hidden_layer_sizes": (8, np.int64(4)),
            "optimizer": optimizers.AdamW(CosineDecay(0.1, 100)),
        }
    model = small(kind, **parameters).fit(X, y)
    options = {} if kind is MLPRegressor else {"classes": model.classes_}
    model.partial_fit(X, y, **options)
    model.save(tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert type(again) is kind
    assert again.get_params() == model.get_params()
    assert (answers(model) == answers(again)).all()
    network = fastdl.load(tmp_path / "model.safetensors")
    assert (network.weights[0] == model.network_.weights[0]).all()
    for each in (model, again):
        for _ in range(30):  # past the end of patience
            each.partial_fit(X, y)
    assert (parameters_of(model) == parameters_of(again)).all()
    assert again.validation_scores_ == model.validation_scores_
    assert set(vars(again)) == set(vars(model))


def test_files_keep_names_and_weights_of_classes(tmp_path):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(X, columns=list("abcdef"))
    model = small(MLPClassifier, class_weight={0: 2.0, 1: 1.0}).fit(table, TWO)
    model.save(tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert again.feature_names_in_.tolist() == list("abcdef")
    assert again.class_weight == {0: 2.0, 1: 1.0}
    assert (again.predict(table) == model.predict(table)).all()


def test_files_leave_validation_data_behind_and_refuse_functions(tmp_path):
    path = tmp_path / "model.safetensors"
    small(MLPClassifier, validation_data=(X, TWO)).fit(X, TWO).save(path)
    assert load(path).validation_data is None
    by_hand = small(MLPClassifier, optimizer=optimizers.Adam(lambda step: 0.1)).fit(X, TWO)
    with pytest.raises(TypeError, match=r"^parameters: optimizer: .* holds a function"):
        by_hand.save(path)
    drawn = small(MLPClassifier, random_state=np.random.RandomState(0)).fit(X, TWO)
    with pytest.raises(TypeError, match=r"^parameters: random_state: "):
        drawn.save(path)
    assert load(path).get_params()["random_state"] == 0


def test_files_hold_numpys_numbers_and_types(tmp_path):
    model = small(MLPClassifier, alpha=np.float32(1e-3), dtype=np.float64).fit(X, TWO)
    model.save(tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert (again.alpha, again.dtype) == (np.float32(1e-3), "float64")
    assert (answers(again) == answers(model)).all()


def test_files_hold_poisson_regressions(tmp_path):
    counts = np.exp(X[:, 0]).round()
    model = small(MLPRegressor, loss="poisson", early_stopping=True).fit(X, counts)
    model.save(tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert (again.predict(X) == model.predict(X)).all()
    for each in (model, again):
        each.partial_fit(X, counts)
    assert (parameters_of(model) == parameters_of(again)).all()


def test_a_class_of_ones_own_is_not_saved(tmp_path):
    class Own(MLPClassifier):
        pass

    model = Own((4,), max_iter=1, tol=10, n_iter_no_change=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, TWO)
    with pytest.raises(TypeError, match=r"^Own: only fastdl's own estimators can be saved"):
        model.save(tmp_path / "model.safetensors")


def test_a_keras_model_of_counts_predicts_counts():
    pytest.importorskip("keras")
    model = small(MLPRegressor, loss="poisson", solver="lbfgs", max_iter=3)
    wanted = model.fit(X[:20], np.abs(X[:20, 0])).predict(X)
    np.testing.assert_allclose(model.to_keras().predict(X, verbose=0)[:, 0], wanted, rtol=1e-4)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    small(MLPClassifier).fit(X, TWO).network_.save(path)
    with pytest.raises(ValueError, match=r"no estimator: read it with fastdl\.load"):
        load(path)
    with pytest.raises(NotFittedError):
        MLPClassifier().save(path)


# ------------------------------------------------------------------------------------------- errors

ERRORS = [
    (MLPClassifier, {"hidden_layer_sizes": (0,)}, "hidden_layer_sizes: 0 is not an integer >= 1"),
    (MLPClassifier, {"hidden_layer_sizes": -1}, "hidden_layer_sizes: -1 is not an integer >= 1"),
    (MLPClassifier, {"activation": "rleu"}, "activation: 'rleu' is not one of "),
    (MLPClassifier, {"activation": ["relu", "tanh"]}, "activation: 2 values for 1 hidden layers"),
    (MLPClassifier, {"solver": "newton"}, "solver: 'newton' is not one of lbfgs, sgd, adam"),
    (MLPClassifier, {"alpha": -1}, "alpha: -1 is not a finite number >= 0"),
    (MLPClassifier, {"batch_size": 0}, "batch_size: 0 is not an integer >= 1"),
    (MLPClassifier, {"batch_size": "all"}, "batch_size: 'all' is not an integer >= 1"),
    (MLPClassifier, {"learning_rate": "fast"}, "learning_rate: 'fast' is not one of constant"),
    (MLPClassifier, {"learning_rate_init": 0}, "learning_rate_init: 0 is not a finite"),
    (MLPClassifier, {"max_iter": 0}, "max_iter: 0 is not an integer >= 1"),
    (MLPClassifier, {"shuffle": "no"}, "shuffle: 'no' is not True or False"),
    (MLPClassifier, {"tol": np.nan}, "tol: nan is not a finite number >= 0"),
    (MLPClassifier, {"solver": "sgd", "momentum": 2}, "momentum: 2 is not a finite number in"),
    (MLPClassifier, {"beta_1": 1}, "beta_1: 1 is not a finite number in [0, 1)"),
    (MLPClassifier, {"n_iter_no_change": 0}, "n_iter_no_change: 0 is not an integer >= 1"),
    (MLPClassifier, {"dropout": 1.5}, "dropout: 1.5 is not a finite number in [0, 1]"),
    (
        MLPClassifier,
        {"dropout": 0.5, "solver": "lbfgs"},
        "dropout: 0.5 does not go with the solver 'lbfgs'",
    ),
    (MLPClassifier, {"optimizer": "adma"}, "optimizer: 'adma' is not one of sgd"),
    (MLPClassifier, {"dtype": "float16"}, "dtype: 'float16' is not one of float32, float64"),
    (MLPClassifier, {"n_threads": 0}, "n_threads: 0 is not an integer >= 1"),
    (MLPClassifier, {"validation_data": X}, "validation_data: not a tuple (X, y) or"),
    (MLPClassifier, {"class_weight": "equal"}, "class_weight"),
    (
        MLPClassifier,
        {"early_stopping": True, "validation_fraction": 0.001},
        "validation_fraction: 0.001 of 120 rows leaves 1 to score",
    ),
    (MLPRegressor, {"loss": "absolute"}, "loss: 'absolute' is not one of squared_error, poisson"),
    (SGDLogisticRegression, {"loss": "hinge"}, "loss: 'hinge' is not one of log_loss"),
    (SGDLogisticRegression, {"penalty": "l3"}, "penalty: 'l3' is not one of l2, l1, elasticnet"),
    (SGDLogisticRegression, {"l1_ratio": 2}, "l1_ratio: 2 is not a finite number in [0, 1]"),
    (SGDLogisticRegression, {"optimizer": "lbfgs"}, "optimizer: 'lbfgs' is not one of adam, sgd"),
    (SGDLogisticRegression, {"eta0": 0}, "eta0: 0 is not a finite number > 0"),
    (SGDLogisticRegression, {"learning_rate": "optimal"}, "learning_rate: 'optimal' is for"),
]


@pytest.mark.parametrize(
    ("kind", "parameters", "message"), ERRORS, ids=lambda value: str(value)[:40]
)
def test_parameters_that_are_wrong_are_named(kind, parameters, message):
    model = small(kind, **parameters)
    with pytest.raises((ValueError, TypeError)) as error:
        model.fit(X, target_of(kind))
    assert message in str(error.value)
    assert not hasattr(model, "network_")


def test_targets_that_are_wrong_are_named():
    model = small(MLPClassifier)
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        model.partial_fit(X, THREE)
    model.partial_fit(X, TWO, classes=[0, 1, 2])
    before = parameters_of(model).copy()
    for y, message in [
        (THREE + 1, r"y: \[3\] is not among the classes \[0 1 2\]"),
        (LABELS, "is not that of classes"),
        (NUMBER, "Unknown label type"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.partial_fit(X, y)
    with pytest.raises(ValueError, match="is not the same as on last call"):
        model.partial_fit(X, TWO, classes=[0, 1])
    with pytest.raises(ValueError, match="at least one non-zero"):
        model.partial_fit(X, TWO, sample_weight=np.zeros(120))
    with pytest.raises(
        ValueError, match=r"^sample_weight: -1\.0 at index 0 is not a finite number >= 0"
    ):
        model.partial_fit(X, TWO, sample_weight=np.r_[-1, np.ones(119)])
    assert (parameters_of(model) == before).all()
    with pytest.raises(ValueError, match="several columns of classes"):
        small(MLPClassifier).fit(X, np.column_stack([THREE, THREE]))
    with pytest.raises(ValueError, match="'balanced'"):
        small(MLPClassifier, class_weight="balanced").partial_fit(X, TWO, classes=[0, 1])
    with pytest.raises(ValueError, match="the loss 'poisson' takes no numbers below 0"):
        small(MLPRegressor, loss="poisson").fit(X, NUMBER)
    with pytest.raises(ValueError, match=r"y: shape \(120,\) is not that of 2 outputs"):
        small(MLPRegressor).fit(X, NUMBERS).partial_fit(X, NUMBER)


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix], ids=["dense", "sparse"])
@pytest.mark.parametrize("parameters", [{}, {"early_stopping": True}], ids=["plain", "held"])
@pytest.mark.parametrize(("value", "name"), [(np.nan, "NaN"), (np.inf, "infinity")])
def test_rows_that_are_not_finite_are_refused(form, parameters, value, name):
    wrong = X.copy()
    wrong[-1, 0] = value
    model = small(MLPClassifier, **parameters)
    with pytest.raises(ValueError, match=f"^Input X contains {name}"):
        model.fit(form(wrong), THREE)
    with pytest.raises(ValueError, match=f"^Input X contains {name}"):
        small(MLPClassifier, validation_data=(form(wrong), THREE)).fit(X, THREE)
    with pytest.raises(ValueError, match=f"^Input X contains {name}"):
        model.fit(X, THREE).predict(form(wrong))


def test_weights_that_became_infinite_are_an_error():
    model = small(MLPRegressor, solver="sgd", learning_rate_init=1e30, max_iter=3)
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="non-finite parameter"):
        model.fit(X, 1e6 * NUMBER)


def test_lbfgs_has_no_partial_fit():
    assert not hasattr(MLPClassifier(solver="lbfgs"), "partial_fit")
    assert hasattr(MLPClassifier(solver="lbfgs", optimizer="adam"), "partial_fit")


# ------------------------------------------------------------------------------------- on real data


def test_digits_are_learnt():
    digits, y = load_digits(return_X_y=True)
    model = MLPClassifier((64,), dropout=0.2, early_stopping=True, random_state=0, max_iter=60)
    assert model.fit(digits[:1300] / 16, y[:1300]).score(digits[1300:] / 16, y[1300:]) > 0.85


# What rows of the tests differ by, where training draws other numbers.
CLOSE = 0.02


@pytest.mark.parametrize(
    "example",
    [each for each in guide.EXAMPLES if each is not guide.mnist_filters],
    ids=lambda example: example.__name__,
)
def test_examples_of_the_user_guide_reach_their_scores(example):
    if example in (guide.alphas, guide.training_curves):
        example = functools.partial(example, quick=True)
    with threadpool_limits(1):
        found, wanted = (guide.score(example, models) for models in (guide.OURS, guide.THEIRS))
    assert found >= wanted - CLOSE
