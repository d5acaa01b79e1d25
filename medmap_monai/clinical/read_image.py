"""Voxels of a source image."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from medmap_monai.clinical.source import NIFTI, SourceImage
from medmap_monai.clinical.volume import Volume, read_nifti


def read_image(image: SourceImage) -> Volume:
    """The volume of a NIfTI file or a DICOM series, float32.

    DICOM pixels are decoded and rescaled by SimpleITK's GDCM reader; the place in space is that of the slices' own
    headers.

    Raises:
        ValueError: it cannot be read, or holds no tissue at all; names the file or series.
    """
    if image.kind == NIFTI:
        volume = read_nifti(image.files[0])
    else:
        volume = _read_dicom(image)
    if float(volume.data.max()) == float(volume.data.min()):
        raise ValueError(f"{image.label} holds the value {volume.data.flat[0]:g} everywhere")
    return volume


def _read_dicom(image: SourceImage) -> Volume:
    assert image.affine is not None, f"{image.label} was refused: {image.refused}"
    names = [str(path) for path in image.files]
    try:
        read = sitk.ReadImage(names if len(names) > 1 else names[0], sitk.sitkFloat32)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ValueError(f"series {image.label} cannot be decoded ({reason})") from error
    data = np.ascontiguousarray(sitk.GetArrayFromImage(read).T)
    if data.ndim != 3:
        raise ValueError(f"series {image.label} has shape {data.shape}, one value per voxel of a volume is expected")
    if not np.isfinite(data).all():
        raise ValueError(f"series {image.label} holds values that are NaN or Inf")
    return Volume(data, np.asarray(image.affine))
