"""All studies of a folder, one after the other; what is done is kept, and one bad study never stops the next."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from medmap_monai import __version__
from medmap_monai.clinical.choose import Choice, choose_images
from medmap_monai.clinical.extras import ExtraNeededError
from medmap_monai.clinical.find_studies import find_studies
from medmap_monai.clinical.prepare_study import (
    PreparedImages,
    PrepareError,
    PrepareOptions,
    options_record,
    prepare_images,
    transform_path,
)
from medmap_monai.clinical.prepared_folder import clear_prepared, copy_images, require_apart, unfinished
from medmap_monai.clinical.source import SourceImage, SourceStudy
from medmap_monai.clinical.volume import to_itk, write_nifti
from medmap_monai.utils.counted import counted
from medmap_monai.utils.files import atomic_path, file_sha256, write_text
from medmap_monai.utils.json_file import read_own_record
from medmap_monai.utils.output import require_writable
from medmap_monai.utils.preparation import PREPARED_FILE

TABLE_NAME = "prepared.csv"
_PACKAGES = ("SimpleITK", "numpy", "nibabel", "pydicom")


@dataclass(frozen=True)
class PreparedStudy:
    """One study of a run.

    folder: PREPARED/NAME. sources: modality -> the image it came from. record: content of ``prepared.json``.
    error: why it could not be prepared; the folder holds nothing then. kept: an earlier run had done it.
    """

    name: str
    folder: Path
    sources: Mapping[str, SourceImage]
    record: Mapping[str, Any]
    error: str = ""
    kept: bool = False


def prepare_folder(
    folder: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: PrepareOptions | None = None,
    given: Mapping[str, str] | None = None,
    progress: Callable[[str, str], None] = lambda study, step: None,
) -> list[PreparedStudy]:
    """Prepare every study below ``folder`` into ``output``/NAME/NAME_MODALITY.nii.gz.

    Args:
        folder: DICOM or NIfTI, one study or many.
        output: folder of the prepared studies; not inside ``folder``.
        options: how; see :class:`PrepareOptions`.
        given: modality -> image, the user's word for one study; see
            :func:`~medmap_monai.clinical.choose.choose_images`.
        progress: called with the study's name and the step that begins.

    Returns:
        every study, those with an ``error`` too. ``prepared.csv`` in ``output`` lists them.

    Raises:
        FileNotFoundError: nothing to prepare.
        ValueError: ``output`` lies in ``folder``, a study would be prepared into the folder of its own images, or
            ``given`` for more than one study.
        ExtraNeededError: a package is missing.
    """
    options = options or PrepareOptions()
    root, target = Path(folder).absolute(), Path(output).absolute()
    if Path(os.path.realpath(target)).is_relative_to(os.path.realpath(root)):
        raise ValueError(f"output folder {target} lies in {root}, where it would be taken for studies; choose another")
    studies = find_studies(root)
    require_apart(target, studies)
    if given and len(studies) > 1:
        names = ", ".join(study.name for study in studies[:5])
        raise ValueError(f"images can be named for one study, {root} holds {len(studies)}: {names}")
    require_writable(target)
    done = []
    for study in studies:
        try:
            done.append(_prepare(study, target / study.name, options, given, progress))
        except ExtraNeededError:
            raise
        except Exception as error:
            text = str(error) or type(error).__name__
            if not isinstance(error, _KeptError):
                clear_prepared(target / study.name)  # what another run left must not pass for this study
            done.append(PreparedStudy(study.name, target / study.name, {}, {}, f"study {study.name}: {text}"))
        _write_table(target, done)
    return done


def _prepare(
    study: SourceStudy,
    folder: Path,
    options: PrepareOptions,
    given: Mapping[str, str] | None,
    progress: Callable[[str, str], None],
) -> PreparedStudy:
    try:
        choice = choose_images(study, given)
    except ValueError as error:  # of the command, not of the study
        raise _KeptError(str(error)) from error
    _require_clear(choice, options)
    progress(study.name, "check what is done")
    inputs = {modality: _files_hash(image) for modality, image in choice.images.items()}
    key = _key(inputs, choice, options)
    earlier = read_record(folder)
    if earlier is not None and earlier.get("key") == key and _complete(folder, earlier):
        sources = {modality: image for modality, image in choice.images.items() if modality in earlier["sequences"]}
        return PreparedStudy(study.name, folder, sources, earlier, kept=True)
    if any(folder.glob("*.nii*")) and not (folder / PREPARED_FILE).is_file():
        raise _KeptError(f"{folder} holds images that medmap prepare did not write; choose another output folder")
    clear_prepared(folder)
    prepared = prepare_images(choice, options, lambda step: progress(study.name, step))
    progress(study.name, "write")
    mark = unfinished(study.name, choice)  # stands there until it is known what the images are
    write_text(folder / PREPARED_FILE, json.dumps(mark) + "\n")
    files = _write_images(study.name, choice, prepared, folder)
    record = _record(study, choice, options, prepared, inputs, files, key)
    write_text(folder / PREPARED_FILE, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    sources = {modality: image for modality, image in choice.images.items() if modality in files}
    return PreparedStudy(study.name, folder, sources, record)


class _KeptError(PrepareError):
    """A study that fails without its output folder being touched."""


def _require_clear(choice: Choice, options: PrepareOptions) -> None:
    if choice.unclear and not options.ignore_unclear:
        told = "; ".join(f"{label}: {reason}" for label, reason in choice.unclear)
        raise PrepareError(
            f"{counted(len(choice.unclear), 'image needs', 'images need')} your word ({told}). "
            "Name them (--flair IMAGE, --t1ce IMAGE, ...) or go on without them (--ignore-unclear)"
        )
    if not choice.images:
        told = "; ".join(f"{label}: {reason}" for label, reason in choice.left_out) or "no image"
        raise PrepareError(f"holds no sequence that can be used ({told})")


def read_record(folder: Path) -> dict[str, Any] | None:
    """``prepared.json`` of a prepared study; None where there is none or it is damaged."""
    return read_own_record(folder / PREPARED_FILE)


def _files_hash(image: SourceImage) -> str:
    digest = hashlib.sha256()
    for path in image.files:
        digest.update(file_sha256(path).encode())
    return digest.hexdigest()


def _key(inputs: Mapping[str, str], choice: Choice, options: PrepareOptions) -> str:
    versions = [__version__, *(_version(name) for name in (*_PACKAGES, "deepbet"))]
    content = [sorted(inputs.items()), sorted(choice.unclear), options_record(options), versions]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _complete(folder: Path, record: Mapping[str, Any]) -> bool:
    files = [sequence["output"] for sequence in record["sequences"].values()]
    return all((folder / f["file"]).is_file() and file_sha256(folder / f["file"]) == f["sha256"] for f in files)


def _write_images(name: str, choice: Choice, prepared: PreparedImages, folder: Path) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    if prepared.passed_through:
        return copy_images(name, choice, folder)
    files = {}
    for modality, volume in prepared.volumes.items():
        files[modality] = folder / f"{name}_{modality}.nii.gz"
        write_nifti(volume, files[modality])
    if prepared.mask is not None:  # no NIfTI: it would be taken for a label map
        with atomic_path(folder / "brain_mask.nrrd") as temporary:
            sitk.WriteImage(to_itk(prepared.mask), str(temporary), useCompression=True)
    for modality, registration in prepared.registrations.items():
        with atomic_path(transform_path(folder, modality)) as temporary:
            sitk.WriteTransform(registration.transform, str(temporary))
    return files


def _record(
    study: SourceStudy,
    choice: Choice,
    options: PrepareOptions,
    prepared: PreparedImages,
    inputs: Mapping[str, str],
    files: Mapping[str, Path],
    key: str,
) -> dict[str, Any]:
    """``prepared.json``. Of a DICOM header it keeps what recognition used; no name, number, date or UID."""
    sequences = {}
    for modality, path in files.items():
        image, original = choice.images[modality], prepared.originals[modality]
        registration = prepared.registrations.get(modality)
        sequences[modality] = {
            "source": {"kind": image.kind, "label": image.label, "key": image.key, "files": len(image.files)},
            "source_sha256": inputs[modality],
            "timing_ms": {
                "echo": image.facts.echo_time,
                "repetition": image.facts.repetition_time,
                "inversion": image.facts.inversion_time,
            },
            "recognised": choice.reasons[modality],
            "original": {
                "shape": list(original.data.shape),
                "spacing_mm": [round(step, 4) for step in original.spacing],
                "affine": original.affine.tolist(),
            },
            "registration": None if registration is None else registration.figures(),
            "reference_to_own_world": np.eye(4).tolist() if registration is None else registration.matrix.tolist(),
            "output": {"file": path.name, "sha256": file_sha256(path)},
        }
    return {
        "format": 1,
        "study": study.name,
        "key": key,
        "software": {"medmap-monai": __version__, **{name: _version(name) for name in _PACKAGES}},
        "options": options_record(options),
        "passed_through": prepared.passed_through,
        "reference": prepared.reference,
        "sequences": sequences,
        "skull_strip": prepared.skull,
        "left_out": [{"image": label, "reason": reason} for label, reason in choice.left_out],
        "unclear": [{"image": label, "reason": reason} for label, reason in choice.unclear],
        "warnings": prepared.warnings,
        "notes": [*choice.notes, *prepared.notes],
        "seconds": prepared.seconds,
    }


def _write_table(target: Path, done: list[PreparedStudy]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["study", "status", "modalities", "warnings", "message"])
    for study in done:
        sequences = "+".join(study.record.get("sequences", {}))
        warnings = " | ".join(study.record.get("warnings", []))
        writer.writerow([study.name, "failed" if study.error else "ok", sequences, warnings, study.error])
    write_text(target / TABLE_NAME, text.getvalue())
