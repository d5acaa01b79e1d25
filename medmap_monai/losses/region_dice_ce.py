"""Cross-entropy, Dice of classes and Dice of nested regions, without a question to the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medmap_monai.losses.label_maps import full_precision


class RegionDiceCELoss(nn.Module):
    """MONAI's ``DiceCELoss`` of class weights, plus Dice of regions.

    From one sequence the classes of a tumour often cannot be told apart while the whole can: Dice of a region's summed
    probability rewards the part that is known. Without regions it is ``DiceCELoss(include_background=False,
    to_onehot_y=True, softmax=True, batch=True, weight=weight)``, which reads its weights back from the device in every
    call; this loss does not, so a GPU need not wait and a compiler meets one graph. Source: ours.

    Args:
        weight: of every class, background first, in both the cross-entropy and Dice.
        regions: classes of each region; the mean of their Dice losses is added.
        smooth: added to Dice's numerator and denominator.

    Raises:
        ValueError: a region with a class that has no weight.

    Example:
        >>> import torch
        >>> loss = RegionDiceCELoss(weight=(1.0, 1.5, 1.0, 2.0), regions=((1, 2, 3), (1, 3)))
        >>> loss(torch.zeros(2, 4, 8, 8, 8), torch.randint(0, 4, (2, 1, 8, 8, 8))).ndim
        0
    """

    weight: Tensor

    def __init__(self, weight: Sequence[float], regions: Sequence[Sequence[int]] = (), smooth: float = 1e-5) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor(weight, dtype=torch.float32), persistent=False)
        self.regions = [list(region) for region in regions]
        self.smooth = smooth
        unknown = sorted({c for region in self.regions for c in region} - set(range(len(weight))))
        if unknown:
            raise ValueError(f"regions name classes {unknown}, but there are weights for 0..{len(weight) - 1} only")

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Loss of ``logits`` (B, K, ...) against ``label``, class indices (B, 1, ...), over the whole batch."""
        logits = full_precision(logits)
        share = logits.softmax(1)
        classes = torch.arange(logits.shape[1], device=label.device).reshape([1, -1] + [1] * (label.ndim - 2))
        truth = (label == classes).to(share.dtype)
        weight = self.weight.to(share.dtype)
        dice = self._dice((share * truth).transpose(0, 1).flatten(1).sum(1), share, truth)
        total = (weight * dice)[1:].mean()
        total = total + nn.functional.cross_entropy(logits, label[:, 0].long(), weight)
        if self.regions:
            parts = [(share[:, region].sum(1, True), truth[:, region].sum(1, True)) for region in self.regions]
            losses = [self._dice((p * t).sum().reshape(1), p, t) for p, t in parts]
            total = total + torch.cat(losses).mean()
        return total

    def _dice(self, overlap: Tensor, share: Tensor, truth: Tensor) -> Tensor:
        """One value per channel, over the batch: (K,)."""
        size = (share + truth).transpose(0, 1).flatten(1).sum(1)
        return 1 - (2 * overlap + self.smooth) / (size + self.smooth)
