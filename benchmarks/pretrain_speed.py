"""Images/s of training from a store, against the same step on tensors already on the device.

    python benchmarks/pretrain_speed.py oc.zarr --config pretrain.yaml --steps 50

The YAML file is that of `zarrloc pretrain --config`; its defaults are the paper's ViT-S/8.

The share says how much of the step's own speed is left once its pixels come from the store.
Expected: at least 0.9 with every cache.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import yaml

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.pretraining.estimate import Plan
from zarrloc.pretraining.inputs import Inputs
from zarrloc.pretraining.launch import World
from zarrloc.pretraining.loop import State, batches, train, train_step
from zarrloc.pretraining.samples import cached, open_data
from zarrloc.pretraining.start import start_backbones, start_channels, start_spec
from zarrloc.store.location import Location

WORLD = World()


def speeds(store: str, config: PretrainConfig) -> dict[str, float]:
    """Images/s of the bare step and of training with each cache, and their shares."""
    device = WORLD.device(config.device)
    location = Location.of(store)
    data = open_data(location, config)
    spec = start_spec(config, data.source.roles)
    channels = start_channels(config, spec, data.source.roles)
    inputs = Inputs(channels, (0.1,) * len(spec.roles), (0.1,) * len(spec.roles))
    plan = Plan.of(config, len(data.protein), 1, device.type)
    student, teacher, _ = start_backbones(config, spec)
    state = State.begin(config, spec, student, teacher, device)
    first = next(
        batches(config, state.objective, data.source, None, inputs, range(1), WORLD, device)
    )

    def bare(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            loss = train_step(config, plan, state, state.student, first, inputs, WORLD)
        float(loss)  # waits for the device
        return steps * config.batch / (time.perf_counter() - start)

    bare(3)  # warm-up
    found = {"step": bare(plan.steps)}
    for cache in ("none", "ram", "device"):
        settings = config.model_copy(update={"cache": cache})
        source, resident = cached(settings, data.source, location, WORLD, device)
        state.step, rows = 0, []
        train(config, plan, state, source, resident, inputs, WORLD, rows.append, lambda: True)
        found[cache] = float(np.mean([row["images_per_s"] for row in rows[1:] or rows]))
        found[f"{cache} share"] = found[cache] / found["step"]
        found[f"{cache} decodes"] = float(np.mean([row["decodes_per_sample"] for row in rows]))
    return found


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("store")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    settings = yaml.safe_load(given.config.read_text()) if given.config else {}
    run = {"steps": given.steps, "log_steps": max(1, given.steps // 5)}
    config = PretrainConfig.of({"arch": "vit_small_patch8", **settings, **run})
    result = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "images_per_s": speeds(given.store, config),
        "settings": config.model_dump(mode="json"),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if given.out:
        given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
