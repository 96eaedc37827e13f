"""What all configs share: frozen, strict about keys, every problem reported at once."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from zarrloc.errors import ConfigError


class Config(BaseModel):
    """Base of every stage's settings. A default lives here and nowhere else.

    However it is made, copied or set, a wrong value raises `ConfigError` that names every wrong
    setting by its dotted path.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    SECTION: ClassVar[str] = "Options"
    """Heading under which help shows the settings."""

    SECTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Further headings, after the first: the less common settings under each."""

    def __init__(self, /, **values: Any) -> None:
        with _as_config_error(type(self)):
            super().__init__(**values)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The config of `values`, by name."""
        return cls(**values)

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """As pydantic's, but for the error."""
        with _as_config_error(cls):
            return super().model_validate(obj, **options)

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
        """As pydantic's, but for the error."""
        with _as_config_error(cls):
            return super().model_validate_json(json_data, **options)

    @classmethod
    def model_validate_strings(cls, obj: Any, **options: Any) -> Self:
        """As pydantic's, but for the error."""
        with _as_config_error(cls):
            return super().model_validate_strings(obj, **options)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, but `update` is validated too."""
        if not update:
            return super().model_copy(deep=deep)
        held = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**{**held, **update})

    def __setattr__(self, name: str, value: Any) -> None:
        with _as_config_error(type(self)):
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        with _as_config_error(type(self)):
            super().__delattr__(name)


@contextmanager
def _as_config_error(config: type[Config]) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        problems: dict[str, str] = {}
        for path, text in _problems(error):
            problems[path] = f"{problems[path]}; {text}" if path in problems else text
        listed = "; ".join(f"{path}: {text}" for path, text in problems.items())
        raise ConfigError(f"{config.__name__}: {listed}", problems) from error


def _problems(error: ValidationError) -> Iterator[tuple[str, str]]:
    """Where, and what, each problem is; those that a config's own `__init__` raised as such."""
    for e in error.errors():
        where = [str(part) for part in e["loc"]]
        inner = e.get("ctx", {}).get("error")
        if isinstance(inner, ConfigError) and inner.problems:
            for path, text in inner.problems.items():
                yield ".".join([*where, path]), text
        else:
            text = e["msg"].removeprefix("Value error, ")
            # A rule over several settings names them itself.
            got = f" (got {_short(e['input'])})" if where else ""
            yield ".".join(where) or "settings", text + got


def _short(value: Any, limit: int = 200) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
