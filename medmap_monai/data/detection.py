"""Which edition a folder holds, by the case ids it uses and by the values in its labels."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medmap_monai.data.edition import Edition
from medmap_monai.data.editions import EDITIONS
from medmap_monai.data.file_names import FileNames, existing_folder, expected_names, listing, walk_nifti
from medmap_monai.data.foreign_files import foreign_hint
from medmap_monai.data.nifti_file import NiftiError, read_nifti
from medmap_monai.data.reading import NameReader
from medmap_monai.utils.counted import counted

_LABELS_LOOKED_AT = 8


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
            elif edition.image_folder is None and re.match(edition.case, path.name):
                spelt = NameReader(edition, root)(path)  # its own case id with a modality as others spell it
                if spelt.certain and spelt.modalities and re.fullmatch(edition.case, spelt.case, re.IGNORECASE):
                    by_name[edition.name].add(spelt.case)
        names = (folder.name for folder in folders)
        if edition.image_folder is None:
            by_name[edition.name].update(name for name in names if re.fullmatch(edition.case, name))
    found = by_image or {name: cases for name, cases in by_name.items() if cases}
    if len(found) > 1:
        told = [f"{name}: {counted(len(cases), 'case')} such as {min(cases)}" for name, cases in found.items()]
        raise ValueError(f"{root} holds studies of more than one edition ({'; '.join(told)}); say which one to read")
    if found:
        return EDITIONS[next(iter(found))]
    generic = EDITIONS["generic"]
    read = NameReader(generic, root)
    if any(read(path).modalities for path in files):
        return generic
    raise ValueError(nothing_found(root, files, None))


def edition_of_labels(edition: Edition, labels: Sequence[Path]) -> tuple[Edition, str]:
    """The edition that studies without an edition's case ids have by the values in their labels, and a note on it.

    Brain tumour labels hold 1, 2, 4 (BraTS up to 2021) or 1, 2, 3 (since 2023); both share the meaning of 1 and 2.
    A few labels are looked at, until one of them holds a 3 or a 4. Any other edition stays what it is.
    """
    if edition is not EDITIONS["generic"]:
        return edition, ""
    for path in sorted(labels)[:_LABELS_LOOKED_AT]:
        try:
            values = set(np.unique(read_nifti(path).data).tolist())
        except NiftiError:
            continue  # told when the study is loaded
        if values & {3, 4} == {4}:
            return EDITIONS["brats2020"], f"read with the label values of brats2020, since {path.name} holds a 4"
        if 3 in values:
            break
    return edition, ""


def nothing_found(root: Path, files: list[Path], edition: Edition | None) -> str:
    """The message for a folder without any study."""
    hint = foreign_hint(root) if not files else ""
    names = [str(path.relative_to(root)) for path in files]
    found = f"{counted(len(files), 'NIfTI file')}: {listing(names)}" if files else "no .nii or .nii.gz file"
    found += f"; {hint}" if hint else ""
    if edition is not None:
        return f"no study of edition {edition} in {root}; expected {expected_names(edition)}; found {found}"
    known = ", ".join(EDITIONS)
    return (
        f"no study in {root}; found {found}; known editions are {known}; "
        "name the edition, or describe the files in a CSV or JSON manifest"
    )
