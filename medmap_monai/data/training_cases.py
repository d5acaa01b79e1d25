"""What weights were trained on, written beside them, so that an evaluation knows what they have not seen."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from medmap_monai.data.patients import patient_of_study
from medmap_monai.data.study import Study
from medmap_monai.utils.counted import counted
from medmap_monai.utils.file_stamp import file_fingerprint
from medmap_monai.utils.files import file_sha256, write_text
from medmap_monai.utils.json_file import read_json

_SUFFIX = "_cases.json"
#: fold of a case that is neither in training nor in validation, and of one about which nothing is known
UNSEEN, UNKNOWN = "unseen", "unknown"


@dataclass(frozen=True)
class TrainingCases:
    """The cases of a training: case id -> patient.

    train: the weights were fitted to them.
    val: the training was watched on them, and may have been stopped or selected by them.
    images: case id -> fingerprints of its images, by which a copy under another name is recognised.
    window: voxels of the random crops; empty where whole volumes were seen, or nothing is known.
    orientation: axis codes of all images as the network saw them, such as ``LPS``; empty where they differ.
    spacing: voxel size in mm that all images were brought to; empty where they kept theirs.
    """

    train: Mapping[str, str]
    val: Mapping[str, str]
    images: Mapping[str, Sequence[str]] = field(default_factory=dict)
    window: tuple[int, ...] = ()
    orientation: str = ""
    spacing: tuple[float, ...] = ()

    def fold_of(self, case_id: str, patient: str, study: Study | None = None) -> str:
        """``train`` or ``val`` where the weights saw the case, another case of its patient, or its images; else
        ``unseen``."""
        known = {case_id, *self._cases_with_images_of(study)}
        for fold, cases in (("train", self.train), ("val", self.val)):
            if not known.isdisjoint(cases) or patient in self._patients[fold]:
                return fold
        return UNSEEN

    @cached_property
    def _patients(self) -> dict[str, set[str]]:
        return {"train": set(self.train.values()), "val": set(self.val.values())}

    @cached_property
    def _cases_of_image(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for case, images in self.images.items():
            for image in set(images):
                found.setdefault(image, []).append(case)
        return found

    def _cases_with_images_of(self, study: Study | None) -> list[str]:
        """The cases that most images of ``study`` are of; one alone may be a constant image, which many cases have."""
        if study is None or not self.images:
            return []
        images = set(image_fingerprints(study))
        shared = Counter(case for image in images for case in self._cases_of_image.get(image, ()))
        return [case for case, count in shared.items() if 2 * count > len(images)]


def image_fingerprints(study: Study) -> list[str]:
    """Of the files of ``study`` that can be read, each once."""
    found = []
    for path in dict.fromkeys(source.path for source in study.images.values()):
        try:
            found.append(file_fingerprint(path))
        except OSError:
            continue  # told when it is read
    return found


def cases_path(weights: str | os.PathLike[str]) -> Path:
    """Where the cases of ``weights`` are written: ``model_cases.json`` beside ``model.pt``."""
    path = Path(weights)
    return path.with_name(path.stem + _SUFFIX)


def training_cases_of(train: Iterable[Mapping[str, Any]], val: Iterable[Mapping[str, Any]]) -> TrainingCases | None:
    """The cases of two lists of records ``{"case_id", "study"}``; None where one does not say its case."""
    folds: list[dict[str, str]] = []
    images: dict[str, list[str]] = {}
    for records in (train, val):
        cases: dict[str, str] = {}
        for record in records:
            if not isinstance(record, Mapping) or "case_id" not in record:
                return None
            study = record.get("study")
            case_id = str(record["case_id"])
            cases[case_id] = patient_of_study(study) if isinstance(study, Study) else case_id
            if isinstance(study, Study):
                images[case_id] = image_fingerprints(study)
        folds.append(cases)
    return TrainingCases(folds[0], folds[1], images={case: found for case, found in images.items() if found})


def write_training_cases(weights: str | os.PathLike[str], cases: TrainingCases | None) -> None:
    """Write the cases of ``weights``, bound to their bytes; None removes what an earlier training left."""
    path = cases_path(weights)
    if cases is None:
        path.unlink(missing_ok=True)
        return
    content = {"format": 1, "sha256": file_sha256(weights), **asdict(cases)}
    write_text(path, json.dumps(content, indent=1) + "\n")


def read_training_cases(weights: str | os.PathLike[str]) -> TrainingCases | None:
    """The cases of ``weights``; None where no file tells, or it tells of other weights."""
    try:
        content = read_json(cases_path(weights))
        if content["format"] != 1 or content["sha256"] != file_sha256(weights):
            return None
        return training_cases_from(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def training_cases_from(content: Mapping[str, Any] | None) -> TrainingCases | None:
    """Cases from what ``asdict`` made of them; None of None."""
    if content is None:
        return None
    return TrainingCases(
        dict(content["train"]),
        dict(content["val"]),
        {str(case): [str(image) for image in images] for case, images in content.get("images", {}).items()},
        tuple(int(size) for size in content.get("window", ())),
        str(content.get("orientation", "")),
        tuple(float(size) for size in content.get("spacing", ())),
    )


def joined_cases(earlier: TrainingCases | None, now: TrainingCases) -> TrainingCases:
    """The cases of weights that were trained on ``earlier`` before: they have seen those for good."""
    if earlier is None:
        return now
    train = {**earlier.train, **now.train}
    val = {case: patient for case, patient in {**earlier.val, **now.val}.items() if case not in train}
    return replace(now, train=train, val=val, images={**earlier.images, **now.images})


def describe_folds(folds: Sequence[str]) -> str:
    """One sentence on whether weights have seen cases of these folds; empty where they have seen none."""
    told = [_of_weights(folds.count(fold), len(folds), what) for fold, what in _WHAT.items() if fold in folds]
    if UNKNOWN in folds:
        told.append("it is not known which cases the weights were trained on")
    return " and ".join(told)


_WHAT = {"train": "training case", "val": "validation case"}


def _of_weights(number: int, total: int, what: str) -> str:
    return f"{number} of {counted(total, 'case')} {'is a' if number == 1 else 'are'} {what}{'' if number == 1 else 's'}"
