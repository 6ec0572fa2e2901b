"""Brains that show a number of each parcel: glass brains, surfaces, and surfaces to turn.

A map is drawn of parcels filled where the study has its atlas as an image, and of markers at the
parcels' centres where it has none. Surfaces are fsaverage5, which comes with nilearn: nothing is
fetched. Each of its vertices shows the parcel that is nearest in its own hemisphere, if that is one
of the cortex.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap, Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from .cortex import draw_cortex, hemispheres
from .style import AMBER, BLUE, GREEN, GREY, INK, MUTED, PURPLE, RC, SKY, VERMILION

Floats = NDArray[np.float64]

#: Colours of categories, e.g. of seven networks.
CATEGORIES = (PURPLE, BLUE, GREEN, VERMILION, AMBER, SKY, INK, GREY)
#: How far a vertex may be from the nearest voxel, or from the nearest centre, of what it shows, mm.
_REACH = {"image": 8.0, "centres": 25.0}
#: Of many parcels the largest share one colour, or a single one would leave the others without.
_MANY, _LARGEST = 50, 98.0
_VIEWS = (("left", -1), ("left", 1), ("right", -1), ("right", 1))  # looked at from that side


class Shades(NamedTuple):
    """Which colour a number gets."""

    colors: Colormap
    limits: Normalize
    names: tuple[str, ...] = ()  # of categories

    def of(self, values: Floats) -> NDArray[np.float64]:
        """RGBA, (..., 4)."""
        return np.asarray(self.colors(self.limits(np.nan_to_num(values))))


@dataclass(frozen=True, eq=False)
class BrainMap:
    """The brain of a study's atlas: its table, and its image if there is one."""

    parcels: pd.DataFrame  # index, x, y, z (mm), perhaps structure
    image: Path | None = None  # voxels hold the numbers in `index`

    @rc_context(RC)
    def glass(
        self, values: Floats, label: str, names: Sequence[str] = (), *, signed: bool = False
    ) -> Figure:
        """Seen from four sides, the largest number along each line of sight.

        `values` (parcels,), NaN: not shown. With `names` they are numbers of categories.
        `signed`: 0 stands in the middle of the colours, also where no number is below it.
        """
        figure = Figure(figsize=(10.6, 3.0))
        shades = _shades(values, names, signed=signed)
        axes = figure.add_axes((0.0, 0.0, 0.84, 1.0))
        if self.image is not None and not names and np.nan_to_num(values).any():
            self._fill_glass(figure, axes, values, shades)
        else:
            self._mark_glass(figure, axes, values, shades)
        _legend(figure, shades, values, label, (0.875, 0.18, 0.012, 0.64))
        return figure

    @rc_context(RC)
    def surface(
        self, values: Floats, label: str, names: Sequence[str] = (), *, signed: bool = False
    ) -> Figure:
        """Both hemispheres of the cortex from without and within, inflated."""
        figure = Figure(figsize=(10.6, 2.3))
        shades = _shades(values, names, signed=signed)
        for place, (hemisphere, side) in enumerate(_VIEWS):
            axes = figure.add_axes((0.21 * place, 0.0, 0.205, 0.9))
            of_vertex = _spread(values, self.vertices[hemisphere])
            draw_cortex(axes, hemispheres()[hemisphere], of_vertex, shades.of(of_vertex), side)
            axes.set_title(
                f"{hemisphere}, {'lateral' if (side < 0) == (hemisphere == 'left') else 'medial'}",
                fontsize=8,
                fontweight="normal",
                color=MUTED,
                loc="center",
            )
        _legend(figure, shades, values, label, (0.875, 0.14, 0.012, 0.7))
        return figure

    def interactive(self, values: Floats, label: str, *, signed: bool = False) -> str:
        """A page of its own with a brain to turn, all that it needs within: no network."""
        from nilearn.plotting import view_markers, view_surf

        shown, shades = np.isfinite(values), _shades(values, (), signed=signed)
        title = f"{label} ({int(shown.sum())} parcels)"
        on_surface = {side: _spread(values, of) for side, of in self.vertices.items()}
        if not any(np.isfinite(part).any() for part in on_surface.values()):
            colors = [to_hex(color) for color in shades.of(values[shown])]
            view = view_markers(self.centres[shown], marker_color=colors, title=title)
            return str(view.get_standalone())
        from nilearn.datasets import load_fsaverage, load_fsaverage_data
        from nilearn.surface import SurfaceImage

        mesh = load_fsaverage("fsaverage5")["inflated"]
        data = {side: part.astype(np.float32) for side, part in on_surface.items()}
        view = view_surf(
            surf_map=SurfaceImage(mesh, data),
            bg_map=SurfaceImage(mesh, load_fsaverage_data("fsaverage5", data_type="sulcal").data),
            hemi="both",
            cmap=shades.colors,
            symmetric_cmap=bool(shades.limits.vmin is not None and shades.limits.vmin < 0),
            vmin=shades.limits.vmin,
            vmax=shades.limits.vmax,
            title=title,
            title_fontsize=16,
            colorbar_fontsize=12,
        )
        return str(view.get_standalone())

    @property
    def centres(self) -> Floats:
        """(parcels, 3) in mm."""
        return self.parcels[["x", "y", "z"]].to_numpy(dtype=np.float64)

    @cached_property
    def vertices(self) -> dict[str, NDArray[np.int64]]:
        """Row of the parcel that each vertex shows, by hemisphere; -1: none."""
        points, rows, reach = self._points()
        found = {}
        for hemisphere, mesh in hemispheres().items():
            side = -1.0 if hemisphere == "left" else 1.0
            near = points[:, 0] * side > -2.0  # parcels of the midline belong to both
            distance, nearest = cKDTree(points[near]).query(
                mesh.anatomy, distance_upper_bound=reach
            )
            row = np.append(rows[near], -1)[nearest]
            found[hemisphere] = np.where(self._cortical[row] & np.isfinite(distance), row, -1)
        return found

    @property
    def _cortical(self) -> NDArray[np.bool_]:
        if "structure" not in self.parcels:
            return np.ones(len(self.parcels), dtype=bool)
        return self.parcels["structure"].eq("cortex").to_numpy()

    def _points(self) -> tuple[Floats, NDArray[np.int64], float]:
        """Places in mm, the parcel's row of each, and how far one may stand for a vertex."""
        if self.image is None:
            return self.centres, np.arange(len(self.parcels)), _REACH["centres"]
        voxels, affine = self._voxels
        places = np.argwhere(voxels >= 0)
        return (
            places @ affine[:3, :3].T + affine[:3, 3],
            voxels[tuple(places.T)],
            max(_REACH["image"], 2 * float(np.abs(affine[:3, :3]).max())),
        )

    @cached_property
    def _voxels(self) -> tuple[NDArray[np.int64], Floats]:
        """The parcel's row of each voxel (-1: none), and the image's affine."""
        import nibabel as nib

        image: Any = nib.load(self.image)  # type: ignore[arg-type]
        numbers = np.asarray(image.dataobj).round().astype(np.int64)
        rows = np.full(max(int(numbers.max()), int(self.parcels["index"].max())) + 1, -1)
        rows[self.parcels["index"].to_numpy(dtype=np.int64)] = np.arange(len(self.parcels))
        rows[0] = -1
        return rows[numbers], np.asarray(image.affine)

    def _fill_glass(self, figure: Figure, axes: Axes, values: Floats, shades: Shades) -> None:
        import nibabel as nib
        from nilearn.plotting import plot_glass_brain

        voxels, affine = self._voxels
        filled = np.append(np.nan_to_num(values), 0.0)[voxels].astype(np.float32)
        plot_glass_brain(
            nib.Nifti1Image(filled, affine),
            display_mode="lyrz",
            figure=figure,
            axes=axes,
            cmap=shades.colors,
            vmin=shades.limits.vmin,
            vmax=shades.limits.vmax,
            threshold=float(np.finfo(np.float32).tiny),
            colorbar=False,
            plot_abs=False,
            resampling_interpolation="nearest",
        )

    def _mark_glass(self, figure: Figure, axes: Axes, values: Floats, shades: Shades) -> None:
        from nilearn.plotting import plot_glass_brain

        display = plot_glass_brain(None, display_mode="lyrz", figure=figure, axes=axes)
        shown = np.isfinite(values)
        if shown.any():
            colors = shades.of(values[shown])
            display.add_markers(self.centres[shown], marker_color=colors, marker_size=22, alpha=0.9)


