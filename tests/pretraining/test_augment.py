"""Views against scikit-image, and the ranges and habits of what is drawn."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.transform import ProjectiveTransform, warp

from zarrloc.pretraining.augment import (
    Draw,
    View,
    blurred,
    corner_warp,
    crop,
    draw,
    multi_crop,
    recolour,
    resample,
)

N = 2000
VIEW = View(
    size=16,
    scale=(0.05, 0.4),
    warp=0.25,
    flip=0.5,
    jitter=0.5,
    remove_channel=0.2,
    rescale_protein=0.2,
)
PROTEIN = torch.tensor([False, True, False])


def drawn(view: View = VIEW, n: int = N, channels: int = 3, seed: int = 0) -> Draw:
    protein = PROTEIN[:channels].expand(n, -1)
    return draw(view, protein, torch.ones(n), torch.Generator().manual_seed(seed))


def smooth_image(channels: int, height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    waves = [np.sin(y / (3 + c)) * np.cos(x / (4 + c)) / 2 + 0.5 for c in range(channels)]
    return np.stack(waves).astype(np.float32)


@pytest.mark.parametrize("height", [40, 28])
def test_resample_agrees_with_scikit_image(height: int) -> None:
    """One homography a sample, on a field padded below its real rows."""
    image, size = smooth_image(2, height, 40), 24
    padded = np.pad(image, ((0, 0), (0, 40 - height), (0, 0)), constant_values=1e6)
    matrix = drawn(n=8).matrix
    got = resample(
        torch.from_numpy(padded)[None].expand(8, -1, -1, -1),
        torch.tensor([[height, 40]]).expand(8, -1),
        matrix,
        size,
    )
    for sample in range(8):
        # scikit-image counts pixel centres: unit square -> indices on both sides.
        unit = np.array([[1 / size, 0, 0.5 / size], [0, 1 / size, 0.5 / size], [0, 0, 1]])
        pixel = np.array([[40, 0, -0.5], [0, height, -0.5], [0, 0, 1]])
        move = ProjectiveTransform(pixel @ matrix[sample].double().numpy() @ unit)
        for channel in range(2):
            expected = warp(image[channel], move, output_shape=(size, size), order=1, mode="edge")
            u = (np.indices((size, size))[::-1].reshape(2, -1).T + 0.5) / size
            where = ProjectiveTransform(matrix[sample].double().numpy())(u)
            inside = ((where >= 0) & (where <= 1)).all(1).reshape(size, size)
            np.testing.assert_allclose(got[sample, channel], expected * inside, atol=2e-4)


def test_shrinking_averages_every_pixel() -> None:
    """A one-pixel checkerboard, 8 times smaller, is grey and not stripes."""
    y, x = np.mgrid[:128, :128]
    board = torch.from_numpy(((y + x) % 2).astype(np.float32))[None, None]
    whole = torch.eye(3)[None]
    small = resample(board, torch.tensor([[128, 128]]), whole, 16)
    assert float((small - 0.5).abs().max()) < 1e-3


@pytest.mark.parametrize("span", [1.0, 0.5])
@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(128, 128, 16), (100, 100, 16), (50, 70, 16), (33, 20, 16), (2, 2, 5), (1, 3, 5)],
)
def test_shrinking_is_bilinear_at_most_two_pixels_apart(
    height: int, width: int, size: int, span: float
) -> None:
    """As a loop over scipy's interpolation; and every pixel has a part in the view."""
    finer = 1
    while max(height, width) * span / (size * finer) > 2:
        finer += 1
    image = np.random.default_rng(0).random((height, width))
    along = span * (np.arange(size * finer) + 0.5) / (size * finer)
    at = np.meshgrid(along * height - 0.5, along * width - 0.5, indexing="ij")
    fine = ndimage.map_coordinates(image, at, order=1, mode="nearest")
    expected = fine.reshape(size, finer, size, finer).mean((1, 3))
    pixels = torch.from_numpy(image).float()[None, None].requires_grad_()
    matrix = torch.diag(torch.tensor([span, span, 1.0]))[None]
    view = resample(pixels, torch.tensor([[height, width]]), matrix, size, span)
    np.testing.assert_allclose(view[0, 0].detach(), expected, atol=1e-4)
    view.sum().backward()
    assert pixels.grad is not None
    seen = pixels.grad[0, 0, : math.ceil(height * span), : math.ceil(width * span)]
    assert float(seen.min()) > 0


