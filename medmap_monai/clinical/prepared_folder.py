"""The folder of a prepared study: kept apart from the images that go in, cleared, and filled with copies."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medmap_monai.clinical.choose import Choice
from medmap_monai.clinical.prepare_study import PrepareError
from medmap_monai.clinical.source import DICOM, NIFTI, SourceStudy
from medmap_monai.data.file_names import NIFTI_ENDINGS, nifti_stem
from medmap_monai.data.studies import scan_studies
from medmap_monai.utils.files import atomic_path, write_text
from medmap_monai.utils.json_file import read_own_record
from medmap_monai.utils.preparation import PREPARED_FILE

_NOT_FINISHED = "the preparation was not finished; prepare it again"


def require_apart(target: Path, studies: Iterable[SourceStudy]) -> None:
    """No study may be prepared into a folder that holds images of the input: they would be taken for old results."""
    inputs = {Path(os.path.realpath(path)) for s in studies for image in s.images for path in image.files}
    for study in studies:
        folder = Path(os.path.realpath(target / study.name))
        if any(path.is_relative_to(folder) for path in inputs):
            raise ValueError(
                f"{target / study.name} holds images that are to be prepared; choose another output folder"
            )


def unfinished(name: str, choice: Choice) -> dict[str, Any]:
    """``prepared.json`` while the images of a study are written: whoever reads them before it is done is warned."""
    names = [image.files[0].name for image in choice.images.values() if image.kind == NIFTI]
    own = [f"{name}_{modality}{ending}" for modality in choice.images for ending in NIFTI_ENDINGS]
    return {"format": 1, "warnings": [_NOT_FINISHED], "files": sorted({*names, *own})}


def clear_prepared(folder: Path) -> None:
    """Remove what a preparation wrote into ``folder``, by its record, and nothing else: labels may have been added."""
    record = read_own_record(folder / PREPARED_FILE)
    if record is None:
        (folder / PREPARED_FILE).unlink(missing_ok=True)
        return
    names = [*record.get("files", ()), *(s["output"]["file"] for s in record.get("sequences", {}).values())]
    for stale in [*(folder / Path(name).name for name in names), folder / "brain_mask.nrrd", folder / PREPARED_FILE]:
        stale.unlink(missing_ok=True)
    for transform in folder.glob("transforms/*.tfm"):
        transform.unlink()
    if any(folder.glob("*.nii*")):  # the folder stays one of ours
        write_text(folder / PREPARED_FILE, json.dumps({"format": 1, "warnings": [_NOT_FINISHED]}) + "\n")


def copy_images(name: str, choice: Choice, folder: Path) -> dict[str, Path]:
    """The files as they are, bit by bit; under their own names where these are read as the same sequences."""
    sources = {}
    for modality, image in choice.images.items():
        if image.kind == DICOM:
            raise PrepareError(f"{image.label}: DICOM without skull on a 1 mm grid has no file to be copied")
        sources[modality] = image.files[0]
    if len({source.name.lower() for source in sources.values()}) == len(sources):
        files = _copied(sources, {modality: folder / source.name for modality, source in sources.items()})
        if _read_alike(folder, files):
            return files
        for path in files.values():
            path.unlink()
    endings = {modality: source.name[len(nifti_stem(source) or "") :] for modality, source in sources.items()}
    return _copied(sources, {modality: folder / f"{name}_{modality}{ending}" for modality, ending in endings.items()})


def _copied(sources: Mapping[str, Path], files: dict[str, Path]) -> dict[str, Path]:
    for modality, source in sources.items():
        with atomic_path(files[modality]) as temporary:
            shutil.copyfile(source, temporary)
    return files


def _read_alike(folder: Path, files: Mapping[str, Path]) -> bool:
    try:
        scan = scan_studies(folder)
    except (OSError, ValueError):
        return False
    if scan.errors or len(scan.studies) != 1:
        return False
    read = {modality: Path(source.path).name for modality, source in scan.studies[0].images.items()}
    return read == {modality: path.name for modality, path in files.items()}
