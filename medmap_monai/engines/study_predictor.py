"""Segment studies one after the other; a study that fails is reported and the others are finished."""

from __future__ import annotations

import csv
import io
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator
from monai.utils.enums import CommonKeys
from torch import nn

from medmap_monai.data.study_dataset import ERROR
from medmap_monai.engines.training_checkpoint import load_model
from medmap_monai.modalities import SUBSET_SEPARATOR, Modalities
from medmap_monai.utils.files import write_text
from medmap_monai.utils.output import PREDICTIONS_NAME, read_predictions, require_writable

COLUMNS = ("case_id", "status", "modalities_used", "modalities_absent", "seconds", "output", "message")


class StudiesFailedError(RuntimeError):
    """Some studies could not be segmented; the others are complete.

    Args:
        failures: message by case id.
        finished: how many studies were segmented.
    """

    def __init__(self, failures: dict[str, str], finished: int) -> None:
        lines = "\n".join(f"  {message}" for message in failures.values())
        super().__init__(f"{len(failures)} of {len(failures) + finished} studies failed, the others are done:\n{lines}")
        self.failures = failures


class StudyPredictor(SupervisedEvaluator):
    """``SupervisedEvaluator`` for ``run inference`` and ``medmap predict``.

    Weights are loaded once, when the run starts. ``predictions.csv`` in the output folder gets one row per study: the
    modalities used and absent, voxels and volume (ml) of every class on the original grid, seconds, and the message
    of a failure. Rows of studies that an earlier run finished are kept.

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
        **kwargs: Any,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.modalities = Modalities(tuple(modalities))
        self.classes = tuple(classes)
        self.checkpoint = checkpoint
        self.rows: dict[str, dict[str, str]] = {}
        self.failures: dict[str, str] = {}
        self.finished: list[str] = []
        prepare = PrepareBatchExtraInput({"modality_mask": "modality_mask"})
        super().__init__(torch.device(device), val_data_loader, network, prepare_batch=prepare, **kwargs)

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
        self.rows, self.failures, self.finished = read_predictions(self.output_dir), {}, []
        skipped = getattr(records, "skipped", [])
        if skipped:
            logging.getLogger(__name__).info("%d studies are done already and skipped", len(skipped))
        if not len(records):
            return
        if self.checkpoint is not None:
            load_model(self.network, self.checkpoint)
        super().run(global_epoch)
        if self.failures:
            raise StudiesFailedError(self.failures, len(self.finished))

    @property
    def records(self) -> Any:
        """What the loader's data set was made of: :class:`~medmap_monai.data.inference_records.InferenceRecords`."""
        return getattr(getattr(self.data_loader, "dataset", None), "data", [])

    def _iteration(self, engine: Any, batchdata: dict[str, Any]) -> dict[str, Any]:
        case_id = batchdata["case_id"][0]
        if ERROR in batchdata:
            self.failures[case_id] = batchdata[ERROR][0]
            self._add_row(case_id, status="failed", message=batchdata[ERROR][0])
            return {}
        start = time.perf_counter()
        mask = batchdata["modality_mask"][0]
        super()._iteration(engine, batchdata)  # handlers write the label map before it returns
        seconds = time.perf_counter() - start
        output = engine.state.output[0]
        used = self.modalities.select(mask)
        absent = [name for name in self.modalities if name not in used]
        self.finished.append(case_id)
        self._add_row(
            case_id,
            status="ok",
            modalities_used=SUBSET_SEPARATOR.join(used),
            modalities_absent=SUBSET_SEPARATOR.join(absent),
            seconds=f"{seconds:.2f}",
            output=os.path.relpath(output["saved_to"], self.output_dir),
            **self._volumes(output[CommonKeys.PRED]),
        )
        engine.state.output = {}  # nothing of a finished study stays in memory
        return engine.state.output

    def _volumes(self, label_map: Any) -> dict[str, str]:
        """Voxel count and volume (ml) of every foreground class of a class-index map on the original grid."""
        counts = np.bincount(np.asarray(label_map, dtype=np.int64).ravel(), minlength=len(self.classes))
        voxel_ml = float(np.abs(np.linalg.det(np.asarray(label_map.affine)[:3, :3]))) / 1000.0
        values = {}
        for index, name in list(enumerate(self.classes))[1:]:
            values[f"voxels_{name}"] = str(int(counts[index]))
            values[f"volume_ml_{name}"] = f"{counts[index] * voxel_ml:.3f}"
        return values

    def _add_row(self, case_id: str, **values: str) -> None:
        """Set the case's row and write the file anew, so that it is complete after every study."""
        self.rows[case_id] = {"case_id": case_id, **values}
        volumes = [f"{kind}_{name}" for name in self.classes[1:] for kind in ("voxels", "volume_ml")]
        columns = [*COLUMNS[:4], *volumes, *COLUMNS[4:]]
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows[case] for case in sorted(self.rows))
        write_text(self.output_dir / PREDICTIONS_NAME, text.getvalue())
