"""Decode only what is there: pick the available modalities of each row, and 1x1 convolutions over the pick.

A row of a fused decoder sees ``S`` slots. Usually slot s is modality s (S = M); where a row sees fewer modalities, and
always for single-modality students, only those are copied, so that an absent modality costs nothing. ``placement``
(R, S, M) is one where slot s of row r holds modality m and the row may see it, else zero; masking is a product with it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from medmap_monai.networks.blocks.backend import is_channels_last, selects_rows
from medmap_monai.networks.blocks.fast_conv import convolve
from medmap_monai.networks.features import zero_absent


def _pick(features: Tensor, rows: list[int], index: list[list[int]]) -> Tensor:
    """``features[rows[r], index[r][s]]`` -> (R, S, C, ...) in one copy that keeps the layout; R or S must be 1."""
    views = [features[r, m] for r, slots in zip(rows, index, strict=True) for m in slots]
    if features.stride(2) != 1:  # channels are not innermost
        picked = torch.stack(views)
        return picked[None] if len(rows) == 1 else picked[:, None]
    views = [v.movedim(0, -1) for v in views]
    if len(rows) == 1:
        # the batch axis comes in before the axes move: PyTorch must recognise the layout from the strides
        return torch.stack(views, dim=-2)[None].movedim((-2, -1), (1, 2))
    return torch.stack(views).movedim(-1, 1)[:, None]


def needed(mask: Tensor, rows: Tensor | None, batch: int) -> Tensor:
    """Which modalities of which samples a decoder will look at: bool (batch, M).

    Args:
        mask: bool (R, M) or, per level, (R, L, M).
        rows: (R,), the sample of each row; None for R = batch in order.
        batch: number of samples.
    """
    seen = mask if mask.ndim == 2 else mask.any(dim=1)
    if rows is None:
        return seen
    counts = torch.zeros([batch, seen.shape[1]], dtype=torch.int32, device=mask.device)
    return counts.index_add(0, rows, seen.to(counts.dtype)) > 0


def pick_modality(features: Tensor, rows: Tensor, modality: Tensor) -> Tensor:
    """``features[rows[r], modality[r]]`` -> (R, C, ...), in the layout of the features (B, M, C, ...)."""
    if not selects_rows(features):
        return features.flatten(0, 1).index_select(0, rows * features.shape[1] + modality)
    return _pick(features, rows.tolist(), [[m] for m in modality.tolist()])[:, 0]


def _select_eagerly(
    features: Tensor, mask: Tensor, present: Tensor | None, rows: Tensor | None
) -> tuple[Tensor, Tensor]:
    count, modalities = mask.shape
    most = max(1, int(mask.sum(dim=1).max()))
    chosen = list(range(count)) if rows is None else rows.tolist()
    if most < modalities and (count == 1 or most == 1):
        index = mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
        placement = torch.nn.functional.one_hot(index, modalities) * mask.gather(1, index)[..., None]
        return (_pick(features, chosen, index.tolist()), placement.to(features.dtype))
    if rows is not None:
        features = torch.cat([features[r : r + 1] for r in chosen])
        present = None if present is None else present.index_select(0, rows)
    if present is None or not bool((mask | ~present).all()):  # else what the mask hides is zero already
        features = zero_absent(features, mask)
    return (features, torch.diag_embed(mask.to(features.dtype)))


def select_modalities(
    features: Tensor,
    mask: Tensor,
    present: Tensor | None = None,
    rows: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The modalities that ``mask`` allows, copied only where that is cheaper than carrying the others along.

    Args:
        features: (B, M, C, ...), zero where ``present`` is False.
        mask: bool (R, M).
        present: bool (B, M), where features are known to be zero already; None when unknown.
        rows: (R,), the row of ``features`` that each row of ``mask`` looks at; None for R = B in order.

    Returns:
        the slots (R, S, C, ...), and their placement (R, S, M) in the dtype of the features.
    """
    if not torch.jit.is_scripting():
        if selects_rows(features):
            return _select_eagerly(features, mask, present, rows)
    if rows is not None:
        features = features.index_select(0, rows)
    return (zero_absent(features, mask), torch.diag_embed(mask.to(features.dtype)))


def convolve_slots(
    slots: Tensor,
    placement: Tensor,
    weight: Tensor,
    bias: Tensor | None,
) -> Tensor:
    """1x1 convolution over the zero-filled concatenation of all M modalities, computed from the slots alone.

    Args:
        slots: (R, S, C, ...).
        placement: (R, S, M).
        weight: (K, M * C, 1, ...), input channels modality-major.
        bias: (K,).

    Returns:
        (R, K, ...).
    """
    per_modality = weight.reshape(weight.shape[0], placement.shape[2], -1)  # (K, M, C)
    chosen = torch.einsum("rsm,kmc->rksc", placement.to(weight.dtype), per_modality).flatten(2)  # (R, K, S * C)
    joined = slots.flatten(1, 2)
    if selects_rows(joined) and joined.shape[0] == 1:
        return convolve(joined, chosen.reshape([weight.shape[0], -1] + [1] * (joined.ndim - 2)), bias)
    inner = torch.bmm(joined.flatten(2).transpose(1, 2), chosen.transpose(1, 2))
    if bias is not None:
        inner = inner + bias
    return inner.transpose(1, 2).reshape([joined.shape[0], -1] + list(joined.shape[2:]))


def _sum_eagerly(parts: list[Tensor], mask: Tensor, rows: Tensor | None, weights: Tensor | None) -> Tensor:
    chosen = range(mask.shape[0]) if rows is None else rows.tolist()
    empty = next(p for p in parts if p.numel() > 0)
    sums: list[Tensor] = []
    for r, (row, allowed) in enumerate(zip(chosen, mask.tolist(), strict=True)):
        total: Tensor | None = None
        for m, yes in enumerate(allowed):
            if not yes or parts[m].numel() == 0:
                continue
            if weights is None:
                total = parts[m][row] if total is None else total + parts[m][row]
            elif total is None:
                total = parts[m][row] * weights[r, m]
            else:
                total = torch.addcmul(total, parts[m][row], weights[r, m])
        sums.append(torch.zeros_like(empty[row]) if total is None else total)
    if len(sums) == 1:
        return sums[0][None]
    if is_channels_last(empty):
        return torch.stack([s.movedim(0, -1) for s in sums]).movedim(-1, 1)
    return torch.stack(sums)


def sum_modalities(
    parts: list[Tensor],
    mask: Tensor,
    rows: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Sum of the available modalities' parts; what the mask hides is never touched.

    Args:
        parts: one (B, C, ...) per modality; (B, 0), not for all of them, for one that was left out and counts as zero.
        mask: bool (R, M).
        rows: (R,), the row of ``parts`` that each row of ``mask`` looks at; None for R = B in order.
        weights: (R, M, 1, ...), a factor per modality and position; None means 1.

    Returns:
        (R, C, ...).
    """
    if not torch.jit.is_scripting():
        if selects_rows(mask):
            return _sum_eagerly(parts, mask, rows, weights)
    stacked = torch.stack(parts, dim=1)
    if rows is not None:
        stacked = stacked.index_select(0, rows)
    stacked = zero_absent(stacked, mask)
    return stacked.sum(dim=1) if weights is None else (stacked * weights).sum(dim=1)
