"""How bright are cells of each label? The table of cells, with plain xarray and pandas.

python examples/cells_by_label.py [STORE] [CELLS]
"""

import argparse

import xarray as xr

parser = argparse.ArgumentParser()
parser.add_argument("store", nargs="?", default="demo/demo.zarr")
parser.add_argument("cells", nargs="?", default="ws")
asked = parser.parse_args()

fovs = xr.open_zarr(asked.store, group="fovs")
cells = xr.open_zarr(asked.store, group=f"cells/{asked.cells}").load()
cells = cells.isel(cell=(cells.keep & ~cells.touches_border).values)

background = fovs.background.sel(channel="protein").load()[cells.fov_index]
table = cells[["area_px", "centroid_y", "centroid_x"]].to_dataframe()
table["above_background"] = cells.intensity_mean.sel(channel="protein").values - background.values

grade = fovs.grade.load()[cells.fov_index]  # (cell, label): a cell has its field's labels
for label in grade.label.values:
    mine = table[(grade.sel(label=label) == 3).values]
    if len(mine):
        middle = mine[["area_px", "above_background"]].median()
        print(f"{label:20} {len(mine):5} cells  {middle.area_px:7.0f} px  "
              f"{middle.above_background:7.0f} counts")  # fmt: skip
