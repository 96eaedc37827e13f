"""Single-cell crops into a PyTorch loop: cut from the store when asked for, on no disk.

python examples/train_on_crops.py [STORE] [CELLS]
"""

import argparse

import numpy as np
import torch
import xarray as xr

from zarrloc.groups.crops import Crops

parser = argparse.ArgumentParser()
parser.add_argument("store", nargs="?", default="demo/demo.zarr")
parser.add_argument("cells", nargs="?", default="ws")
asked = parser.parse_args()

crops = Crops(asked.store, asked.cells, size=64)
grade = xr.open_zarr(asked.store, group="fovs").grade.load().values
target = torch.from_numpy((grade[crops.fov_index] == 3).astype(np.float32))

model = torch.nn.Sequential(
    torch.nn.Conv2d(len(crops.channels), 16, 7, stride=4), torch.nn.ReLU(),
    torch.nn.Conv2d(16, 32, 5, stride=2), torch.nn.ReLU(),
    torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, target.shape[1]),
)  # fmt: skip
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
loss_of = torch.nn.BCEWithLogitsLoss()
for epoch in range(3):
    losses = []
    for batch in crops.batches(32):  # in the table's order: each field is decoded once
        pixels = torch.log1p(batch.pixels) / 10
        loss = loss_of(model(pixels), target[torch.from_numpy(batch.rows)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"epoch {epoch}: loss {np.mean(losses):.3f}")
