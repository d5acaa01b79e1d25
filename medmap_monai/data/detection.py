"""Which edition a folder holds, by the case ids it uses."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path

from medmap_monai.data.editions import EDITIONS, Edition
from medmap_monai.data.file_names import FileNames, existing_folder, expected_names, listing, walk_nifti


def detect_edition(folder: str | os.PathLike[str]) -> Edition:
    """The edition whose case ids the folder uses; ``generic`` where only the modality suffixes are known ones.

    Raises:
        ValueError: nothing recognised, or more than one edition; the message says what was found.
    """
    root = existing_folder(folder)
    return detect_edition_of(root, *walk_nifti(root))


def detect_edition_of(root: Path, files: list[Path], folders: list[Path]) -> Edition:
    """:func:`detect_edition` on what :func:`walk_nifti` found."""
    by_image: dict[str, set[str]] = defaultdict(set)
    by_name: dict[str, set[str]] = defaultdict(set)  # cases of which only a label or an empty folder exists
    for edition in EDITIONS.values():
        if edition.case is None:
            continue
        matcher = FileNames(edition, strict=True)
        for path in files:
            image, label = matcher.image(path), matcher.label(path)
            if image:
                by_image[edition.name].add(image[0])
            elif label:
                by_name[edition.name].add(label)
        names = (folder.name for folder in folders)
        if edition.image_folder is None:
            by_name[edition.name].update(name for name in names if re.fullmatch(edition.case, name))
    found = by_image or {name: cases for name, cases in by_name.items() if cases}
    if len(found) > 1:
        counts = "; ".join(f"{name}: {len(cases)} case(s) such as {min(cases)}" for name, cases in found.items())
        raise ValueError(f"{root} holds studies of more than one edition ({counts}); say which one to read")
    if found:
        return EDITIONS[next(iter(found))]
    generic = EDITIONS["generic"]
    if any(FileNames(generic, strict=False).image(path) for path in files):
        return generic
    raise ValueError(nothing_found(root, files, None))


def nothing_found(root: Path, files: list[Path], edition: Edition | None) -> str:
    """The message for a folder without any study."""
    names = [str(path.relative_to(root)) for path in files]
    found = f"{len(files)} NIfTI file(s): {listing(names)}" if files else "no .nii or .nii.gz file"
    if edition is not None:
        return f"no study of edition {edition} in {root}; expected {expected_names(edition)}; found {found}"
    known = ", ".join(EDITIONS)
    return (
        f"no study in {root}; found {found}; known editions are {known}; "
        "name the edition, or describe the files in a CSV or JSON manifest"
    )
