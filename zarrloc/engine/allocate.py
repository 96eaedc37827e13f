"""A group's document, made what a plan asks: allocated, or grown by rows; and committed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from zarrloc.engine.plan import AnyPlan, Before
from zarrloc.errors import StoreError
from zarrloc.store import document, objects
from zarrloc.store.columns import column_digest, put_columns
from zarrloc.store.document import NEXT, Document
from zarrloc.store.location import Location
from zarrloc.store.template import Variable


def prepare(location: Location, path: str, plan: AnyPlan, there: Before) -> tuple[Document, bool]:
    """The group's document, committed as the plan asks; and whether that took any writing."""
    variables = plan.variables
    about = _about(plan)
    if there.group is None:
        found = _allocate(location, path, plan, about)
        new = dict(plan.coords)
    else:
        held = document.look(location, path).document
        assert held is not None, f"{path} was committed a moment ago"
        found, before = held, dict(held.arrays)
        _grow(found, path, variables, plan)
        new = {n: v for n, v in plan.coords.items() if not _equal(there.column(n), v)}
        if not new and found.arrays == before and about.items() <= found.attributes.items():
            if not path.endswith(NEXT) and not document.is_published(location, path, found):
                document.publish(location, path, found.to_json())
            return found, False
        document.align(location, path, Document({}, before))
    found.attributes.update(about)
    put_columns(location, path, found, {n: (variables[n], v) for n, v in new.items()})
    document.commit(location, path, found)
    document.align(location, path, found)
    return found, True


def unchanged(location: Location, path: str, plan: AnyPlan) -> Document | None:
    """The document of a committed group that is what the plan asks for; None where it isn't."""
    found = document.look(location, path).document
    if found is None:
        return None
    about = _about(plan)
    before = dict(found.arrays)
    digests = found.attributes.get("column_digests", {})
    _grow(found, path, plan.variables, plan)
    same = found.arrays == before and about.items() <= found.attributes.items()
    known = {name: column_digest(values) for name, values in plan.coords.items()}
    if not same or any(digests.get(name) != value for name, value in known.items()):
        return None
    return found if document.is_published(location, path, found) else None


def _about(plan: AnyPlan) -> dict[str, Any]:
    """The group's attributes beside its settings."""
    if not plan.coordinates:
        return dict(plan.about)
    return {**plan.about, "coordinates": " ".join(sorted(set(plan.coordinates)))}


def _allocate(location: Location, path: str, plan: AnyPlan, about: Mapping[str, Any]) -> Document:
    objects.remove(location, path)
    found = Document({**about, "zarrloc": plan.attrs.model_dump()}, {})
    document.begin(location, path, found.attributes)
    for name, variable in plan.variables.items():
        if name not in plan.coords:
            found.arrays[name] = variable.metadata()
            document.write_array(location, path, name, found.arrays[name])
    return found


def _grow(found: Document, path: str, variables: Mapping[str, Variable], plan: AnyPlan) -> None:
    """Give every array that the plan does not write whole the rows it asks for."""
    digests = dict(found.attributes.get("column_digests", {}))
    for name in [*plan.template, *variables]:  # the receipts last: a refusal speaks of rows
        if name in plan.coords:
            continue
        if name not in found.arrays:
            raise StoreError(f"'{path}' has no '{name}': another zarrloc made it")
        old, new = found.arrays[name]["shape"], list(variables[name].shape)
        if any(n < o for n, o in zip(new, old, strict=True)):
            raise StoreError(f"'{path}' holds {old[0]} rows and will not be cut to {new[0]}")
        if new != old:
            found.arrays[name] = {**found.arrays[name], "shape": new}
            digests.pop(name, None)
    found.attributes["column_digests"] = digests


def _equal(old: npt.NDArray[Any] | None, new: npt.NDArray[Any]) -> bool:
    if old is None or old.shape != new.shape:
        return False
    if new.dtype.kind == "f":
        return bool(np.array_equal(old, new, equal_nan=True))
    return bool(np.array_equal(old, new.astype(old.dtype)))
