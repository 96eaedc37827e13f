"""Every error zarrloc raises on purpose: what was got, what was expected, what to do.

The CLI prints these as one line; anything else is a bug and keeps its traceback.
Each class is also the builtin it refines, so callers may catch either.
"""

from collections.abc import Mapping


class ZarrlocError(Exception):
    """Base of all errors zarrloc raises on purpose.

    `problems` maps each wrong setting of a config, by its dotted path, to what is wrong with it;
    the command line shows its own flags in place of the paths.
    """

    problems: Mapping[str, str]

    def __init__(self, message: str = "", problems: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.problems = problems or {}


class ConfigError(ZarrlocError, ValueError):
    """A setting, or a combination of settings, cannot be used."""


class SourceError(ZarrlocError, ValueError):
    """A file the user gave (image, table, manifest) cannot be read as what it should be."""


class ChannelError(ZarrlocError, ValueError):
    """A channel role is missing, ambiguous or mapped to nothing."""


class WeightsError(ZarrlocError, ValueError):
    """A checkpoint does not hold exactly what the backbone needs."""


class StoreError(ZarrlocError, RuntimeError):
    """The store is absent, damaged, too new, or holds something else under that name."""


class DamageError(StoreError):
    """Stored values are not those that were written."""


class RemoteError(StoreError, OSError):
    """The object store does not answer, or not well: the same command continues from here."""


class LockedError(ZarrlocError, RuntimeError):
    """Another live run holds this stage of this store."""


class ClusterError(ZarrlocError, RuntimeError):
    """Workers could not be started, reached or kept alive."""


class RunError(ZarrlocError, RuntimeError):
    """A run was given up, for a reason that lies with the machine and may be gone the next time."""


class WorkerError(ClusterError):
    """Workers died, or were not there, for a reason that may be gone the next time."""
