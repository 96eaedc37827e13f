import numpy as np
import pytest

from zarrloc.scoring.similar import group_means, own_similarity


def test_means_of_alike_groups_point_the_same_way() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(4)[[0, 1, 0, 2]]
    groups = np.repeat(np.array(["d", "b", "a", "c"]), 5)
    x = np.repeat(centres, 5, axis=0) + rng.normal(0, 0.05, (20, 4))
    x[3, 1] = np.nan
    names, means = group_means(x.astype(np.float32), groups)
    assert names.tolist() == ["a", "b", "c", "d"]
    cosine = means @ means.T
    np.testing.assert_allclose(np.diag(cosine), 1)
    assert cosine[0, 3] > 0.95
    assert cosine[0, 1] < 0


def test_a_row_is_compared_with_the_others_of_its_group_alone() -> None:
    groups = np.array(["a"] * 4 + ["b"] * 2)
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    own = own_similarity(x, groups)
    z = (x - x.mean(0)) / x.std(0)
    rest = z[[0, 2, 3]].sum(0)
    cosine = z[1] @ rest / np.linalg.norm(z[1]) / np.linalg.norm(rest)
    assert own[1] == pytest.approx(cosine, abs=1e-5)
    assert np.isnan(own[4:]).all(), "two rows are too few"
