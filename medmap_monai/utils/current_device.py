"""Make the GPU that computes the current one."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def current_device(device: str | torch.device) -> AbstractContextManager[object]:
    """Inside, ``device`` is the current GPU; nothing happens for a CPU.

    PyTorch's operations follow their tensors, but its streams, events, recordings and questions about the hardware
    are those of the current GPU, which is ``cuda:0`` unless somebody says otherwise. On ``cuda:1`` an event would tell
    that a copy has arrived which has not, and a recording would hold nothing: every replay repeats old gradients.
    """
    target = torch.device(device)
    return torch.cuda.device(target) if target.type == "cuda" else nullcontext()
