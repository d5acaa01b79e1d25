"""While a predictor runs: from the class scores of a prepared study to what goes back to its reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from scipy.ndimage import maximum_filter

from medmap_monai.clinical.extras import ExtraNeededError
from medmap_monai.clinical.prepare_folder import PreparedStudy
from medmap_monai.clinical.read_image import read_image
from medmap_monai.clinical.study_page import PAGE_NAME, write_study_page
from medmap_monai.clinical.study_results import StudyResults, results_are_current, write_study_results
from medmap_monai.clinical.volume import Volume, read_nifti
from medmap_monai.data.studies import scan_studies
from medmap_monai.transforms.restore import class_probabilities
from medmap_monai.utils.output import read_record, record_path


class NativeResults:
    """Write label maps on the original grids, DICOM SEG and a page for every study that a predictor finishes.

    Args:
        studies: prepared studies with the images they came from.
        output: folder of the predictor; a study's files go to ``output``/STUDY.

    Attributes:
        written: files by study. problems: message by study, where something could not be written.
    """

    def __init__(self, studies: Sequence[PreparedStudy], output: Path) -> None:
        self.output = output
        self.studies: dict[str, PreparedStudy] = {}
        done = {study.folder: study for study in studies if not study.error}
        for root in {folder.parent for folder in done}:  # as the predictor reads them: names depend on the neighbours
            for found in scan_studies(root).studies:
                folder = Path(next(iter(found.images.values())).path).parent
                if folder in done:
                    self.studies[found.case_id] = done[folder]
        self.written: dict[str, StudyResults] = {}
        read = {study.name for study in self.studies.values()}
        self.problems: dict[str, str] = {
            study.name: f"study {study.name}: what lies in {study.folder} is not read as one study"
            for study in done.values()
            if study.name not in read
        }
        self._kept: tuple[str, Volume] | None = None

    def forget_incomplete(self) -> None:
        """Have studies predicted again whose label map is there, but not what belongs to it."""
        for case_id, study in self.studies.items():
            record = read_record(self.output, case_id)
            if record is not None and not results_are_current(self.output / study.name, study, record):
                record_path(self.output, case_id).unlink(missing_ok=True)

    def attach(self, predictor: Any) -> None:
        """Listen to a :class:`~medmap_monai.engines.study_predictor.StudyPredictor`, and keep it to these studies.

        What else lies among the prepared studies is of earlier runs, or of studies that could not be prepared now.
        """
        records = predictor.records
        records[:] = [record for record in records if str(record["case_id"]) in self.studies]
        predictor.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._keep)
        predictor.add_event_handler(Events.ITERATION_COMPLETED, self._write)

    def _keep(self, engine: Any) -> None:
        """Class scores with their place, before they are turned into a label map."""
        scores = engine.state.output["pred"]
        affine = np.asarray(getattr(scores, "affine", np.eye(4)), dtype=np.float64).reshape(-1, 4, 4)[0]
        values = torch.as_tensor(scores).as_subclass(torch.Tensor)[0].detach().float().cpu()
        self._kept = (str(engine.state.batch["case_id"][0]), Volume(class_probabilities(values).numpy(), affine))

    def _write(self, engine: Any) -> None:
        if self._kept is None:  # the study failed before it reached the network
            return
        (case_id, scores), self._kept = self._kept, None
        study = self.studies.get(case_id)
        if study is None or case_id not in engine.finished:
            return
        record = read_record(self.output, case_id) or {}
        try:
            self.written[study.name] = self._results(study, case_id, scores, record)
        except Exception as error:  # one study's page must not end the run of the others
            self.problems[study.name] = f"study {study.name}: {type(error).__name__}: {error}"

    def _results(self, study: PreparedStudy, case_id: str, scores: Volume, record: Mapping[str, Any]) -> StudyResults:
        folder = self.output / study.name
        labels = read_classes(self.output / str(record["output"]), record)
        used = [name for name in record["modalities"]["used"] if name in study.sources]
        images = {name: read_nifti(study.folder / study.record["sequences"][name]["output"]["file"]) for name in used}
        decided = as_labelled(background_outside(scores, images), labels)
        results = write_study_results(study, decided, record, folder)
        native = {name: read_classes(path, record) for name in used if (path := results.labels.get(name))}
        originals = {} if study.record["passed_through"] else {name: read_image(study.sources[name]) for name in native}
        files = [*results.labels.values(), *results.segmentations.values()]
        try:
            write_study_page(
                folder / PAGE_NAME,
                study.name,
                record,
                images,
                labels,
                study.record,
                originals,
                native,
                [path.relative_to(folder).as_posix() for path in files],
                results.notes,
            )
        except ExtraNeededError as error:
            results.notes.append(str(error))
        return results


def background_outside(probabilities: Volume, images: Mapping[str, Volume]) -> Volume:
    """``probabilities`` (K, X, Y, Z) with background where no image shows anything: air, skull, beyond the slices."""
    outside = np.ones(probabilities.data.shape[1:], dtype=bool)
    for image in images.values():
        shown = Volume((image.data != 0).astype(np.float32), image.affine)
        outside &= shown.on_grid(outside.shape, probabilities.affine, interpolation="nearest") == 0
    masked = probabilities.data.copy()
    masked[:, outside] = 0
    masked[0, outside] = 1
    return Volume(masked, probabilities.affine)


def as_labelled(probabilities: Volume, labels: Volume) -> Volume:
    """``probabilities`` (K, X, Y, Z) with background away from what ``labels`` segments.

    So that what was taken out of the label map, such as findings too small to be believed, does not come back on the
    original images. A voxel of the scores around the label map stays, as borders are interpolated.
    """
    step = max(probabilities.spacing)
    reach = [int(np.ceil(step / own)) for own in labels.spacing]
    near = maximum_filter(labels.data > 0, size=[2 * n + 1 for n in reach])
    there = Volume(near.astype(np.float32), labels.affine)
    away = there.on_grid(probabilities.data.shape[1:], probabilities.affine, interpolation="nearest") == 0
    masked = probabilities.data.copy()
    masked[:, away] = 0
    masked[0, away] = 1
    return Volume(masked, probabilities.affine)


def read_classes(path: Path, record: Mapping[str, Any]) -> Volume:
    """A label map that was written with a record's label values, as class indices."""
    image = nib.load(path)
    values = np.asarray(image.dataobj)  # type: ignore[attr-defined]
    known = {int(index): int(value) for index, value in (record.get("label_values") or {}).items()}
    classes = np.zeros(values.shape, dtype=np.uint8)
    for index in range(1, len(record["classes"])):
        classes[values == known.get(index, index)] = index
    return Volume(classes, np.asarray(image.affine, dtype=np.float64))  # type: ignore[attr-defined]