@pytest.mark.parametrize(("height", "width"), [(200, 200), (80, 200)])
def test_no_crop_leaves_pixels_unread(height: int, width: int) -> None:
    """Those of the largest and narrowest crops among many; finer samples see nothing else."""
    view = dataclasses.replace(VIEW, size=24, warp=0.0)
    aspect = torch.full((N,), width / height)
    matrix = draw(view, PROTEIN.expand(N, -1), aspect, torch.Generator().manual_seed(0)).matrix
    sides = matrix.diagonal(dim1=1, dim2=2)[:, :2].abs() * torch.tensor([width, height])
    extents = torch.tensor([[height, width]])
    for worst in (sides[:, 0].argmax(), sides[:, 1].argmax(), sides.prod(1).argmax()):
        pixels = torch.rand(1, 1, height, width, requires_grad=True)
        one = matrix[worst][None]
        resample(pixels, extents, one, view.size, view.span).sum().backward()
        corner, other = (one[0] @ torch.tensor([[0.0, 0, 1], [1, 1, 1]]).T)[:2].T
        x, y = (torch.stack([corner, other]) * torch.tensor([width, height])).T
        inner = pixels.grad[0, 0, int(y.min()) + 2 : int(y.max()) - 1,
                            int(x.min()) + 2 : int(x.max()) - 1]  # fmt: skip
        assert inner.numel() > 1000
        assert float(inner.min()) > 0


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shift", [-0.5, 0.5])
def test_what_lies_outside_the_image_is_zero(axis: int, shift: float) -> None:
    """A view moved by half: one half of it is dark, on each side and along each axis."""
    matrix = torch.eye(3)[None].clone()
    matrix[0, axis, 2] = shift
    view = resample(torch.ones(1, 1, 16, 16), torch.tensor([[16, 16]]), matrix, 16)[0, 0]
    seen = view.T if axis == 0 else view
    inside = torch.arange(16) >= 8 if shift < 0 else torch.arange(16) < 8
    torch.testing.assert_close(seen, inside.float()[:, None].expand(16, 16))


def test_corner_warp_moves_one_corner() -> None:
    """The four-point transform scikit-image estimates, for each corner."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    for mirror in ([False, False], [True, False], [False, True], [True, True]):
        moved = np.array([0.0 if m else 1.0 for m in mirror])
        target = corners.copy()
        target[(corners == moved).all(1)] = np.where(mirror, [0.2, 0.1], [0.8, 0.9])
        expected = ProjectiveTransform.from_estimate(target, corners)
        got = corner_warp(torch.tensor([[0.2, 0.1]]), torch.tensor([mirror]))[0].numpy()
        np.testing.assert_allclose(
            got / got[2, 2], expected.params / expected.params[2, 2], atol=1e-6
        )


def test_any_corner_is_moved_and_by_any_share_of_the_largest() -> None:
    """Of a view of the whole image, three corners are the image's; x and y move apart."""
    view = dataclasses.replace(VIEW, scale=(1.0, 1.0), flip=0.0, warp=0.3)
    matrix = drawn(view).matrix.double()
    corners = torch.tensor([[0.0, 0, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1]]).double().T
    where = matrix @ corners
    kept = (where[:, :2] / where[:, 2:] - corners[:2]).abs().amax(1) < 1e-5
    assert (kept.sum(1) == 3).all()
    assert ((~kept).double().mean(0) - 1 / 4).abs().max() < 0.04
    # The image's own corner is seen where it was moved to.
    moved = corners.T[(~kept).int().argmax(1)]
    at = torch.linalg.solve(matrix, moved)
    inward = (at[:, :2] / at[:, 2:] - moved[:, :2]).abs() / 0.3
    for share in (*inward.T, inward.amax(1) ** 2):
        expected = torch.linspace(0, 1, N).double()
        torch.testing.assert_close(share.sort()[0], expected, atol=0.05, rtol=0)


@pytest.mark.parametrize("aspect", [1.0, 0.5, 2.0])
def test_crops_lie_inside_with_the_drawn_area(aspect: float) -> None:
    """Area in range, ratio of sides in 3/4 to 4/3 in pixels, flips on half of the samples."""
    random = torch.rand(N, 4, generator=torch.Generator().manual_seed(1))
    flip = torch.rand(N, 2, generator=torch.Generator().manual_seed(2)) < 0.5
    matrix = crop((0.05, 0.4), random, flip, torch.full((N,), aspect))
    side = matrix[:, [0, 1], [0, 1]]
    start, stop = matrix[:, :2, 2], matrix[:, :2, 2] + side
    assert torch.equal(side < 0, flip)
    for corner in (start, stop):
        assert corner.min() >= -1e-6
        assert corner.max() <= 1 + 1e-6
    area = side.abs().prod(1)
    torch.testing.assert_close(area, 0.05 + 0.35 * random[:, 0])
    ratio = side[:, 0].abs() / side[:, 1].abs() * aspect
    assert ratio.min() >= 3 / 4 - 1e-4
    assert ratio.max() <= 4 / 3 + 1e-4
    if aspect == 1:  # even on a logarithmic scale, and drawn apart from the rest
        torch.testing.assert_close(ratio, 3 / 4 * (16 / 9) ** random[:, 1])


