"""Read a NIfTI file whole and checked: what the header claims, what the file holds, and where its voxels lie."""

from __future__ import annotations

import gzip
import os
import stat
import zlib
from pathlib import Path
from typing import IO, Any, NamedTuple

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling

from medmap_monai.data.nifti_affine import GeometryError, nifti_affine

MEMORY_LIMIT = 4 << 30  # bytes of one file's voxels, as stored or as float32: a head of 1024^3 voxels just fits
_HEADER_BYTES = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_MAGIC = {348: b"n+1\0", 540: b"n+2\0"}
_DEFLATE_RATIO = 1040  # deflate cannot do better than 1032:1, so a claim beyond it is known false before reading
_PADDING = 512  # zeros that writers may leave behind the last voxel
_DAMAGE = (OSError, EOFError, zlib.error, HeaderDataError, ValueError, OverflowError, KeyError, MemoryError)


class NiftiError(ValueError):
    """A file that cannot be trusted; the message says what was got and does not name the file."""


class NiftiFile(NamedTuple):
    """What :func:`read_nifti` gives: values (X, Y, Z[, C]), voxel-to-RAS matrix in mm, and the header as stored."""

    data: np.ndarray
    affine: np.ndarray
    header: Any


def read_nifti(path: str | os.PathLike[str], memory_limit: int = MEMORY_LIMIT) -> NiftiFile:
    """The whole content of a ``.nii`` or ``.nii.gz`` file, scaled by slope and intercept.

    Sizes are compared with the file and with ``memory_limit`` before anything is allocated. A compressed file is read
    to its very end, so that its checksum counts; compression is told by content, not by name. Axes of length 1 beyond
    the third are dropped. Nothing is corrected: what is invalid is an error.

    Args:
        path: the file.
        memory_limit: most bytes that its voxels may take, as stored or as float32.

    Raises:
        NiftiError: an absent, damaged, truncated, over-long, over-large or otherwise invalid file.
    """
    try:
        return _read(Path(path), memory_limit)
    except NiftiError:
        raise
    except GeometryError as error:
        raise NiftiError(str(error)) from error
    except FileNotFoundError as error:
        raise NiftiError("cannot be read: the file does not exist") from error
    except _DAMAGE as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise NiftiError(f"cannot be read: {reason}") from error


def _read(path: Path, memory_limit: int) -> NiftiFile:
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would block for ever
        raise NiftiError("cannot be read: not a regular file")
    size = path.stat().st_size
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream: IO[bytes] = gzip.GzipFile(fileobj=file) if compressed else file  # type: ignore[assignment]
        head = stream.read(max(_HEADER_BYTES))
        header = _parse(head)
        shape, dtype, offset = _layout(header)
        count = int(np.prod(shape, dtype=object))
        end = offset + count * dtype.itemsize
        most = max(count * dtype.itemsize, count * 4)
        if most > memory_limit:
            raise NiftiError(
                f"cannot be read: the header claims {_text(shape)} voxels, {_gigabytes(most)} in memory; "
                f"at most {_gigabytes(memory_limit)} are read (memory_limit)"
            )
        if end > (size * _DEFLATE_RATIO if compressed else size):
            raise NiftiError(f"cannot be read: the header claims {end} bytes, the file holds {size}: it is truncated")
        content = bytearray(end)
        content[: len(head)] = head[:end]
        filled = _fill(stream, content, len(head))
        if filled < end:
            raise NiftiError(f"cannot be read: {end} bytes are needed, {filled} are there: it is truncated")
        rest = head[end:] + stream.read(_PADDING + 1)  # reaching the end verifies the checksum of a gzip file
        if len(rest) > _PADDING or rest.strip(b"\0"):
            raise NiftiError(f"cannot be read: holds more bytes than the {end} that its header describes")
    affine = nifti_affine(header)
    data: np.ndarray = np.ndarray(shape, dtype, content, offset, order="F")
    slope, inter = header.get_slope_inter()
    if slope is not None:
        data = np.asarray(apply_read_scaling(data, np.float64(slope), np.float64(inter)))
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    return NiftiFile(data, affine, header)


def _fill(stream: IO[bytes], content: bytearray, start: int) -> int:
    """Read into ``content`` from ``start`` on; how many bytes of it hold something then."""
    view = memoryview(content)
    while start < len(content):
        got = stream.readinto(view[start:])  # type: ignore[attr-defined]
        if not got:
            break
        start += got
    return start


def _parse(head: bytes) -> Any:
    """The header of either version and byte order."""
    if len(head) < min(_HEADER_BYTES):
        raise NiftiError(f"cannot be read: {len(head)} bytes are no NIfTI header")
    for length, kind in _HEADER_BYTES.items():
        if head[:4] not in (length.to_bytes(4, "little"), length.to_bytes(4, "big")) or len(head) < length:
            continue
        endianness = "<" if head[:4] == length.to_bytes(4, "little") else ">"
        header = kind(head[:length], endianness=endianness, check=False)
        magic = (header["magic"].tobytes() + b"\0" * 4)[:4]  # numpy drops trailing zeros
        if magic != _MAGIC[length]:
            raise NiftiError(f"cannot be read: its header has the magic {magic!r}; a single NIfTI file has 'n+1'")
        return header
    raise NiftiError("cannot be read: it is no NIfTI file (its header does not begin with the size 348 or 540)")


def _layout(header: Any) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape, type of the stored values and offset of the first one, each checked."""
    dimensions = [int(n) for n in header["dim"]]
    if not 1 <= dimensions[0] <= 7:
        raise NiftiError(f"cannot be read: the header claims {dimensions[0]} dimensions, 1 to 7 are possible")
    shape = tuple(dimensions[1 : dimensions[0] + 1])
    if min(shape) < 1:
        raise NiftiError(f"cannot be read: the header claims the shape {shape}")
    code = int(header["datatype"])
    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError):
        dtype = np.dtype("V0")
    if dtype.itemsize == 0:  # nibabel has a type without size for the codes 0 and 255
        raise NiftiError(f"cannot be read: unknown data type (code {code})")
    if dtype.kind not in "iuf":
        raise NiftiError(f"holds {dtype} values (data type code {code}), a number per voxel is expected")
    if int(header["bitpix"]) != 8 * dtype.itemsize:
        raise NiftiError(
            f"cannot be read: {int(header['bitpix'])} bits per voxel do not fit data type {dtype} (code {code})"
        )
    offset = float(header["vox_offset"])
    least = int(header["sizeof_hdr"]) + 4
    if not (np.isfinite(offset) and offset == int(offset) and offset >= least):
        raise NiftiError(f"cannot be read: the voxels are said to begin at byte {offset:g}, {least} is the least")
    return shape, dtype, int(offset)


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
