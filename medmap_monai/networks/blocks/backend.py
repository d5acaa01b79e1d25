"""The one place that decides how the same numbers are computed: by device, and eagerly or as a graph.

On a CPU arithmetic is dear and decisions are free: encoders and fusions run only on what a mask allows, and tensors lie
with their channels innermost. Everywhere else, and in every traced, exported or compiled graph, decisions are dear: all
rows are computed in few, large operations, and masks multiply. In between are training steps that are recorded once per
pattern of masks (:mod:`~medmap_monai.utils.fixed_course`): there decisions are remembered, hence free on any device.
:func:`dense_path` forces the second way on a CPU, so that tests can prove it without another device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from medmap_monai.utils.fixed_course import data_may_decide

_dense: bool | None = None  # one for all threads: backward on a GPU runs in a thread of its own


@contextmanager
def dense_path(on: bool | None = True) -> Iterator[None]:
    """Within it, compute as on a GPU (True), select rows by value as on a CPU (False), or as the device asks (None).

    Example:
        >>> from medmap_monai.networks.rfnet import RFNet
        >>> with dense_path(), torch.no_grad():
        ...     RFNet(base_width=2, levels=2)(torch.rand(1, 4, 4, 4, 4)).shape
        torch.Size([1, 4, 4, 4, 4])
    """
    global _dense
    before, _dense = _dense, on
    try:
        yield
    finally:
        _dense = before


def selects_rows(x: Tensor) -> bool:
    """Whether the values of a mask may choose what is computed; else everything is, and masked afterwards.

    On a GPU reading a value stops the queue of kernels, and a graph would keep the choice of its example for ever.
    """
    if torch.jit.is_scripting():
        return x.device.type == "cpu"
    else:
        return runs_eagerly() and (x.device.type == "cpu" or not data_may_decide() if _dense is None else not _dense)


def prefers_channels_last(x: Tensor) -> bool:
    """Whether ``x`` is computed by the rules for a CPU: channels innermost, and convolutions rearranged."""
    if torch.jit.is_scripting():
        return x.device.type == "cpu"
    else:
        return x.device.type == "cpu" and runs_eagerly() and not _dense


def groups_encoders(x: Tensor) -> bool:
    """Whether the encoders of all modalities run as one stack of grouped convolutions: fewer, larger kernels."""
    return not torch.jit.is_tracing() and (x.device.type != "cpu" if _dense is None else _dense)


def runs_eagerly() -> bool:
    """Whether shapes may steer the computation: not while tracing, exporting or compiling, where a choice made for the
    example input would be frozen into the graph."""
    if torch.jit.is_scripting():
        return True
    else:
        return not torch.jit.is_tracing() and not torch.compiler.is_compiling()


def pad_lone_row(x: Tensor, like: Tensor | None = None, limit: int = 262144) -> Tensor:
    """``x`` (B, C, ...) with its only row twice where that is faster; the caller keeps the first row.

    PyTorch's CPU convolution leaves oneDNN for a slow kernel when the batch is one and the volume is small (measured:
    2x to 10x slower at 32^3 and below); duplicating a row of at most ``limit`` elements, those of ``like`` where it is
    given, is then cheaper. Exact: no layer of this package mixes rows of a batch.
    """
    judged = x if like is None else like
    if x.shape[0] == 1 and judged.numel() <= limit and prefers_channels_last(x):
        return torch.cat([x, x], dim=0)
    return x


def is_channels_last(x: Tensor) -> bool:
    """Whether ``x`` (B, C, ...) lies in memory with the channels innermost."""
    if x.ndim == 5:
        return x.is_contiguous(memory_format=torch.channels_last_3d)
    return x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)


def to_preferred_layout(x: Tensor) -> Tensor:
    """``x`` (B, C, ...) in the memory layout that is fastest on its device; the values are the same.

    On a CPU that is channels-last: 3x3x3 convolutions at full resolution take half the time (forward and backward)
    and linear up-sampling a fifth.
    """
    if not prefers_channels_last(x):
        return x
    if x.ndim == 5:
        return x.contiguous(memory_format=torch.channels_last_3d)
    return x.contiguous(memory_format=torch.channels_last)


def stack_modalities(maps: list[Tensor], like: Tensor) -> Tensor:
    """Maps (B, C, ...), one per modality -> (B, M, C, ...), in the layout of ``like``.

    Args:
        maps: one map per modality; a zero may be expanded to one.
        like: one of the maps that has memory of its own.
    """
    if not prefers_channels_last(like) or not is_channels_last(like):
        return torch.stack(maps, dim=1)
    inner: list[Tensor] = []
    for x in maps:
        inner.append(x.movedim(1, -1))
    return torch.stack(inner, dim=1).movedim(-1, 2)
