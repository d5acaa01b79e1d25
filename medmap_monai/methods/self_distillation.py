"""Self-distillation from one fused path into single-modality students: per-student loss rows."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from medmap_monai.losses.deep_supervision import deep_weight
from medmap_monai.losses.label_maps import LabelMaps
from medmap_monai.losses.prototype import PrototypeLoss, PrototypeTarget
from medmap_monai.losses.temperature_kl import SoftTarget, TemperatureKLLoss
from medmap_monai.networks.base import DecoderOutput


class TeacherTargets(NamedTuple):
    """What students are compared with, computed once and without gradient.

    label: the label of the teacher's rows.
    logits: softened prediction.
    deep: softened deep-supervision predictions at full size, finest first.
    prototype: similarity maps of the finest decoder features.
    """

    label: LabelMaps
    logits: SoftTarget
    deep: list[SoftTarget]
    prototype: PrototypeTarget

    def rows(self, sample: Tensor) -> TeacherTargets:
        """The targets of each row in ``sample`` (R,)."""
        return TeacherTargets(
            self.label.rows(sample),
            self.logits.rows(sample),
            [target.rows(sample) for target in self.deep],
            self.prototype.rows(sample),
        )


class SelfDistillation(NamedTuple):
    """Pixel-wise and semantic-wise distillation with one teacher per sample.

    pixel_loss: on logits and, weighted 1/2, 1/4, ..., on deep-supervision logits.
    prototype_loss: on the finest decoder features.
    """

    pixel_loss: TemperatureKLLoss
    prototype_loss: PrototypeLoss

    def teacher(self, output: DecoderOutput, label: LabelMaps) -> TeacherTargets:
        """Targets from the teacher's output."""
        return TeacherTargets(
            label,
            self.pixel_loss.target(output.logits, label.size),
            [self.pixel_loss.target(logits, label.size) for logits in output.deep_logits],
            self.prototype_loss.target(output.features[0], label),
        )

    def pixel(self, output: DecoderOutput, targets: TeacherTargets) -> Tensor:
        """Pixel-wise loss of R students: (R,)."""
        value = self.pixel_loss.rows(output.logits, targets.logits)
        for level, (logits, target) in enumerate(zip(output.deep_logits, targets.deep, strict=True)):
            value = value + deep_weight(level) * self.pixel_loss.rows(logits, target)
        return value

    def prototype(self, output: DecoderOutput, targets: TeacherTargets) -> tuple[Tensor, Tensor]:
        """Prototype loss of R students, and their distance, which has no gradient: (R,) each."""
        return self.prototype_loss.rows(output.features[0], targets.label, targets.prototype)


def rows_to_matrix(values: Tensor, sample: Tensor, modality: Tensor, shape: torch.Size) -> Tensor:
    """Values (R,) of (sample, modality) pairs as a matrix (B, M), zero elsewhere."""
    return values.new_zeros(shape).index_put((sample, modality), values)


def mean_where(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` (B, M) over the samples in ``mask`` (B, M): detached (M,), NaN for a modality without any."""
    kept = torch.where(mask, values.detach(), torch.zeros_like(values))
    return kept.sum(0) / mask.sum(0)