def _shades(values: Floats, names: Sequence[str], *, signed: bool) -> Shades:
    """Categories by their colours; numbers from 0 up, or on both sides of 0 as far as they go."""
    if names:
        colors = [CATEGORIES[number % len(CATEGORIES)] for number in range(len(names))]
        return Shades(ListedColormap(colors), Normalize(-0.5, len(names) - 0.5), tuple(names))
    known = values[np.isfinite(values)]
    rank = _LARGEST if len(known) > _MANY else 100.0
    largest = float(np.percentile(np.abs(known), rank)) if len(known) else 0.0
    largest = largest or 1.0
    if signed or (len(known) and known.min() < 0):
        return Shades(colormaps["RdBu_r"], Normalize(-largest, largest))
    least = float(known.min()) if len(known) else 0.0
    return Shades(colormaps["viridis"], Normalize(least if least < largest else 0.0, largest))


def _spread(values: Floats, rows: NDArray[np.int64]) -> Floats:
    """The number of the parcel that each vertex shows; NaN: none."""
    return np.append(values.astype(np.float64), np.nan)[rows]


def _beyond(values: Floats, shades: Shades) -> str:
    """Whether numbers go on beyond the colours, as a bar of colours shows it."""
    low, high = shades.limits.vmin, shades.limits.vmax
    assert low is not None and high is not None, "limits are known"
    return {
        (False, False): "neither",
        (True, False): "min",
        (False, True): "max",
        (True, True): "both",
    }[bool(np.nanmin(values, initial=high) < low), bool(np.nanmax(values, initial=low) > high)]


def _legend(
    figure: Figure,
    shades: Shades,
    values: Floats,
    label: str,
    place: tuple[float, float, float, float],
) -> None:
    """A bar of colours, or the categories by name."""
    if shades.names:
        patches = [
            Patch(color=shades.colors(shades.limits(number)), label=name)
            for number, name in enumerate(shades.names)
        ]
        figure.legend(
            handles=patches, loc="center right", title=label, title_fontsize=8, handlelength=1
        )
        return
    axes = figure.add_axes(place)
    figure.colorbar(
        ScalarMappable(shades.limits, shades.colors), cax=axes, extend=_beyond(values, shades)
    )
    axes.set_ylabel(label)
    axes.tick_params(labelsize=7)
