"""Every subset a student of its superset: the drawn subset learns from the label and from what the case has."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from torch import Tensor

from medmap_monai.losses.deep_supervision import deep_supervision_loss, deep_weight
from medmap_monai.losses.temperature_kl import TemperatureKLLoss
from medmap_monai.methods.base import Method, MethodOutput
from medmap_monai.networks.base import DecoderOutput, ModalityFeatures, ModalityNetwork


class SubsetStudents(Method):
    """Decode each case twice from the same features: with all it has, and with the subset that was drawn.

    Sub-dropout teaches subsets at the price of complete sets, which it then rarely sees; PASSION keeps the complete
    path and teaches single modalities only. Here the path over everything present is trained as always (``fused``,
    ``deep``), and the path over ``modality_mask`` beside it, by the label (``subset``) and by the first path's
    softened prediction, which receives no gradient (``consistency``). Encoders run once; the second decoding is all
    that it costs. Needs a mode that draws subsets (``idt_drop`` or ``pdt``): where the drawn subset is all that is
    present, the second path repeats the first. Source: ours.

    Args:
        network: the network to train.
        loss: ``loss(logits, label) -> scalar`` with label (B, 1, ...).
        deep_weight: weight of deep supervision in both paths; 0 leaves it out.
        subset_weight: weight of the label for the drawn subset; 0 leaves it out.
        consistency_weight: weight of the divergence from the first path; 0 leaves it out.
        consistency: replaces ``TemperatureKLLoss()``.

    Raises:
        ValueError: for a negative weight.

    Example:
        >>> import torch
        >>> from monai.losses import DiceCELoss
        >>> from medmap_monai.networks.unet import ModalityUNet
        >>> unet = ModalityUNet(spatial_dims=3, in_channels=2, out_channels=3, channels=(4, 8), deep_supervision=0)
        >>> method = SubsetStudents(unet, DiceCELoss(to_onehot_y=True, softmax=True))
        >>> drawn, present = torch.tensor([[True, False]]), torch.tensor([[True, True]])
        >>> out = method(torch.rand(1, 2, 8, 8, 8), drawn, present, torch.ones(1, 1, 8, 8, 8))
        >>> sorted(out.losses)
        ['consistency', 'fused', 'subset']
    """

    def __init__(
        self,
        network: ModalityNetwork,
        loss: Callable[[Tensor, Tensor], Tensor],
        deep_weight: float = 1.0,
        subset_weight: float = 1.0,
        consistency_weight: float = 0.5,
        consistency: TemperatureKLLoss | None = None,
    ) -> None:
        super().__init__(network)
        if min(deep_weight, subset_weight, consistency_weight) < 0:
            raise ValueError(
                f"weights must not be negative, got deep_weight {deep_weight}, subset_weight {subset_weight}, "
                f"consistency_weight {consistency_weight}"
            )
        self.loss = loss
        self.deep_weight = deep_weight
        self.subset_weight = subset_weight
        self.consistency_weight = consistency_weight
        self.consistency = consistency or TemperatureKLLoss()

    def course(self) -> Hashable:
        return "subset students"

    def step(
        self, features: ModalityFeatures, image: Tensor, modality_mask: Tensor, present_mask: Tensor, label: Tensor
    ) -> MethodOutput:
        teacher = self.network.decode(features, present_mask)
        student = self.network.decode(features, modality_mask)
        losses = {"fused": self.loss(teacher.logits, label)}
        if self.deep_weight and teacher.deep_logits:
            losses["deep"] = self.deep_weight * deep_supervision_loss(self.loss, teacher.deep_logits, label)
        if self.subset_weight:
            losses["subset"] = self.subset_weight * self._label(student, label)
        if self.consistency_weight:
            losses["consistency"] = self.consistency_weight * self._divergence(student, teacher)
        return MethodOutput(teacher.logits, losses, {})

    def _label(self, student: DecoderOutput, label: Tensor) -> Tensor:
        """Label loss of the second path, deep supervision included."""
        value = self.loss(student.logits, label)
        if self.deep_weight and student.deep_logits:
            value = value + self.deep_weight * deep_supervision_loss(self.loss, student.deep_logits, label)
        return value

    def _divergence(self, student: DecoderOutput, teacher: DecoderOutput) -> Tensor:
        """Divergence of the second path from the first, deep maps weighted 1/2, 1/4, ... at their own resolution."""
        value = self.consistency(student.logits, teacher.logits)
        for level, (own, target) in enumerate(zip(student.deep_logits, teacher.deep_logits, strict=True)):
            value = value + deep_weight(level) * self.consistency(own, target)
        return value
