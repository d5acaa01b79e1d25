"""A static zoo: a folder of packages with an index that any web server or object store can serve."""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from packaging.version import InvalidVersion, Version

from medmap_monai.utils.files import write_text
from medmap_monai.utils.json_file import parse_json

INDEX_NAME = "model_info.json"
_PACKAGE = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9_-]*?)_v(?P<version>[^/\\]+)")
_CHUNK = 1 << 20


class IndexEntry(NamedTuple):
    """One package of a zoo.

    source: URL, or the file's name relative to the index.
    hashes: algorithm -> hexadecimal digest; ``sha256`` in indexes made here, ``sha1`` in MONAI's own zoo.
    size: bytes, where the index tells.
    """

    name: str
    version: str
    source: str
    hashes: dict[str, str]
    size: int | None


def write_index(folder: str | os.PathLike[str], base_url: str | None = None) -> Path:
    """Write ``model_info.json`` for the packages ``*_v*.zip`` of ``folder``.

    It has the form of MONAI's zoo, ``{"<name>_v<version>": {"checksum": <sha1>, "source": <url>}}``, and tells
    ``name``, ``version``, ``sha256`` and ``size`` besides. Packages and index belong in one folder on the server.

    Args:
        folder: with the packages that ``medmap bundle pack`` wrote.
        base_url: URL under which the folder will be served, for readers such as MONAI that want absolute sources;
            without it sources are file names relative to the index.

    Raises:
        FileNotFoundError: no package there.
        ValueError: a package is no intact bundle of its name and version, or differs from its ``.sha256`` file.
    """
    root = Path(folder)
    packages = sorted(root.glob("*_v*.zip")) if root.is_dir() else []
    if not packages:
        raise FileNotFoundError(f"no package (NAME_vVERSION.zip) in {root}")
    index: dict[str, dict[str, Any]] = {}
    for path in packages:
        name, version = _inspect(path)
        sha256, sha1 = _digests(path)
        _compare_with_checksum_file(path, sha256)
        source = path.name if base_url is None else f"{base_url.rstrip('/')}/{path.name}"
        index[path.stem] = {
            "checksum": sha1,
            "source": source,
            "name": name,
            "version": version,
            "sha256": sha256,
            "size": path.stat().st_size,
        }
    write_text(root / INDEX_NAME, json.dumps(index, indent=4) + "\n")
    return root / INDEX_NAME


def read_index(text: str) -> list[IndexEntry]:
    """The packages of a ``model_info.json``, of this project or of MONAI's zoo.

    Raises:
        ValueError: the text is no such index.
    """
    content = parse_json(text, INDEX_NAME)
    if not isinstance(content, Mapping):
        raise ValueError(f"{INDEX_NAME} must hold an object")
    entries = []
    for key, value in content.items():
        match = _PACKAGE.fullmatch(key)
        if match is None or not isinstance(value, Mapping) or not isinstance(value.get("source"), str):
            raise ValueError(f"{INDEX_NAME}: {key!r} is not NAME_vVERSION with a source")
        fields = (("sha256", "sha256"), ("sha1", "checksum"))
        hashes = {algorithm: str(value[field]).lower() for algorithm, field in fields if field in value}
        size = value["size"] if isinstance(value.get("size"), int) else None
        entries.append(IndexEntry(match["name"], match["version"], value["source"], hashes, size))
    return entries


def choose_version(entries: list[IndexEntry], name: str, version: str | None = None) -> IndexEntry:
    """The entry of ``name`` with ``version``, or its newest.

    Raises:
        ValueError: there is none; the message lists what there is.
    """
    candidates = [entry for entry in entries if entry.name == name]
    if not candidates:
        raise ValueError(f"the zoo has no bundle {name!r}; it has {sorted({entry.name for entry in entries})}")
    if version is None:
        return max(candidates, key=lambda entry: _comparable(entry.version))
    chosen = [entry for entry in candidates if entry.version == version]
    if not chosen:
        known = sorted((entry.version for entry in candidates), key=_comparable)
        raise ValueError(f"the zoo has no version {version!r} of {name}; it has {known}")
    return chosen[0]


def _comparable(version: str) -> Version:
    try:
        return Version(version)
    except InvalidVersion:
        return Version("0")


def _inspect(path: Path) -> tuple[str, str]:
    """Name and version of a package, from its name and from what it holds."""
    match = _PACKAGE.fullmatch(path.stem)
    if match is None:
        raise ValueError(f"{path.name} is not named NAME_vVERSION.zip")
    name, version = match["name"], match["version"]
    try:
        with zipfile.ZipFile(path) as archive:
            metadata = parse_json(archive.read(f"{name}/configs/metadata.json"), "its metadata.json")
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(f"{path.name} is not the package of a bundle {name}: {error}") from error
    if str(metadata.get("version")) != version:
        raise ValueError(f"{path.name} holds version {metadata.get('version')}")
    return name, version


def _digests(path: Path) -> tuple[str, str]:
    """SHA-256 and SHA-1 (which only MONAI's own reader asks for) in one pass."""
    sha256, sha1 = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
            sha1.update(chunk)
    return sha256.hexdigest(), sha1.hexdigest()


def _compare_with_checksum_file(path: Path, sha256: str) -> None:
    beside = path.with_name(path.name + ".sha256")
    if beside.is_file():
        noted = beside.read_text(encoding="utf-8").split()[:1]
        if noted != [sha256]:
            raise ValueError(f"{path.name} differs from its checksum in {beside.name}: it is damaged or was changed")
