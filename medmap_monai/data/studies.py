"""Find the studies in a folder: many, nested, or the folder of one; each with the modalities that exist."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from medmap_monai.data.detection import detect_edition_of, nothing_found
from medmap_monai.data.editions import EDITIONS, Edition, get_edition
from medmap_monai.data.file_names import FileNames, existing_folder, expected_names, listing, nifti_stem, walk_nifti
from medmap_monai.data.study import ImageSource, Study, StudyError


@dataclass(frozen=True)
class StudyScan:
    """What a folder holds: the usable studies, what is wrong with the others, and the edition they were read as."""

    studies: list[Study]
    errors: list[StudyError]
    edition: Edition


@dataclass
class _Case:
    images: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    labels: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)  # NIfTI files whose names say nothing


def find_studies(folder: str | os.PathLike[str], edition: str | Edition | None = None) -> list[Study]:
    """All studies below ``folder``, sorted by case id.

    Args:
        folder: a folder of many studies (nested to any depth), or the folder of a single one.
        edition: data-set edition; detected from the case ids when not given.

    Raises:
        FileNotFoundError: the folder is absent (``NotADirectoryError``: it is a file).
        StudyError: a case is unusable; further ones are named in the same message. :func:`scan_studies` gives the
            usable studies beside the errors instead.
        ValueError: no study found, or the edition is ambiguous; the message says what was found.

    Example:
        >>> [study.case_id for study in find_studies("cohort")]  # doctest: +SKIP
        ['BraTS20_Training_001', 'BraTS20_Training_002']
    """
    scan = scan_studies(folder, edition)
    if scan.errors:
        raise combine_errors(scan.errors)
    return scan.studies


def combine_errors(errors: list[StudyError]) -> StudyError:
    """One error that tells all of them."""
    first, rest = errors[0], errors[1:]
    if not rest:
        return first
    others = "; ".join(str(error) for error in rest)
    return StudyError(first.case_id, f"{first.message} (and {len(rest)} more: {others})", first.path)


def scan_studies(folder: str | os.PathLike[str], edition: str | Edition | None = None) -> StudyScan:
    """As :func:`find_studies`, but one bad case does not lose the others: its error stands beside the good studies.

    Raises:
        FileNotFoundError, NotADirectoryError, ValueError: as :func:`find_studies`.
    """
    root = existing_folder(folder)
    files, folders = walk_nifti(root)
    chosen = detect_edition_of(root, files, folders) if edition is None else get_edition(edition)
    cases, unmatched = _group(chosen, root, files)
    _claim_odd_labels(chosen, cases, unmatched)
    for name, others in _folders_without_images(chosen, folders, cases, unmatched):
        cases.setdefault(name, _Case()).others.extend(others)
    if not cases:
        raise ValueError(nothing_found(root, files, chosen))
    studies, errors = [], []
    for case_id in sorted(cases):
        try:
            studies.append(_study(case_id, cases[case_id], chosen))
        except StudyError as error:
            errors.append(error)
    return StudyScan(studies, errors, chosen)


def _group(edition: Edition, root: Path, files: list[Path]) -> tuple[dict[str, _Case], list[Path]]:
    """Files by case id, and the files that are neither image nor label of the edition."""
    matcher = FileNames(edition, strict=False)
    cases: dict[str, _Case] = {}
    unmatched: list[Path] = []
    for path in files:
        if set(path.relative_to(root).parts[:-1]) & set(edition.skip_folders):
            continue
        image = matcher.image(path)
        label = None if image else matcher.label(path)
        if image:
            for modality in image[1]:
                cases.setdefault(image[0], _Case()).images[modality].append(path)
        elif label:
            cases.setdefault(label, _Case()).labels.append(path)
        else:
            unmatched.append(path)
    return cases, unmatched


def _claim_odd_labels(edition: Edition, cases: dict[str, _Case], unmatched: list[Path]) -> None:
    """Give label files that do not start with the case id to the one case of their folder."""
    owners: dict[Path, set[str]] = defaultdict(set)
    for case_id, case in cases.items():
        for path in (path for paths in case.images.values() for path in paths):
            owners[path.parent].add(case_id)
    for path in list(unmatched):
        odd = any(re.fullmatch(pattern, nifti_stem(path) or "") for pattern in edition.odd_labels)
        if odd and len(owners[path.parent]) == 1:
            cases[next(iter(owners[path.parent]))].labels.append(path)
            unmatched.remove(path)


def _folders_without_images(
    edition: Edition, folders: list[Path], cases: dict[str, _Case], unmatched: list[Path]
) -> Iterator[tuple[str, list[Path]]]:
    """Folders that look like a case's own but hold no modality, so that such a study is reported and not overlooked.

    A folder looks so when it is named as the edition names its cases, when it is named like a neighbouring case's
    folder up to digits (``patient_07`` beside ``patient_01``), or when it stands beside case folders and holds NIfTI
    files. Results written into the cohort (files named after a known case) are no study.
    """
    with_images = {path.parent for case in cases.values() for paths in case.images.values() for path in paths}
    above_images = with_images | {above for folder in with_images for above in folder.parents}
    own = {folder for folder in with_images if folder.name in cases}
    shapes = {(folder.parent, _shape(folder.name)) for folder in own}
    parents = {folder.parent for folder in own}
    for folder in folders:
        if folder in above_images or any(above in own for above in folder.parents):
            continue
        below = [path for path in unmatched if folder in path.parents]
        strange = [p for p in below if p.parent == folder and not any(p.name.startswith(case_id) for case_id in cases)]
        named_as_case = edition.case is not None and re.fullmatch(edition.case, folder.name)
        if named_as_case or (folder.parent, _shape(folder.name)) in shapes or (folder.parent in parents and strange):
            yield folder.name, below


def _shape(name: str) -> str:
    return re.sub(r"\d+", "0", name)


def _study(case_id: str, case: _Case, edition: Edition) -> Study:
    for what, paths in [*case.images.items(), ("label", case.labels)]:
        if len(paths) > 1:
            both = " and ".join(str(path) for path in paths)
            raise StudyError(case_id, f"{len(paths)} files for {what}, only one is allowed: {both}")
    if not case.images:
        found = listing([path.name for path in case.labels + case.others]) or "no NIfTI file"
        raise StudyError(
            case_id, f"no modality of edition {edition}; found {found}, expected any of {expected_names(edition)}"
        )
    images = {
        modality: ImageSource(case.images[modality][0], edition.channels[modality] if edition.channels else None)
        for modality in edition.modalities
        if modality in case.images
    }
    built_in = EDITIONS.get(edition.name) is edition
    return Study(case_id, images, case.labels[0] if case.labels else None, edition.name if built_in else edition)
