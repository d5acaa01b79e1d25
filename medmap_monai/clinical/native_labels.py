"""A prediction on the prepared grid -> label maps on the grid of every original image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from medmap_monai.clinical.source import SourceImage
from medmap_monai.clinical.volume import Volume
from medmap_monai.transforms.resample import resample_to_grid


def native_classes(
    probabilities: np.ndarray,
    affine: np.ndarray,
    shape: tuple[int, ...],
    native_affine: np.ndarray,
    reference_to_own_world: np.ndarray,
) -> np.ndarray:
    """Class of the highest probability at every voxel of an original image.

    Probabilities are interpolated linearly and the class is chosen afterwards, so that borders stay smooth. Voxels of
    5 mm slices take the value at their centre, as the slice is looked at.

    Args:
        probabilities: (K, X, Y, Z) on the prepared grid, background first; they sum to one.
        affine: (4, 4) of the prepared grid.
        shape, native_affine: the original grid.
        reference_to_own_world: (4, 4), from the world of the prepared grid to that of the original image (RAS+ mm).

    Returns:
        uint8 array of ``shape``; background where nothing was predicted.
    """
    to_prepared = np.linalg.inv(reference_to_own_world) @ native_affine
    best = resample_to_grid(probabilities[0].astype(np.float32), affine, shape, to_prepared, fill=1.0)
    classes = np.zeros(shape, dtype=np.uint8)
    for index in range(1, len(probabilities)):
        share = resample_to_grid(probabilities[index].astype(np.float32), affine, shape, to_prepared)
        higher = share > best
        classes[higher] = index
        best = np.where(higher, share, best)
    return classes


def label_native_images(
    probabilities: Volume,
    sources: Mapping[str, SourceImage],
    record: Mapping[str, Any],
) -> dict[str, Volume]:
    """``native_classes`` for every image of a study.

    Args:
        probabilities: data (K, X, Y, Z) on the prepared grid.
        sources: modality -> original image.
        record: content of ``prepared.json``.

    Returns:
        modality -> class indices on the image's own grid.
    """
    labelled = {}
    for modality, image in sources.items():
        original = record["sequences"][modality]["original"]
        own = np.asarray(record["sequences"][modality]["reference_to_own_world"])
        affine = np.asarray(image.affine if image.affine is not None else original["affine"])
        shape = tuple(original["shape"])
        labelled[modality] = Volume(
            native_classes(probabilities.data, probabilities.affine, shape, affine, own), affine
        )
    return labelled
