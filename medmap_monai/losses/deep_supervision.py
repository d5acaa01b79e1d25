"""Deep supervision with weights 1/2, 1/4, ... over maps of falling resolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from medmap_monai.losses.upsample import upsample_linear


def deep_weight(level: int) -> float:
    """Weight of deep-supervision map ``level`` (0 = finest): 1/2, 1/4, 1/8, ..."""
    return 0.5 ** (level + 1)


def deep_supervision_loss(
    loss: Callable[[Tensor, Tensor], Tensor], deep_logits: Sequence[Tensor], label: Tensor
) -> Tensor:
    """Sum of ``2**-(j+1) * loss(deep_logits[j], label)``, maps finest first, each up-sampled to the label's size.

    MONAI's ``DeepSupervisionLoss`` puts weight 1 on the first map and shrinks the target instead of the logits; the
    published scripts of this field keep the label and up-sample, so tiny regions survive.

    Args:
        loss: ``loss(logits, label) -> scalar``.
        deep_logits: logits (B, K, ...) at their own resolution, finest first; at least one.
        label: class indices (B, 1, ...).
    """
    size = label.shape[2:]
    terms = [deep_weight(j) * loss(upsample_linear(logits, size), label) for j, logits in enumerate(deep_logits)]
    return torch.stack(terms).sum()
