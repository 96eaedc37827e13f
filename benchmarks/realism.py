"""Statistics of real fields and simulated ones, by the same methods, side by side.

    python benchmarks/realism.py --real ../shared/opencell --fields 200

The simulated range brackets the real one where every real value lies between the least and the
greatest simulated. Numbers are of the images alone; the simulation's own truth is not used.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from scipy import ndimage, stats
from skimage.filters import threshold_otsu, threshold_triangle
from skimage.measure import regionprops
from skimage.segmentation import watershed

from zarrloc.simulate import LABELS, Protein, draw_grades, simulate_fov

Image = npt.NDArray[np.float32]
Instances = npt.NDArray[np.int32]


def nuclei(hoechst: Image) -> Instances:
    """Instances by Otsu's threshold and a watershed on the distance to the outside."""
    smooth = ndimage.gaussian_filter(hoechst, 2.5)
    inside = ndimage.binary_fill_holes(smooth > np.exp(threshold_otsu(np.log(smooth))))
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(inside).astype(np.float32), 4)
    peaks = (distance == ndimage.maximum_filter(distance, 31)) & (distance > 8)
    found: Instances = watershed(-distance, ndimage.label(peaks)[0], mask=inside)
    areas = np.bincount(found.ravel())
    found[np.isin(found, np.flatnonzero(areas < 400))] = 0
    return found


def background(channel: Image) -> tuple[float, float, float, float]:
    """Level, sd, lag-1 correlation and skew of the darkest smooth part (2 % of the field)."""
    smooth = ndimage.gaussian_filter(channel, 6)
    dark = smooth <= np.percentile(smooth, 2)
    values = channel[dark]
    rest = channel - ndimage.gaussian_filter(channel, 6)
    pairs = dark[:, 1:] & dark[:, :-1]
    lag = np.corrcoef(rest[:, 1:][pairs], rest[:, :-1][pairs])[0, 1]
    return (
        float(np.median(values)),
        float(rest[dark].std()),
        float(lag),
        float(stats.skew(rest[dark])),
    )


def gain(channel: Image) -> float:
    """Slope of noise variance over mean; a low quantile a bin keeps texture out."""
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
    noise = ndimage.uniform_filter(ndimage.convolve(channel, kernel) ** 2, 15)
    mean = ndimage.uniform_filter(channel, 15)
    edges = np.percentile(mean, np.linspace(2, 98, 25))
    bins = np.digitize(mean, edges)
    points = [
        (mean[bins == b].mean(), np.percentile(noise[bins == b], 25)) for b in range(1, len(edges))
    ]
    return float(stats.theilslopes(*np.array(points).T[::-1])[0])


def slope(channel: Image) -> float:
    """Slope of the radial power spectrum from 0.02 to 0.2 cycles a pixel, in log-log."""
    window = np.outer(*(np.hanning(n) for n in channel.shape))
    power = np.abs(np.fft.fft2((channel - channel.mean()) * window)) ** 2
    radius = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in channel.shape), indexing="ij"))
    edges = np.geomspace(0.02, 0.2, 16)
    bins = np.digitize(radius, edges)
    levels = [power[bins == b].mean() for b in range(1, len(edges))]
    return float(np.polyfit(np.log(np.sqrt(edges[1:] * edges[:-1])), np.log(levels), 1)[0])


