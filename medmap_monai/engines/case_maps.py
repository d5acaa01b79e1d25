"""Label maps of single cases, kept for the viewer and the qualitative grid of the report."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medmap_monai.utils.files import atomic_path

_MARGIN = 2
_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True)
class CaseMaps:
    """One case, cut to its foreground, volumes with their axes towards left, back and top of the patient (LPS).

    So ``volume[:, :, k].T`` is an axial slice as radiologists look at it.

    case_id: the case.
    modalities: names of the channels of ``image``.
    image: uint8 (M, ...), each modality scaled to 0..255 between its foreground percentiles; for viewing only.
    reference: class indices, uint8.
    predictions: subset name -> class indices, uint8.
    spacing: mm per voxel along each axis.
    classes: name of each class.
    """

    case_id: str
    modalities: tuple[str, ...]
    image: NDArray[np.uint8]
    reference: NDArray[np.uint8]
    predictions: Mapping[str, NDArray[np.uint8]]
    spacing: tuple[float, ...]
    classes: tuple[str, ...]


def cut_case(
    case_id: str,
    modalities: Sequence[str],
    image: NDArray[np.floating],
    reference: NDArray[np.integer],
    predictions: Mapping[str, NDArray[np.integer]],
    affine: NDArray[np.floating],
    classes: Sequence[str],
) -> CaseMaps:
    """Cut a case to the box of its foreground, two voxels of margin around it, and scale its image to 8 bits.

    Args:
        case_id: the case.
        modalities: names of the channels of ``image``.
        image: (M, ...).
        reference: class indices (...).
        predictions: subset name -> class indices (...).
        affine: voxel to patient (RAS, mm).
        classes: name of each class.
    """
    held = (image != 0).any(axis=0) | (reference != 0)
    for label_map in predictions.values():
        held = held | (label_map != 0)
    box = _box(held)
    turn, spacing = _to_lps(np.asarray(affine, dtype=np.float64), reference.ndim)
    return CaseMaps(
        case_id=case_id,
        modalities=tuple(modalities),
        image=np.stack([turn(_to_bytes(channel[box])) for channel in image]),
        reference=turn(reference[box].astype(np.uint8)),
        predictions={name: turn(label_map[box].astype(np.uint8)) for name, label_map in predictions.items()},
        spacing=spacing,
        classes=tuple(classes),
    )


def write_case_maps(maps: CaseMaps, path: str | os.PathLike[str]) -> None:
    """Write a compressed ``.npz``, atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            case_id=np.array(maps.case_id),
            modalities=np.array(maps.modalities),
            image=maps.image,
            reference=maps.reference,
            subsets=np.array(list(maps.predictions)),
            predictions=np.stack(list(maps.predictions.values())),
            spacing=np.array(maps.spacing),
            classes=np.array(maps.classes),
        )


def read_case_id(path: str | os.PathLike[str]) -> str:
    """The case of a file that :func:`write_case_maps` wrote, without reading its volumes."""
    with np.load(Path(path), allow_pickle=False) as file:
        return str(file["case_id"])


def read_case_maps(path: str | os.PathLike[str]) -> CaseMaps:
    """Read what :func:`write_case_maps` wrote."""
    with np.load(Path(path), allow_pickle=False) as file:
        names = [str(name) for name in file["subsets"]]
        return CaseMaps(
            case_id=str(file["case_id"]),
            modalities=tuple(str(m) for m in file["modalities"]),
            image=file["image"],
            reference=file["reference"],
            predictions=dict(zip(names, file["predictions"], strict=True)),
            spacing=tuple(float(s) for s in file["spacing"]),
            classes=tuple(str(c) for c in file["classes"]),
        )


def _box(held: NDArray[np.bool_]) -> tuple[slice, ...]:
    box = []
    for axis, size in enumerate(held.shape):
        hits = np.flatnonzero(held.any(axis=tuple(a for a in range(held.ndim) if a != axis)))
        low, high = (int(hits[0]), int(hits[-1]) + 1) if hits.size else (0, size)
        box.append(slice(max(low - _MARGIN, 0), min(high + _MARGIN, size)))
    return tuple(box)


def _to_lps(affine: NDArray[np.float64], dims: int) -> tuple[Callable[[Any], Any], tuple[float, ...]]:
    """A function that turns volumes to LPS, and the spacing along the turned axes; slices stay as they are."""
    spacing = nib.affines.voxel_sizes(affine)[:dims]
    if dims != 3:
        return (lambda volume: volume), tuple(float(s) for s in spacing)
    axes = nib.orientations
    change = axes.ornt_transform(axes.io_orientation(affine), axes.axcodes2ornt(("L", "P", "S")))
    turned = np.empty(3)
    turned[change[:, 0].astype(int)] = spacing
    return (lambda volume: axes.apply_orientation(volume, change)), tuple(float(s) for s in turned)


def _to_bytes(channel: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Foreground (non-zero) percentiles to 1..255; background is 0."""
    foreground = channel != 0
    if not foreground.any():
        return np.zeros(channel.shape, dtype=np.uint8)
    low, high = np.percentile(channel[foreground], _PERCENTILES)
    scaled = np.clip((channel - low) / max(float(high - low), 1e-6), 0, 1) * 254 + 1
    return np.where(foreground, scaled, 0).astype(np.uint8)
