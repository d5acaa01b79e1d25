"""Packages of the bundles that came with this installation and have weights."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from medmap_monai.utils.files import file_sha256
from medmap_monai.zoo.bundle_folder import BundleFolder
from medmap_monai.zoo.pack import pack_bundle


class Installed(NamedTuple):
    """``packed``: packages that were written; ``notes``: what is to be said; ``recipes``: bundles without weights."""

    packed: list[Path]
    notes: list[str]
    recipes: list[Path]


def pack_installed(folder: str | os.PathLike[str], bundles: Iterable[str | os.PathLike[str]]) -> Installed:
    """Pack into ``folder`` those of ``bundles`` that have weights, unless their version is there.

    A package that is there does not change. Where its weights are others than those installed, that is noted.

    Raises:
        ValueError: a bundle would not pass the checks (:class:`~medmap_monai.zoo.pack.BundleRejectedError`).
    """
    found = Installed([], [], [])
    for path in bundles:
        bundle = BundleFolder(path)
        if not bundle.weights_file.is_file():
            found.recipes.append(bundle.root)
            continue
        package = Path(folder) / f"{bundle.name}_v{bundle.metadata['version']}.zip"
        if not package.is_file():
            found.packed.append(pack_bundle(bundle.root, bundle.weights_file, folder))
        elif _weights_sha256(package, bundle.name) != file_sha256(bundle.weights_file):
            found.notes.append(
                f"{package.name} holds other weights than the installed {bundle.name} and is left as it is; "
                "remove it, or raise the bundle's version, to have them packed"
            )
    return found


def _weights_sha256(package: Path, name: str) -> str:
    try:
        with zipfile.ZipFile(package) as archive, archive.open(f"{name}/models/model.pt") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    except (zipfile.BadZipFile, KeyError):
        return ""  # the index says what is wrong with it
