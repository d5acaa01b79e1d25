"""A volume with its place in space, and the way to SimpleITK and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from medmap_monai.transforms.resample import resample_to_grid
from medmap_monai.utils.files import atomic_path
from medmap_monai.utils.voxel_volume import voxel_ml

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_ORTHOGONAL = 1e-3  # entries of a direction that still count as a rotation: 0.1 mm at 10 cm


@dataclass(frozen=True)
class Volume:
    """``data`` (X, Y, Z) and ``affine`` (4, 4), voxel to RAS+ millimetres as in NIfTI."""

    data: np.ndarray
    affine: np.ndarray

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along the three axes."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return x, y, z

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in ml."""
        return voxel_ml(self.affine)

    @property
    def centre(self) -> np.ndarray:
        """Middle of the volume, RAS+ mm."""
        middle = (np.asarray(self.data.shape) - 1) / 2
        return np.asarray(self.affine @ [*middle, 1.0])[:3]

    def same_grid(self, other: Volume, tolerance: float = 1e-3) -> bool:
        """Whether the two share their voxels (largest difference of affines in mm)."""
        same_shape = self.data.shape == other.data.shape
        return same_shape and float(np.abs(self.affine - other.affine).max()) <= tolerance

    def on_grid(
        self,
        shape: tuple[int, ...],
        affine: np.ndarray,
        to_own_world: np.ndarray | None = None,
        interpolation: str = "linear",
    ) -> np.ndarray:
        """The values on another grid; 0 outside.

        Args:
            shape: voxels of the grid.
            affine: its (4, 4) matrix.
            to_own_world: (4, 4) from the world of that grid to the world of this volume (RAS+ mm); None: the same.
            interpolation: ``linear`` or ``nearest``.
        """
        seen = affine if to_own_world is None else to_own_world @ affine
        return resample_to_grid(self.data, self.affine, shape, seen, interpolation)


def read_nifti(path: Path) -> Volume:
    """A 3-D NIfTI image as float32; a fourth axis of length one is dropped.

    Raises:
        ValueError: unreadable, 4-D, no numbers, NaN or Inf, or a place in space that is no place; names the file.
    """
    try:
        image = nib.load(path)
        data = np.asarray(image.dataobj)  # type: ignore[attr-defined]
        affine = np.asarray(image.affine, dtype=np.float64)  # type: ignore[attr-defined]
    except Exception as error:  # nibabel, gzip and zlib raise many kinds
        raise ValueError(f"{path.name} cannot be read ({type(error).__name__}: {error})") from error
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise ValueError(f"{path.name} has shape {data.shape}: 4-D images and single slices cannot be prepared")
    if data.dtype.kind not in "iufb":
        raise ValueError(f"{path.name} holds {data.dtype} values, a number per voxel is expected")
    data = np.ascontiguousarray(data, dtype=np.float32)
    if not np.isfinite(data).all():
        raise ValueError(f"{path.name} holds values that are NaN or Inf")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise ValueError(f"{path.name} has no usable place in space (affine {affine.tolist()})")
    return Volume(data, affine)


def write_nifti(volume: Volume, path: Path) -> None:
    """Write ``volume`` with a header of its own: nothing of the source file's header is copied."""
    image = nib.Nifti1Image(volume.data, volume.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(volume.affine, code=1)
    image.set_qform(volume.affine, code=1)
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


def to_itk(volume: Volume) -> sitk.Image:
    """The volume for SimpleITK (world LPS+). A sheared grid, which ITK does not know, is resampled."""
    straight = _straightened(volume)
    affine = LPS_TO_RAS @ straight.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(straight.data.T))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection(_rotation(affine[:3, :3] / spacing).ravel().tolist())
    return image


def from_itk(image: sitk.Image) -> Volume:
    """A 3-D SimpleITK image as a volume."""
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(image.GetDirection()).reshape(3, 3) * np.asarray(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return Volume(np.ascontiguousarray(sitk.GetArrayFromImage(image).T), LPS_TO_RAS @ affine)


def rigid_to_matrix(transform: sitk.Transform) -> np.ndarray:
    """An ITK transform that is affine, as a (4, 4) matrix between RAS+ worlds (same direction: fixed to moving)."""
    origin = np.asarray(transform.TransformPoint((0.0, 0.0, 0.0)))
    matrix = np.eye(4)
    for axis in range(3):
        unit = [0.0, 0.0, 0.0]
        unit[axis] = 1.0
        matrix[:3, axis] = np.asarray(transform.TransformPoint(unit)) - origin
    matrix[:3, 3] = origin
    return LPS_TO_RAS @ matrix @ LPS_TO_RAS


def _rotation(direction: np.ndarray) -> np.ndarray:
    """The orthogonal matrix nearest to ``direction``."""
    left, _, right = np.linalg.svd(direction)
    return np.asarray(left @ right)


def _straightened(volume: Volume) -> Volume:
    direction = volume.affine[:3, :3] / np.asarray(volume.spacing)
    straight = _rotation(direction)
    if float(np.abs(direction - straight).max()) <= _ORTHOGONAL:
        return volume
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=float)
    corners[:, :3] *= np.asarray(volume.data.shape) - 1
    along = (corners @ volume.affine.T)[:, :3] @ straight / np.asarray(volume.spacing)
    first, last = along.min(axis=0), along.max(axis=0)
    affine = np.eye(4)
    affine[:3, :3] = straight * np.asarray(volume.spacing)
    affine[:3, 3] = affine[:3, :3] @ first
    x, y, z = (int(np.ceil(n)) + 1 for n in last - first)
    return Volume(volume.on_grid((x, y, z), affine), affine)
