"""How many windows a network is given at once: asked for, or as many as the device's free memory holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

AUTO = "auto"
#: on a CPU batches of one are slow and larger ones gain nothing
ON_CPU = 2
#: windows of 80^3 keep a large GPU busy by then
MOST = 32
#: share of the free memory that is used: what the measurement does not see must fit as well
SHARE = 0.6


def check_window_batch(sw_batch_size: int | str) -> None:
    """Raise ValueError unless it is a number of at least 1 or ``"auto"``."""
    if sw_batch_size == AUTO:
        return
    if not isinstance(sw_batch_size, int) or sw_batch_size < 1:
        raise ValueError(f"sw_batch_size must be at least 1 or {AUTO!r}, got {sw_batch_size!r}")


def windows_that_fit(device: torch.device, run: Callable[[int], Any], most: int = MOST) -> int:
    """How many windows ``run(windows)`` may be given on ``device``: measured on a GPU, a constant elsewhere.

    Memory grows linearly with windows, so one run with two of them tells the rest. PyTorch's peak statistics of the
    device start anew here.

    Args:
        device: where ``run`` computes.
        run: does the work of the given number of windows, without gradients.
        most: upper bound.
    """
    if device.type != "cuda":
        return ON_CPU
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run(2)
    each = max(torch.cuda.max_memory_allocated(device) - before, 1) / 2
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return fitting(free, each, most)


def fitting(free: float, each: float, most: int = MOST) -> int:
    """Windows of ``each`` bytes that fit into ``free`` bytes, at least one and at most ``most``."""
    return max(1, min(most, int(SHARE * free / each)))
