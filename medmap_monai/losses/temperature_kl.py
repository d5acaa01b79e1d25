"""Pixel-wise distillation: Kullback-Leibler divergence between softened predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from monai.utils import StrEnum, look_up_option
from torch import Tensor, nn

from medmap_monai.losses.label_maps import full_precision, rows_of
from medmap_monai.losses.upsample import upsample_linear


class KLReduction(StrEnum):
    """How voxels and classes are averaged."""

    MEAN = "mean"
    SUM_CLASS = "sum_class"


class SoftTarget(NamedTuple):
    """A teacher's softened prediction, computed once for all its students.

    probability: (B, K, ...) at the label's size.
    log: its logarithm.
    """

    probability: Tensor
    log: Tensor

    def rows(self, sample: Tensor) -> SoftTarget:
        """The target of each row in ``sample`` (R,)."""
        return SoftTarget(rows_of(self.probability, sample), rows_of(self.log, sample))


class TemperatureKLLoss(nn.Module):
    """``T^2 mean_{c,v} q_t (log q_t - log q_s)`` with ``q = clamp(softmax(logits / T), clamp, 1)``.

    Source: PASSION's published code. There the mean also runs over classes (1/K of a divergence per voxel), and
    clamped maps do not quite sum to one; both can be switched off. Maps are up-sampled as probabilities. No gradient
    reaches the teacher.

    Args:
        temperature: T; higher is softer.
        clamp: lower bound of probabilities, below which the student gets no gradient; None for none.
        reduction: ``"mean"`` over classes and voxels (published), or ``"sum_class"``, the mean over voxels of the
            sum over classes.

    Raises:
        ValueError: for a temperature that is not positive or an unknown reduction.
    """

    def __init__(self, temperature: float = 4.0, clamp: float | None = 0.005, reduction: str = "mean") -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.temperature = temperature
        self.clamp = clamp
        self.reduction = look_up_option(reduction, KLReduction)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Mean over the batch, for logits (B, K, ...) of equal size."""
        return self.rows(student, self.target(teacher, teacher.shape[2:])).mean()

    @torch.no_grad()
    def target(self, teacher: Tensor, size: Sequence[int]) -> SoftTarget:
        """The softened teacher at ``size`` from its logits (B, K, ...) at their own resolution."""
        probability, log = self._soften(teacher.detach(), size)
        return SoftTarget(probability, log)

    def rows(self, student: Tensor, target: SoftTarget) -> Tensor:
        """One value per row: (R,).

        Args:
            student: logits (R, K, ...) at their own resolution.
            target: R rows, or one that all rows share.
        """
        _, log = self._soften(student, target.log.shape[2:])
        # the difference first: two sums of a few tenths each would cancel to the last digits of float32
        value = (target.probability * (target.log - log)).flatten(1).mean(1)
        if self.reduction == KLReduction.SUM_CLASS:
            value = value * student.shape[1]
        return self.temperature**2 * value

    def _soften(self, logits: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Softened probabilities at ``size`` and their logarithm."""
        probability = upsample_linear((full_precision(logits) / self.temperature).softmax(1), size)
        floor = torch.finfo(probability.dtype).tiny if self.clamp is None else self.clamp
        probability = probability.clamp(floor, 1.0)
        return probability, probability.log()
