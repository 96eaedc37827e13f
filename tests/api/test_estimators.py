import doctest
from unittest import SkipTest

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from zarrloc import HeadClassifier, NeighbourClassifier
from zarrloc.api import estimators

QUICK = {"hidden": (8,), "lr": 0.02, "epochs": 20, "dropout": 0.0}
TRAINED = {**QUICK, "hidden": (32,), "epochs": 60, "batch": 32}
NOT_MEANT = (
    "sample_order_invariance",  # float32 products differ in the last bits
    "multilabel_output_format_predict_proba",  # a label nobody voted on has 0, not a little more
)
NAMES = np.array(["er", "golgi", "vesicles"])


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    rng = np.random.default_rng(0)
    code = rng.integers(0, 3, 150)
    x = np.eye(5)[code] * 2 + rng.normal(0, 0.4, (150, 5))
    return x.astype(np.float32), code


@pytest.mark.parametrize("make", [lambda: HeadClassifier(**QUICK), NeighbourClassifier])
def test_they_are_estimators(make, data) -> None:  # type: ignore[no-untyped-def]
    x, code = data
    y = NAMES[code]
    with pytest.raises(NotFittedError):
        make().predict(x)
    fitted = make().fit(x[:100], y[:100])
    assert fitted.classes_.tolist() == NAMES.tolist()
    assert fitted.score(x[100:], y[100:]) > 0.9
    probability = fitted.predict_proba(x[100:])
    np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-5)
    assert (fitted.predict(x[100:]) == NAMES[probability.argmax(axis=1)]).all()
    assert clone(fitted).get_params() == fitted.get_params()
    assert cross_val_score(make_pipeline(StandardScaler(), make()), x, y, cv=3).mean() > 0.9


@pytest.mark.parametrize("make", [lambda: HeadClassifier(**QUICK), NeighbourClassifier])
def test_several_labels_a_row(make, data) -> None:  # type: ignore[no-untyped-def]
    x, code = data
    y = np.stack([code == 0, code < 2, code == 2], axis=1).astype(int)
    fitted = make().fit(x[:100], y[:100])
    called = fitted.predict(x[100:])
    assert called.shape == (50, 3)
    assert (called == y[100:]).mean() > 0.9


def test_votes_are_those_of_scikit_learn(data) -> None:  # type: ignore[no-untyped-def]
    x, code = data
    ours = NeighbourClassifier(n_neighbors=7, temperature=0.1).fit(x[:100], code[:100])
    theirs = KNeighborsClassifier(
        7, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.1)
    ).fit(x[:100], code[:100])
    np.testing.assert_allclose(
        ours.predict_proba(x[100:]), theirs.predict_proba(x[100:]), atol=1e-4
    )


def test_settings_are_searched(data) -> None:  # type: ignore[no-untyped-def]
    x, code = data
    search = GridSearchCV(NeighbourClassifier(), {"n_neighbors": [1, 5]}, cv=3).fit(x, code)
    assert search.best_score_ > 0.9
    nearest = cosine_similarity(x[:1], x)[0].argsort()[-1]
    assert search.predict(x[:1])[0] == code[nearest]


def test_equal_seeds_make_equal_heads(data) -> None:  # type: ignore[no-untyped-def]
    x, code = data
    first, second = (HeadClassifier(**QUICK).fit(x, code).predict_proba(x) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    other = HeadClassifier(**QUICK, random_state=1).fit(x, code).predict_proba(x)
    assert (first != other).any()


@pytest.mark.parametrize("estimator", [NeighbourClassifier(), HeadClassifier(**TRAINED)], ids=str)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_own_checks(estimator) -> None:  # type: ignore[no-untyped-def]
    done = 0
    for instance, check in estimator_checks_generator(estimator):
        if any(name in str(check) for name in NOT_MEANT):
            continue
        try:
            check(instance)
            done += 1
        except SkipTest:
            pass
    assert done > 40


def test_their_examples_run() -> None:
    assert doctest.testmod(estimators).failed == 0
