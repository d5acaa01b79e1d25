"""Which studies a folder from a scanner, a PACS or an archive holds."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from medmap_monai.clinical.dicom_series import DicomStudy, is_dicom, read_series
from medmap_monai.clinical.recognise import SequenceFacts, recognise
from medmap_monai.clinical.source import NIFTI, SourceImage, SourceStudy
from medmap_monai.data.file_names import existing_folder, nifti_stem, walk_folders
from medmap_monai.data.studies import scan_studies
from medmap_monai.utils.json_file import read_json


def find_studies(folder: str | os.PathLike[str]) -> list[SourceStudy]:
    """Every study below ``folder``: DICOM by its UIDs, NIfTI files by their folders (or names, in a flat cohort).

    A study is named after its folder. Where a DICOM export gives no such name, or the folder's name holds the
    patient's name or number, it is ``study-`` and a hash of the study's UID.

    Raises:
        FileNotFoundError: no such folder, or nothing to prepare in it.
        ExtraNeededError: there are DICOM files and pydicom is not installed.
    """
    root = existing_folder(folder)
    files = list(_walk(root))
    nifti = [path for path in files if nifti_stem(path) is not None]
    dicom = [path for path in files if nifti_stem(path) is None and is_dicom(path)]
    studies = [*_nifti_studies(root, nifti), *_dicom_studies(root, read_series(dicom) if dicom else [])]
    if not studies:
        raise FileNotFoundError(f"{root} holds neither DICOM nor NIfTI images ({len(files)} other files)")
    taken: dict[str, int] = defaultdict(int)
    named = []
    for study in studies:
        taken[study.name] += 1
        again = taken[study.name]
        named.append(study if again == 1 else study.renamed(f"{study.name}-{again}"))
    return named


def _walk(root: Path) -> Iterable[Path]:
    """Files below ``root`` that may hold images; a dangling NIfTI link is one that is lost."""
    for _, paths in walk_folders(root):
        for path in paths:
            dangling = path.is_symlink() and nifti_stem(path) is not None
            if path.name.upper() != "DICOMDIR" and (path.is_file() or dangling):
                yield path


def safe_name(text: str) -> str:
    """``text`` as part of a file name: letters, digits, ``.``, ``_`` and ``-``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._-") or "study"


def nifti_image(path: Path, context: str = "") -> SourceImage:
    """A NIfTI file with what its name, or the sidecar that dcm2niix writes beside it, says."""
    stem = nifti_stem(path) or path.name
    sidecar = path.with_name(stem + ".json")
    facts = SequenceFacts(name=f"{context} {stem}".strip())
    if sidecar.is_file():
        # a file of that name that is no sidecar says nothing: the image's own name decides
        with suppress(OSError, ValueError, TypeError, AttributeError):
            facts = _sidecar_facts(facts.name, read_json(sidecar))
    return SourceImage(NIFTI, path.name, (path,), facts, path.name)


def _sidecar_facts(name: str, content: dict[str, Any]) -> SequenceFacts:
    def milliseconds(key: str) -> float | None:
        return None if content.get(key) is None else 1000 * float(content[key])

    return SequenceFacts(
        name=name,
        description=str(content.get("SeriesDescription", "")),
        protocol=str(content.get("ProtocolName", "")),
        echo_time=milliseconds("EchoTime"),
        repetition_time=milliseconds("RepetitionTime"),
        inversion_time=milliseconds("InversionTime"),
        contrast_agent=content.get("ContrastBolusIngredient") or content.get("ContrastBolusAgent"),
        image_type=tuple(str(value) for value in content.get("ImageType", ())),
    )


def _nifti_studies(root: Path, files: list[Path]) -> Iterable[SourceStudy]:
    folders: dict[Path, list[Path]] = defaultdict(list)
    for path in files:
        folders[path.parent].append(path)
    for parent, single in _one_folder_per_sequence(root, folders).items():
        images = [nifti_image(path, path.parent.name) for path in single]
        yield SourceStudy(_folder_name(root, parent), tuple(images))
        for path in single:
            del folders[path.parent]
    for folder, found in folders.items():
        images = [nifti_image(path) for path in found]
        if _repeated(images):
            cases = _flat_cohort(folder, found)
            if cases:
                yield from cases
                continue
        if len(images) == 1 and recognise(images[0].facts).unclear:
            images = [nifti_image(found[0], folder.name)]
        yield SourceStudy(_folder_name(root, folder), tuple(images))


def _one_folder_per_sequence(root: Path, folders: dict[Path, list[Path]]) -> dict[Path, list[Path]]:
    """Folders whose children hold one image each, a different sequence in every one: ``patient/FLAIR/image.nii.gz``."""
    children: dict[Path, list[Path]] = defaultdict(list)
    for folder in folders:
        if folder != root:
            children[folder.parent].append(folder)
    merged = {}
    for parent, below in children.items():
        single = [folders[folder][0] for folder in below if len(folders[folder]) == 1]
        if len(below) < 2 or len(single) < len(below) or parent in folders:
            continue
        named = [recognise(SequenceFacts(name=folder.name)).modality for folder in below]
        if None not in named and len(set(named)) == len(named):
            merged[parent] = single
    return merged


def _repeated(images: list[SourceImage]) -> bool:
    known = [modality for image in images if (modality := recognise(image.facts).modality)]
    return len(known) > len(set(known))


def _flat_cohort(folder: Path, files: list[Path]) -> list[SourceStudy]:
    """The cases of a folder in which file names carry case ids, as in known data sets; none where they do not."""
    try:
        scan = scan_studies(folder)
    except (OSError, ValueError):
        return []
    if scan.errors or any(source.channel is not None for study in scan.studies for source in study.images.values()):
        return []
    used = {Path(source.path) for study in scan.studies for source in study.images.values()}
    forgotten = [p for p in files if p not in used and not recognise(SequenceFacts(name=nifti_stem(p) or "")).left_out]
    if forgotten:
        return []
    return [
        SourceStudy(safe_name(study.case_id), tuple(nifti_image(Path(s.path)) for s in study.images.values()))
        for study in scan.studies
    ]


def _folder_name(root: Path, folder: Path) -> str:
    return safe_name(root.name if folder == root else "_".join(folder.relative_to(root).parts))


def _dicom_studies(root: Path, studies: list[DicomStudy]) -> Iterable[SourceStudy]:
    tops: dict[str, set[str]] = defaultdict(set)  # folder below root -> studies in it
    of_study: dict[str, set[str]] = {}
    for study in studies:
        parts = {path.relative_to(root).parts for image in study.images for path in image.files}
        of_study[study.key] = {part[0] if len(part) > 1 else "" for part in parts}
        for top in of_study[study.key]:
            tops[top].add(study.key)
    for study in studies:
        own = of_study[study.key]
        name = ""
        if len(studies) == 1 and not (len(own) == 1 and "" not in own):
            name = root.name
        elif len(own) == 1 and "" not in own and tops[next(iter(own))] == {study.key}:
            name = next(iter(own))
        notes = []
        if any(word in name.lower() for word in study.identity):
            notes.append("the folder is named after the patient; outputs are named by a hash of the study's UID")
            name = ""
        yield SourceStudy(safe_name(name) if name else f"study-{study.key[:8]}", tuple(study.images), tuple(notes))