@pytest.mark.parametrize("scale", [(0.02, 0.1), (0.05, 1.0), (0.9, 1.0), (1.0, 1.0)], ids=str)
@pytest.mark.parametrize("aspect", [0.2, 0.7, 0.76, 1.0, 1.3, 1.35, 2.0, 5.0])
def test_no_crop_leaves_any_image(aspect: float, scale: tuple[float, float]) -> None:
    """Not at the ends of the ranges either, where an allowed ratio no longer fits."""
    ends = torch.cartesian_prod(*[torch.tensor([0.0, 0.5, 1 - 2**-24])] * 4)
    random = torch.cat([ends, torch.rand(500, 4, generator=torch.Generator().manual_seed(3))])
    flip = torch.arange(len(random) * 2).view(-1, 2) % 3 == 0
    matrix = crop(scale, random, flip, torch.full((len(random),), aspect))
    corners = torch.tensor([[0.0, 0, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1]])
    where = (matrix @ corners.T)[:, :2]
    assert float(where.min()) >= -1e-6
    assert float(where.max()) <= 1 + 1e-6
    side = matrix[:, [0, 1], [0, 1]].abs()
    torch.testing.assert_close(side.prod(1), scale[0] + (scale[1] - scale[0]) * random[:, 0])
    # The whole of the range is used: a crop that fits can lie at either end.
    lowest, highest = where.amin(2), where.amax(2)
    assert float(lowest[random[:, 2] == 0, 0].abs().max()) < 1e-6
    assert float((highest - 1)[random[:, 2] > 0.9999, 0].abs().max()) < 1e-5


def test_a_whole_wide_image_is_taken_whole() -> None:
    """Where no allowed ratio fits the area, the crop has the image's own shape."""
    matrix = crop((1.0, 1.0), torch.rand(4, 4), torch.zeros(4, 2).bool(), torch.full((4,), 3.0))
    torch.testing.assert_close(matrix, torch.eye(3).expand(4, -1, -1))


def test_channels_are_removed_at_the_given_rate_and_never_the_protein() -> None:
    """0.2 of the samples lose one of the two reference channels, each as often."""
    removed = drawn().keep == 0
    assert not removed[:, 1].any()
    assert removed.sum(1).max() == 1
    assert float(removed.any(1).float().mean()) == pytest.approx(0.2, abs=0.03)
    assert float(removed[:, 0].float().mean()) == pytest.approx(0.1, abs=0.03)
    assert bool(drawn(channels=1).keep.all())
    of_two = drawn(channels=2).keep == 0
    assert of_two[:, 0].float().mean().item() == pytest.approx(0.2, abs=0.03)
    assert not of_two[:, 1].any()


def test_brightness_and_contrast_factors() -> None:
    """max(N(1, 0.5), 0.5), each sample and channel by itself."""
    factors = torch.cat([drawn().brightness, drawn().contrast])
    expected = (1 + 0.5 * torch.randn(200_000)).clamp(min=0.5)
    assert float(factors.min()) == 0.5
    assert float(factors.mean()) == pytest.approx(float(expected.mean()), abs=0.02)
    assert float(factors.std()) == pytest.approx(float(expected.std()), abs=0.02)
    assert abs(float(torch.corrcoef(factors.T)[0, 1])) < 0.05


def test_a_rescaled_protein_has_any_maximum_up_to_2() -> None:
    """In a share of the samples; the others' is left alone."""
    peak = drawn(dataclasses.replace(VIEW, rescale_protein=0.3)).peak
    found = peak[~peak.isnan()]
    assert len(found) / N == pytest.approx(0.3, abs=0.03)
    expected = torch.linspace(0, 2, len(found))
    torch.testing.assert_close(found.sort()[0], expected, atol=0.12, rtol=0)


@pytest.mark.parametrize("scale", [(0.05, 0.4), (0.4, 1.0), (0.9, 1.0)], ids=str)
def test_the_span_is_the_side_of_the_largest_crop(scale: tuple[float, float]) -> None:
    """Of the narrowest, which is as long as the image at most."""
    view = dataclasses.replace(VIEW, scale=scale, warp=0.0)
    side = drawn(view, n=20_000).matrix[:, [0, 1], [0, 1]].abs()
    assert 0.97 * view.span < float(side.max()) <= view.span + 1e-6


