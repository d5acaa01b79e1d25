"""Names of NIfTI files: walk a folder, and read case id and modality out of a name as an edition spells it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from medmap_monai.data.edition import Edition
from medmap_monai.data.foreign_files import what_file_is

NIFTI_ENDINGS = (".nii.gz", ".nii")
_SHOWN = 5  # file names quoted in a message


def nifti_stem(path: Path) -> str | None:
    """The file's name without ``.nii`` or ``.nii.gz`` in any case; None for any other file."""
    for ending in NIFTI_ENDINGS:
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return None


def existing_folder(folder: str | os.PathLike[str]) -> Path:
    """The absolute path of a folder that must exist."""
    root = Path(os.path.abspath(folder))  # not resolve(): a linked folder keeps the name the user gave it
    if not root.exists():
        raise FileNotFoundError(f"folder {root} does not exist")
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is {what_file_is(root)}")
    return root


def walk_folders(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Every folder below ``root``, itself first, and its files in a fixed order; hidden ones are skipped.

    Links are followed, each target once. A dangling link counts as a file: it is unreadable, not absent.
    """
    seen: set[str] = set()

    def unreadable(error: OSError) -> None:
        raise error  # a folder without permission would otherwise drop out of the cohort unseen

    for parent, children, names in os.walk(root, onerror=unreadable, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            children[:] = []
            continue
        seen.add(real)
        children[:] = sorted(child for child in children if not child.startswith("."))
        yield Path(parent), [Path(parent, name) for name in sorted(names) if not name.startswith(".")]


def walk_nifti(root: Path) -> tuple[list[Path], list[Path]]:
    """NIfTI files and folders below ``root`` as :func:`walk_folders` finds them (no ``._x.nii.gz`` of macOS)."""
    found = list(walk_folders(root))
    files = [path for _, paths in found for path in paths if nifti_stem(path) is not None]
    return files, [folder for folder, _ in found]


class FileNames:
    """File names of one edition, either with the case ids it issues (``strict``) or with any."""

    def __init__(self, edition: Edition, strict: bool) -> None:
        case = edition.case if strict else edition.any_case
        self._edition = edition
        self._images = {
            m: re.compile(rf"(?P<case>{case}){suffix}", re.IGNORECASE) for m, suffix in edition.suffixes.items()
        }
        self._labels = [re.compile(rf"(?P<case>{case}){suffix}", re.IGNORECASE) for suffix in edition.label_suffixes]

    def image(self, path: Path) -> tuple[str, tuple[str, ...]] | None:
        """Case id and the modalities the file holds (several for a 4-D file)."""
        if not _folder_fits(path, self._edition.image_folder):
            return None
        stem = nifti_stem(path) or ""
        for modality, pattern in self._images.items():
            found = pattern.fullmatch(stem)
            if found:
                held = tuple(self._edition.modalities) if self._edition.channels else (modality,)
                return found["case"] or path.parent.name, held
        return None

    def label(self, path: Path) -> str | None:
        """Case id of a label file."""
        if not _folder_fits(path, self._edition.label_folder):
            return None
        for pattern in self._labels:
            found = pattern.fullmatch(nifti_stem(path) or "")
            if found:
                return found["case"] or path.parent.name
        return None


def _folder_fits(path: Path, pattern: str | None) -> bool:
    return pattern is None or re.fullmatch(pattern, path.parent.name) is not None


def listing(names: list[str]) -> str:
    """The first few names, for a message."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def expected_names(edition: Edition) -> str:
    """The file names an edition expects, for a message."""
    if edition.channels or not all(re.fullmatch(r"[\w-]*", suffix) for suffix in edition.suffixes.values()):
        return edition.title
    return ", ".join(f"<case>{suffix}.nii[.gz]" for suffix in edition.suffixes.values())
