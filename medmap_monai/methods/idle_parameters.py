"""Parameters that a step does not use, but whose gradient must exist."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def zero_of(parameters: Iterable[nn.Parameter]) -> Tensor:
    """A zero that depends on every parameter, so that DDP and weight decay treat idle ones like the others.

    Added to a loss it gives them zero gradients; DDP would wait for a parameter without any, and AdamW would skip its
    decay and momentum, which the published training does not.
    """
    return torch.stack([p.reshape(-1)[0] for p in parameters if p.requires_grad]).sum() * 0.0
