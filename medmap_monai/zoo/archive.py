"""Bundle packages as zip files: written the same byte by byte everywhere, unpacked without trusting them."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
import zipfile
from pathlib import Path, PurePosixPath

from medmap_monai.utils.files import atomic_path

_DATE = (1980, 1, 1, 0, 0, 0)
_PLAIN_FILE = (stat.S_IFREG | 0o644) << 16
_UNIX = 3
_CHUNK = 1 << 20
_LONGEST_PATH = 255
# what a Windows or POSIX file system would read as something else than a plain name
_BAD_PART = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]|[ .]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE)

#: bounds of what is unpacked
MAX_FILES = 2000
MAX_BYTES = 8 << 30


class UnsafeArchiveError(ValueError):
    """A package that must not be unpacked; the message says why."""


def write_archive(folder: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Zip ``folder``, itself the only top-level entry, into ``path``.

    The same files give the same bytes on every machine: sorted names, one date, one mode, and no compression, since
    compressors differ between machines and weights hardly shrink. The file appears when it is complete.

    Args:
        folder: every file below it is stored as ``<name of folder>/...``.
        path: the zip file.
    """
    root = Path(folder)
    files = sorted((p.relative_to(root).as_posix(), p) for p in root.rglob("*") if p.is_file())
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, file in files:
            entry = zipfile.ZipInfo(f"{root.name}/{name}", _DATE)
            entry.create_system = _UNIX
            entry.external_attr = _PLAIN_FILE
            entry.file_size = file.stat().st_size  # decides on zip64 before the data are written
            with file.open("rb") as source, archive.open(entry, "w") as target:
                while chunk := source.read(_CHUNK):
                    target.write(chunk)


def unpack_archive(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    name: str,
    max_files: int = MAX_FILES,
    max_bytes: int = MAX_BYTES,
) -> Path:
    """Unpack the package ``path``, all of whose files must lie in one folder ``name``, into ``folder``.

    Every entry is judged before the first one is written.

    Args:
        path: the zip file.
        folder: where ``name`` appears; it must not hold one yet.
        name: of the bundle.
        max_files: most entries.
        max_bytes: most bytes, unpacked, whatever the entries claim.

    Returns:
        ``folder / name``.

    Raises:
        UnsafeArchiveError: not a zip file or a damaged one; too many entries or bytes; an entry that is absolute,
            climbs out, lies outside ``name``, is a link or another special file, is encrypted, or meets another one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _judge(entries, name, max_files, max_bytes)
            root = Path(folder) / name
            root.mkdir(parents=True)
            left = max_bytes
            for entry in entries:
                if entry.is_dir():
                    continue
                target = Path(folder, *PurePosixPath(entry.filename).parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, target.open("xb") as output:
                    while chunk := source.read(_CHUNK):
                        left -= len(chunk)
                        if left < 0:
                            raise UnsafeArchiveError(f"package unpacks to more than {max_bytes} bytes")
                        output.write(chunk)
            return root
    except (zipfile.BadZipFile, EOFError, RuntimeError) as error:
        raise UnsafeArchiveError(f"{Path(path).name} is not an intact zip file: {error}") from error


def _judge(entries: list[zipfile.ZipInfo], name: str, max_files: int, max_bytes: int) -> None:
    if len(entries) > max_files:
        raise UnsafeArchiveError(f"package has {len(entries)} entries, at most {max_files} are allowed")
    total = sum(entry.file_size for entry in entries)
    if total > max_bytes:
        raise UnsafeArchiveError(f"package unpacks to {total} bytes, at most {max_bytes} are allowed")
    files: set[str] = set()
    for entry in entries:
        problem = _problem(entry, name)
        if problem:
            raise UnsafeArchiveError(f"entry {entry.filename!r} {problem}")
        if not entry.is_dir():
            # file systems may ignore case and accents' spelling
            key = unicodedata.normalize("NFC", entry.filename).casefold()
            if key in files:
                raise UnsafeArchiveError(f"entry {entry.filename!r} occurs twice")
            files.add(key)
    inside = [file for file in files if any(str(parent) in files for parent in PurePosixPath(file).parents)]
    if inside:
        raise UnsafeArchiveError(f"entry {inside[0]!r} lies inside a file")
    if not files:
        raise UnsafeArchiveError("package is empty")


def _problem(entry: zipfile.ZipInfo, name: str) -> str | None:
    """What is wrong with one entry; its original spelling counts, as Python repairs some names in silence."""
    path = entry.orig_filename
    if path.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", path):
        return "is an absolute path"
    parts = path.rstrip("/").split("/")
    if ".." in re.split(r"[/\\]", path):
        return "climbs out of its folder"
    if any(part in ("", ".") or _BAD_PART.search(part) for part in parts) or len(path) > _LONGEST_PATH:
        return "is not a portable path"
    if parts[0] != name or (len(parts) == 1 and not entry.is_dir()):
        return f"does not lie in {name}/"
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFDIR if entry.is_dir() else stat.S_IFREG):
        return "is a link" if kind == stat.S_IFLNK else "is not a plain file"
    if entry.flag_bits & 0x1:
        return "is encrypted"
    return None
