"""Out of a store, into what other tools read: tables, AnnData, OME-Zarr, SpatialData."""
