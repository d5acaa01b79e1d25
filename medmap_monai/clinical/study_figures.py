"""Pictures of one study as radiologists look at them: patient's left on the right, letters, scale bar, outlines."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from medmap_monai.clinical.segment_codes import segment_code
from medmap_monai.clinical.volume import Volume

_BAR_MM = 20.0
_INCHES_PER_MM = 0.0155
_DPI = 150
_NAMES = {"flair": "FLAIR", "t1ce": "T1ce", "t1": "T1", "t2": "T2"}


def display_name(modality: str) -> str:
    """How a sequence is written in a report."""
    return _NAMES.get(modality, modality)


def to_lps(volume: Volume) -> Volume:
    """Axes reordered and flipped so that they point as nearly as possible to left, posterior and superior."""
    own = nib.orientations.io_orientation(volume.affine)
    wanted = nib.orientations.axcodes2ornt(("L", "P", "S"))
    turn = nib.orientations.ornt_transform(own, wanted)
    data = nib.orientations.apply_orientation(volume.data, turn)
    affine = volume.affine @ nib.orientations.inv_ornt_aff(turn, volume.data.shape)
    return Volume(np.ascontiguousarray(data), affine)


def lesion_centre(labels: np.ndarray) -> tuple[int, int, int]:
    """Voxel of the three slices that show most of the lesion; the middle of the volume where there is none."""
    if not labels.any():
        return labels.shape[0] // 2, labels.shape[1] // 2, labels.shape[2] // 2
    centre = []
    for axis in range(3):
        areas = (labels > 0).sum(axis=tuple(a for a in range(3) if a != axis))
        largest = np.flatnonzero(areas == areas.max())
        centre.append(int(largest[len(largest) // 2]))
    return centre[0], centre[1], centre[2]


def planes_figure(images: Mapping[str, Volume], labels: Volume, classes: Sequence[str]) -> str:
    """Three planes through the lesion, a row per sequence, as a PNG data URI.

    Args:
        images: modality -> image on the grid of ``labels``.
        labels: class indices.
        classes: name of every class, background first.
    """
    turned = to_lps(labels)
    centre = lesion_centre(turned.data)
    pictures = []
    for modality, image in images.items():
        volume = to_lps(image)
        bright = grey(volume.data, turned.data > 0)
        for axis in (2, 1, 0):
            shown = (_plane(bright, axis, centre[axis]), _plane(turned.data, axis, centre[axis]))
            pictures.append((*shown, axis, display_name(modality)))
    return _draw(pictures, turned.spacing, classes, 3)


def native_figure(originals: Mapping[str, Volume], labels: Mapping[str, Volume], classes: Sequence[str]) -> str:
    """For every sequence the original slice that shows most of the lesion, as a PNG data URI."""
    pictures: list[Any] = []
    steps: list[tuple[float, float, float]] = []
    for modality, original in originals.items():
        image, found = to_lps(original), to_lps(labels[modality])
        through = int(np.argmax(image.spacing))
        axis = through if max(image.spacing) > 1.3 * min(image.spacing) else 2
        index = lesion_centre(found.data)[axis]
        bright = grey(image.data, found.data > 0)
        name = f"{display_name(modality)}\n{slice_name(axis, index, image.data.shape[axis])}"
        pictures.append((_plane(bright, axis, index), _plane(found.data, axis, index), axis, name))
        steps.append(image.spacing)
    return _draw(pictures, steps, classes, min(2, len(pictures)))


def grey(data: np.ndarray, lesion: np.ndarray) -> np.ndarray:
    """Brightness 0 to 1 for a picture: a window for the brain that does not cut off the lesion.

    The middle half of the field decides, as scalp and neck are brighter than a brain on many sequences.

    Args:
        data: (X, Y, Z) image. lesion: bool, same shape.
    """
    inner = data[tuple(slice(n // 4, n - n // 4) for n in data.shape)]
    shown = inner[inner > data.min()]
    if not shown.size:
        shown = data[data > data.min()]
    low, high = np.quantile(shown, (0.01, 0.995)) if shown.size else (0.0, 1.0)
    if lesion.any():
        high = max(high, float(np.quantile(data[lesion], 0.95)))
    return np.clip((data - min(low, high)) / max(high - low, 1e-6), 0, 1)


def slice_name(axis: int, index: int, count: int) -> str:
    """Where a slice lies in its stack, counted along an axis of LPS."""
    return f"slice {index + 1} of {count} from {('the right', 'the front', 'below')[axis]}"


def _plane(data: np.ndarray, axis: int, index: int) -> np.ndarray:
    """A slice as a picture, rows downwards: posterior, or inferior, at the bottom; left of the patient on the right."""
    picture = np.take(data, index, axis=axis).T
    return picture if axis == 2 else picture[::-1]


def _letters(axis: int) -> tuple[str, str, str, str]:
    """What lies at the left, right, top and bottom of the picture."""
    return {2: ("R", "L", "A", "P"), 1: ("R", "L", "S", "I"), 0: ("A", "P", "S", "I")}[axis]


def _steps(spacing: Sequence[float], axis: int) -> tuple[float, float]:
    """mm per pixel along columns and rows of a picture."""
    across, down = [step for other, step in enumerate(spacing) if other != axis]
    return across, down


def _draw(pictures: Sequence[Any], spacing: Any, classes: Sequence[str], columns: int) -> str:
    steps = [_steps(spacing[i] if isinstance(spacing, list) else spacing, p[2]) for i, p in enumerate(pictures)]
    sizes = [(p[0].shape[1] * s[0], p[0].shape[0] * s[1]) for p, s in zip(pictures, steps, strict=True)]
    rows = -(-len(pictures) // columns)
    wide, high = max(w for w, _ in sizes), max(h for _, h in sizes)
    figure = Figure(figsize=(columns * wide * _INCHES_PER_MM, rows * high * _INCHES_PER_MM), facecolor="black")
    for place, ((image, mask, axis, name), (across, down), (width, height)) in enumerate(
        zip(pictures, steps, sizes, strict=True)
    ):
        column, row = place % columns, place // columns
        axes = figure.add_axes((column / columns, 1 - (row + 1) / rows, 1 / columns, 1 / rows), facecolor="black")
        axes.imshow(image, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0), interpolation="bilinear")
        _outline(axes, mask, across, down, classes)
        _annotate(axes, axis, width, height, wide, high, name)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, facecolor="black", metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _outline(axes: Any, mask: np.ndarray, across: float, down: float, classes: Sequence[str]) -> None:
    x = (np.arange(mask.shape[1]) + 0.5) * across
    y = (np.arange(mask.shape[0]) + 0.5) * down
    for index in range(1, len(classes)):
        if (mask == index).any() and min(mask.shape) > 1:
            colour = tuple(v / 255 for v in segment_code(classes[index], index).colour)
            axes.contour(x, y, (mask == index).astype(float), levels=[0.5], colors=[colour], linewidths=1.3)


def _annotate(axes: Any, axis: int, width: float, height: float, wide: float, high: float, name: str) -> None:
    left, right, top, bottom = _letters(axis)
    centre_x, centre_y = width / 2, height / 2
    axes.set_xlim(centre_x - wide / 2, centre_x + wide / 2)
    axes.set_ylim(centre_y + high / 2, centre_y - high / 2)
    axes.set_axis_off()
    edge = [withStroke(linewidth=2.5, foreground="black")]  # white letters on bright tissue
    style = {"color": "white", "fontsize": 11, "fontweight": "bold", "transform": axes.transAxes, "path_effects": edge}
    axes.text(0.015, 0.5, left, ha="left", va="center", **style)
    axes.text(0.985, 0.5, right, ha="right", va="center", **style)
    axes.text(0.5, 0.985, top, ha="center", va="top", **style)
    axes.text(0.5, 0.015, bottom, ha="center", va="bottom", **style)
    title, _, below = name.partition("\n")
    axes.text(0.02, 0.975, title, ha="left", va="top", **style)
    axes.text(0.02, 0.915, below, ha="left", va="top", **{**style, "fontsize": 8, "fontweight": "normal"})
    x0, y0 = 0.97 - _BAR_MM / wide, 0.035
    axes.plot(
        [x0, x0 + _BAR_MM / wide], [y0, y0], color="white", linewidth=2.2, path_effects=edge, transform=axes.transAxes
    )
    axes.text(
        x0 + _BAR_MM / wide / 2, y0 + 0.012, f"{_BAR_MM / 10:g} cm", ha="center", va="bottom", color="white",
        fontsize=8, transform=axes.transAxes,
    )  # fmt: skip
