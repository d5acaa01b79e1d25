"""The baseline: modality dropout with a fused path, single-modality paths and deep supervision."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import Tensor

from medmap_monai.losses.deep_supervision import deep_supervision_loss
from medmap_monai.methods.base import Method, MethodOutput
from medmap_monai.methods.students import decode_students
from medmap_monai.networks.base import ModalityFeatures, ModalityNetwork


class ModalityDropoutBaseline(Method):
    """Supervise the fused prediction, its deep-supervision maps and every present modality on its own.

    Losses: ``fused``, ``deep`` (weights 1/2, 1/4, ... from the finest map) and ``modality`` (mean over the
    single-modality paths: the network's own decoder for one modality where it has one, else its fused decoder).
    Source: ours, after the auxiliary paths of RFNet-type training, which sums over modalities: ``modality_weight=M``.

    Args:
        network: the network to train.
        loss: ``loss(logits, label) -> scalar`` with label (B, 1, ...), for example MONAI's ``DiceCELoss``.
        deep_weight: weight of the deep-supervision loss; 0 leaves it out.
        modality_weight: weight of the single-modality loss; 0 leaves these paths out.
    """

    def __init__(
        self,
        network: ModalityNetwork,
        loss: Callable[[Tensor, Tensor], Tensor],
        deep_weight: float = 1.0,
        modality_weight: float = 1.0,
    ) -> None:
        super().__init__(network)
        self.loss = loss
        self.deep_weight = deep_weight
        self.modality_weight = modality_weight

    def needed_modalities(self, modality_mask: Tensor, present_mask: Tensor) -> Tensor:
        """Without single-modality paths nobody looks at a hidden modality, so it is not encoded."""
        return present_mask if self.modality_weight else modality_mask

    def course(self) -> Hashable:
        return "baseline"

    def step(
        self, features: ModalityFeatures, image: Tensor, modality_mask: Tensor, present_mask: Tensor, label: Tensor
    ) -> MethodOutput:
        fused = self.network.decode(features, modality_mask)
        losses = {"fused": self.loss(fused.logits, label)}
        if self.deep_weight and fused.deep_logits:
            losses["deep"] = self.deep_weight * deep_supervision_loss(self.loss, fused.deep_logits, label)
        per_modality: dict[str, Tensor] = {}
        if self.modality_weight:
            logits, sample, modality = self._alone(features, present_mask)
            values = self._per_modality(logits, label, sample, modality)
            seen = present_mask.any(dim=0)  # a loss of NaN is no modality without rows: it must reach the sum
            losses["modality"] = self.modality_weight * torch.where(seen, values, 0.0).sum() / seen.sum()
            per_modality["modality"] = values.detach()
        return MethodOutput(fused.logits, losses, per_modality)

    def _alone(self, features: ModalityFeatures, present_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of every present modality alone, and the sample and modality of each row."""
        if self.network.has_unimodal_decoder:
            sample, modality = torch.nonzero(present_mask, as_tuple=True)
            return self.network.decode_unimodal(features, sample, modality), sample, modality
        students = decode_students(self.network, features, present_mask)
        return students.output.logits, students.sample, students.modality

    def _per_modality(self, logits: Tensor, label: Tensor, sample: Tensor, modality: Tensor) -> Tensor:
        """Loss of each modality over the rows that have it, NaN for one without any: (M,)."""
        rows_of = [modality == m for m in range(self.network.modalities)]
        nan = logits.new_full((), float("nan"))
        return torch.stack(
            [self.loss(logits[rows], label[sample[rows]]) if bool(rows.any()) else nan for rows in rows_of]
        )