def plain(n: int, c: int = 3) -> Draw:
    """A draw that changes nothing."""
    one = torch.ones(n, c)
    return Draw(torch.eye(3).expand(n, -1, -1), one, one, one, torch.full((n,), torch.nan))


def test_recolour_by_hand() -> None:
    """Brightness, then contrast about the mean, then protein and removal, in plain numpy."""
    views = torch.rand(4, 3, 8, 8)
    drawn = Draw(
        plain(4).matrix,
        torch.rand(4, 3) + 0.5,
        torch.rand(4, 3) + 0.5,
        torch.tensor([[0.0, 1, 1], [1, 1, 1], [1, 1, 0], [1, 1, 1]]),
        torch.tensor([torch.nan, 1.7, 0.0, torch.nan]),
    )
    got = recolour(views, drawn, PROTEIN.expand(4, -1)).numpy()
    for i in range(4):
        for c in range(3):
            x = np.clip(views[i, c].numpy() * float(drawn.brightness[i, c]), 0, 1)
            x = np.clip(x.mean() + float(drawn.contrast[i, c]) * (x - x.mean()), 0, 1)
            peak = float(drawn.peak[i])
            if c == 1 and not np.isnan(peak):
                x = x * peak / x.max()
            np.testing.assert_allclose(got[i, c], x * float(drawn.keep[i, c]), atol=1e-6)


def test_nothing_drawn_changes_nothing() -> None:
    """The identity on an image of the view's size."""
    images = torch.rand(2, 3, 16, 16)
    (view,) = multi_crop(
        images, torch.tensor([[16, 16]] * 2), PROTEIN.expand(2, -1), [VIEW], [plain(2)]
    )
    torch.testing.assert_close(view, images, atol=1e-5, rtol=0)


def test_a_sample_is_the_same_in_any_batch() -> None:
    """Views of some rows computed alone equal those computed with all; blurred ones too."""
    images, extents = torch.rand(10, 3, 32, 32), torch.full((10, 2), 32)
    protein = PROTEIN.expand(10, -1)
    for view in (VIEW, dataclasses.replace(VIEW, blur=2.0)):
        draws = drawn(view, n=10)
        together = multi_crop(images, extents, protein, [view], [draws])[0]
        for rows in (slice(3, 7), *(slice(i, i + 1) for i in range(10))):
            part = [draws.rows(rows)]
            alone = multi_crop(images[rows], extents[rows], protein[rows], [view], part)
            torch.testing.assert_close(alone[0], together[rows])


@pytest.mark.parametrize(
    ("side", "size", "scale", "by"),
    [(600, 224, 0.4, 1), (600, 96, 0.05, 1), (2048, 224, 0.4, 5), (160, 48, 0.4, 2), (0, 16, 1, 1)],
)
def test_pixels_are_averaged_while_the_smallest_crop_stays_finer_than_its_view(
    side: int, size: int, scale: float, by: int
) -> None:
    view = dataclasses.replace(VIEW, size=size, scale=(scale, 1.0))
    assert view.averaged(side) == by
    if side:
        crop_px = side * scale**0.5
        assert crop_px / (by + 1) < size
        assert by == 1 or crop_px / by >= size


