"""scikit-learn's neural networks and logistic regression by SGD, on fastdl's engine.

`MLPClassifier` and `MLPRegressor` take the place of scikit-learn's classes of these names,
`SGDLogisticRegression` that of its `SGDClassifier` with the logistic loss. `load` reads what their
`save` wrote.
"""

from .._optional import optional_import

optional_import("sklearn", extra="sklearn")

from ._estimators import MLPClassifier, MLPRegressor, SGDLogisticRegression, load  # noqa: E402

__all__ = ["MLPClassifier", "MLPRegressor", "SGDLogisticRegression", "load"]
