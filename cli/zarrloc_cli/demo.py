"""`zarrloc demo`: the main job on simulated data, as the commands a user would type."""

import shlex
from pathlib import Path

import click

from zarrloc_cli.commands import Command
from zarrloc_cli.output import say

STEPS = """
simulate {d}/data --proteins 102 --fovs-per-protein 2 --size 480 --labels opencell
ingest {d}/data/raw {d}/demo.zarr --labels {d}/data/labels/opencell-localization-annotations.csv --cell-lines {d}/data/labels/all-public-targets.csv --shard-fovs 16
embed {d}/demo.zarr --backbone dino-vits16 --weights random:0 --size 224 --name fields
segment {d}/demo.zarr --model watershed --crop-um 33 --keep-percentile 60 --name ws
preview {d}/demo.zarr --segmentation ws --out {d}/preview.png
pretrain {d}/demo.zarr --config {d}/tiny.yaml --out {d}/tiny
embed {d}/demo.zarr --level cell --cells ws --crop-um 33 --size 48 --backbone {d}/tiny --name cells
embed {d}/demo.zarr --level cell --cells ws --crop-um 33 --backbone classic --name classic
split {d}/demo.zarr --name honest
train {d}/demo.zarr --embedding cells --split honest --name head --lr 1e-3 --epochs 60
evaluate {d}/demo.zarr --head head --threshold tuned
info {d}/demo.zarr
report {d}/demo.zarr --threshold tuned --out {d}/report.html
"""  # noqa: E501  one command a line, as typed

TINY = """\
# A ViT that learns single cells in two minutes on two cores; `zarrloc pretrain --help` says what
# each line is. Without it, the paper's settings hold.
arch: vit_tiny_patch16
arch_options: [patch_size=8, embed_dim=96, depth=3, num_heads=3]
level: cell
cells: ws
crop_um: 33
size: 48
local_size: 24
local_views: 2
local_scale: [0.2, 0.5]
jitter: 0.3
steps: 600
batch: 64
learning_rate: 1.6e-2
momentum: 0.96
final_weight_decay: 0.1
drop_path: 0
prototypes: 256
head_hidden: 192
bottleneck: 64
guard_epochs: 10
log_steps: 100
cache: device
"""


@click.command(cls=Command)
@click.argument("directory", type=click.Path(path_type=Path), default="demo")
@click.pass_context
def command(context: click.Context, directory: Path) -> int:
    """Run the main job on simulated fields, into DIRECTORY; run again, it continues.

    \b
    zarrloc demo demo
    """
    parent = context.parent
    assert parent is not None
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tiny.yaml").write_text(TINY)
    worst = 0
    for step in STEPS.strip().format(d=shlex.quote(str(directory))).splitlines():
        words = shlex.split(step)
        if words[0] == "simulate" and (directory / "data").exists():
            continue
        say(click.style(f"\n$ zarrloc {step}", bold=True))
        code = parent.command.main(words, standalone_mode=False)
        worst = max(worst, code or 0)
    say(f"\nlook at {directory}/report.html and {directory}/preview.png; in Python:")
    say(f"xarray.open_zarr('{directory}/demo.zarr', group='embeddings/cells')")
    return worst
