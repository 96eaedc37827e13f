"""zarrloc: protein localization in fluorescence microscopy, on Dask and Zarr."""
