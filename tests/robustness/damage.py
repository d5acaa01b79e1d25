"""138 kinds of damage to a study; each leaves one that must not be segmented, or scored, silently."""

from __future__ import annotations

import gzip
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np

from tests.data.test_nifti_file import HEADER_FAULTS, edit_header

Damage = Callable[[Path], object]
_MORE_OR_LESS = ("more than there is", "less than there is", "33 GiB")  # made for another shape; see _dimensions
_LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 132735\n".format("0" * 64)


def kinds() -> Iterator[tuple[str, Damage]]:
    """Name and damage of every kind; each is applied to the only image, compressed, of a fresh study."""
    yield from _headers()
    yield from _bytes()
    yield from _values()
    yield from _files()
    yield from _second_modality()


def _headers() -> Iterator[tuple[str, Damage]]:
    for name, (change, _) in HEADER_FAULTS.items():
        if name in _MORE_OR_LESS:
            continue
        yield f"header, {name}, compressed", lambda path, change=change: edit_header(path, change)
        yield f"header, {name}", _plain(lambda path, change=change: edit_header(path, change))
    for axis in range(3):
        for change in (-1, 1, 3000):
            yield f"header, axis {axis} {change:+d}, compressed", _dimensions(axis, change)
            yield f"header, axis {axis} {change:+d}", _plain(_dimensions(axis, change))


def _bytes() -> Iterator[tuple[str, Damage]]:
    for percent in (0, 1, 10, 30, 50, 70, 90, 99):
        yield f"cut at {percent} %, compressed", _cut(percent / 100)
        yield f"cut at {percent} %", _plain(_cut(percent / 100))
    for percent in range(5, 100, 5):
        yield f"byte flipped at {percent} %, compressed", _flip(percent / 100)
    yield "text", lambda path: path.write_text("not an image")
    yield "compressed text", lambda path: path.write_bytes(gzip.compress(b"x" * 1000))
    yield "rubbish behind the end, compressed", lambda path: path.write_bytes(path.read_bytes() + b"rubbish")
    yield "rubbish behind the end", _plain(lambda path: path.write_bytes(path.read_bytes() + b"rubbish"))
    yield "header alone", _plain(lambda path: path.write_bytes(path.read_bytes()[:348]))
    yield "pointer of git LFS", lambda path: path.write_text(_LFS)
    yield "DICOM", lambda path: path.write_bytes(b"\0" * 128 + b"DICM" + b"\2\0\0\0UL\4\0\0\0\0\0" * 50)
    yield "compressed twice", lambda path: path.write_bytes(gzip.compress(path.read_bytes()))
    yield "zip", _zip


def _values() -> Iterator[tuple[str, Damage]]:
    for value in (np.nan, np.inf, -np.inf):
        yield f"a voxel of {value}", _voxel(value)
    yield "a voxel of 3e38", _voxel(3e38)
    yield "values beyond float32", _beyond_float32
    yield "every voxel the same", lambda path: _rewrite(path, lambda data: np.full_like(data, 7))
    yield "every voxel zero", lambda path: _rewrite(path, np.zeros_like)
    yield "two dimensions", lambda path: _rewrite(path, lambda data: data[:, :, 5])
    yield "four dimensions", lambda path: _rewrite(path, lambda data: np.stack([data, data], axis=-1))
    yield "five dimensions", lambda path: _rewrite(path, lambda data: np.stack([data, data], axis=-1)[..., None, :])
    yield "head with its skull", lambda path: _rewrite(path, _noise, spacing=5.0)
    yield "no background", lambda path: _rewrite(path, _noise, spacing=3.0)


def _files() -> Iterator[tuple[str, Damage]]:
    yield "folder", lambda path: (path.unlink(), path.mkdir())
    yield "link to nowhere", lambda path: (path.unlink(), path.symlink_to("nowhere.nii.gz"))
    yield "named pipe", lambda path: (path.unlink(), os.mkfifo(path))
    yield "two readings of one modality", _two_readings


def _second_modality() -> Iterator[tuple[str, Damage]]:
    yield "second modality, cut", _beside(_cut(0.5))
    yield "second modality, smaller", _beside(lambda path: _rewrite(path, lambda data: data[1:]))
    yield "second modality, shifted", _beside(lambda path: _rewrite(path, lambda data: data, shift=5.0))
    yield "second modality, mirrored", _beside(lambda path: _rewrite(path, lambda data: data, mirrored=True))


def _rewrite(
    path: Path,
    change: Callable[[np.ndarray], np.ndarray],
    spacing: float = 1.0,
    shift: float = 0.0,
    mirrored: bool = False,
) -> None:
    image = nib.load(path)
    affine = image.affine @ np.diag([-spacing if mirrored else spacing, spacing, spacing, 1.0])
    affine[0, 3] += shift
    nib.save(nib.Nifti1Image(change(np.asarray(image.dataobj, np.float32)), affine), path)


def _noise(data: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).uniform(1, 100, data.shape).astype(np.float32)


def _as_plain(path: Path) -> Path:
    """The same image without compression, in place of the compressed one."""
    plain = path.with_name(path.name.removesuffix(".gz"))
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()
    return plain


def _two_readings(path: Path) -> None:
    shutil.copy(path, path.with_name("kept"))
    _as_plain(path)
    path.with_name("kept").rename(path)


def _plain(damage: Damage) -> Damage:
    return lambda path: damage(_as_plain(path))


def _beside(damage: Damage) -> Damage:
    """The damage to a T1ce beside a FLAIR that is good."""

    def damaged(path: Path) -> None:
        other = path.with_name(path.name.replace("_flair", "_t1ce"))
        shutil.copy(path, other)
        damage(other)

    return damaged


def _cut(share: float) -> Damage:
    return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def _flip(share: float) -> Damage:
    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[int(share * len(content))] ^= 0xFF
        path.write_bytes(bytes(content))

    return damage


def _zip(path: Path) -> None:
    content = gzip.decompress(path.read_bytes())
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("flair.nii", content)


def _voxel(value: float) -> Damage:
    return lambda path: _rewrite(path, lambda data: np.where(data == data.max(), np.float32(value), data))


def _beyond_float32(path: Path) -> None:
    image = nib.load(path)
    data = np.asarray(image.dataobj, np.float64)
    nib.save(nib.Nifti1Image(np.where(data == data.max(), 1e300, data), image.affine), path)


def _dimensions(axis: int, change: int) -> Damage:
    def damage(path: Path) -> None:
        def edit(content: bytearray) -> None:
            place = 40 + 2 * (axis + 1)
            size = int.from_bytes(content[place : place + 2], "little") + change
            content[place : place + 2] = size.to_bytes(2, "little")

        edit_header(path, edit)

    return damage
