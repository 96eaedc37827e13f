"""The one seam of segmentation: what turns the fields of a block into masks."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from zarrloc.errors import ChannelError, ConfigError
from zarrloc.segmenters.objects import Mask, numbered

Field = npt.NDArray[Any]

Call = tuple[Field, tuple[str, ...]]
"""What a user's function is called with: the field, and its channels' roles."""

In = TypeVar("In")
"""What a segmenter's `prepare` hands to its `network`."""
S = TypeVar("S")
"""What a segmenter's `network` hands to its `mask`."""


class Segmenter(Protocol[In, S]):
    """A segmentation model in three phases, so that only the middle one holds the device.

    `prepare` and `mask` are pure functions of one field: they may run in any thread, and an
    error there is that field's alone. `network` takes all fields of a block at once.
    """

    @property
    def roles(self) -> tuple[str, ...]:
        """Channel roles it reads; the store must have them."""

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """JSON-like: model, hash of weights, settings. Equal fingerprints give equal masks."""

    def prepare(self, field: Field, roles: Sequence[str]) -> In:
        """What the network needs of `field` `(channel, y, x)`, whose channels are `roles`."""

    def network(self, inputs: Sequence[In]) -> list[S]:
        """One state per input."""

    def mask(self, state: S) -> Mask:
        """The mask `(y, x)` uint32 of one field: 0 background, objects 1..n."""


AnySegmenter = Segmenter[Any, Any]
"""One that was chosen by its settings; what its phases hand on, only it knows."""


def segment_block(
    segmenter: Segmenter[In, S], fields: Sequence[Field], roles: Sequence[str]
) -> list[Mask]:
    """Masks of `fields`, each `(channel, y, x)` of its own size: the three phases in a row."""
    inputs = [segmenter.prepare(field, roles) for field in fields]
    return [segmenter.mask(state) for state in segmenter.network(inputs)]


def select(field: Field, roles: Sequence[str], wanted: Sequence[str]) -> npt.NDArray[np.float32]:
    """Channels `wanted` of `field` `(channel, y, x)`, in that order, as float32.

    Raises `ChannelError` for a role the field lacks.
    """
    missing = [role for role in wanted if role not in roles]
    if missing:
        raise ChannelError(
            f"channel {', '.join(missing)} not found; the store has {', '.join(roles)}; "
            "give channels (and grow) with roles of the store"
        )
    return np.stack([field[roles.index(role)] for role in wanted]).astype(np.float32)


@dataclass(frozen=True)
class CallableSegmenter:
    """A user's `function(image (channel, y, x), roles) -> mask (y, x)` as a `Segmenter`."""

    function: Callable[[Field, tuple[str, ...]], npt.NDArray[np.integer[Any]]]
    fingerprint: Mapping[str, Any]
    roles: tuple[str, ...] = ()

    def prepare(self, field: Field, roles: Sequence[str]) -> Call:
        """The field as it is: the function reads what it likes."""
        return field, tuple(roles)

    def network(self, inputs: Sequence[Call]) -> list[Call]:
        """Nothing: the function runs in `mask`."""
        return list(inputs)

    def mask(self, state: Call) -> Mask:
        """What the function returns, checked and numbered 1..n. Raises `ValueError`."""
        field, roles = state
        mask = np.asarray(self.function(field, roles))
        if mask.shape != field.shape[1:] or mask.dtype.kind not in "iu" or mask.min() < 0:
            raise ValueError(
                f"{self.fingerprint['model']} returned {mask.dtype} {mask.shape}, expected "
                f"non-negative integers {field.shape[1:]}"
            )
        return numbered(mask)


def from_callable(
    function: Callable[[Field, tuple[str, ...]], npt.NDArray[np.integer[Any]]], version: str = ""
) -> Segmenter[Call, Call]:
    """`function(image (channel, y, x), roles) -> mask (y, x)` of integers as a `Segmenter`.

    Its name, source and `version` make its fingerprint; what it reads elsewhere (weights, globals)
    does not, so give another `version` with those. Raises `ConfigError` where Python can't show
    the source and no `version` is given.
    """
    name = getattr(function, "__qualname__", type(function).__qualname__)
    try:
        source = inspect.getsource(function if inspect.isroutine(function) else type(function))
    except (OSError, TypeError) as error:
        if not version:
            raise ConfigError(
                f"{name} has no source to tell its versions by; pass version"
            ) from error
        source = ""
    identity = {"model": name, "source": sha256(source.encode()).hexdigest(), "version": version}
    return CallableSegmenter(function, identity)
