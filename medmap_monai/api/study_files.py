"""One study given as images in memory or as single files, laid out as a manifest for the ordinary reader."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import nibabel as nib
import numpy as np
from monai.data import MetaTensor

from medmap_monai.utils.files import write_text

CASE_ID = "study"
#: a file, an image that knows its affine, or an array with its affine
ImageInput: TypeAlias = str | os.PathLike[str] | nib.spatialimages.SpatialImage | MetaTensor | tuple[Any, Any]


def write_study(
    images: Mapping[str, ImageInput],
    modalities: Sequence[str],
    folder: Path,
    case_id: str = CASE_ID,
    edition: str | None = None,
    manifest: str = "study.json",
) -> Path:
    """Write a manifest of one study into ``folder``, as every command reads it, and return its path.

    What is in memory becomes an uncompressed NIfTI file beside it, so that it passes the same checks as a file.

    Args:
        images: image by modality name. A path may end in ``#2`` for channel 2 of a 4-D file; an array is (X, Y, Z)
            and comes with its affine (4, 4), voxel to millimetres.
        modalities: the names that are allowed.
        folder: where; made when it is not there.
        case_id: name of the study.
        edition: label values to write; detected from the modalities when None.
        manifest: name of the file.

    Raises:
        ValueError: an unknown name, no image at all, a file given for two modalities, or something that is no image
            with an affine.
    """
    unknown = [name for name in images if name not in modalities]
    if unknown or not images:
        problem = f"unknown modalities {unknown}" if unknown else "no image is given"
        raise ValueError(f"{problem}; the bundle knows {list(modalities)}, any non-empty subset will do")
    folder.mkdir(parents=True, exist_ok=True)
    row = {"case_id": case_id}
    for name, image in images.items():
        if isinstance(image, str | os.PathLike):
            path = os.path.abspath(image)
            other = next((known for known, place in row.items() if known in images and place == path), None)
            if other is not None:
                raise ValueError(f"{path} is given for more than one modality: {other} and {name}")
            row[name] = path
        else:
            nib.save(_nifti(name, image), folder / f"{name}.nii")
            row[name] = f"{name}.nii"
    content = {"cases": [row]} if edition is None else {"cases": [row], "edition": edition}
    write_text(folder / manifest, json.dumps(content, indent=1) + "\n")
    return folder / manifest


def _nifti(name: str, image: Any) -> nib.Nifti1Image:
    if isinstance(image, nib.spatialimages.SpatialImage):
        return nib.Nifti1Image.from_image(image)
    if isinstance(image, MetaTensor):
        data, affine = np.asarray(image.detach().cpu()), np.asarray(image.affine.cpu())
        data = data[0] if data.ndim == 4 and len(data) == 1 else data  # channel first, as MONAI loads images
    elif isinstance(image, tuple) and len(image) == 2:
        data, affine = np.asarray(image[0]), np.asarray(image[1], dtype=np.float64)
    else:
        raise ValueError(
            f"{name}: got a {type(image).__name__}; give a path, a nibabel image, a MetaTensor, or (array, affine)"
        )
    if affine.shape != (4, 4):
        raise ValueError(f"{name}: the affine has shape {affine.shape}, (4, 4) is expected")
    if data.dtype.kind == "b":
        data = data.astype(np.uint8)
    elif data.dtype in (np.float16, np.int64, np.uint64):  # NIfTI has none of the first, few readers take the others
        data = data.astype(np.float32 if data.dtype == np.float16 else np.float64)
    return nib.Nifti1Image(data, affine)
