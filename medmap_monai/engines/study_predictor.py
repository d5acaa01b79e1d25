"""Segment studies one after the other; a study that fails is reported and the others are finished."""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys
from torch import nn

from medmap_monai.data.study import Study, StudyError
from medmap_monai.data.study_dataset import ERROR, ORIGIN, failure_text
from medmap_monai.data.training_cases import TrainingCases, read_training_cases
from medmap_monai.engines.corrected_maps import keep_corrected
from medmap_monai.engines.finished_prediction import files_of, why_again
from medmap_monai.engines.prediction_facts import PredictionFacts, collect_facts
from medmap_monai.engines.prediction_record import COLUMNS, failed_record, finished_record, table_row, where_from
from medmap_monai.engines.result_flags import result_flags
from medmap_monai.engines.studies_failed import StudiesFailedError
from medmap_monai.engines.training_checkpoint import load_model
from medmap_monai.engines.unlike_training import unlike_training
from medmap_monai.inferers.blend import NOT_FINITE
from medmap_monai.modalities import Modalities
from medmap_monai.transforms.nifti_provenance import read_provenance
from medmap_monai.transforms.restore import PROVENANCE
from medmap_monai.transforms.small_findings import REMOVED
from medmap_monai.utils.colour_tables import write_colour_tables
from medmap_monai.utils.counted import counted
from medmap_monai.utils.files import write_text
from medmap_monai.utils.half_precision import amp_arguments
from medmap_monai.utils.output import (
    PredictionTable,
    label_map_path,
    read_predictions,
    read_record,
    record_path,
    require_writable,
)
from medmap_monai.utils.preparation import preparation_warnings

NOTES = "notes"
_log = logging.getLogger(__name__)


