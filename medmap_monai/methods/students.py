"""Single-modality ("student") paths through the shared fused decoder."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from medmap_monai.networks.base import DecoderOutput, ModalityFeatures, ModalityNetwork


class StudentRows(NamedTuple):
    """Decoder outputs of students: one row per (sample, modality) pair.

    output: the decoder output, R rows.
    sample: (R,) index of the batch row that each student belongs to.
    modality: (R,) index of the one modality that it sees.
    """

    output: DecoderOutput
    sample: Tensor
    modality: Tensor


def take_rows(features: ModalityFeatures, rows: Tensor) -> ModalityFeatures:
    """The features of ``rows`` (R,), repeated rows allowed."""
    return ModalityFeatures(
        [level.index_select(0, rows) for level in features.pyramid],
        None if features.tokens is None else features.tokens.index_select(0, rows),
        [level.index_select(0, rows) for level in features.projected],
        None if features.present is None else features.present.index_select(0, rows),
    )


def decode_students(network: ModalityNetwork, features: ModalityFeatures, present_mask: Tensor) -> StudentRows:
    """Decode each present modality alone, all students as one batch; absent modalities cost nothing.

    Args:
        network: the network whose fused decoder the students share.
        features: features of :meth:`ModalityNetwork.encode`, B rows; prepared features are reused.
        present_mask: bool (B, M), the (sample, modality) pairs to decode.

    Raises:
        ValueError: when ``present_mask`` is False everywhere.
    """
    sample, modality = torch.nonzero(present_mask, as_tuple=True)
    if sample.numel() == 0:
        raise ValueError("present_mask is False everywhere: no student can be decoded")
    one_hot = torch.nn.functional.one_hot(modality, present_mask.shape[1]).to(torch.bool)
    return StudentRows(network.decode(take_rows(features, sample), one_hot), sample, modality)
