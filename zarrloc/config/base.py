"""What all configs share: frozen, strict about keys, every problem reported at once."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from zarrloc.errors import ConfigError


class Config(BaseModel):
    """Base of every stage's settings. A default lives here and nowhere else.

    Raises `ConfigError` that names every wrong setting by its dotted path.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            problems: dict[str, str] = {}
            for e in error.errors():
                path = ".".join(map(str, e["loc"])) or "settings"
                text = f"{e['msg']} (got {_short(e['input'])})"
                problems[path] = f"{problems[path]}; {text}" if path in problems else text
            told = "; ".join(f"{path}: {text}" for path, text in problems.items())
            raise ConfigError(f"{type(self).__name__}: {told}", problems) from error

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The config of `values`, by name."""
        return cls(**values)


def _short(value: Any, limit: int = 200) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
