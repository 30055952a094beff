"""The searches that fastdl and scikit-learn are compared by: the same work, the same winners."""

import numpy as np
import pytest
from peers import searches

from fastdl import _sweep

ACCURACIES = np.linspace(0.3, 0.95, 200)


@pytest.fixture(params=searches.SEARCHES)
def search(request):
    return searches.SEARCHES[request.param]


def test_200_candidates_in_scikit_learns_order(search):
    selection = pytest.importorskip("sklearn.model_selection")
    ours = [candidate.parameters for candidate in _sweep._candidates(search.grid)]
    assert ours == list(selection.ParameterGrid(search.grid))
    assert len(ours) == 200


def test_the_penalty_is_scikit_learns():
    neural_network = pytest.importorskip("sklearn.neural_network")
    search = searches.SEARCHES["a search over 200 networks, flower"]
    X, y = search.load()
    theirs = neural_network.MLPClassifier((4,), alpha=0.5, batch_size=16, max_iter=1)
    with pytest.warns(UserWarning, match="Maximum iterations"):
        theirs.fit(X, y)
    net, settings = searches.builder(search, X)(0.5, 16, (4,), 0.01, seed=0)
    assert settings["batch_size"] == 16
    net.set_weights(
        [array for pair in zip(theirs.coefs_, theirs.intercepts_, strict=True) for array in pair]
    )
    # Of a batch: the loss that scikit-learn would give, penalty included.
    p = theirs.predict_proba(X[:16])[np.arange(16), y[:16]]
    squares = sum((weights**2).sum() for weights in theirs.coefs_)
    expected = -np.log(p).mean() + 0.5 / 2 / 16 * squares
    assert net.evaluate(X[:16], y[:16])["loss"] == pytest.approx(expected, rel=1e-5)


def test_the_same_ranking_agrees():
    searches.same_winners(ACCURACIES, ACCURACIES)
    searches.same_winners(ACCURACIES + np.tile([0.02, -0.02], 100), ACCURACIES)


def test_another_ranking_does_not():
    other = ACCURACIES.copy()
    other[20:60] = other[20:60][::-1]
    searches.same_winners(other, ACCURACIES)
    with pytest.raises(AssertionError, match=r"of clear differences are the other way round"):
        searches.same_winners(ACCURACIES[::-1], ACCURACIES)
    other = ACCURACIES.copy()
    other[-1] = 0.9
    with pytest.raises(
        AssertionError, match=r"the other search's winner is 0\.047 behind the best"
    ):
        searches.same_winners(other, ACCURACIES)
    with pytest.raises(AssertionError, match=r"behind the best"):
        searches.same_winners(ACCURACIES, other)
