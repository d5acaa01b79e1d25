"""Masked attention alignment: a modality's tokens should relate to each other as the fused tokens do."""

from __future__ import annotations

import torch
from monai.utils import StrEnum, look_up_option
from torch import Tensor, nn

from medmap_monai.losses.label_maps import full_precision


class QuerySource(StrEnum):
    """Which features ask: the modality's or the fused ones."""

    MODALITY = "modality"
    FUSED = "fused"


class MaskedAttentionAlignmentLoss(nn.Module):
    """Mean squared difference between the fused tokens and what attention reads, across the two feature sets.

    ``query="modality"`` (the final published figure): queries come from the modality, keys and values from the fused
    features, and the output shall equal the fused features. The values hold nothing of the modality, so token i can
    only be reproduced when the modality's token i finds the right places: it has to carry the fused features'
    pairwise structure. ``query="fused"`` (the earlier figure): keys and values come from the modality.

    The attention and its norms are trained with the loss and thrown away after training. Equal features alone do not
    make the loss zero, since attention mixes tokens; it is zero when attention reproduces the fused features, for
    instance wherever they are the same at every position and the output projection has learned to undo the norm.
    Sources: the figures for the direction; norms, heads and the comparison are ours.

    Args:
        channels: channels C of both features.
        heads: attention heads; must divide ``channels``.
        query: ``"modality"`` or ``"fused"``.
        detach_teacher: stop the gradient into the fused features.

    Raises:
        ValueError: for an unknown option or ``channels`` that ``heads`` does not divide.
    """

    def __init__(self, channels: int, heads: int = 4, query: str = "modality", detach_teacher: bool = True) -> None:
        super().__init__()
        if channels % heads != 0:
            raise ValueError(f"channels must be a multiple of heads, got {channels} channels and {heads} heads")
        self.query = look_up_option(query, QuerySource)
        self.detach_teacher = detach_teacher
        self.query_norm = nn.LayerNorm(channels)
        self.key_norm = nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)

    def forward(self, student: Tensor, teacher: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """One value per row: (R,).

        Args:
            student: features of one modality per row, (R, C, ...).
            teacher: fused features of the same samples, (R, C, ...).
            key_mask: bool (R, N) over the N positions, True = may be attended to; a row without any attends to all.

        Raises:
            ValueError: when the shapes differ.
        """
        if student.shape != teacher.shape:
            raise ValueError(f"features differ in shape: {list(student.shape)} and {list(teacher.shape)}")
        with torch.autocast(student.device.type, enabled=False):
            teacher = teacher.detach() if self.detach_teacher else teacher
            modality = full_precision(student).flatten(2).transpose(1, 2)
            fused = full_precision(teacher).flatten(2).transpose(1, 2)
            asking, asked = (modality, fused) if self.query == QuerySource.MODALITY else (fused, modality)
            keys = self.key_norm(asked)
            hidden = None
            if key_mask is not None:
                hidden = ~(key_mask | ~key_mask.any(1, keepdim=True))
            read, _ = self.attention(self.query_norm(asking), keys, keys, key_padding_mask=hidden, need_weights=False)
            return (read - fused).square().flatten(1).mean(1)
