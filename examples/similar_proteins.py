"""Which proteins look alike? Plain xarray: zarrloc made the store, reading needs nothing of it.

python examples/similar_proteins.py [STORE] [EMBEDDING]
"""

import argparse

import numpy as np
import xarray as xr

parser = argparse.ArgumentParser()
parser.add_argument("store", nargs="?", default="demo/demo.zarr")
parser.add_argument("embedding", nargs="?", default="fields")
asked = parser.parse_args()

embedding = xr.open_zarr(asked.store, group=f"embeddings/{asked.embedding}").embedding.load()
sound = embedding.dropna(embedding.dims[0])  # a row that failed is NaN
protein = sound.groupby("protein").mean()
protein -= protein.mean("protein")
protein /= np.sqrt((protein**2).sum("feature"))

similarity = protein @ protein.rename(protein="other")
similarity = similarity.where(similarity.protein != similarity.other)
for name, row in similarity.groupby("protein"):
    nearest = row.squeeze().sortby(row.squeeze(), ascending=False)[:3]
    others = ", ".join(f"{other.other.item()} {other.item():.2f}" for other in nearest)
    print(f"{name}: {others}")
