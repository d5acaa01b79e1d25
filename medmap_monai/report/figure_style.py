"""Colours and type of the figures; colour-blind safe, the same in the page and in saved files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")  # files only: no window system is needed

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from medmap_monai.modalities import Modalities
from medmap_monai.utils.class_colours import INK, SERIES
from medmap_monai.utils.files import atomic_path

_SEQUENTIAL = "YlGnBu"
_RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a94a0",
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "xtick.color": "#44505c",
    "ytick.color": "#44505c",
    "text.color": INK,
    "legend.frameon": False,
    "figure.dpi": 100,
    "svg.hashsalt": "medmap-monai",  # the same figure gives the same file
}


class FigureFiles(NamedTuple):
    """A saved figure: both files, and its description for readers who cannot see it."""

    png: Path
    svg: Path
    description: str


@contextmanager
def figure_style() -> Iterator[None]:
    """Matplotlib settings of all figures."""
    with plt.rc_context(_RC):
        yield


def save_figure(figure: Figure, folder: str | os.PathLike[str], name: str, description: str) -> FigureFiles:
    """Write ``<name>.png`` (200 dpi) and ``<name>.svg`` into ``folder``, close the figure, return the files."""
    target = Path(folder)
    files = FigureFiles(target / f"{name}.png", target / f"{name}.svg", description)
    with figure_style():
        with atomic_path(files.png) as temporary:
            figure.savefig(temporary, dpi=200, metadata={"Software": None})
        with atomic_path(files.svg) as temporary:
            figure.savefig(temporary, metadata={"Date": None})
    plt.close(figure)
    return files


def modality_colours(modalities: Modalities) -> dict[str, str]:
    """A colour per modality, by its place in the order."""
    return {name: SERIES[i % len(SERIES)] for i, name in enumerate(modalities)}


def cell_colour(share: float) -> tuple[str, str]:
    """Background and text colour (hex) of a table cell: ``share`` 0 = worst (light), 1 = best (dark)."""
    red, green, blue, _ = matplotlib.colormaps[_SEQUENTIAL](0.04 + 0.78 * min(max(share, 0.0), 1.0))
    return _with_ink((round(255 * red), round(255 * green), round(255 * blue)))


def gain_colour(gain: float, largest: float) -> tuple[str, str]:
    """Background and text colour of a gain: blue for better, orange for worse, white for none."""
    share = 0.0 if largest <= 0 else max(-1.0, min(1.0, gain / largest))
    tone = (0, 114, 178) if share >= 0 else (230, 159, 0)
    strength = 0.85 * abs(share) ** 0.8
    red, green, blue = (round(255 + (part - 255) * strength) for part in tone)
    return _with_ink((red, green, blue))


def _with_ink(colour: tuple[int, int, int]) -> tuple[str, str]:
    """The colour in hex, and black or white, whichever stands out more (at least 4.5 to 1, WCAG AA)."""
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in (c / 255 for c in colour)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    ink = "#ffffff" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "#000000"
    return "#{:02x}{:02x}{:02x}".format(*colour), ink
