"""Checked reading: what is damaged is an error before anything is allocated, and nothing is corrected."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medmap_monai.data.nifti_file import NiftiError, read_nifti

SHAPE = (6, 5, 4)


def _write(path: Path, data: np.ndarray | None = None, kind: type = nib.Nifti1Image) -> Path:
    values = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE) if data is None else data
    nib.save(kind(values, np.diag([0.9, 1.1, 2.0, 1.0])), path)
    return path


def edit_header(path: Path, change: Callable[[bytearray], None]) -> None:
    """Change the raw bytes of a file, compressed or not; the checksum fits afterwards."""
    opened = gzip.open if path.name.endswith(".gz") else open
    with opened(path, "rb") as file:
        content = bytearray(file.read())
    change(content)
    with opened(path, "wb") as file:
        file.write(bytes(content))


def put(offset: int, code: str, *values: float) -> Callable[[bytearray], None]:
    return lambda content: struct.pack_into(f"<{len(values)}{code}", content, offset, *values)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "u1", "<f4", ">f8", ">u4"])
def test_values_and_affine_are_nibabels(tmp_path: Path, name: str, kind: type, dtype: str) -> None:
    path = _write(tmp_path / name, np.random.default_rng(0).integers(0, 100, SHAPE).astype(dtype), kind)
    expected = nib.load(path)
    file = read_nifti(path)
    np.testing.assert_array_equal(file.data, np.asanyarray(expected.dataobj))
    assert file.data.dtype == np.asanyarray(expected.dataobj).dtype
    assert file.affine.tobytes() == expected.affine.tobytes()


def test_slope_and_intercept_as_nibabel_applies_them(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.nii")
    edit_header(path, put(112, "f", 0.37, -5.25))
    np.testing.assert_array_equal(read_nifti(path).data, np.asanyarray(nib.load(path).dataobj))


@pytest.mark.parametrize("shape", [(6, 5, 4, 1), (6, 5, 4, 1, 1), (6, 5, 1, 1)])
def test_axes_of_length_one_at_the_end_are_dropped(tmp_path: Path, shape: tuple[int, ...]) -> None:
    assert read_nifti(_write(tmp_path / "a.nii.gz", np.ones(shape, np.int16))).data.shape == shape[:3]


def test_compression_is_told_by_content(tmp_path: Path) -> None:
    plain = _write(tmp_path / "a.nii")
    (tmp_path / "b.nii.gz").write_bytes(plain.read_bytes())
    (tmp_path / "c.nii").write_bytes(gzip.compress(plain.read_bytes()))
    for name in ("b.nii.gz", "c.nii"):
        np.testing.assert_array_equal(read_nifti(tmp_path / name).data, read_nifti(plain).data)


HEADER_FAULTS = {
    "sizeof_hdr": (put(0, "i", 349), "no NIfTI file"),
    "magic of a pair": (lambda c: c.__setitem__(slice(344, 347), b"ni1"), "magic"),
    "nine dimensions": (put(40, "h", 9), "9 dimensions"),
    "no dimension": (put(40, "h", 0), "0 dimensions"),
    "negative size": (put(42, "h", -6), "shape"),
    "empty axis": (put(46, "h", 0), "shape"),
    "33 GiB": (put(42, "h", 32767, 32767, 16), "GiB in memory; at most 4.0 GiB"),
    "more than there is": (put(46, "h", 41), "truncated"),
    "less than there is": (put(46, "h", 39), "more bytes"),
    "data type 0": (put(70, "h", 0), r"unknown data type \(code 0\)"),
    "data type 1": (put(70, "h", 1), "data type"),
    "unknown data type": (put(70, "h", 999), r"unknown data type \(code 999\)"),
    "complex": (put(70, "h", 32, 64), "complex64 values"),
    "RGB": (put(70, "h", 128, 24), "a number per voxel"),
    "bits per voxel": (put(72, "h", 8), "8 bits per voxel"),
    "negative offset": (put(108, "f", -352.0), "begin at byte -352"),
    "offset in the header": (put(108, "f", 100.0), "begin at byte 100"),
    "offset NaN": (put(108, "f", float("nan")), "begin at byte nan"),
    "offset beyond the end": (put(108, "f", 1e9), "truncated|GiB"),
    "intercept NaN": (put(112, "f", 2.0, float("nan")), "cannot be read"),
    "sform NaN": (put(280, "f", float("nan")), "invalid sform .*not finite"),
    "sform Inf": (put(292, "f", float("inf")), "invalid sform .*not finite"),
    "sform of rank 2": (put(296, "f", *[0.0, 1.1, 3.0, 0.0] * 2), "in one plane"),
    "sform of zeros": (put(280, "f", *[0.0] * 12), "invalid sform .*edges of 0"),
    "huge sform": (put(280, "f", 1e30), "invalid sform .*edges"),
    "huge origin": (put(292, "f", 1e30), "from the origin"),
    "sform_code": (put(254, "h", 1000), "sform_code 1000"),
    "qform with a long quaternion": (lambda c: (put(252, "h", 1, 0)(c), put(256, "f", 2.0, 2.0, 2.0)(c)), "qform"),
    "qform with negative pixdim": (lambda c: (put(252, "h", 1, 0)(c), put(80, "f", -1.0)(c)), "qform"),
    "pixdim of zero": (lambda c: (put(252, "h", 0, 0)(c), put(80, "f", 0.0)(c)), "invalid pixdim"),
    "metres": (put(123, "b", 1), "metres"),
}


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("fault", HEADER_FAULTS)
def test_a_damaged_header_is_a_named_error(tmp_path: Path, fault: str, name: str) -> None:
    change, message = HEADER_FAULTS[fault]
    path = _write(tmp_path / name, np.ones((6, 40, 40), np.int16) if "there is" in fault else None)
    edit_header(path, change)
    with pytest.raises(NiftiError, match=message):
        read_nifti(path)


def test_every_flipped_byte_of_a_compressed_file_is_noticed(tmp_path: Path) -> None:
    """The header of gzip itself holds a few bytes without meaning (time, system); all others count."""
    path = _write(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 99, SHAPE).astype(np.int16))
    good, content = read_nifti(path).data.copy(), path.read_bytes()
    for position in range(0, len(content), 3):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])
        try:
            found = read_nifti(path).data
        except NiftiError:
            continue
        assert position < 10 + len("a.nii") + 1
        np.testing.assert_array_equal(found, good)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("keep", [0, 5, 100, 0.5, -30, -1])
def test_a_truncated_file_is_noticed(tmp_path: Path, name: str, keep: float) -> None:
    path = _write(tmp_path / name)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep == 0.5 else int(keep)])
    with pytest.raises(NiftiError, match="cannot be read"):
        read_nifti(path)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    plain = _write(tmp_path / "a.nii").read_bytes()
    path.write_bytes(gzip.compress(plain + b"\0" * (64 << 20)))
    with pytest.raises(NiftiError, match="more bytes"):
        read_nifti(path)


def test_padding_behind_the_last_voxel_is_fine(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.nii")
    expected = read_nifti(path).data.copy()
    path.write_bytes(path.read_bytes() + b"\0" * 100)
    np.testing.assert_array_equal(read_nifti(path).data, expected)


def test_what_is_no_file_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nii")
    (tmp_path / "gone.nii").symlink_to(tmp_path / "nowhere")
    for name, message in (("pipe.nii", "regular file"), ("gone.nii", "does not exist"), ("absent.nii", "not exist")):
        with pytest.raises(NiftiError, match=message):
            read_nifti(tmp_path / name)


def test_the_limit_can_be_set(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.nii")
    assert read_nifti(path, memory_limit=480).data.shape == SHAPE
    with pytest.raises(NiftiError, match="memory_limit"):
        read_nifti(path, memory_limit=479)
