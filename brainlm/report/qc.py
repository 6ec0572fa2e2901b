"""The quality-control figure of one recording: one small function for each panel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from .qc_data import QCData, Reference
from .slices import axial_slices
from .style import AMBER, BLUE, GREEN, GREY, INK, MUTED, RC, SKY, VERMILION, light_grid

TISSUES = {1: ("GM", BLUE), 2: ("WM", AMBER), 3: ("CSF", GREEN)}
_TITLES = {"framewise_displacement": "Framewise displacement", "std_dvars": "Standardised DVARS"}
_GREY_RANGE = 2.0  # SD before denoising, so that what was removed shows as paler grey
_ROWS, _COLUMNS = 240, 600  # most cells of a drawn carpet: finer ones would not be seen


@rc_context(RC)
def draw_qc(data: QCData) -> Figure:
    """Traces, motion, carpets and reference image, with one common time axis.

    What is not known of a recording has no panel.
    """
    traces: list[Callable[[Axes], None]] = []
    if data.motion_known:
        fd, dvars = "framewise_displacement", "std_dvars"
        traces.append(lambda axes: draw_trace(axes, data, fd, data.fd_threshold, "mm", VERMILION))
        if dvars in data.confounds:
            traces.append(
                lambda axes: draw_trace(axes, data, dvars, data.dvars_threshold, "", BLUE)
            )
        traces.append(lambda axes: draw_motion(axes, data, "trans", 1.0, "Translations", "mm"))
        turn = 180 / np.pi
        traces.append(lambda axes: draw_motion(axes, data, "rot", turn, "Rotations", "deg"))
    heights = [*[1.0] * len(traces), *[2.5] * len(data.carpets)]
    heights += [2.5] * (data.reference is not None)
    tall = 0.98 + 0.92 * sum(heights)  # inches
    figure = Figure(figsize=(14, tall), dpi=100, facecolor="white")
    grid = figure.add_gridspec(
        len(heights),
        2,
        width_ratios=(1, 70),
        height_ratios=heights,
        left=0.06,
        right=0.9,
        top=1 - 1.1 / tall,
        bottom=(0.17 if data.reference is not None else 0.5) / tall,
        hspace=0.42,
        wspace=0.012,
    )
    rows = [figure.add_subplot(grid[row, 1]) for row in range(len(traces) + len(data.carpets))]
    draw_title(figure, data)
    for axes, draw in zip(rows, traces, strict=False):
        draw(axes)
    for number, (title, carpet) in enumerate(data.carpets.items(), start=len(traces)):
        draw_carpet(rows[number], data, carpet, title)
        draw_tissue_bar(figure.add_subplot(grid[number, 0]), data.tissue)
    for axes in rows[:-1]:
        axes.tick_params(labelbottom=False)
    rows[-1].set_xlabel("time (s)", labelpad=1)
    if data.reference is not None:
        box = grid[-1, :].get_position(figure)
        mosaic = figure.add_axes((0.01, box.y0, 0.98, box.height * 0.86))
        draw_mosaic(mosaic, data.reference)
    return figure


def draw_title(figure: Figure, data: QCData) -> None:
    """Name of the recording and its numbers in one line."""
    numbers = data.summary()
    minutes = len(data.confounds) * data.tr / 60
    covered = numbers["ParcelsCovered"]
    motion = ["head motion not known"]
    if data.motion_known:
        motion = [
            f"mean FD {numbers['MeanFramewiseDisplacement']:.2f} mm"
            f" (max {numbers['MaxFramewiseDisplacement']:.2f})",
            f"{numbers['OutlierVolumes']} outlier volume{'s' * (numbers['OutlierVolumes'] != 1)}",
        ]
    line = "   ·   ".join(
        (
            f"TR {data.tr:g} s",
            f"{len(data.confounds)} volumes ({minutes:.1f} min)",
            *motion,
            f"{covered:.0%} of {len(data.coverage)} {data.atlas} parcels covered",
        )
    )
    tall = figure.get_figheight()
    name = data.recording_id
    figure.text(0.012, 1 - 0.34 / tall, name, fontsize=15, fontweight="bold", va="center")
    figure.text(0.012, 1 - 0.64 / tall, line, fontsize=10, color=MUTED, va="center")


def draw_trace(
    axes: Axes,
    data: QCData,
    column: str,
    threshold: float,
    unit: str,
    color: str,
) -> None:
    """One value per volume, its threshold, and the outlier volumes shaded."""
    series = data.confounds[column].to_numpy(dtype=float)
    _shade_outliers(axes, data)
    axes.plot(data.seconds, series, color=color, linewidth=1.1)
    axes.axhline(threshold, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    top = 1.12 * max(float(np.nanmax(series, initial=0)), 1.25 * threshold)
    axes.set(title=_TITLES[column], ylabel=unit, ylim=(0, top))
    _time_axis(axes, data)
    _note(axes, threshold / top, f"threshold {threshold:g}{f' {unit}' if unit else ''}", INK)
    if len(data.outliers):
        _note(axes, 0.97, "outlier volume", VERMILION, marker="▌")


def draw_motion(
    axes: Axes, data: QCData, prefix: str, factor: float, title: str, unit: str
) -> None:
    """Three of the six rigid parameters, each named at its right end."""
    names = {"trans": ("right", "anterior", "superior"), "rot": ("pitch", "roll", "yaw")}[prefix]
    curves = [data.confounds[f"{prefix}_{axis}"].to_numpy(dtype=float) * factor for axis in "xyz"]
    for curve, color in zip(curves, (VERMILION, GREEN, BLUE), strict=True):
        axes.plot(data.seconds, curve, color=color, linewidth=1.1)
    reach = max(0.1, *(float(np.nanmax(np.abs(curve))) for curve in curves)) * 1.12
    axes.axhline(0, color=GREY, linewidth=0.6, zorder=0)
    axes.set(title=title, ylabel=unit, ylim=(-reach, reach))
    _time_axis(axes, data)
    for height, name, color in zip((0.85, 0.5, 0.15), names, (VERMILION, GREEN, BLUE), strict=True):
        _note(axes, height, name, color, marker="—")


def draw_carpet(axes: Axes, data: QCData, carpet: NDArray[np.floating], title: str) -> None:
    """Voxels by time in grey; outlier volumes are ticked along the upper edge."""
    cells = shrink(carpet.astype(np.float32), _ROWS, _COLUMNS)
    end = len(data.confounds) * data.tr
    axes.imshow(
        cells,
        cmap=_GREYS,
        vmin=-_GREY_RANGE,
        vmax=_GREY_RANGE,
        aspect="auto",
        interpolation="nearest",
        extent=(0, end, 0, 1),
    )
    axes.plot(
        (data.outliers + 0.5) * data.tr,
        np.full(len(data.outliers), 1.025),
        linestyle="none",
        marker="v",
        markersize=4,
        color=VERMILION,
        clip_on=False,
    )
    axes.set_title(title, pad=9)
    axes.set(yticks=[], ylim=(0, 1))
    _time_axis(axes, data)
    axes.spines["left"].set_visible(False)
    for height, words in (
        (0.93, "black to white:"),
        (0.84, f"±{_GREY_RANGE:g} SD"),
        (0.75, data.scale),
    ):
        _note(axes, height, words, MUTED)


def draw_tissue_bar(axes: Axes, tissue: NDArray[np.int8]) -> None:
    """A coloured bar beside a carpet which tells the tissue of its rows."""
    order = [code for code in TISSUES if (tissue == code).any()]
    top = 1.0
    for code in order:
        name, color = TISSUES[code]
        share = float((tissue == code).mean())
        axes.bar(0, -share, bottom=top, width=1, color=color)
        axes.text(-0.9, top - share / 2, name, ha="right", va="center", color=color, fontsize=9)
        top -= share
    axes.set(xlim=(-0.5, 0.5), ylim=(0, 1))
    axes.axis("off")


def draw_mosaic(axes: Axes, reference: Reference) -> None:
    """Axial slices of the reference image with the outline of the brain mask."""
    slices, ratio = axial_slices(reference.image, reference.mask, reference.affine, count=9)
    gap = np.zeros((slices[0].image.shape[0], 2), dtype=np.float32)
    image = np.hstack([part for cut in slices for part in (cut.image, gap)][:-1])
    mask = np.hstack([part for cut in slices for part in (cut.mask, gap > 0)][:-1])
    inside = image[mask] if mask.any() else image
    axes.imshow(
        image,
        cmap="gray",
        origin="lower",
        aspect=ratio,
        interpolation="bilinear",
        vmin=0,
        vmax=float(np.quantile(inside, 0.995)) or 1,
    )
    if mask.any() and not mask.all():
        axes.contour(mask, levels=[0.5], colors=[SKY], linewidths=0.9)
    width = slices[0].image.shape[1] + 2
    for number, cut in enumerate(slices):
        axes.text(
            number * width + width / 2 - 1,
            -0.02 * image.shape[0],
            f"z = {cut.z_mm:+.0f} mm".replace("-", "−"),
            ha="center",
            va="top",
            color=MUTED,
            fontsize=8.5,
        )
    side: dict[str, Any] = {"color": "white", "fontsize": 10, "fontweight": "bold", "va": "top"}
    axes.text(1, image.shape[0] - 2, "L", ha="left", **side)
    axes.text(image.shape[1] - 2, image.shape[0] - 2, "R", ha="right", **side)
    axes.set_title("Reference volume and brain mask (left of the head is left)")
    axes.axis("off")


def shrink(carpet: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """Mean over blocks, so that at most `rows` x `columns` cells remain, in the same order."""
    for axis, most in ((0, rows), (1, columns)):
        length = carpet.shape[axis]
        if length > most:
            starts = np.linspace(0, length, most, endpoint=False).astype(int)
            sizes = np.diff([*starts, length])
            sums = np.add.reduceat(carpet, starts, axis=axis)
            carpet = (sums / (sizes[:, None] if axis == 0 else sizes)).astype(np.float32)
    return carpet


#: Few grey levels: the eye sees no more in a noise image, and the file is half the size.
_GREYS = ListedColormap([str(level) for level in np.linspace(0, 1, 20)])


def _shade_outliers(axes: Axes, data: QCData) -> None:
    for index in data.outliers:
        axes.axvspan(
            (index - 0.5) * data.tr, (index + 0.5) * data.tr, color=VERMILION, alpha=0.18, lw=0
        )


def _time_axis(axes: Axes, data: QCData) -> None:
    axes.set_xlim(0, len(data.confounds) * data.tr)
    if axes.get_yticks().size:
        light_grid(axes)


def _note(axes: Axes, height: float, text: str, color: str, marker: str = "") -> None:
    """Words in the right margin, at a height given as a share of the axes."""
    axes.annotate(
        f"{marker} {text}".strip(),
        (1.008, height),
        xycoords="axes fraction",
        color=color,
        fontsize=8.5,
        va="center",
        annotation_clip=False,
    )
