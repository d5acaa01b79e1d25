"""Prototype alignment: class means of each modality's deepest features against those of the fused features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.layers.factories import Pool
from monai.utils import StrEnum, look_up_option
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, interpolate

from medmap_monai.losses.label_maps import full_precision, label_maps


class AreaLabels(StrEnum):
    """How a label comes to the resolution of the features."""

    SOFT = "soft"
    NEAREST = "nearest"


class PrototypeMetric(StrEnum):
    """How two prototypes are compared."""

    L2 = "l2"
    COSINE = "cosine"


class PrototypeAlignmentLoss(nn.Module):
    r"""Distance between the class prototypes of one modality's features and of the fused features.

    With :math:`y_c(v)` the share of voxel v that class c covers, the prototype of a class is
    :math:`p_c = \sum_v x_v y_c(v) / (\sum_v y_c(v) + \epsilon)`; the loss is the mean over the classes that the
    sample shows of the mean squared difference over channels (``"l2"``) or of one minus the cosine (``"cosine"``).
    Sources: the published figure for class prototypes of the two deepest features; the formula is ours. PASSION's
    :class:`~medmap_monai.losses.prototype.PrototypeLoss` compares similarity maps at full resolution instead.

    Zero when the features agree (up to rounding for ``"cosine"``); a class that a sample lacks plays no part, and a
    sample without any class has loss zero.

    Args:
        labels: ``"soft"`` averages the one-hot label over the area of each deep voxel; ``"nearest"`` samples it, and
            loses most small lesions at the deepest level.
        metric: ``"l2"`` or ``"cosine"``.
        detach_teacher: stop the gradient into the fused features.
        threshold: a class counts where its area, in deep voxels, is above this.
        eps: added to the area.

    Raises:
        ValueError: for an unknown option.
    """

    def __init__(
        self,
        labels: str = "soft",
        metric: str = "l2",
        detach_teacher: bool = True,
        threshold: float = 0.0,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.labels = look_up_option(labels, AreaLabels)
        self.metric = look_up_option(metric, PrototypeMetric)
        self.detach_teacher = detach_teacher
        self.threshold = threshold
        self.eps = eps

    def class_areas(self, label: Tensor, classes: int, size: Sequence[int]) -> Tensor:
        """Share of each deep voxel that each class covers: (B, K, ...) at ``size``.

        Args:
            label: class indices (B, 1, ...) at full resolution.
            classes: number of classes K, background included.
            size: spatial size of the features.
        """
        if self.labels == AreaLabels.NEAREST:
            label = interpolate(label.to(torch.float32), size=list(size), mode="nearest-exact")
        one_hot = label_maps(label, classes).one_hot.unflatten(2, label.shape[2:])
        areas: Tensor = Pool["adaptiveavg", len(size)](tuple(size))(one_hot)
        return areas

    def forward(self, student: Tensor, teacher: Tensor, areas: Tensor) -> Tensor:
        """One value per row: (R,).

        Args:
            student: features of one modality per row, (R, C, ...).
            teacher: fused features of the same samples, (R, C, ...).
            areas: :meth:`class_areas` of the same samples, (R, K, ...).

        Raises:
            ValueError: when the shapes differ.
        """
        if student.shape != teacher.shape or areas.shape[2:] != student.shape[2:]:
            shapes = [list(x.shape) for x in (student, teacher, areas)]
            raise ValueError(f"features (R, C, ...) twice and areas (R, K, ...) must fit each other, got {shapes}")
        with torch.autocast(student.device.type, enabled=False):
            teacher = teacher.detach() if self.detach_teacher else teacher
            own = self._prototypes(full_precision(student), areas)
            fused = self._prototypes(full_precision(teacher), areas)
            if self.metric == PrototypeMetric.COSINE:
                difference = 1.0 - cosine_similarity(own, fused, dim=2)
            else:
                difference = (own - fused).square().mean(2)
            shown = (areas.flatten(2).sum(2) > self.threshold).to(difference.dtype)
            return (difference * shown).sum(1) / shown.sum(1).clamp_min(1.0)

    def _prototypes(self, features: Tensor, areas: Tensor) -> Tensor:
        """Mean feature of each class: (R, K, C)."""
        weight = areas.flatten(2).to(features.dtype)
        return weight @ features.flatten(2).transpose(1, 2) / (weight.sum(2, keepdim=True) + self.eps)
