"""Parameters that a step does not use, but whose gradient must exist."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def tie_parameters(value: Tensor, parameters: Iterable[nn.Parameter]) -> Tensor:
    """``value`` itself, with a zero gradient into every parameter.

    A step leaves out whatever its masks hide. DistributedDataParallel would wait for a parameter without gradient, and
    AdamW would skip its decay and momentum, which the published training does not.
    """
    trainable = [p for p in parameters if p.requires_grad]
    tied: Tensor = _Tie.apply(value, *trainable) if trainable else value
    return tied


class _Tie(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, *parameters: Tensor) -> Tensor:
        ctx.like = [(p.shape, p.dtype, p.device) for p in parameters]
        return value.view_as(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        zeros: dict[tuple[torch.dtype, torch.device], Tensor] = {}  # one number each, expanded: no memory, no kernels
        for _, dtype, device in ctx.like:
            zeros.setdefault((dtype, device), torch.zeros((), dtype=dtype, device=device))
        return grad, *(zeros[dtype, device].expand(shape) for shape, dtype, device in ctx.like)
