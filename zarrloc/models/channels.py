"""Which channel of the store goes into which input of a backbone.

Three kinds: *natural* (an input gets the channel of its own role), *explicit* (said input by
input) and *replicate* (each channel alone into all inputs, the features side by side). Paper,
section 2.2. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zarrloc.errors import ChannelError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ChannelMap:
    """For each pass through the backbone, the store's channel each input gets, or None: blank."""

    kind: str
    passes: tuple[tuple[int | None, ...], ...]
    input_roles: tuple[str, ...]
    store_roles: tuple[str, ...]

    def feature_width(self, features: int) -> int:
        """Width of an embedding by a backbone of `features`: one part a pass."""
        return len(self.passes) * features

    def apply(self, images: Tensor) -> Tensor:
        """Map `images` (n, channel, y, x) to (passes, n, inputs, y, x); blank inputs are 0."""
        n, _, *size = images.shape
        mapped = images.new_zeros((len(self.passes), n, len(self.input_roles), *size))
        for p, inputs in enumerate(self.passes):
            for i, channel in enumerate(inputs):
                if channel is not None:
                    mapped[p, :, i] = images[:, channel]
        return mapped

    @property
    def channel_of(self) -> dict[str, int]:
        """The channel that was taken for each role; none where every channel goes the same way."""
        if self.kind == "replicate":
            return {}
        used = sorted({channel for one in self.passes for channel in one if channel is not None})
        return {self.store_roles[channel]: channel for channel in used}

    def mark_absent(self, mapped: Tensor) -> None:
        """Make the blank inputs of `mapped` (passes, n, inputs, y, x) NaN, in place."""
        for one, inputs in zip(mapped, self.passes, strict=True):
            for i, channel in enumerate(inputs):
                if channel is None:
                    one[:, i] = float("nan")

    def describe(self) -> str:
        """A description: `protein -> G, nucleus -> B, R blank`, passes separated by `|`."""
        return " | ".join(self._describe_pass(inputs) for inputs in self.passes)

    def _describe_pass(self, inputs: tuple[int | None, ...]) -> str:
        parts = []
        for channel, role in enumerate(self.store_roles):
            targets = [self.input_roles[i] for i, got in enumerate(inputs) if got == channel]
            if targets:
                parts.append(f"{role} -> {' + '.join(targets)}")
        blank = [self.input_roles[i] for i, got in enumerate(inputs) if got is None]
        return ", ".join(parts + ([f"{' and '.join(blank)} blank"] if blank else []))

    def as_config(self) -> str:
        """The text that resolves to this map again; explicit maps in the order of the inputs."""
        if self.kind != "explicit":
            return self.kind
        used = [(i, channel) for i, channel in enumerate(self.passes[0]) if channel is not None]
        return ",".join(f"{self.store_roles[channel]}={i}" for i, channel in used)


def resolve(
    text: str | None, input_roles: Sequence[str], store_roles: Sequence[str], default: str
) -> ChannelMap:
    """The channel map that `text` asks for, or `default` where it is None.

    `text` is `natural`, `replicate`, or pairs of a store's role and an input's index or name:
    `protein=1,nucleus=2`, `protein=G`.

    Raises `ChannelError` where no role is shared (natural), the store lacks a role, an input
    does not exist, or a role or an input is named twice.
    """
    inputs, stored = tuple(input_roles), tuple(store_roles)
    wanted = (default if text is None else text).strip()
    if wanted == "replicate":
        passes = tuple((channel,) * len(inputs) for channel in range(len(stored)))
        return ChannelMap("replicate", passes, inputs, stored)
    if wanted == "natural":
        mapping = {inputs.index(role): c for c, role in enumerate(stored) if role in inputs}
        if not mapping:
            raise ChannelError(
                f"natural channels need a role both sides know: the store has {list(stored)}, "
                f"the backbone {list(inputs)}; pass --channels ROLE=INPUT,... or replicate"
            )
        return _one_pass("natural", mapping, inputs, stored)
    return _one_pass("explicit", _parse(wanted, inputs, stored), inputs, stored)


def _one_pass(
    kind: str, mapping: Mapping[int, int], inputs: tuple[str, ...], stored: tuple[str, ...]
) -> ChannelMap:
    return ChannelMap(kind, (tuple(mapping.get(i) for i in range(len(inputs))),), inputs, stored)


def _parse(text: str, inputs: tuple[str, ...], stored: tuple[str, ...]) -> dict[int, int]:
    mapping: dict[int, int] = {}
    for pair in text.split(","):
        role, equals, target = (part.strip() for part in pair.partition("="))
        if not equals:
            raise ChannelError(
                f"channels {text!r}: expected natural, replicate or ROLE=INPUT,... such as "
                f"{stored[0]}=1"
            )
        if role not in stored:
            raise ChannelError(
                f"channel {role!r} is not in the store, which has {list(stored)}; "
                "name one of these in --channels"
            )
        channel, index = stored.index(role), _input_index(target, inputs)
        if channel in mapping.values() or index in mapping:
            twice = f"channel {role!r}" if channel in mapping.values() else f"input {target!r}"
            raise ChannelError(f"channels {text!r}: {twice} is named twice; name each once")
        mapping[index] = channel
    return mapping


def _input_index(target: str, inputs: tuple[str, ...]) -> int:
    if target in inputs:
        return inputs.index(target)
    if target.isdecimal() and int(target) < len(inputs):
        return int(target)
    raise ChannelError(
        f"input {target!r} does not exist; the backbone's inputs are "
        + ", ".join(f"{i} ({role})" for i, role in enumerate(inputs))
    )
