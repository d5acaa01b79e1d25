"""What the two masks of a training step must satisfy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def check_masks(modality_mask: Tensor, present_mask: Tensor, cases: Sequence[str] | None = None) -> None:
    """Refuse masks that no loss is defined for.

    Args:
        modality_mask: bool (B, M), what the fused path may see.
        present_mask: bool (B, M), what exists for the case.
        cases: name of each row, for the message.

    Raises:
        ValueError: where shapes differ, a row sees what its case does not have, or sees nothing at all; the message
            names the rows.
    """
    if modality_mask.shape != present_mask.shape or modality_mask.ndim != 2:
        raise ValueError(
            f"modality_mask and present_mask must have the shape (B, M); got {list(modality_mask.shape)} "
            f"and {list(present_mask.shape)}"
        )
    beyond = (modality_mask & ~present_mask).any(dim=1)
    empty = ~modality_mask.any(dim=1)
    if not bool((beyond | empty).any()):
        return
    problems = []
    if bool(beyond.any()):
        problems.append(f"modality_mask allows modalities that present_mask does not have in {_names(beyond, cases)}")
    if bool(empty.any()):
        problems.append(f"samples without any visible modality: {_names(empty, cases)}")
    masks = f"modality_mask {_written(modality_mask)}, present_mask {_written(present_mask)}"
    raise ValueError(f"{'; '.join(problems)} ({masks})")


def _names(rows: Tensor, cases: Sequence[str] | None) -> str:
    numbers = torch.nonzero(rows).flatten().tolist()
    return f"batch rows {numbers}" if cases is None else f"cases {[cases[n] for n in numbers]}"


def _written(mask: Tensor) -> list[str]:
    return ["".join("1" if flag else "0" for flag in row) for row in mask.tolist()]