def measure(image: npt.NDArray[np.uint16]) -> dict[str, float]:
    """All statistics of one field, `(2, y, x)`, Hoechst first."""
    hoechst, protein = image.astype(np.float32)
    found = nuclei(hoechst)
    level, *_ = background(hoechst)
    regions = regionprops(found, hoechst - level)
    means = np.array([r.intensity_mean for r in regions])
    usual = [r for r, m in zip(regions, means, strict=True) if m < 2 * np.median(means)]
    inner = [
        r
        for r in usual
        if min(r.bbox[:2]) > 0 and r.bbox[2] < image.shape[1] and r.bbox[3] < image.shape[2]
    ]
    centres = np.array([r.centroid for r in regions])
    apart = np.hypot(*(centres[:, None] - centres[None]).transpose(2, 0, 1))
    np.fill_diagonal(apart, np.inf)
    smooth = ndimage.gaussian_filter(protein, 2.5)
    cells = smooth > np.exp(threshold_triangle(np.log(smooth)))
    cells |= found > 0
    result: dict[str, float] = {}
    for name, channel in (("Hoechst", hoechst), ("protein", protein)):
        ground, sd, lag, skew = background(channel)
        p1, p50, p99 = np.percentile(channel, [1, 50, 99])
        result |= {
            f"{name} background": ground,
            f"{name} noise sd": sd,
            f"{name} p1": p1,
            f"{name} p50": p50,
            f"{name} p99": p99,
            f"{name} spectrum slope": slope(channel),
            f"{name} noise lag-1 r": lag,
            f"{name} noise skew": skew,
            f"{name} noise variance / mean": gain(channel),
        }
    return result | {
        "nuclei": len(regions),
        "nuclear area, px": float(np.mean([r.area for r in inner])),
        "nuclear area sd, px": float(np.std([r.area for r in inner])),
        "nuclear cover": float((found > 0).mean()),
        "cell cover": float(cells.mean()),
        "cell area, px": float(cells.sum() / len(regions)),
        "nuclear texture CV": float(
            np.median([r.image_intensity[r.image].std() / r.intensity_mean for r in inner])
        ),
        "between nuclei CV": float(np.std([r.intensity_mean for r in usual]) / means.mean()),
        "nearest neighbour, px": float(np.median(apart.min(axis=1))),
        "nuclei at the border": 1 - len(inner) / max(len(usual), 1),
        "mitoses": float(len(regions) - len(usual)),
    }


def simulated(count: int, seed: int) -> Iterable[npt.NDArray[np.uint16]]:
    """Fields of as many proteins, their main labels as frequent as in OpenCell."""
    weight = np.array(list(LABELS.values()), float)
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        main = str(rng.choice(list(LABELS), p=weight / weight.sum()))
        grades = draw_grades(rng, main)
        yield simulate_fov(
            grades, protein=Protein.draw(rng), seed=np.random.SeedSequence([seed, number])
        ).image


def compare(real: list[dict[str, float]], other: list[dict[str, float]]) -> list[dict[str, Any]]:
    """One row a statistic: both ranges, and whether the simulated brackets the real one."""
    rows = []
    for name in real[0]:
        a = np.array([row[name] for row in real])
        b = np.array([row[name] for row in other])
        low, middle, high = np.percentile(b, [5, 50, 95])
        rows.append(
            {
                "statistic": name,
                "real": [float(a.min()), float(np.median(a)), float(a.max())],
                "simulated": [
                    float(b.min()),
                    float(low),
                    float(middle),
                    float(high),
                    float(b.max()),
                ],
                "brackets": bool(b.min() <= a.min() and a.max() <= b.max()),
            }
        )
    return rows


def main() -> None:
    """Measure, print the table, save it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=Path, default=Path("../shared/opencell"))
    parser.add_argument("--fields", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/realism.json"))
    arguments = parser.parse_args()
    real = [measure(tifffile.imread(path)) for path in sorted(arguments.real.glob("*_proj.tif"))]
    rows = compare(real, [measure(i) for i in simulated(arguments.fields, arguments.seed)])
    print(
        f"{'':30} {'real min':>9} {'median':>9} {'max':>9}   {'sim min':>9} {'p5':>9}"
        f" {'median':>9} {'p95':>9} {'max':>9}"
    )
    for row in rows:
        numbers = " ".join(f"{value:9.4g}" for value in row["real"])
        others = " ".join(f"{value:9.4g}" for value in row["simulated"])
        print(f"{row['statistic']:30} {numbers}   {others}   {'' if row['brackets'] else 'NO'}")
    arguments.out.write_text(
        json.dumps({"fields": arguments.fields, "rows": rows}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
