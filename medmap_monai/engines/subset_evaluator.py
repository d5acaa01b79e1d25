"""Evaluate a network on every subset of the modalities of every study."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from monai.data import DataLoader
from monai.data.utils import no_collation
from monai.engines import SupervisedEvaluator
from torch import nn

from medmap_monai.data.edition import Edition
from medmap_monai.data.study_dataset import ERROR, ORIGIN, failure_of
from medmap_monai.data.training_cases import UNKNOWN, read_training_cases
from medmap_monai.engines.case_maps import write_case_maps
from medmap_monai.engines.case_origin import forget_changed
from medmap_monai.engines.case_scorer import CaseScorer
from medmap_monai.engines.evaluation_cases import EvaluationCases
from medmap_monai.engines.evaluation_progress import EvaluationProgress
from medmap_monai.engines.evaluation_samples import FILE, EvaluationSamples
from medmap_monai.engines.evaluation_work import EvaluationWork
from medmap_monai.engines.fingerprint import software_versions, weights_sha256
from medmap_monai.engines.how_segmented import describe_inferer
from medmap_monai.engines.results_store import FAILURES_FILE, METRICS_FILE, SUMMARY_FILE, ResultsStore, read_metrics
from medmap_monai.engines.score_pool import ScorePool
from medmap_monai.engines.training_checkpoint import load_model
from medmap_monai.engines.unlike_training import unlike_training
from medmap_monai.inferers.subset_sweep import SubsetSweepInferer
from medmap_monai.metrics.regions import Region
from medmap_monai.metrics.reliability import RELIABILITY_FILE, write_reliability
from medmap_monai.metrics.scoring import Scoring
from medmap_monai.metrics.summary import summarise
from medmap_monai.modalities import Modalities
from medmap_monai.transforms.pipelines import fixed_grid
from medmap_monai.utils.counted import counted
from medmap_monai.utils.files import file_sha256, write_text
from medmap_monai.utils.half_precision import half_precision

#: entry of image and summary: what was noticed when a study was read
NOTES = "notes"
_log = logging.getLogger(__name__)


class EvaluationIncompleteError(RuntimeError):
    """Some cases could not be evaluated; the others are complete and all results are written."""


class SubsetEvaluator:
    """Score every subset of the modalities of every study, each study's encoders run once.

    Writes ``metrics.csv``, ``summary.json``, ``failures.csv`` and ``reliability.json`` into ``output_dir``. A finished
    case is kept when the evaluation is interrupted and started again; a study that cannot be evaluated becomes a row
    of ``failures.csv`` while the others go on. Several processes share the work by shards; whoever sees the last case
    finished writes the merged files, which are the same bytes however the work was divided.

    Nothing is read before :meth:`run`, so a bundle's configuration can be instantiated without data.

    Args:
        device: where to run.
        network: a network that encodes each modality on its own and decodes any subset.
        dataset: the cases, how they are preprocessed, and what they are called.
        inferer: a :class:`~medmap_monai.inferers.subset_sweep.SubsetSweepInferer`.
        modalities: names in channel order.
        output_dir: folder of the results.
        scoring: regions, subsets, empty regions, confidence intervals; default is what the studies' edition says.
        checkpoint: weights to load, strictly, before the evaluation; None takes the network as it is.
        work: shards, processes and progress; changes no result.
        keep_maps: of how many cases (the first complete ones by name) the label maps are kept for the report.
        amp: mixed precision, in the type of :func:`~medmap_monai.utils.half_precision.half_precision`.
        handlers: further ignite handlers for the MONAI evaluator that runs the cases.

    Raises:
        ValueError: for an unknown subset.
    """

    def __init__(
        self,
        device: torch.device | str,
        network: nn.Module,
        dataset: EvaluationSamples,
        inferer: SubsetSweepInferer,
        modalities: Sequence[str],
        output_dir: str | os.PathLike[str],
        scoring: Scoring | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        work: EvaluationWork | None = None,
        keep_maps: int = 1,
        amp: bool = False,
        handlers: Sequence[Any] = (),
    ) -> None:
        self.device = torch.device(device)
        self.network = network
        self.dataset = dataset
        self.inferer = inferer
        self.modalities = modalities if isinstance(modalities, Modalities) else Modalities(tuple(modalities))
        self.output_dir = Path(output_dir)
        self.scoring = scoring or Scoring()
        self.subset_masks = self.scoring.subset_masks(self.modalities)
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.work = work or EvaluationWork()
        self.keep_maps = keep_maps
        self.amp = amp
        self.handlers = list(handlers)

    def run(self) -> dict[str, Any] | None:
        """Evaluate this process's share, and merge when every share is there.

        Returns:
            the summary, or None while other shards are still at work.

        Raises:
            EvaluationIncompleteError: when a case failed; the message says which and why.
            StaleResultsError: when ``output_dir`` holds results of another checkpoint or setting.
            ValueError: no case, a case id that occurs twice, or shards missing at a merge.
        """
        cases = EvaluationCases.read(self.dataset, self.checkpoint)
        edition = self._edition_of(cases)
        self._seen = None if self.checkpoint is None else read_training_cases(self.checkpoint)
        if self.checkpoint is not None and not self.work.merge_only:
            load_model(self.network, self.checkpoint)
        self._classes = edition.classes if edition else ()
        self._kept_cases = set(cases.complete(self.modalities)[: self.keep_maps])
        regions = self.scoring.regions_of(edition)
        store = ResultsStore(self.output_dir, self._settings(cases, regions))
        if not self.work.merge_only:
            self._evaluate(store, self.work.share(cases.records), regions)
        elsewhere = [c for c in cases.names if not store.finished(c) and not store.failed(c)]
        if elsewhere and not self.work.merge_only:
            _log.info("%s of other shards to wait for; the last shard will merge", counted(len(elsewhere), "case"))
            return self._raise_for_failures(store, self.work.share(cases.names), None)
        return self._merge(store, cases)

    def _edition_of(self, cases: EvaluationCases) -> Edition | None:
        if self.scoring.edition is not None:
            return self.scoring.edition
        try:
            return cases.edition()
        except ValueError:
            if self.scoring.regions is None:
                raise
            return None

    def _settings(self, cases: EvaluationCases, regions: Sequence[Region]) -> dict[str, Any]:
        """Everything that changes a score; a folder holds the scores of one such set only."""
        if self.checkpoint is not None and self.checkpoint.is_file():
            weights = {"file": self.checkpoint.name, "sha256": file_sha256(self.checkpoint)}
        else:
            weights = {"file": "", "sha256": weights_sha256(self.network)}
        return {
            "checkpoint": weights,
            "network": type(self.network).__name__,
            "protocol": self.dataset.protocol,
            "inference": describe_inferer(self.inferer),
            **fixed_grid(self.dataset.transform),
            "amp": self.amp,
            "modalities": list(self.modalities),
            "subsets": [self.modalities.subset_name(mask) for mask in self.subset_masks],
            "classes": list(self._classes),
            "regions": {r.name: {"classes": list(r.classes), "minimum_voxels": r.minimum_voxels} for r in regions},
            "edge_cases": self.scoring.edge_cases.as_dict(),
            "smallest_finding": self.scoring.smallest_finding,
            "metrics": self.scoring.units,
            "data": cases.name,
            "synthetic": cases.synthetic,
            "versions": software_versions(),
        }

    def _evaluate(self, store: ResultsStore, records: Sequence[Mapping[str, Any]], regions: Sequence[Region]) -> None:
        again = forget_changed(store, records, self.dataset.transform)
        if again:
            told = counted(len(again), "case is", "cases are")
            _log.warning(
                "%s evaluated again, as files have changed, or what the split grants: %s", told, ", ".join(again[:5])
            )
        pending = [r for r in records if not self._is_done(store, str(r["case_id"]))]
        if not pending:
            return
        loader = DataLoader(
            EvaluationSamples(pending, self.dataset.transform),
            batch_size=1,
            num_workers=self.work.num_workers,
            collate_fn=no_collation,
        )
        self.network.to(self.device)
        pool = ScorePool(self.work.score_workers(self.device))
        scorer = CaseScorer(
            self.network, self.inferer, self.modalities, self.subset_masks, regions, self.scoring, self.device, pool
        )
        with pool, EvaluationProgress(len(pending), len(records) - len(pending), self.work.progress) as progress:

            def update(engine: Any, batch: list[dict[str, Any]]) -> dict[str, Any]:
                case_id = str(batch[0]["case_id"])
                failure = self._evaluate_case(engine, scorer, store, case_id, batch[0])
                if failure is not None:
                    store.write_failure(case_id, *failure)
                    if self.device.type == "cuda":
                        torch.cuda.empty_cache()  # after running out of memory the next case starts from none
                progress.advance(case_id)
                return {"case_id": case_id, "failed": failure is not None}

            SupervisedEvaluator(
                self.device, loader, self.network, iteration_update=update, val_handlers=self.handlers
            ).run()

    def _is_done(self, store: ResultsStore, case_id: str) -> bool:
        if case_id in self._kept_cases and not store.maps_path(case_id).is_file():
            return False
        return store.finished(case_id)

    def _evaluate_case(
        self,
        engine: SupervisedEvaluator,
        scorer: CaseScorer,
        store: ResultsStore,
        case_id: str,
        sample: dict[str, Any],
    ) -> tuple[str, str] | None:
        """Score one case; the (file, reason) of a failure is returned, so that the others go on."""
        if ERROR in sample:
            return str(sample.get(FILE, "")), str(sample[ERROR])
        try:
            with (
                engine.mode(self.network),
                torch.autocast(self.device.type, half_precision(self.device), enabled=self.amp),
            ):
                scores, maps = scorer.score(case_id, sample, keep_maps=case_id in self._kept_cases)
            if maps:
                write_case_maps(scorer.cut(case_id, sample, maps, self._classes), store.maps_path(case_id))
            notes = [str(note) for note in getattr(sample["image"], "meta", {}).get(NOTES, ())]
            notes += unlike_training(sample["image"], getattr(self.inferer, "roi_size", -1), self._seen)
            for note in notes:
                _log.warning("case %s: %s", case_id, note)
            if ORIGIN in sample:
                store.write_origin(case_id, {**sample[ORIGIN], **({NOTES: notes} if notes else {})})
            present = self.modalities.subset_name(sample["present_mask"].tolist())
            store.write_case(case_id, present, scores, str(sample.get("fold", UNKNOWN)))
        except Exception as error:
            _log.debug("case %s failed", case_id, exc_info=True)
            return failure_of(error)
        return None

    def _merge(self, store: ResultsStore, cases: EvaluationCases) -> dict[str, Any]:
        for record in cases.records:  # model_cases.json may have come, or changed, after a case was finished
            store.tell_fold(str(record["case_id"]), str(record.get("fold", UNKNOWN)))
        failed = store.merge(cases.names)
        table = read_metrics(self.output_dir / METRICS_FILE)
        bootstrap = self.scoring.bootstrap
        summary = {
            "format": 1,
            **store.settings,
            "seed": bootstrap.seed,
            "confidence": bootstrap.confidence,
            "resamples": bootstrap.resamples,
            "n_cases": int(table["case_id"].nunique()),
            "n_without_asked_subset": len(cases.names) - len(failed) - int(table["case_id"].nunique()),
            "n_failed": len(failed),
            "folds": cases.folds,
            "failed": failed,
            NOTES: {case: found for case in cases.names if (found := store.read_origin(case).get(NOTES))},
            **summarise(table, self.modalities, bootstrap),
        }
        write_text(self.output_dir / SUMMARY_FILE, json.dumps(summary, indent=2, allow_nan=False) + "\n")
        if summary["scores"]:
            write_reliability(summary, self.output_dir / RELIABILITY_FILE)
        self._raise_for_failures(store, cases.names, summary)
        return summary

    def _raise_for_failures(
        self, store: ResultsStore, cases: Sequence[str], summary: dict[str, Any] | None
    ) -> dict[str, Any] | None:
        failed = [case for case in cases if store.failed(case)]
        if failed:
            reasons = [pd.read_csv(store.failure_path(case), dtype=str, keep_default_na=False) for case in failed[:3]]
            rows = [frame.iloc[0] for frame in reasons]
            shown = "; ".join(": ".join(filter(None, (row["case_id"], row["file"], row["reason"]))) for row in rows)
            more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
            raise EvaluationIncompleteError(
                f"{len(failed)} of {counted(len(cases), 'case')} could not be evaluated ({shown}{more}); "
                f"the others are complete, see {self.output_dir / FAILURES_FILE}"
            )
        return summary
