"""How large the window around a cell is, in pixels."""

from zarrloc.errors import ConfigError

PAPER_UM = 53.0
"""The paper's window: 256 px of OpenCell's 0.2063 um."""

PAPER_PX = 256


def window_px(crop_um: float | None, pixel_size_um: float | None) -> int:
    """Side of a cell's window in source pixels.

    Parameters
    ----------
    crop_um
        Side in micrometres; None for the paper's 53 um, or its 256 px where the size of a pixel
        is not known.
    pixel_size_um
        Side of a pixel in micrometres; None where it is not known.

    Returns
    -------
    int
        Even, so that the window has a centre to put the cell on.

    Raises
    ------
    ConfigError
        Where micrometres are asked for and the pixel size is not known, or are under two pixels.

    Examples
    --------
    >>> window_px(None, 0.2063), window_px(None, 0.65), window_px(None, None)
    (256, 82, 256)
    """
    if pixel_size_um is None:
        if crop_um is not None:
            raise _refused(
                f"{crop_um} um asked for, but the store has no pixel size; give it one (`zarrloc "
                "annotate STORE --pixel-size-um UM`), or leave this out for a window of "
                f"{PAPER_PX} px"
            )
        return PAPER_PX
    if not 0 < pixel_size_um < float("inf"):
        raise ConfigError(
            f"the store's pixel_size_um is {pixel_size_um}, expected a positive number; "
            "`zarrloc annotate STORE --pixel-size-um UM` changes it"
        )
    side_um = PAPER_UM if crop_um is None else crop_um
    if not 0 < side_um < float("inf"):
        raise _refused(f"got {crop_um}, expected a positive number of micrometres")
    window = 2 * round(side_um / pixel_size_um / 2)
    if window < 2:
        raise _refused(f"{side_um} um is under two pixels of {pixel_size_um} um")
    return window


def _refused(why: str) -> ConfigError:
    return ConfigError(f"crop_um: {why}", {"crop_um": why})
