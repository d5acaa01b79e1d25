"""Files that appear under their final name only when they are complete, and what identifies their content."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CHUNK = 1 << 20
_KEPT = 64  # last characters of a name that its temporary name ends in: every suffix, and something to recognise
_STALE = re.compile(r"\.tmp-(?P<host>[0-9a-f]{8})-(?P<process>\d+)-.*")
#: a temporary file whose writer cannot be asked, being on another machine, is left over after so many seconds
_ABANDONED = 24 * 3600.0


def temporary_prefix() -> str:
    """How names of temporary files and folders of this process begin; :func:`remove_stale` reads it."""
    return f".tmp-{_host()}-{os.getpid()}-"


def remove_stale(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove what interrupted processes left in ``folder``: ``.tmp-`` files and folders whose writer is gone.

    What a living process of this machine writes is never touched, what another machine may be writing only after a
    day without a change, and what is not named by :func:`temporary_prefix` not at all.

    Returns:
        what was removed.
    """
    removed = []
    root = Path(folder)
    for path in sorted(root.glob(".tmp-*")) if root.is_dir() else []:
        found = _STALE.fullmatch(path.name)
        try:
            if found is None or not _is_abandoned(path, found["host"], found["process"]):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        except OSError:  # somebody else's file, or one that has just become final
            continue
        removed.append(path)
    return removed


def _is_abandoned(path: Path, host: str, process: str) -> bool:
    if host == _host():
        return not _is_alive(int(process))
    return time.time() - path.lstat().st_mtime > _ABANDONED


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it lives, and belongs to somebody else
        return True
    return True


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; move it there when the block ends well, remove it otherwise.

    The temporary name ends like the final one (``.nii.gz``), since writers choose a format by it, and
    starts with ``.tmp-``, so that an interrupted run leaves nothing that a reader would take for a result.

    Raises:
        OSError: when the folder cannot be created or written.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    ending = "-" + final.name[-_KEPT:]  # a name that just fits must not grow
    handle, name = tempfile.mkstemp(prefix=temporary_prefix(), suffix=ending, dir=final.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes private files; give the result the permissions an ordinary open() would have given
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text to ``path`` atomically, newlines as given."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(utf8(text))


def utf8(text: str) -> bytes:
    """``text`` in UTF-8; bytes of file names in another encoding, which Python keeps as surrogates, as ``\\udcfc``."""
    return text.encode("utf-8", "backslashreplace")


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
