"""How figures look: one palette, one set of rules, and writers that give equal bytes.

Colours are those of Okabe and Ito (2008), told apart by readers with any colour vision.
"""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image as Picture
from scipy.spatial.distance import cdist

INK = "#1c2733"
MUTED = "#66727f"
RULE = "#d9dfe5"
BLUE = "#0072b2"
VERMILION = "#d55e00"
GREEN = "#009e73"
AMBER = "#e69f00"
SKY = "#56b4e9"
PURPLE = "#cc79a7"
GREY = "#9aa5b1"

_COLORS = (INK, MUTED, RULE, BLUE, VERMILION, GREEN, AMBER, SKY, PURPLE, GREY)

#: Matplotlib settings of every figure; use as `@rc_context(RC)`.
RC: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.unicode_minus": True,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.solid_capstyle": "round",
    "path.simplify": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "brainlm",
}

_FONT = "font-family:-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG in the fixed palette: noise images shrink fivefold.

    No metadata is written, so equal figures give equal bytes.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].astype(np.int32)
    colors, where = np.unique(pixels @ np.array([65536, 256, 1]), return_inverse=True)
    channels = np.stack([colors >> 16, (colors >> 8) & 255, colors & 255], axis=1)
    palette = _palette()
    nearest = cdist(channels, palette, "sqeuclidean").argmin(axis=1).astype(np.uint8)
    picture = Picture.fromarray(nearest[where].reshape(pixels.shape[:2]), mode="P")
    picture.putpalette(palette.ravel().tolist())
    buffer = io.BytesIO()
    picture.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def to_full_png(figure: Figure) -> bytes:
    """The figure as a PNG in all its colours, for colour scales; equal figures, equal bytes."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _palette() -> NDArray[np.int64]:
    """64 greys, and every colour of this module in six tints towards white: (colours, RGB)."""
    greys = np.repeat(np.linspace(0, 1, 64), 3).reshape(-1, 3)
    named = np.array([to_rgb(color) for color in _COLORS])
    shares = np.array([1.0, 0.82, 0.64, 0.46, 0.3, 0.18])[:, None, None]
    tints = (shares * named + (1 - shares)).reshape(-1, 3)
    return np.round(255 * np.vstack([greys, tints])).astype(np.int64)


def to_svg(figure: Figure) -> str:
    """The figure as an SVG with real text in the reader's own fonts; equal figures, equal bytes."""
    buffer = io.StringIO()
    with rc_context(RC):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    return re.sub(r"font-family: [^;\"]+|font: ([\d.]+px) [^;\"]+", _own_font, buffer.getvalue())


def to_svg_uri(figure: Figure) -> str:
    """The same as a `data:` address."""
    return svg_uri(to_svg(figure))


def svg_uri(content: str) -> str:
    """A `data:` address of an SVG."""
    return "data:image/svg+xml;base64," + base64.b64encode(content.encode()).decode()


def _own_font(match: re.Match[str]) -> str:
    size = f"font-size:{match[1]};" if match[1] else ""
    return size + _FONT


def png_uri(content: bytes) -> str:
    """A `data:` address of a PNG."""
    return "data:image/png;base64," + base64.b64encode(content).decode()


def light_grid(axes: Axes, axis: str = "y") -> None:
    """Thin lines behind the data, along one axis only."""
    axes.grid(True, axis=axis, color=RULE, linewidth=0.6)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
