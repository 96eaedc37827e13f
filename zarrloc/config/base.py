"""What all configs share: frozen, strict about keys, every problem reported at once."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from zarrloc.errors import ConfigError


class Config(BaseModel):
    """Base of every stage's settings. A default lives here and nowhere else."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Validate `values`; all problems come as one `ConfigError`, each by its dotted path."""
        try:
            return cls(**values)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']} (got {e['input']!r})"
                for e in error.errors()
            )
            raise ConfigError(f"{cls.__name__}: {problems}") from error
