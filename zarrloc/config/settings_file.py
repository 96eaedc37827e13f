"""Settings out of a YAML file that nobody vouches for: bounded in size, depth and expansion."""

from pathlib import Path
from typing import Any

import yaml

from zarrloc.errors import ConfigError

MOST_BYTES = 64 << 10
MOST_DEPTH = 16


def read_settings(path: Path) -> dict[str, Any]:
    """Read `name: value` lines; an empty file is no settings.

    Raises
    ------
    ConfigError
        The file can't be read, is over 64 KiB, is not YAML, uses aliases or tags, nests deeper
        than 16, names a setting twice, or holds something other than a mapping by name.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > MOST_BYTES:
        raise ConfigError(f"{path} is larger than {MOST_BYTES:,} bytes; is it a settings file?")
    try:
        settings = yaml.load(content, _Bounded)
    except Exception as error:  # dates, numbers and encodings raise errors of their own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{path} is no usable YAML: {reason[:500]}") from error
    if settings is None:
        return {}
    if not isinstance(settings, dict) or not all(isinstance(name, str) for name in settings):
        raise ConfigError(f"{path} holds a {type(settings).__name__}; expected `name: value` lines")
    return settings


class _Bounded(yaml.SafeLoader):
    """Refuses while composing, so that nothing is expanded first."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise self._refusal("aliases are not taken; write the value out", event)
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise self._refusal(f"nested deeper than {MOST_DEPTH}", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        names: set[Any] = set()
        for key, _ in node.value:
            if isinstance(key.value, str) and key.value in names:
                raise self._refusal(f"{key.value!r} is given twice", key)
            names.add(str(key.value))
        return node

    def _refusal(self, reason: str, where: Any) -> yaml.YAMLError:
        return yaml.composer.ComposerError(None, None, reason, where.start_mark)
