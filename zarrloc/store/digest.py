"""Digests of decoded values: equal data has an equal digest, however it was stored."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash


def digest(arrays: Mapping[str, npt.NDArray[Any]]) -> int:
    """xxh3-64 over names, dtypes, shapes and values; never 0, which means "not done"."""
    state = xxhash.xxh3_64()
    for name in sorted(arrays):
        values = np.asarray(arrays[name])
        if values.dtype.kind in "TUO":
            text = [str(value) for value in values.ravel()]
            state.update(f"{name}|string|{values.shape}|{[len(t) for t in text]}".encode())
            state.update("".join(text).encode())
        else:
            state.update(f"{name}|{values.dtype.str}|{values.shape}|".encode())
            state.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return state.intdigest() or 1


def row_digests(array: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """xxh3-64 of each row of an array, over its values, shape and dtype; never 0."""
    array = np.ascontiguousarray(array)
    seed = xxhash.xxh3_64_intdigest(f"{array.dtype.str}|{array.shape[1:]}".encode())
    rows = array.reshape(len(array), -1).view(np.uint8)
    found = (xxhash.xxh3_64_intdigest(row.data, seed) or 1 for row in rows)
    return np.fromiter(found, np.uint64, len(array))


def combine(parts: Iterable[object]) -> int:
    """One non-zero uint64 from integers and texts, in their order."""
    return xxhash.xxh3_64_intdigest("|".join(map(str, parts)).encode()) or 1


def fingerprint(settings: Mapping[str, Any]) -> str:
    """16 hex digits of a stage's settings, independent of key order."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
