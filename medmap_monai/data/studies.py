"""Find the studies in a folder: many, nested, or the folder of one; each with the modalities that exist."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from medmap_monai.data.case_groups import CaseFiles, group_cases
from medmap_monai.data.detection import detect_edition_of, edition_of_labels, nothing_found
from medmap_monai.data.edition import Edition
from medmap_monai.data.edition_file import EDITION_FILE, read_edition
from medmap_monai.data.editions import EDITIONS, get_edition
from medmap_monai.data.file_names import existing_folder, expected_names, listing, nifti_stem, walk_nifti
from medmap_monai.data.reading import FileReading, NameReader, NameReading
from medmap_monai.data.study import ImageSource, Study, StudyError

LABEL = "label"


@dataclass(frozen=True)
class StudyScan:
    """What a folder holds: the usable studies, what is wrong with the others, and the edition they were read as.

    ``files`` accounts for every NIfTI file; ``notes`` say what else was noticed.
    """

    studies: list[Study]
    errors: list[StudyError]
    edition: Edition
    files: Sequence[FileReading] = ()
    notes: Sequence[str] = ()

    @property
    def unused(self) -> list[FileReading]:
        """The NIfTI files that are part of no study."""
        return [file for file in self.files if not file.used]


def find_studies(folder: str | os.PathLike[str], edition: str | Edition | None = None) -> list[Study]:
    """All studies below ``folder``, sorted by case id.

    Args:
        folder: a folder of many studies (nested to any depth), or the folder of a single one.
        edition: data-set edition; when not given that of ``edition.json`` in the folder, else detected from the case
            ids.

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

    Every NIfTI file is accounted for in ``files``. Without ``edition``, studies that follow no edition's case ids are
    read with the label values that their labels hold.

    Raises:
        FileNotFoundError, NotADirectoryError, ValueError: as :func:`find_studies`.
    """
    root = existing_folder(folder)
    files, folders = walk_nifti(root)
    own = root / EDITION_FILE
    if edition is None and own.is_file():
        edition = read_edition(own)
    chosen = detect_edition_of(root, files, folders) if edition is None else get_edition(edition)
    read = NameReader(chosen, root)
    readings = {path: read(path) for path in files}
    images = [reading for reading in readings.values() if reading.modalities]
    cases = group_cases(images, root, several=chosen.channels is not None)
    _add_labels(cases, readings, chosen)
    unmatched = [r.path for r in readings.values() if not r.modalities and not r.label and not _in_results(r)]
    for name, others in _folders_without_images(chosen, folders, cases, unmatched):
        cases.setdefault(name, CaseFiles(name)).others.extend(others)
    if not cases:
        raise ValueError(nothing_found(root, files, chosen))
    notes: list[str] = []
    if edition is None:
        chosen, note = edition_of_labels(chosen, [path for case in cases.values() for path in case.labels])
        notes += [note] if note else []
    studies, errors = [], []
    for case_id in sorted(cases):
        try:
            studies.append(_study(case_id, cases[case_id], chosen))
        except StudyError as error:
            errors.append(error)
    return StudyScan(studies, errors, chosen, _account(readings, cases), notes)


def _in_results(reading: NameReading) -> bool:
    return reading.reason.endswith("is a folder of results")


def _add_labels(cases: dict[str, CaseFiles], readings: dict[Path, NameReading], edition: Edition) -> None:
    """Labels by their case id; one that carries another name belongs to the one case of its folder."""
    owners: dict[Path, list[CaseFiles]] = defaultdict(list)
    for case in cases.values():
        for folder in case.folders:
            owners[folder].append(case)
    by_id = {case_id.lower(): case for case_id, case in cases.items()}
    for reading in readings.values():
        odd = not reading.modalities and not _in_results(reading) and _is_odd_label(reading.path, edition)
        if not reading.label and not odd:
            continue
        here = owners[reading.path.parent]
        if reading.label and reading.case.lower() in by_id:
            by_id[reading.case.lower()].labels.append(reading.path)
        elif len(here) == 1:
            here[0].labels.append(reading.path)
        elif reading.label and reading.certain:  # a case of which only the label exists
            cases.setdefault(reading.case, CaseFiles(reading.case)).labels.append(reading.path)


def _is_odd_label(path: Path, edition: Edition) -> bool:
    return any(re.fullmatch(pattern, nifti_stem(path) or "") for pattern in edition.odd_labels)


def _account(readings: dict[Path, NameReading], cases: dict[str, CaseFiles]) -> list[FileReading]:
    """What became of every file."""
    roles: dict[Path, tuple[str, list[str]]] = {}
    for case_id, case in cases.items():
        for role, paths in [*case.images.items(), (LABEL, case.labels)]:
            for path in paths:
                roles.setdefault(path, (case_id, []))[1].append(role)
    accounted = []
    for path, reading in readings.items():
        if path in roles:
            case_id, names = roles[path]
            accounted.append(FileReading(path, case_id, "+".join(names)))
            continue
        reason = reading.reason
        if not reason and reading.label:
            reason = f"it is named like the label of {reading.case or 'a case'}, of which there is no image"
        elif not reason:
            reason = f"it can be read as {' or '.join(reading.modalities)}"
        accounted.append(FileReading(path, reading.case, "", reason))
    return accounted


def _folders_without_images(
    edition: Edition, folders: list[Path], cases: dict[str, CaseFiles], unmatched: list[Path]
) -> Iterator[tuple[str, list[Path]]]:
    """Folders that look like a case's own but hold no modality, so that such a study is reported and not overlooked.

    A folder looks so when it is named as the edition names its cases, when it is named like a neighbouring case's
    folder up to digits (``patient_07`` beside ``patient_01``), or when it stands beside case folders and holds NIfTI
    files. Results written into the cohort (files named after a known case) are no study.
    """
    with_images = {folder for case in cases.values() for folder in case.folders}
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


def _study(case_id: str, case: CaseFiles, edition: Edition) -> Study:
    if case.faults:
        raise StudyError(case_id, "; ".join(case.faults), min(case.folders) if len(case.folders) == 1 else None)
    for what, paths in [*case.images.items(), (LABEL, case.labels)]:
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
