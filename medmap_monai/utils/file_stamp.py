"""Whether a file is still the one that was read: its hash, taken again only when the file may have changed."""

from __future__ import annotations

import errno
import hashlib
import os
import stat as modes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medmap_monai.utils.files import file_sha256

_STAT = ("size", "mtime_ns", "ctime_ns", "inode")
_PIECE, _PIECES = 4096, 64


def file_stamp(path: str | os.PathLike[str], known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """``{"sha256", "size", "mtime_ns", "ctime_ns", "inode"}`` of a file.

    Args:
        path: the file.
        known: an earlier stamp of the same path. Where size, both times and inode are unchanged its hash is taken
            over, as git does: the time of change (ctime) cannot be set back by copying or unpacking.

    Raises:
        OSError: the file cannot be read, or is a folder, a pipe (which would block for ever) or the like.
    """
    found = os.stat(Path(path))
    if not modes.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "cannot be read: not a regular file", os.fspath(path))
    stat = {"size": found.st_size, "mtime_ns": found.st_mtime_ns, "ctime_ns": found.st_ctime_ns, "inode": found.st_ino}
    same = known is not None and known.get("sha256") and all(known.get(name) == stat[name] for name in _STAT)
    return {"sha256": str(known["sha256"]) if same and known is not None else file_sha256(path), **stat}


def file_fingerprint(path: str | os.PathLike[str]) -> str:
    """Hash of a file's size and of 64 pieces of 4 KiB spread over it: the same for a copy under any name.

    To recognise files among thousands without reading them whole; what must not be another one is hashed whole.

    Raises:
        OSError: the file cannot be read.
    """
    size = os.stat(path).st_size
    digest = hashlib.sha256(str(size).encode())
    with Path(path).open("rb") as file:
        step = max(_PIECE, (size - _PIECE) / (_PIECES - 1))
        for number in range(_PIECES):
            file.seek(int(number * step))
            piece = file.read(_PIECE)
            if not piece:
                break
            digest.update(piece)
    return digest.hexdigest()[:32]
