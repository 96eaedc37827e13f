import numpy as np
import pytest
import xxhash

from zarrloc.store.digest import combine, digest, fingerprint


def test_a_digest_is_of_values_shape_dtype_and_name() -> None:
    values = np.arange(12, dtype=np.uint16)
    before = digest({"a": values})
    assert before == digest({"a": values.copy()})
    assert before == digest({"a": np.arange(24, dtype=np.uint16)[::2] // 2})
    others = [
        {"b": values},
        {"a": values.reshape(3, 4)},
        {"a": values.astype(np.int16)},
        {"a": values + np.uint16(1)},
        {"a": values, "b": values},
    ]
    assert before not in {digest(other) for other in others}
    assert digest({"a": values, "b": values}) == digest({"b": values, "a": values})


def test_text_has_one_digest_however_it_is_kept() -> None:
    words = ["", "nucleus", "pröt\u0000ein"]
    kinds = [np.array(words, kind) for kind in (np.dtypes.StringDType(), object, "U20")]
    assert len({digest({"a": kind}) for kind in kinds}) == 1
    moved = np.array(["nucleus", "", "pröt\u0000ein"], np.dtypes.StringDType())
    assert digest({"a": moved}) != digest({"a": kinds[0]})


def test_zero_means_not_done_and_is_never_given() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xxhash, "xxh3_64_intdigest", lambda _: 0)
        assert combine(["anything"]) == 1

    class Zero:
        def update(self, _: object) -> None: ...

        def intdigest(self) -> int:
            return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xxhash, "xxh3_64", Zero)
        assert digest({}) == 1


def test_empty_and_scalar_arrays_have_a_digest() -> None:
    assert digest({"a": np.zeros((0, 3))}) != digest({"a": np.zeros((0, 4))})
    assert digest({"a": np.float32(1)}) != digest({"a": np.float32(2)})  # type: ignore[dict-item]


def test_combining_keeps_the_order() -> None:
    assert combine([1, "a"]) == combine(["1", "a"])
    assert combine([1, 2]) != combine([2, 1])


def test_a_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert len(fingerprint({})) == 16
