"""Class-weighted cross-entropy and soft Dice, the supervised loss of the missing-modality literature."""

from __future__ import annotations

from monai.utils import LossReduction, look_up_option
from torch import Tensor, nn

from medmap_monai.losses.label_maps import LabelMaps, full_precision, label_maps
from medmap_monai.losses.upsample import upsample_linear


def weighted_cross_entropy(probabilities: Tensor, label: LabelMaps, clamp: float = 0.005) -> Tensor:
    """Cross-entropy in which class c of a sample weighs 1 - (share of its voxels that are c), per row.

    ``(1/V) sum_v -w[y_v] log(clamp(p[y_v, v], clamp, 1))``: a background-only patch gives exactly 0, and a voxel
    whose true class has less probability than ``clamp`` gives no gradient. Source: RFNet-type training, as published.

    Args:
        probabilities: (R, K, V).
        label: R rows, or one that all rows share.
        clamp: lower bound of the probability.

    Returns:
        values (R,).
    """
    true = (probabilities * label.one_hot).sum(1)
    return _weighted_log(true, label, clamp)


def soft_dice(probabilities: Tensor, label: LabelMaps, batch: bool = False, eps: float = 1e-7) -> Tensor:
    """``1 - mean_c 2 sum(p_c g_c) / (sum p_c + sum g_c + eps)``, background included, per row.

    A class that the patch lacks counts with overlap 0, so a perfect prediction without k of K classes costs k/K.
    MONAI's ``DiceLoss`` adds its eps to the numerator as well, which rewards absent classes; published numbers need
    this form.

    Args:
        probabilities: (R, K, V).
        label: R rows, or one that all rows share.
        batch: sums over the batch and space together; every row then has the same value.
        eps: added to the denominator.

    Returns:
        values (R,).
    """
    return _dice((probabilities * label.one_hot).sum(2), probabilities, label, batch, eps)


class WeightedCEDiceLoss(nn.Module):
    """Weighted cross-entropy plus soft Dice against class indices.

    See :func:`weighted_cross_entropy` and :func:`soft_dice`. Maps of lower resolution than the label are up-sampled
    (linear, corners aligned) as probabilities, as the published scripts do.

    Args:
        ce_weight: factor of the cross-entropy; 0 leaves it out.
        dice_weight: factor of Dice; 0 leaves it out.
        batch: Dice over the whole batch instead of per sample.
        clamp: lower bound of probabilities inside the logarithm.
        dice_eps: added to Dice's denominator.
        probabilities: the input is a probability map already and not logits.
        reduction: ``"mean"`` or ``"sum"`` over samples, ``"none"`` for one value per sample.

    Raises:
        ValueError: for an unknown reduction.

    Example:
        >>> import torch
        >>> loss = WeightedCEDiceLoss()
        >>> label = torch.randint(0, 4, (2, 1, 8, 8, 8))
        >>> loss(torch.zeros(2, 4, 8, 8, 8), label).ndim
        0
    """

    def __init__(
        self,
        ce_weight: float = 1.0,
        dice_weight: float = 1.0,
        batch: bool = False,
        clamp: float = 0.005,
        dice_eps: float = 1e-7,
        probabilities: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.ce_weight = ce_weight
        self.dice_weight = dice_weight
        self.batch = batch
        self.clamp = clamp
        self.dice_eps = dice_eps
        self.probabilities = probabilities
        self.reduction = look_up_option(reduction, LossReduction)

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Loss of ``logits`` (B, K, ...) against ``label``, class indices (B, 1, ...)."""
        maps = label_maps(label, logits.shape[1], full_precision(logits).dtype)
        values = self.rows(logits, maps)
        if self.reduction == LossReduction.MEAN:
            return values.mean()
        return values.sum() if self.reduction == LossReduction.SUM else values

    def rows(self, logits: Tensor, label: LabelMaps) -> Tensor:
        """One value per row: (R,).

        Args:
            logits: (R, K, ...), at their own resolution.
            label: R rows, or one that all rows share.
        """
        logits = full_precision(logits)
        maps = logits if self.probabilities else logits.softmax(1)
        probabilities = upsample_linear(maps, label.size).flatten(2)
        true = probabilities * label.one_hot  # shared by both terms; not kept for backward
        value = probabilities.new_zeros(probabilities.shape[0])
        if self.ce_weight:
            value = value + self.ce_weight * _weighted_log(true.sum(1), label, self.clamp)
        if self.dice_weight:
            value = value + self.dice_weight * _dice(true.sum(2), probabilities, label, self.batch, self.dice_eps)
        return value


def _weighted_log(true: Tensor, label: LabelMaps, clamp: float) -> Tensor:
    """Weighted cross-entropy from the true class's probability ``true`` (R, V)."""
    weights = 1.0 - label.counts / label.class_index.shape[1]
    return -(weights.gather(1, label.class_index) * true.clamp(clamp, 1.0).log()).mean(1)


def _dice(overlap: Tensor, probabilities: Tensor, label: LabelMaps, batch: bool, eps: float) -> Tensor:
    """Dice loss from the overlap (R, K)."""
    total = probabilities.sum(2) + label.counts
    if batch:
        overlap = overlap.sum(0, keepdim=True).expand_as(overlap)
        total = total.sum(0, keepdim=True).expand_as(total)
    return 1.0 - (2.0 * overlap / (total + eps)).mean(1)
