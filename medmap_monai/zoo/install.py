"""Install a bundle from a zoo: fetch, verify, unpack in safety, and only then let it appear."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from medmap_monai.utils.files import temporary_prefix
from medmap_monai.utils.output import require_writable
from medmap_monai.zoo.archive import MAX_BYTES, MAX_FILES, UnsafeArchiveError, unpack_archive
from medmap_monai.zoo.bundle_folder import BundleFolder
from medmap_monai.zoo.fetch import fetch, locate, read_index_text
from medmap_monai.zoo.index import choose_version, read_index
from medmap_monai.zoo.safe_weights import refuse_code


def install_bundle(
    name: str,
    source: str | os.PathLike[str],
    version: str | None = None,
    to: str | os.PathLike[str] = ".",
    replace: bool = False,
    max_files: int = MAX_FILES,
    max_bytes: int = MAX_BYTES,
) -> Path:
    """Install bundle ``name`` of the zoo ``source`` as the folder ``<to>/<name>``.

    The checksum tells that the package is the one in the index, not that its author is to be trusted: configurations
    of a bundle are code, which running it executes. Installing executes nothing.

    Args:
        name: of the bundle.
        source: URL or folder of a zoo (what ``medmap bundle index`` made, or MONAI's own), or of its
            ``model_info.json``.
        version: such as ``0.1.0``; the newest when None.
        to: where the folder appears; it does so when it is complete.
        replace: exchange an installed bundle of this name.
        max_files: most files of a package.
        max_bytes: most bytes, packed and unpacked.

    Returns:
        the bundle's folder.

    Raises:
        FileExistsError: the folder exists and ``replace`` is False.
        ValueError: the zoo has no such bundle or version, or its index cannot be read.
        FetchError: the package cannot be fetched, is truncated, or differs from the index.
        UnsafeArchiveError: the package would write outside its folder, holds links, or is too large.
        UnsafeFileError: a file of the package would run code when it is opened.
    """
    target = Path(to) / name
    if target.exists() and not replace:
        raise FileExistsError(f"{target} exists; pass --replace to exchange it, or --to another folder")
    entry = choose_version(read_index(read_index_text(source)), name, version)
    location = locate(source, entry.source)
    parent = require_writable(to)
    with tempfile.TemporaryDirectory(
        prefix=temporary_prefix(), suffix=f"-{name}", dir=parent, ignore_cleanup_errors=True
    ) as folder:
        package = Path(folder) / "package.zip"
        fetch(location, package, entry.hashes, entry.size, max_bytes)
        root = unpack_archive(package, Path(folder) / "unpacked", name, max_files, max_bytes)
        package.unlink()
        _judge(root, entry.version)
        _appear(root, target, Path(folder) / "before")
    return target


def _judge(root: Path, version: str) -> None:
    try:
        found = str(BundleFolder(root).metadata.get("version"))
    except (OSError, ValueError) as error:
        raise UnsafeArchiveError(f"the package is not a bundle: {error}") from error
    if found != version:
        raise UnsafeArchiveError(f"the package holds version {found}, the index says {version}")
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        refuse_code(path)


def _appear(root: Path, target: Path, aside: Path) -> None:
    """Move ``root`` to ``target``; what was there goes to ``aside``, and comes back when the move fails."""
    existed = target.exists()
    if existed:
        os.replace(target, aside)
    try:
        os.replace(root, target)
    except OSError:
        if existed:
            os.replace(aside, target)
        raise
    if existed and aside.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
