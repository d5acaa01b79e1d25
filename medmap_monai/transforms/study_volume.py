"""One volume of a study: read from its file with every check, and compared with the grid of another."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medmap_monai.data.nifti_file import MEMORY_LIMIT, NiftiError, read_nifti
from medmap_monai.data.study import ImageSource, StudyError
from medmap_monai.utils.counted import counted


class Volume(NamedTuple):
    """``data`` (X, Y, Z), ``affine`` (4, 4), voxel to mm, the NIfTI ``header`` and the ``path`` of the file."""

    data: np.ndarray
    affine: np.ndarray
    header: Any
    path: Path


def read_volume(
    case_id: str, source: ImageSource, memory_limit: int = MEMORY_LIMIT, files: dict[Path, Volume] | None = None
) -> Volume:
    """The 3-D volume of ``source``, a file or a channel of one.

    Args:
        case_id: of the study, for messages.
        source: what to read.
        memory_limit: most bytes that the voxels of the file may take.
        files: keeps what was read, as modalities may share one 4-D file.

    Raises:
        StudyError: an unreadable file, NaN or Inf, wrong number of dimensions, no such channel.
    """
    path = Path(source.path)
    whole = files[path] if files is not None and path in files else _read_file(case_id, path, memory_limit)
    if files is not None:
        files[path] = whole
    if source.channel is None:
        if whole.data.ndim != 3:
            raise StudyError(
                case_id, f"has {whole.data.ndim} dimensions {whole.data.shape}, a 3-D volume is expected", path
            )
        return whole
    if whole.data.ndim != 4 or not 0 <= source.channel < whole.data.shape[3]:
        raise StudyError(
            case_id, f"has shape {whole.data.shape}, a 4-D file with a channel {source.channel} is expected", path
        )
    return whole._replace(data=whole.data[..., source.channel])


def _read_file(case_id: str, path: Path, memory_limit: int) -> Volume:
    try:
        data, affine, header = read_nifti(path, memory_limit)
    except NiftiError as error:
        raise StudyError(case_id, str(error), path) from error
    if data.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes Inf and is reported
            data = data.astype(np.float32, copy=False)
        finite = np.isfinite(data)
        if not finite.all():
            bad = int(data.size - finite.sum())
            raise StudyError(case_id, f"holds {counted(bad, 'value that is', 'values that are')} NaN or Inf", path)
    return Volume(data, affine, header, path)


def same_grid(volume: Volume, reference: Volume, tolerance: float) -> bool:
    """Whether two volumes have one shape, and affines that differ by at most ``tolerance`` (mm, per entry)."""
    same_shape = volume.data.shape == reference.data.shape
    return same_shape and float(np.abs(volume.affine - reference.affine).max()) <= tolerance


def grid_difference(name: str, volume: Volume, reference_name: str, reference: Volume) -> str:
    """How the grids of two volumes differ, and what brings them together, for a message."""
    if volume.data.shape != reference.data.shape:
        differ = f"{name} has shape {volume.data.shape}, {reference_name} has {reference.data.shape}"
    else:
        differ = f"{name} and {reference_name} lie differently in space"
    grids = "; ".join(
        f"{n}: shape {v.data.shape}, affine {np.round(v.affine, 4).tolist()}"
        for n, v in ((name, volume), (reference_name, reference))
    )
    return f"{differ}; medmap prepare registers the sequences of a study and brings them to one grid ({grids})"
