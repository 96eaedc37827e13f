"""How Zarr is written and read: addresses, locks, templates, digests. Knows no science."""
