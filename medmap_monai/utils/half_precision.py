"""Which half-precision type mixed precision uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from medmap_monai.utils.current_device import current_device


def half_precision(device: str | torch.device) -> torch.dtype:
    """bfloat16 where ``device`` computes it natively, else float16.

    float16 ends at 65,504. Nothing holds features below that where a network normalises inside its residual blocks
    only: in two trainings of DMAF-Net the first convolution of the decoder reached 34,000, a third ended in NaN.
    bfloat16 reaches as far as float32. Ours.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        with current_device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    return torch.bfloat16 if kind == "cpu" else torch.float16


def amp_arguments(device: str | torch.device, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Arguments of ``torch.autocast``: those ``given``, and where they name no type, :func:`half_precision`."""
    return {"dtype": half_precision(device), **(given or {})}
