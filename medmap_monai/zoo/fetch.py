"""Read files of a zoo, which is a URL or a folder, without trusting their size or their words."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import unquote, urljoin, urlsplit

from medmap_monai.zoo.index import INDEX_NAME

_CHUNK = 1 << 20
_INDEX_LIMIT = 16 << 20
_SECONDS = 60.0  # without any byte


class FetchError(OSError):
    """A file could not be fetched, or is not the one that the index describes."""


def is_url(zoo: str | os.PathLike[str]) -> bool:
    """Whether ``zoo`` is an http or https URL; everything else is a folder."""
    return urlsplit(os.fspath(zoo)).scheme in ("http", "https")


def read_index_text(zoo: str | os.PathLike[str]) -> str:
    """The text of the zoo's ``model_info.json``; ``zoo`` may also name the index itself.

    Raises:
        FetchError: it cannot be read, or is implausibly large.
    """
    try:
        with _open(_index_location(zoo)) as stream:
            content: bytes = stream.read(_INDEX_LIMIT + 1)
    except (OSError, ValueError) as error:
        raise FetchError(f"cannot read {_index_location(zoo)}: {error}") from error
    except Exception as error:  # http.client's errors are no OSErrors
        raise FetchError(f"cannot read {_index_location(zoo)}: {type(error).__name__} {error}") from error
    if len(content) > _INDEX_LIMIT:
        raise FetchError(f"{_index_location(zoo)} is larger than {_INDEX_LIMIT} bytes; that is no index")
    return content.decode("utf-8", errors="replace")


def locate(zoo: str | os.PathLike[str], source: str) -> str:
    """Where a package lies: its ``source``, relative to the index.

    In a folder the package of the source's file name comes first, so that a zoo that was copied from a server works.

    Raises:
        ValueError: the source is neither an http(s) URL nor the name of a file beside the index.
    """
    if is_url(zoo):
        location = urljoin(_index_location(zoo), source)
        if not is_url(location):
            raise ValueError(f"source {source!r} does not lie on a web server")
        return location
    name = PurePosixPath(unquote(urlsplit(source).path) if is_url(source) else source).name
    beside = Path(_index_location(zoo)).parent / name
    if beside.is_file():
        return str(beside)
    if is_url(source):
        return source
    if name != source:
        raise ValueError(f"source {source!r} must be a URL or the name of a file beside the index")
    return str(beside)


def fetch(location: str, target: Path, hashes: Mapping[str, str], size: int | None, max_bytes: int) -> None:
    """Write the file at ``location`` (URL or path) to ``target`` and verify it.

    Args:
        location: from :func:`locate`.
        target: a file that does not exist; left behind incomplete on failure.
        hashes: algorithm -> digest, every one is compared; at least one.
        size: bytes that the index promises, or None.
        max_bytes: more is an error.

    Raises:
        FetchError: unreachable, interrupted, truncated, too large, or another file than promised.
    """
    if not hashes:
        raise FetchError(f"the index has no checksum for {location}; it cannot be verified")
    digests = {name: hashlib.new(name, usedforsecurity=name != "sha1") for name in hashes}
    limit = max_bytes if size is None else min(size, max_bytes)
    received = 0
    try:
        with _open(location) as stream, target.open("xb") as file:
            while chunk := stream.read(_CHUNK):
                received += len(chunk)
                if received > limit:
                    raise FetchError(f"{location} is larger than the {limit} bytes that are expected")
                file.write(chunk)
                for digest in digests.values():
                    digest.update(chunk)
    except FetchError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise FetchError(f"cannot fetch {location}: {error}") from error
    except Exception as error:  # http.client's errors are no OSErrors
        raise FetchError(f"cannot fetch {location}: {type(error).__name__} {error}") from error
    if size is not None and received != size:
        raise FetchError(f"{location} ended after {received} of {size} bytes; try again")
    for name, digest in digests.items():
        if digest.hexdigest() != hashes[name]:
            raise FetchError(
                f"{location} is not the file that the index describes: {name} is {digest.hexdigest()[:16]}..., "
                f"expected {hashes[name][:16]}..."
            )


def _index_location(zoo: str | os.PathLike[str]) -> str:
    text = os.fspath(zoo)
    if is_url(text):
        return text if urlsplit(text).path.endswith(".json") else f"{text.rstrip('/')}/{INDEX_NAME}"
    path = Path(text)
    return str(path / INDEX_NAME if path.is_dir() else path)


def _open(location: str) -> AbstractContextManager[IO[bytes]]:
    if not is_url(location):
        return Path(location).open("rb")
    response: Any = urllib.request.urlopen(location, timeout=_SECONDS)
    if not is_url(response.geturl()):  # a redirect may lead anywhere
        response.close()
        raise urllib.error.URLError(f"redirected to {response.geturl()!r}")
    return response