class StudyPredictor(SupervisedEvaluator):
    """``SupervisedEvaluator`` for ``run inference`` and ``medmap predict``.

    Weights are loaded once, when the run starts. Every study gives a label map, a JSON record beside it that says
    where it comes from, and a row of ``predictions.csv``: the modalities used, absent and unusable, voxels and volume
    (ml) of every class on the original grid, model, weights, expected quality, seconds, and the message of a failure.
    Whatever goes wrong with one study is that study's failed row.

    A study is done already when its record names the same weights, configuration and input files, by their hashes;
    any other result in the folder is made anew, and :attr:`again` says why. A label map that was corrected by hand is
    kept in ``replaced/`` then.

    Args:
        device: where to run.
        val_data_loader: batches of one study, from a :class:`~medmap_monai.data.study_dataset.StudyDataset`.
        network: the network.
        inferer: a :class:`~medmap_monai.inferers.modality_sliding_window.ModalitySlidingWindowInferer`.
        postprocessing: ends with :class:`~medmap_monai.transforms.restore.SaveLabelMapd`.
        output_dir: output folder.
        modalities: names in channel order.
        classes: name of every class, background first.
        checkpoint: weights to load strictly; None keeps those of ``network``.
        bundle: folder of the bundle, for its name and version; by default found from the checkpoint.
        protocol: name of the preprocessing, for the records.
        reliability: expected quality; by default ``reliability.json`` beside the checkpoint.
        kwargs: every other argument of ``SupervisedEvaluator``.
    """

    def __init__(
        self,
        device: str | torch.device,
        val_data_loader: Any,
        network: nn.Module,
        output_dir: str | os.PathLike[str],
        modalities: Sequence[str],
        classes: Sequence[str],
        checkpoint: str | os.PathLike[str] | None = None,
        bundle: str | os.PathLike[str] | None = None,
        protocol: str = "",
        reliability: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.modalities = Modalities(tuple(modalities))
        self.classes = tuple(classes)
        self.checkpoint = checkpoint
        self.bundle = bundle
        self.protocol = protocol
        self.reliability = reliability
        self.rows: dict[str, dict[str, str]] = {}
        self.failures: dict[str, str] = {}
        self.finished: list[str] = []
        self.skipped: list[str] = []
        self.again: dict[str, str] = {}
        self.facts: PredictionFacts | None = None
        self._seen: TrainingCases | None = None
        self._amp = bool(kwargs.get("amp", False))
        if self._amp:
            kwargs["amp_kwargs"] = amp_arguments(device, kwargs.get("amp_kwargs"))
        self._postprocessing = kwargs.get("postprocessing")
        prepare = PrepareBatchExtraInput({"modality_mask": "modality_mask"})
        super().__init__(torch.device(device), val_data_loader, network, prepare_batch=prepare, **kwargs)
        self.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._require_finite)

    def run(self, global_epoch: int = 1) -> None:  # type: ignore[override]
        """Segment every study of the loader.

        Raises:
            StudiesFailedError: at the end, when studies failed.
            FileNotFoundError, ValueError: no studies, no weights, or weights that do not fit.
            OSError: the output folder is not writable.
        """
        records = self.records
        problem = getattr(records, "problem", None)
        if problem is not None:
            raise problem
        require_writable(self.output_dir)
        self.failures, self.finished, self.skipped, self.again = {}, [], [], {}
        dataset = getattr(self.data_loader, "dataset", None)
        facts = collect_facts(
            self.network, self.checkpoint, self._parts(dataset), self.bundle, self.protocol, self.reliability
        )
        self.facts = facts
        self._seen = None if self.checkpoint is None else read_training_cases(self.checkpoint)
        for remark in facts.remarks:
            _log.warning("%s", remark)
        self._leave_out_finished(records, facts)
        self.rows = read_predictions(self.output_dir)
        volumes = [f"{kind}_{name}" for name in self.classes[1:] for kind in ("voxels", "volume_ml")]
        self._table = PredictionTable(self.output_dir, [*COLUMNS[:5], *volumes, *COLUMNS[5:]])
        self._add_lost_rows()
        if len(records):
            if self.checkpoint is not None:
                load_model(self.network, self.checkpoint)
            self.state.epoch_length = len(self.data_loader)  # type: ignore[arg-type]
            try:
                super().run(global_epoch)
            finally:
                self._table.tidy()
        if self.failures:
            raise StudiesFailedError(self.failures, len(self.finished))

    @property
    def records(self) -> Any:
        """What the loader's data set was made of: :class:`~medmap_monai.data.inference_records.InferenceRecords`."""
        return getattr(getattr(self.data_loader, "dataset", None), "data", [])

    def _parts(self, dataset: Any) -> dict[str, Any]:
        """Everything beside the weights that decides about a label map."""
        return {
            "preprocessing": getattr(dataset, "transform", None),
            "inferer": self.inferer,
            "postprocessing": self._postprocessing,
            "modalities": list(self.modalities),
            "classes": self.classes,
            "amp": self._amp,
        }

    def _leave_out_finished(self, records: Any, facts: PredictionFacts) -> None:
        """Drop the studies whose result is there already from ``records``; remember why others are done again."""
        if not hasattr(records, "overwrite"):
            return
        waiting = []
        for record in records:
            case_id, study = str(record["case_id"]), record.get("study")
            before = read_record(self.output_dir, case_id) if isinstance(study, Study) else None
            if before is None or not isinstance(study, Study) or before.get("status") != "ok":
                waiting.append(record)
                continue
            reason = (
                "asked for" if records.overwrite else why_again(self.output_dir, study, before, facts, self.modalities)
            )
            if reason is None:
                self.skipped.append(case_id)
            else:
                self.again[case_id] = reason
                waiting.append(record)
        records[:] = waiting
        if self.skipped:
            _log.info("%s done already and skipped", counted(len(self.skipped), "study is", "studies are"))
        for reason, count in Counter(self.again.values()).items():
            _log.info("%s done again: %s", counted(count, "study is", "studies are"), reason)

    def _add_lost_rows(self) -> None:
        """Give finished studies the row that a run which was killed between record and row did not write."""
        lost = [case_id for case_id in self.skipped if self.rows.get(case_id, {}).get("status") != "ok"]
        for case_id in lost:
            record = read_record(self.output_dir, case_id)
            if record is not None:
                self.rows[case_id] = table_row(record)
                self._table.add(self.rows[case_id])
        if lost:
            self._table.tidy()

    def _require_finite(self, engine: Any) -> None:
        """NaN and Inf in the class scores would become a label map that looks like any other."""
        scores = engine.state.output[CommonKeys.PRED]
        if not bool(torch.isfinite(scores).all()):
            case_id = str(engine.state.batch["case_id"][0])
            raise StudyError(case_id, NOT_FINITE)

    def _iteration(self, engine: Any, batchdata: dict[str, Any]) -> dict[str, Any]:
        case_id = str(batchdata["case_id"][0])
        start = time.perf_counter()
        try:
            if ERROR in batchdata:
                self._finish(failed_record(case_id, batchdata[ERROR][0], self._facts))
            else:
                self._finish(self._segment(engine, case_id, batchdata, start))
        except Exception as error:
            _log.debug("case %s failed", case_id, exc_info=True)
            self._finish(failed_record(case_id, failure_text(case_id, error), self._facts))
            if self.state.device is not None and self.state.device.type == "cuda":
                torch.cuda.empty_cache()  # after running out of memory the next study starts from none
        engine.state.output = {}  # nothing of a finished study stays in memory
        return engine.state.output

    @property
    def _facts(self) -> PredictionFacts:
        assert self.facts is not None
        return self.facts

    def _segment(self, engine: Any, case_id: str, batchdata: dict[str, Any], start: float) -> dict[str, Any]:
        """Segment one study, write its label map, and return its record."""
        corrected = keep_corrected(self.output_dir, case_id, read_record(self.output_dir, case_id))
        # what an interrupted or failing run leaves must not pass for the result that the old record describes
        record_path(self.output_dir, case_id).unlink(missing_ok=True)
        origin: dict[str, Any] = json.loads(batchdata[ORIGIN][0]) if ORIGIN in batchdata else {}
        used = self.modalities.select(batchdata["modality_mask"][0])
        inputs = files_of(self.modalities, origin.get("inputs", {}))
        told = where_from(self._facts, case_id, self.modalities, used, origin, self.classes)
        batchdata[PROVENANCE] = [
            json.dumps({**told, "inputs": {name: file["sha256"] for name, file in inputs.items()}})
        ]
        notes = preparation_warnings(file["file"] for file in inputs.values())
        notes += _texts([batchdata.get(NOTES), getattr(batchdata[CommonKeys.IMAGE], "meta", {}).get(NOTES)])
        notes += unlike_training(batchdata[CommonKeys.IMAGE][0], getattr(self.inferer, "roi_size", -1), self._seen)
        if corrected is not None:
            name = os.path.relpath(corrected, self.output_dir)
            notes.append(f"the label map that was there had been changed since it was written; it is kept as {name}")
        super()._iteration(engine, batchdata)  # handlers write the label map before it returns
        output = engine.state.output[0]
        notes += _texts([output.get(REMOVED)])
        if origin.get("label_values"):
            values = {int(index): int(value) for index, value in origin["label_values"].items()}
            write_colour_tables(self.output_dir, origin["edition"], values, self.classes)
        return finished_record(
            {**told, "inputs": inputs},
            label_map=output[CommonKeys.PRED],
            quality=self._facts.expected(used),
            notes=notes,
            plausibility=result_flags(output),
            device=str(self.state.device),
            seconds=time.perf_counter() - start,
            saved=Path(output["saved_to"]),
            folder=self.output_dir,
        )

    def _finish(self, record: dict[str, Any]) -> None:
        """Write the record of a study and its row; a map that the record does not describe goes."""
        case_id = record["case_id"]
        if record["status"] == "ok":
            self.finished.append(case_id)
        else:
            self.failures[case_id] = record["message"]
            path = label_map_path(self.output_dir, case_id)
            if path.is_file() and read_provenance(path) is not None:  # what was corrected by hand stays
                keep_corrected(self.output_dir, case_id, read_record(self.output_dir, case_id))
                path.unlink()
        write_text(record_path(self.output_dir, case_id), json.dumps(record, indent=1) + "\n")
        self.rows[case_id] = table_row(record)
        self._table.add(self.rows[case_id])


def _texts(value: Any) -> list[str]:
    """Every text in nested lists, as collating leaves them, once."""
    if isinstance(value, str):
        return [value]
    found = [text for item in value for text in _texts(item)] if isinstance(value, list | tuple) else []
    return list(dict.fromkeys(found))
