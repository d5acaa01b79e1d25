"""Evaluate a network on every subset of the modalities of every study."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from monai.data import DataLoader
from monai.data.utils import no_collation
from monai.engines import SupervisedEvaluator
from monai.utils import look_up_option
from torch import nn

from medmap_monai.data.editions import Edition, get_edition
from medmap_monai.data.evaluation_records import EvaluationRecords, RecordSource
from medmap_monai.data.study_dataset import ERROR, ORIGIN, failure_of
from medmap_monai.data.training_cases import UNKNOWN, describe_folds, read_training_cases
from medmap_monai.engines.case_maps import write_case_maps
from medmap_monai.engines.case_origin import forget_changed
from medmap_monai.engines.case_scorer import CaseScorer
from medmap_monai.engines.evaluation_progress import EvaluationProgress
from medmap_monai.engines.evaluation_samples import FILE, EvaluationSamples
from medmap_monai.engines.fingerprint import software_versions, weights_sha256
from medmap_monai.engines.results_store import FAILURES_FILE, METRICS_FILE, SUMMARY_FILE, ResultsStore, read_metrics
from medmap_monai.engines.score_pool import ScorePool, cores_beside_a_gpu
from medmap_monai.engines.training_checkpoint import load_model
from medmap_monai.inferers.subset_sweep import SubsetSweepInferer
from medmap_monai.metrics.bootstrap import DEFAULT_RESAMPLES
from medmap_monai.metrics.edge_cases import EdgeCases
from medmap_monai.metrics.lesion_wise import LESION_UNITS
from medmap_monai.metrics.region_scores import METRIC_UNITS
from medmap_monai.metrics.regions import Region, make_regions
from medmap_monai.metrics.reliability import RELIABILITY_FILE, write_reliability
from medmap_monai.metrics.summary import summarise
from medmap_monai.modalities import Modalities
from medmap_monai.transforms.pipelines import fixed_grid
from medmap_monai.utils.files import file_sha256, write_text

PROTOCOLS = ("clinical", "legacy")
#: published post-processing: a predicted ET of fewer voxels is erased; always reported beside ET
PUBLISHED_MINIMUM_VOXELS = {"ET": 500}
_log = logging.getLogger(__name__)

Record = Mapping[str, Any]


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
        data: records ``{"case_id", "study", ...}``, or a callable that returns them; one that holds ``error`` is
            reported as failed.
        preprocessing: record -> sample with ``image`` (M, ...), ``present_mask`` (M,) and ``label`` (1, ...).
        inferer: a :class:`~medmap_monai.inferers.subset_sweep.SubsetSweepInferer`.
        modalities: names in channel order.
        output_dir: folder of the results.
        edition: the edition whose regions are scored; default is the one that the studies name.
        regions: region name -> classes, instead of the edition's.
        minimum_voxels: region name -> fewest voxels of a prediction that counts; adds ``<name>pp`` beside the region.
            Default: ET 500, where there is an ET.
        protocol: ``clinical`` or ``legacy``; names the preprocessing and windows that were configured.
        subsets: subset names to evaluate; default all. Of a study only subsets of what it has are evaluated.
        lesion_wise: add lesion-wise scores (needs the extra ``lesions``).
        edge_cases: an :class:`EdgeCases` or its arguments, for example ``{"hd95_empty": "1.0"}``.
        checkpoint: weights to load, strictly, before the evaluation; None takes the network as it is.
        data_name: what the data are, for the headings of the report; default is what ``data`` says of itself.
        synthetic: whether records given as a list are synthetic; a cohort on disk says so itself, by its marker.
        num_shards, shard: this process evaluates every ``num_shards``-th case, beginning with number ``shard``;
            default is the world size and rank that torchrun sets, else 1 and 0.
        merge_only: evaluate nothing, merge what the shards left.
        keep_maps: of how many cases (the first complete ones by name) the label maps are kept for the report.
        num_workers: processes that load studies ahead.
        metric_workers: processes that compute scores; None: the other cores where ``device`` is a GPU, else none. The
            files are the same.
        amp: mixed precision.
        seed, confidence, resamples: of the bootstrap intervals.
        handlers: further ignite handlers for the MONAI evaluator that runs the cases.
        progress: show progress and time left.

    Raises:
        ValueError: for an unknown protocol, subset or edge-case policy, or a shard outside the number of shards.
    """

    def __init__(
        self,
        device: torch.device | str,
        network: nn.Module,
        data: RecordSource,
        preprocessing: Callable[[dict[str, Any]], Any],
        inferer: SubsetSweepInferer,
        modalities: Sequence[str],
        output_dir: str | os.PathLike[str],
        edition: str | Edition | None = None,
        regions: Mapping[str, Sequence[int]] | None = None,
        minimum_voxels: Mapping[str, int] | None = None,
        protocol: str = "clinical",
        subsets: Sequence[str] | None = None,
        edge_cases: EdgeCases | Mapping[str, Any] | None = None,
        lesion_wise: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
        data_name: str = "",
        synthetic: bool = False,
        num_shards: int | None = None,
        shard: int | None = None,
        merge_only: bool = False,
        keep_maps: int = 1,
        num_workers: int = 0,
        metric_workers: int | None = None,
        amp: bool = False,
        seed: int = 0,
        confidence: float = 0.95,
        resamples: int = DEFAULT_RESAMPLES,
        handlers: Sequence[Any] = (),
        progress: bool = True,
    ) -> None:
        self.device = torch.device(device)
        self.network = network
        self.data = data
        self.preprocessing = preprocessing
        self.inferer = inferer
        self.modalities = modalities if isinstance(modalities, Modalities) else Modalities(tuple(modalities))
        self.output_dir = Path(output_dir)
        self.edition = None if edition is None else get_edition(edition)
        self.regions = regions
        self.minimum_voxels = minimum_voxels
        self.protocol = look_up_option(protocol, PROTOCOLS)
        masks = self.modalities.subset_masks()
        wanted = None if subsets is None else {self.modalities.mask(name) for name in subsets}
        self.subset_masks = [mask for mask in masks if wanted is None or mask in wanted]
        self.edge_cases = edge_cases if isinstance(edge_cases, EdgeCases) else EdgeCases(**(edge_cases or {}))
        self.lesion_wise = lesion_wise
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.data_name = data_name
        self.synthetic = synthetic
        self.num_shards = int(os.environ.get("WORLD_SIZE", 1)) if num_shards is None else num_shards
        self.shard = int(os.environ.get("RANK", 0)) if shard is None else shard
        if not 0 <= self.shard < self.num_shards:
            raise ValueError(f"shard must lie in 0..{self.num_shards - 1} (num_shards {num_shards}), got {self.shard}")
        self.merge_only = merge_only
        self.keep_maps = keep_maps
        self.num_workers = num_workers
        self.metric_workers = metric_workers
        self.amp = amp
        self.seed = seed
        self.confidence = confidence
        self.resamples = resamples
        self.handlers = list(handlers)
        self.progress = progress

    def run(self) -> dict[str, Any] | None:
        """Evaluate this process's share, and merge when every share is there.

        Returns:
            the summary, or None while other shards are still at work.

        Raises:
            EvaluationIncompleteError: when a case failed; the message says which and why.
            StaleResultsError: when ``output_dir`` holds results of another checkpoint or setting.
            ValueError: no case, a case id that occurs twice, or shards missing at a merge.
        """
        records = self._records()
        self._describe_data(records)
        edition = self._edition_of(records)
        if self.checkpoint is not None and not self.merge_only:
            load_model(self.network, self.checkpoint)
        self._regions = self._make_regions(edition)
        self._classes = edition.classes if edition else ()
        store = ResultsStore(self.output_dir, self._settings())
        cases = [str(record["case_id"]) for record in records]
        self._kept_cases = self._choose_kept(records)
        if not self.merge_only:
            self._evaluate(store, records[self.shard :: self.num_shards])
        elsewhere = [c for c in cases if not store.finished(c) and not store.failed(c)]
        if elsewhere and not self.merge_only:
            _log.info("%d cases of other shards are not finished yet; the last shard will merge", len(elsewhere))
            return self._raise_for_failures(store, cases[self.shard :: self.num_shards], None)
        return self._merge(store, cases)

    def _records(self) -> list[Record]:
        if isinstance(self.data, EvaluationRecords):
            seen = None if self.checkpoint is None else read_training_cases(self.checkpoint)
            records: list[Record] = list(self.data(seen))
        else:
            records = list(self.data() if callable(self.data) else self.data)
        if not records:
            raise ValueError("there is no case to evaluate")
        records.sort(key=lambda record: str(record["case_id"]))
        names = [str(record["case_id"]) for record in records]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"case ids must be unique; these occur more than once: {twice[:5]}")
        return records

    def _describe_data(self, records: Sequence[Record]) -> None:
        """Name of the data, whether they are synthetic, and whether the weights have seen them."""
        known = isinstance(self.data, EvaluationRecords)
        described = self.data.describe(records) if isinstance(self.data, EvaluationRecords) else {}
        # a cohort says itself whether it is synthetic; a configuration for phantoms may be used on patients
        self._synthetic = bool(described.get("synthetic")) if known else self.synthetic
        name = self.data_name or described.get("name", "")
        folds = [str(record.get("fold", UNKNOWN)) for record in records]
        self._folds = {fold: folds.count(fold) for fold in sorted(set(folds))}
        seen = describe_folds(folds)
        if known and seen:
            _log.warning("%s%s", seen[0].upper(), seen[1:])
        self._data_name = f"{name} ({seen})".strip() if any(fold in self._folds for fold in ("train", "val")) else name

    def _edition_of(self, records: Sequence[Record]) -> Edition | None:
        if self.edition is not None:
            return self.edition
        found = {str(e): e for e in (getattr(r.get("study"), "edition", None) for r in records) if e is not None}
        if len(found) == 1:
            return get_edition(next(iter(found.values())))
        if self.regions is None:
            raise ValueError(f"give edition or regions: the studies name {sorted(found) or 'no edition'}")
        return None

    def _make_regions(self, edition: Edition | None) -> list[Region]:
        classes = self.regions if self.regions is not None else edition.regions if edition else {}
        minimum = self.minimum_voxels
        if minimum is None:
            minimum = {name: count for name, count in PUBLISHED_MINIMUM_VOXELS.items() if name in classes}
        return make_regions(classes, minimum)

    def _settings(self) -> dict[str, Any]:
        """Everything that changes a score; a folder holds the scores of one such set only."""
        if self.checkpoint is not None and self.checkpoint.is_file():
            weights = {"file": self.checkpoint.name, "sha256": file_sha256(self.checkpoint)}
        else:
            weights = {"file": "", "sha256": weights_sha256(self.network)}
        return {
            "checkpoint": weights,
            "network": type(self.network).__name__,
            "protocol": self.protocol,
            "inference": _describe_inferer(self.inferer),
            **fixed_grid(self.preprocessing),
            "amp": self.amp,
            "modalities": list(self.modalities),
            "subsets": [self.modalities.subset_name(mask) for mask in self.subset_masks],
            "classes": list(self._classes),
            "regions": {
                r.name: {"classes": list(r.classes), "minimum_voxels": r.minimum_voxels} for r in self._regions
            },
            "edge_cases": self.edge_cases.as_dict(),
            "metrics": METRIC_UNITS | (LESION_UNITS if self.lesion_wise else {}),
            "data": self._data_name,
            "synthetic": self._synthetic,
            "versions": software_versions(),
        }

    def _choose_kept(self, records: Sequence[Record]) -> set[str]:
        complete = [
            str(record["case_id"])
            for record in records
            if ERROR not in record and set(self.modalities) <= set(getattr(record.get("study"), "images", ()))
        ]
        return set(complete[: self.keep_maps])

    def _evaluate(self, store: ResultsStore, records: Sequence[Record]) -> None:
        again = forget_changed(store, records, self.preprocessing)
        if again:
            _log.warning("%d cases are evaluated again, their files have changed: %s", len(again), ", ".join(again[:5]))
        pending = [r for r in records if not self._is_done(store, str(r["case_id"]))]
        if not pending:
            return
        loader = DataLoader(
            EvaluationSamples(pending, self.preprocessing),
            batch_size=1,
            num_workers=self.num_workers,
            collate_fn=no_collation,
        )
        self.network.to(self.device)
        workers = self.metric_workers
        if workers is None:
            workers = cores_beside_a_gpu(self.device, self.num_workers)
        pool = ScorePool(workers)
        scorer = CaseScorer(
            self.network,
            self.inferer,
            self.modalities,
            self.subset_masks,
            self._regions,
            self.edge_cases,
            self.lesion_wise,
            self.device,
            pool,
        )
        with pool, EvaluationProgress(len(pending), len(records) - len(pending), self.progress) as progress:

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
                self.device, loader, self.network, iteration_update=update, val_handlers=self.handlers, amp=self.amp
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
            with engine.mode(self.network), torch.autocast(self.device.type, enabled=self.amp):
                scores, maps = scorer.score(case_id, sample, keep_maps=case_id in self._kept_cases)
            if maps:
                write_case_maps(scorer.cut(case_id, sample, maps, self._classes), store.maps_path(case_id))
            if ORIGIN in sample:
                store.write_origin(case_id, sample[ORIGIN])
            present = self.modalities.subset_name(sample["present_mask"].tolist())
            store.write_case(case_id, present, scores, str(sample.get("fold", UNKNOWN)))
        except Exception as error:
            _log.debug("case %s failed", case_id, exc_info=True)
            return failure_of(error)
        return None

    def _merge(self, store: ResultsStore, cases: Sequence[str]) -> dict[str, Any]:
        failed = store.merge(cases)
        table = read_metrics(self.output_dir / METRICS_FILE)
        summary = {
            "format": 1,
            **store.settings,
            "seed": self.seed,
            "confidence": self.confidence,
            "resamples": self.resamples,
            "n_cases": int(table["case_id"].nunique()),
            "n_without_asked_subset": len(cases) - len(failed) - int(table["case_id"].nunique()),
            "n_failed": len(failed),
            "folds": self._folds,
            "failed": failed,
            **summarise(table, self.modalities, self.confidence, self.resamples, self.seed),
        }
        write_text(self.output_dir / SUMMARY_FILE, json.dumps(summary, indent=2, allow_nan=False) + "\n")
        if summary["scores"]:
            write_reliability(summary, self.output_dir / RELIABILITY_FILE)
        self._raise_for_failures(store, cases, summary)
        return summary

    def _raise_for_failures(
        self, store: ResultsStore, cases: Sequence[str], summary: dict[str, Any] | None
    ) -> dict[str, Any] | None:
        failed = [case for case in cases if store.failed(case)]
        if failed:
            reasons = [pd.read_csv(store.failure_path(case), dtype=str, keep_default_na=False) for case in failed[:3]]
            shown = "; ".join(f"{frame['case_id'][0]}: {frame['reason'][0]}" for frame in reasons)
            more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
            raise EvaluationIncompleteError(
                f"{len(failed)} of {len(cases)} cases could not be evaluated ({shown}{more}); "
                f"the others are complete, see {self.output_dir / FAILURES_FILE}"
            )
        return summary


def _describe_inferer(inferer: SubsetSweepInferer) -> dict[str, Any]:
    """The settings of the windows that change a score."""
    return {
        "roi_size": np.atleast_1d(inferer.roi_size).tolist(),
        "overlap": np.atleast_1d(inferer.overlap).tolist(),
        "mode": str(getattr(inferer.mode, "value", inferer.mode)),
        "blend": inferer.blend,
        "skip_background": inferer.skip_background,
    }
