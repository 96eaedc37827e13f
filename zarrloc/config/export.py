"""Settings of `zarrloc export`."""

from typing import Literal

from pydantic import Field

from zarrloc.config.base import Config

Format = Literal["csv", "parquet", "xlsx", "anndata", "spatialdata", "ome-zarr"]


class ExportConfig(Config):
    """What is written, and in which format."""

    to: Format | None = Field(
        default=None,
        description="Format of OUT: csv, parquet, xlsx (one row a field or cell), anndata (.h5ad "
        "or .zarr), spatialdata (images, masks as labels, tables that annotate them), or ome-zarr "
        "(0.5: a plate where wells are known, else one image a field); default: what OUT's ending "
        "says, which .zarr does not.",
    )
    umap: Literal["auto", "yes", "no"] = Field(
        default="auto",
        description="Write a UMAP of an embedding; auto: to AnnData and SpatialData, up to 50,000 "
        "rows; yes: also into tables, as umap_1 and umap_2.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of the UMAP.")
