"""`zarrloc demo`: the main job on simulated data, as the commands a user would type."""

import shlex
from pathlib import Path

import click

STEPS = """
simulate {d}/data --proteins 34 --fovs-per-protein 2 --size 320
ingest {d}/data/raw {d}/demo.zarr --labels {d}/data/labels/opencell-localization-annotations.csv --cell-lines {d}/data/labels/all-public-targets.csv --shard-fovs 16
embed {d}/demo.zarr --backbone dino-vits16 --weights random:0 --size 224 --name fields
segment {d}/demo.zarr --model watershed --name ws
preview {d}/demo.zarr --segmentation ws --out {d}/preview.png
split {d}/demo.zarr --folds 2 --name honest
train {d}/demo.zarr --embedding fields --split honest --name head --lr 2e-3
evaluate {d}/demo.zarr --head head
info {d}/demo.zarr
report {d}/demo.zarr --out {d}/report.html
"""  # noqa: E501  one command a line, as typed


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), default="demo")
@click.pass_context
def command(context: click.Context, directory: Path) -> int:
    """Run the main job on simulated fields, into DIRECTORY; run again, it continues.

    \b
    zarrloc demo demo
    """
    parent = context.parent
    assert parent is not None
    worst = 0
    for step in STEPS.strip().format(d=shlex.quote(str(directory))).splitlines():
        words = shlex.split(step)
        if words[0] == "simulate" and (directory / "data").exists():
            continue
        click.secho(f"\n$ zarrloc {step}", bold=True)
        code = parent.command.main(words, standalone_mode=False)
        worst = max(worst, code or 0)
    click.echo(f"\nlook at {directory}/report.html and {directory}/preview.png; in Python:")
    click.echo(f"xarray.open_zarr('{directory}/demo.zarr', group='embeddings/fields')")
    return worst