@pytest.mark.parametrize(("size", "by"), [(24, 3), (36, 2)])
def test_averaged_pixels_give_the_views_of_a_smaller_image(size: int, by: int) -> None:
    """Of each sample's real part; where images are not that fine, or one is small, nothing changes.

    A smooth image looks the same either way.
    """
    images = torch.from_numpy(smooth_image(3, 160, 160).repeat(4, 1).repeat(4, 2)[:, :160, :160])
    images, extents = images.expand(5, -1, -1, -1).clone(), torch.full((5, 2), 160)
    extents[3:], images[3:, :, 120:] = torch.tensor([120, 160]), 1e6
    view = dataclasses.replace(VIEW, size=size, scale=(0.4, 1.0), jitter=0.0, rescale_protein=0.0)
    draws, protein = drawn(view, n=5), PROTEIN.expand(5, -1)
    (found,) = multi_crop(images, extents, protein, [view], [draws], least=120)
    side = 160 // by
    small = images[..., : side * by, : side * by].reshape(5, 3, side, by, side, by).mean((3, 5))
    (expected,) = multi_crop(small, extents // by, protein, [view], [draws])
    torch.testing.assert_close(found, expected)
    (plain,) = multi_crop(images, extents, protein, [view], [draws])
    assert (found - plain).abs().mean() < 0.03
    (coarse,) = multi_crop(images, extents, protein, [view], [draws], least=40)
    assert torch.equal(coarse, plain)


def test_blur_is_a_gaussian() -> None:
    """SciPy's, of each sample's own width, channels apart; none at 0."""
    images = torch.rand(3, 2, 24, 20, generator=torch.Generator().manual_seed(0))
    sd = torch.tensor([0.0, 0.8, 1.7])
    found = blurred(images, sd, 1.7)
    torch.testing.assert_close(found[0], images[0])
    for i in (1, 2):
        for c in range(2):
            expected = ndimage.gaussian_filter(
                images[i, c].double().numpy(), sd[i].item(), mode="mirror", radius=6
            )
            np.testing.assert_allclose(found[i, c], expected, atol=3e-6)
    for shape in ((3, 3), (3, 9), (9, 3)):  # wider than the view
        image = torch.rand(1, 1, *shape)
        small = blurred(image, torch.tensor([4.0]), 4.0)[0, 0]
        expected = ndimage.gaussian_filter(image[0, 0].numpy(), 4.0, mode="mirror", radius=2)
        np.testing.assert_allclose(small, expected, atol=1e-5)


def test_noise_grows_with_the_root_of_the_brightness() -> None:
    """As photons are counted; a removed channel stays black."""
    view = dataclasses.replace(VIEW, noise=0.1, jitter=0.0, rescale_protein=0.0, size=32)
    random = draw(view, PROTEIN.expand(300, -1), torch.ones(300), torch.Generator().manual_seed(0))
    plain = dataclasses.replace(random, noise=None)
    views = torch.tensor([0.0, 0.25, 1.0])[None, :, None, None].expand(300, 3, 32, 32)
    added = recolour(views, random, PROTEIN) - recolour(views, plain, PROTEIN)
    assert (added[:, 0] == 0).all()
    assert (added[random.keep == 0] == 0).all()
    each = added[:, 2].std((1, 2))[random.keep[:, 2] > 0]
    assert each.max() < 0.11
    assert each.mean() == pytest.approx(0.05, rel=0.15)
    both = random.keep[:, 2] > 0
    ratio = added[both, 1].std() / added[both, 2].std()
    assert ratio.item() == pytest.approx(0.5, rel=0.05)
    assert added[both, 2].mean().abs() < 0.002


def test_noise_and_blur_are_drawn_only_if_wanted() -> None:
    """And change no other draw; blur comes before colours, noise last."""
    wanted = dataclasses.replace(VIEW, noise=0.2, blur=2.0)
    one, two = drawn(n=50), drawn(wanted, n=50)
    assert one.noise is None
    assert one.blur is None
    for name in ("matrix", "brightness", "contrast", "keep"):
        assert torch.equal(getattr(one, name), getattr(two, name))
    assert two.blur is not None
    assert two.noise is not None
    assert 0 <= two.blur.min() < 0.3
    assert 1.7 < two.blur.max() <= 2
    assert two.noise.shape == (50, 3, 16, 16)
    some = two.rows(slice(3, 7)).to(torch.device("cpu"))
    assert some.blur is not None
    assert torch.equal(some.blur, two.blur[3:7])
    images = torch.from_numpy(smooth_image(3, 40, 40)).float().expand(50, -1, -1, -1)
    extents, protein = torch.full((50, 2), 40), PROTEIN.expand(50, -1)
    (found,) = multi_crop(images, extents, protein, [wanted], [two])
    shown = resample(images, extents, two.matrix, 16, wanted.span)
    expected = recolour(blurred(shown, two.blur, 2.0), two, protein)
    torch.testing.assert_close(found, expected)


def test_a_turned_view_is_the_view_with_its_axes_swapped() -> None:
    """In about as many samples as asked for; nothing else is drawn otherwise."""
    wanted = dataclasses.replace(VIEW, turn=0.3)
    one, two = drawn(), drawn(wanted)
    for name in ("brightness", "contrast", "keep"):
        assert torch.equal(getattr(one, name), getattr(two, name))
    turned = (one.matrix != two.matrix).any(2).any(1)
    assert turned.float().mean().item() == pytest.approx(0.3, abs=0.04)
    images = torch.from_numpy(smooth_image(3, 40, 40)).expand(40, -1, -1, -1)
    extents = torch.full((40, 2), 40)
    plain, other = (resample(images, extents, each.matrix[:40], 16) for each in (one, two))
    wanted_views = torch.where(turned[:40, None, None, None], plain.mT, plain)
    torch.testing.assert_close(other, wanted_views, atol=1e-5, rtol=0)
