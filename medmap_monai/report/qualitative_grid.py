"""Qualitative grid: one slice of one case, segmented from every subset, beside the ground truth."""

from __future__ import annotations

import math
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from medmap_monai.engines.case_maps import CaseMaps
from medmap_monai.modalities import Modalities
from medmap_monai.report.display import EMPTY, FILLED, modality_label, subset_dots
from medmap_monai.report.figure_style import figure_style
from medmap_monai.utils.class_colours import class_colours

_TILE = 1.55
_GAP, _CAPTION, _LEGEND = 0.04, 0.42, 0.55
_OPACITY = 0.62


def qualitative_figure(maps: CaseMaps, caption: Callable[[str], str]) -> Figure:
    """Images and ground truth in the first row, then every subset over the first modality it has.

    Args:
        maps: the case; volumes in LPS, so tiles are axial slices in radiological convention.
        caption: subset name -> line under its tile, such as the Dice of its regions.
    """
    modalities = Modalities(maps.modalities)
    place = busiest_slice(maps.reference)
    columns = len(modalities) + 1
    rows = 1 + math.ceil(len(maps.predictions) / columns)
    shape = _slice(maps.reference, place).shape
    aspect = maps.spacing[1] / maps.spacing[0]
    tall = _TILE * shape[0] * aspect / shape[1]
    width, height = _TILE * columns * (1 + _GAP), rows * (tall + _CAPTION) + _LEGEND
    with figure_style():
        figure = plt.figure(figsize=(width, height))

        def tile(row: int, column: int) -> Axes:
            left = (column + _GAP / 2) * _TILE * (1 + _GAP) / width
            bottom = 1 - ((row + 1) * (tall + _CAPTION) - (_CAPTION if row else _CAPTION / 4)) / height
            axes = figure.add_axes((left, bottom, _TILE / width, tall / height))
            axes.set_axis_off()
            return axes

        for column, modality in enumerate(modalities):
            axes = tile(0, column)
            _show(axes, maps, modality, None, place, aspect)
            axes.set_title(modality_label(modality), loc="center", fontsize=9)
        axes = tile(0, columns - 1)
        _show(axes, maps, modalities[0], maps.reference, place, aspect)
        axes.set_title("ground truth", loc="center", fontsize=9)
        for number, (subset, prediction) in enumerate(maps.predictions.items()):
            seen = modalities.select(modalities.mask(subset))[0]
            axes = tile(1 + number // columns, number % columns)
            _show(axes, maps, seen, prediction, place, aspect)
            dots = " ".join(FILLED if flag else EMPTY for flag in subset_dots(subset, modalities))
            for text, below, size in ((dots, 0.0, 8), (caption(subset), 0.15, 7.5)):
                axes.text(
                    0.5, -0.03 - below / tall, text, transform=axes.transAxes, ha="center", va="top", fontsize=size
                )
        colours = class_colours(maps.classes)
        shown = sorted(set(np.unique(maps.reference)) - {0})
        patches = [Patch(color=colours[c], label=maps.classes[c]) for c in shown]
        order = ", ".join(modality_label(m) for m in modalities)
        figure.legend(handles=patches, loc="lower center", ncols=len(patches) or 1, title=f"dots: {order}", fontsize=9)
    return figure


def busiest_slice(reference: NDArray[np.uint8]) -> int:
    """The axial slice with the most foreground in the ground truth; 0 for a single slice."""
    if reference.ndim == 2:
        return 0
    return int((reference > 0).sum(axis=(0, 1)).argmax())


def overlay(image: NDArray[np.uint8], labels: NDArray[np.uint8] | None, colours: list[str]) -> NDArray[np.floating]:
    """An RGB picture (H, W, 3) in 0..1: grey image, classes in colour over it."""
    picture = np.repeat(image[..., None] / 255.0, 3, axis=-1)
    if labels is not None:
        for index in range(1, len(colours)):
            inside = labels == index
            picture[inside] = (1 - _OPACITY) * picture[inside] + _OPACITY * np.array(to_rgb(colours[index]))
    return picture


def _slice(volume: NDArray[np.uint8], place: int) -> NDArray[np.uint8]:
    """Rows from front to back, columns from the patient's right to left."""
    return (volume if volume.ndim == 2 else volume[:, :, place]).T


def _show(
    axes: Axes, maps: CaseMaps, modality: str, labels: NDArray[np.uint8] | None, place: int, aspect: float
) -> None:
    image = _slice(maps.image[maps.modalities.index(modality)], place)
    cut = None if labels is None else _slice(labels, place)
    axes.imshow(overlay(image, cut, class_colours(maps.classes)), aspect=aspect, interpolation="nearest")
