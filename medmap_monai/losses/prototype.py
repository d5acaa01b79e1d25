"""Semantic-wise distillation: class prototypes, similarity maps, and the distance that tells weak modalities."""

from __future__ import annotations

from typing import NamedTuple

import torch
from monai.utils import StrEnum, look_up_option
from torch import Tensor, nn

from medmap_monai.losses.label_maps import LabelMaps, full_precision, label_maps, rows_of


class PrototypeDistance(StrEnum):
    """How two similarity maps are compared where no gradient is needed."""

    L1 = "l1"
    L2 = "l2"


class PrototypeTarget(NamedTuple):
    """A teacher's similarity maps, computed once for all its students.

    similarity: cosine of every voxel with every class prototype, (B, K, V).
    used: 1 for classes that count, 0 for classes that the sample lacks, (B, K).
    """

    similarity: Tensor
    used: Tensor

    def rows(self, sample: Tensor) -> PrototypeTarget:
        """The target of each row in ``sample`` (R,)."""
        return PrototypeTarget(rows_of(self.similarity, sample), rows_of(self.used, sample))


def similarity_maps(features: Tensor, label: LabelMaps, count_eps: float = 1e-5, norm_eps: float = 1e-5) -> Tensor:
    """Cosine similarity of every voxel's feature with the mean feature ("prototype") of every true class.

    Args:
        features: (R, C, ...) at the label's size.
        label: R rows, or one that all rows share.
        count_eps: added to the number of voxels of a class.
        norm_eps: lower bound of each norm in the cosine.

    Returns:
        similarity (R, K, V); zero for a class without voxels.
    """
    with torch.autocast(features.device.type, enabled=False):
        x = full_precision(features).flatten(2).contiguous()  # networks may hand over channels-last maps
        mask = label.one_hot.to(x.dtype).transpose(1, 2)
        if mask.shape[0] == 1:
            mask = mask[0]  # one matrix product for all rows
        prototypes = torch.matmul(x, mask) / (label.counts.to(x.dtype).unsqueeze(1) + count_eps)
        prototypes = prototypes * _inverse_norm(prototypes, norm_eps)
        return torch.bmm(prototypes.transpose(1, 2), x) * _inverse_norm(x, norm_eps)


class PrototypeLoss(nn.Module):
    """Mean squared difference of student's and teacher's similarity maps, and their distance.

    Each network has its own prototypes (:func:`similarity_maps`); the loss is the mean over the classes that the
    sample shows and over all voxels, and gradient reaches the student through the map and through its prototypes.
    Source: PASSION's published code.

    Args:
        distance: ``"l1"``, the mean absolute difference (published code), or ``"l2"``, the root of the mean square
            (the published figure).
        shared_classes: count a class only where every sample of the batch shows it. This is what the published
            code does; it makes a sample's loss depend on its batch mates, and is here for parity only.

    Raises:
        ValueError: for an unknown distance.
    """

    def __init__(self, distance: str = "l1", shared_classes: bool = False) -> None:
        super().__init__()
        self.distance = look_up_option(distance, PrototypeDistance)
        self.shared_classes = shared_classes

    def forward(self, student: Tensor, teacher: Tensor, label: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """Loss and distance per sample, each (B,).

        Args:
            student: features (B, C, ...).
            teacher: features (B, C, ...); no gradient reaches them.
            label: class indices (B, 1, ...) at the features' size.
            classes: number of classes K, background included.
        """
        maps = label_maps(label, classes, full_precision(student).dtype)
        return self.rows(student, maps, self.target(teacher, maps))

    @torch.no_grad()
    def target(self, teacher: Tensor, label: LabelMaps) -> PrototypeTarget:
        """Similarity maps of the teacher's features (B, C, ...)."""
        used = label.counts > 0
        if self.shared_classes:
            used = used.all(0, keepdim=True).expand_as(used)
        similarity = similarity_maps(teacher.detach(), label)
        return PrototypeTarget(similarity, used.to(similarity.dtype))

    def rows(self, student: Tensor, label: LabelMaps, target: PrototypeTarget) -> tuple[Tensor, Tensor]:
        """Loss (R,) and distance (R,), the latter without gradient.

        Args:
            student: features (R, C, ...).
            label: R rows, or one that all rows share.
            target: R rows, or one that all rows share.
        """
        difference = similarity_maps(student, label) - target.similarity
        weight = target.used / target.used.sum(1, keepdim=True).clamp_min(1.0)
        loss = (difference.square().mean(2) * weight).sum(1)
        with torch.no_grad():
            if self.distance == PrototypeDistance.L1:
                distance = (difference.abs().mean(2) * weight).sum(1)
            else:
                distance = loss.sqrt()
        return loss, distance


def _inverse_norm(vectors: Tensor, eps: float) -> Tensor:
    """``1 / max(norm, eps)`` over the channel axis 1, kept; its gradient is finite at zero."""
    return vectors.square().sum(1, keepdim=True).clamp_min(eps**2).rsqrt()
