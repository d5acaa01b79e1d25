"""The one place for layout and backend choices: what makes the same arithmetic fast on the machine at hand."""

from __future__ import annotations

import torch
from torch import Tensor


def lone_row_is_slow(x: Tensor, limit: int = 262144) -> bool:
    """Whether ``x`` (B, C, ...) is a single row that would fall off the CPU convolution cliff.

    PyTorch's CPU convolution leaves oneDNN for a slow kernel when the batch is one and the volume is small (measured:
    2x to 10x slower at 32^3 and below); duplicating a row of at most ``limit`` elements is then cheaper.
    """
    return x.shape[0] == 1 and x.device.type == "cpu" and x.numel() <= limit


def pad_lone_row(x: Tensor) -> Tensor:
    """``x`` with its only row twice where :func:`lone_row_is_slow`, else ``x``; the caller keeps the first row.

    Exact: no layer of this package mixes rows of a batch.
    """
    return torch.cat([x, x], dim=0) if lone_row_is_slow(x) else x
