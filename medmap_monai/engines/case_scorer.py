"""Score one study on every subset of its modalities."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from torch import Tensor, nn

from medmap_monai.data.study import StudyError
from medmap_monai.engines.case_maps import CaseMaps, cut_case
from medmap_monai.engines.evaluation_samples import label_geometry
from medmap_monai.engines.score_pool import ScorePool
from medmap_monai.inferers.subset_sweep import SubsetSweepInferer
from medmap_monai.metrics.region_scores import RegionScore
from medmap_monai.metrics.regions import Region
from medmap_monai.metrics.scoring import Scoring
from medmap_monai.modalities import Modalities
from medmap_monai.transforms.resample import resample_to_grid
from medmap_monai.transforms.restore import RestoreToOriginal
from medmap_monai.transforms.shown import SHOWN, where_shown
from medmap_monai.transforms.small_findings import remove_small_findings
from medmap_monai.utils.voxel_volume import voxel_ml

_log = logging.getLogger(__name__)


class SubsetScore(NamedTuple):
    """One score of one subset: its number, name and size, and the score."""

    number: int
    name: str
    size: int
    score: RegionScore


class CaseScorer:
    """Segment a study with every subset of what it has, its encoders run once, and compare with its label.

    Args:
        network: the network, in evaluation mode and on ``device``.
        inferer: sweeps the subsets.
        modalities: names in channel order.
        subset_masks: the subsets to score; those that a study lacks a modality of are left out.
        regions: what is scored.
        scoring: values where a region is empty, and whether lesions are scored.
        device: where to run.
        pool: computes the scores; None: this process.
    """

    def __init__(
        self,
        network: nn.Module,
        inferer: SubsetSweepInferer,
        modalities: Modalities,
        subset_masks: Sequence[tuple[bool, ...]],
        regions: Sequence[Region],
        scoring: Scoring,
        device: torch.device,
        pool: ScorePool | None = None,
    ) -> None:
        self.pool = pool or ScorePool(0)
        self.network = network
        self.inferer = inferer
        self.modalities = modalities
        self.subset_masks = subset_masks
        self.regions = regions
        self.scoring = scoring
        self.device = device

    def score(
        self, case_id: str, sample: Mapping[str, Any], keep_maps: bool = False
    ) -> tuple[list[SubsetScore], dict[str, NDArray[np.uint8]]]:
        """Scores of all subsets of the sample, and its label maps by subset name where ``keep_maps`` asks for them.

        Where image and label lie on different grids (the bundle works at a fixed spacing or orientation), predictions
        are brought to that of the label, as ``medmap predict`` does, and are scored there.

        Args:
            case_id: for messages.
            sample: ``image`` (M, ...), ``present_mask`` (M,) and ``label`` (1, ...).
            keep_maps: return the label maps too.

        Raises:
            StudyError: when the sample has no label.
        """
        if sample.get("label") is None:
            raise StudyError(case_id, "the study has no label to compare with")
        present = [bool(flag) for flag in sample["present_mask"]]
        masks = [m for m in self.subset_masks if all(p or not s for s, p in zip(m, present, strict=True))]
        scores: list[SubsetScore] = []
        maps: dict[str, NDArray[np.uint8]] = {}
        if not masks:
            _log.info("case %s has none of the asked subsets", case_id)
            return scores, maps
        label = sample["label"]
        spacing, diagonal = label_geometry(label)
        reference = torch.as_tensor(label)[0].as_subclass(Tensor).cpu()
        how = (self.regions, spacing, self.scoring.edge_cases, diagonal, self.scoring.lesion_wise)
        started: list[tuple[tuple[bool, ...], Callable[[], list[RegionScore]]]] = []
        for mask, prediction in self._sweep(sample, masks):
            if keep_maps:
                maps[self.modalities.subset_name(mask)] = prediction.numpy().astype(np.uint8)
            started.append((mask, self.pool.start(prediction, reference, *how)))
            if self.pool.workers == 0:  # nothing is gained by keeping the maps of all subsets
                scores += self._named(*started.pop())
        for mask, collect in started:
            scores += self._named(mask, collect)
        return scores, maps

    def _named(self, mask: tuple[bool, ...], collect: Callable[[], list[RegionScore]]) -> list[SubsetScore]:
        number, name = self.modalities.subset_id(mask), self.modalities.subset_name(mask)
        return [SubsetScore(number, name, sum(mask), score) for score in collect()]

    def cut(
        self, case_id: str, sample: Mapping[str, Any], maps: Mapping[str, NDArray[np.uint8]], classes: Sequence[str]
    ) -> CaseMaps:
        """The case with its label maps, cut to the foreground, for the report."""
        image = torch.as_tensor(sample["image"]).as_subclass(Tensor).cpu().float().numpy()
        reference = torch.as_tensor(sample["label"])[0].as_subclass(Tensor).cpu().numpy()
        affine = np.asarray(getattr(sample["label"], "affine", np.eye(4)))
        if not _same_grid(sample):
            own = np.asarray(sample["image"].affine)
            image = np.stack([resample_to_grid(channel, own, reference.shape, affine) for channel in image])
        return cut_case(case_id, self.modalities.names, image, reference, maps, affine, classes)

    def _sweep(
        self, sample: Mapping[str, Any], masks: Sequence[tuple[bool, ...]]
    ) -> Iterator[tuple[tuple[bool, ...], Tensor]]:
        """(subset mask, class map on the CPU, on the grid of the label) for every mask."""
        image = torch.as_tensor(sample["image"]).as_subclass(Tensor)[None].to(self.device)
        present = torch.as_tensor(sample["present_mask"], dtype=torch.bool)[None].to(self.device)
        inferer = copy(self.inferer)
        same_grid = _same_grid(sample)
        inferer.subsets, inferer.output = list(masks), "labels" if same_grid else "scores"
        restore = RestoreToOriginal()
        voxel = voxel_ml(getattr(sample["label"], "affine", np.eye(4)))
        for mask, result in inferer.sweep(image, self.network, present):
            found = result[0].as_subclass(Tensor).cpu()
            if not same_grid:
                found = restore(MetaTensor(found, meta=sample["image"].meta)).as_subclass(Tensor)
            shown = sample.get(SHOWN)
            if shown is not None:  # as medmap predict does: background where these modalities show nothing
                found[~where_shown(shown, mask)] = 0
            remove_small_findings(found, voxel, self.scoring.smallest_finding)
            yield mask, found[0]


def _same_grid(sample: Mapping[str, Any]) -> bool:
    """Whether image and label share their voxels; samples without geometry do."""
    image, label = sample["image"], sample["label"]
    if not (isinstance(image, MetaTensor) and isinstance(label, MetaTensor)):
        return True
    apart = np.abs(np.asarray(image.affine) - np.asarray(label.affine)).max()
    return image.shape[1:] == label.shape[1:] and bool(apart < 1e-3)
