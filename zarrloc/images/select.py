"""Which of the files that a source lists are taken: a kind, some genes, the first so many."""

import logging
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from zarrloc.errors import SourceError
from zarrloc.images import files, opencell
from zarrloc.images.fields import FovSource
from zarrloc.images.files import File

LOG = logging.getLogger("zarrloc")

PROGRESS_S = 10.0
"""A listing that takes longer says how far it is."""

_FOLDER = re.compile(r"(.+)_ENSG\d+")


@dataclass(frozen=True)
class Selection:
    """What of a source is asked for.

    Parameters
    ----------
    only
        OpenCell's projections or stacks alone.
    genes
        Fields of these genes, by OpenCell's file names; upper and lower case are the same.
    limit
        Fields, counted in the order of their names.

    Examples
    --------
    >>> some = Selection(genes=("actb",))
    >>> some.takes(File("raw/OC-FOV_ACTB_ENSG00000075624_CID001084_FID00013888_proj.tif"))
    True
    """

    only: Literal["proj", "stack"] | None = None
    genes: tuple[str, ...] = ()
    limit: int | None = None
    wanted: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "wanted", frozenset(map(str.casefold, self.genes)))

    def takes(self, file: File) -> bool:
        """Whether a file is asked for by its kind and gene."""
        if not self.only and not self.wanted:
            return True
        name = opencell.parse_name(file.name)
        if name is None or (self.only and name.kind != self.only):
            return False
        return not self.wanted or name.gene.casefold() in self.wanted

    def roots(self, source: str, *, unsigned: bool) -> Sequence[str]:
        """The folders of an object store that can hold what is asked for.

        OpenCell has one a gene: listing a few is a few requests, listing all is a minute.
        """
        if not self.wanted:
            return (source,)
        there = files.folders(source, unsigned=unsigned)
        genes = {name: match[1].casefold() for name in there if (match := _FOLDER.fullmatch(name))}
        some = [name for name, gene in genes.items() if gene in self.wanted]
        return [f"{source.rstrip('/')}/{name}" for name in some] if genes else (source,)

    def enough(self, listed: Iterable[File]) -> Iterator[File]:
        """The files of a listing in the order of keys, up to the limit where the names show it.

        A field of OpenCell is complete when the next one begins. Other names say too little.
        """
        fields: set[str] = set()
        for file in listed:
            name = opencell.parse_name(file.name) if self.limit else None
            if name is not None:
                fields.add(name.fov)
                if len(fields) > (self.limit or 0):
                    return
            yield file

    def of(self, found: Iterable[FovSource]) -> list[FovSource]:
        """The fields asked for. Raises SourceError that names genes without a field."""
        found = list(found)
        if not self.wanted:
            return found
        proteins = [one.coords.get("protein", "").casefold() for one in found]
        missing = self.wanted.difference(proteins)
        if missing:
            names = ", ".join(gene for gene in self.genes if gene.casefold() in missing)
            raise SourceError(
                f"there is no field of {names}: genes are those of OpenCell's file names, "
                "OC-FOV_GENE_ENSG..."
            )
        pairs = zip(found, proteins, strict=True)
        return [one for one, protein in pairs if protein in self.wanted]


ALL = Selection()


def logged(listed: Iterable[File], source: str) -> Iterator[File]:
    """The same listing, its progress logged now and then."""
    last = time.monotonic()
    for count, file in enumerate(listed, 1):
        yield file
        if time.monotonic() - last > PROGRESS_S:
            last = time.monotonic()
            LOG.info("%s: %s files listed", source, f"{count:,}")
