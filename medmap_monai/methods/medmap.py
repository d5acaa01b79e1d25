"""MedMAP: any training method, plus the alignment of each modality's features to one anchor."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from medmap_monai.losses.alignment import AlignmentLoss
from medmap_monai.methods.base import Method, MethodOutput
from medmap_monai.networks.aligned import AlignedNetwork, AnchorType
from medmap_monai.networks.base import ModalityFeatures


class MedMAP(Method):
    """Add the alignment loss to another method.

    ``MedMAP(ModalityDropoutBaseline(AlignedNetwork(...)))`` is MedMAP on a multi-encoder network,
    ``MedMAP(Passion(AlignedNetwork(...)))`` combines it with self-distillation. The wrapped method computes its own
    losses from the same features; this one adds ``align``: the mean over aligned levels of ``loss`` on all modalities
    that exist for the case, hidden ones included, times ``weight``. With ``anchor="none"`` it is zero and the method
    is the unaligned baseline. Source: the published fragment for the loss; how it enters the total is ours.

    Args:
        method: the method to extend; its network must be an :class:`AlignedNetwork`.
        weight: factor of the alignment loss (the sensible range depends on form and level: 0.1 to 1).
        loss: the alignment loss; None means :class:`AlignmentLoss` with its defaults.

    Raises:
        TypeError: when the method's network is not an :class:`AlignedNetwork`.
        ValueError: for a negative weight.
    """

    network: AlignedNetwork

    def __init__(self, method: Method, weight: float = 1.0, loss: AlignmentLoss | None = None) -> None:
        if not isinstance(method.network, AlignedNetwork):
            raise TypeError(f"MedMAP needs a method around an AlignedNetwork, got {type(method.network).__name__}")
        super().__init__(method.network)  # one object under two names, as every method has its network under this one
        if weight < 0:
            raise ValueError(f"weight must not be negative, got {weight}")
        self.method = method
        self.weight = weight
        self.loss = AlignmentLoss() if loss is None else loss

    def needed_modalities(self, modality_mask: Tensor, present_mask: Tensor) -> Tensor:
        """Alignment looks at every modality that exists."""
        if self.network.anchor == AnchorType.NONE:
            return self.method.needed_modalities(modality_mask, present_mask)
        return present_mask

    def step(
        self, features: ModalityFeatures, image: Tensor, modality_mask: Tensor, present_mask: Tensor, label: Tensor
    ) -> MethodOutput:
        output = self.method.step(features, image, modality_mask, present_mask, label)
        terms, values = [], []
        for maps, anchor in self.network.anchors(features, present_mask).values():
            distance = self.loss.terms(maps, anchor, present_mask)
            terms.append(self.loss.reduce(distance, anchor, present_mask))
            values.append(distance.detach().sum(dim=0) / present_mask.sum(dim=0))  # 0/0 = NaN: nobody has it
        if not terms:
            zero = torch.zeros((), device=output.pred.device)
            return output._replace(losses={**output.losses, "align": zero})
        return output._replace(
            losses={**output.losses, "align": self.weight * torch.stack(terms).mean()},
            per_modality={**output.per_modality, "align": torch.stack(values).mean(dim=0)},
        )

    def course(self) -> Hashable | None:
        return self.method.course()

    def parameter_groups(self) -> list[dict[str, Any]]:
        groups = self.method.parameter_groups()
        taken = {id(p) for group in groups for p in group["params"]}
        rest = [p for p in self.parameters() if id(p) not in taken]
        return [*groups, {"params": rest}] if rest else groups

    def attach_optimizer(self, optimizer: Optimizer) -> Optimizer:
        return self.method.attach_optimizer(optimizer)

    def on_epoch_start(self, epoch: int) -> None:
        self.method.on_epoch_start(epoch)

    def after_backward(self) -> None:
        self.method.after_backward()

    def on_epoch_end(self, epoch: int) -> None:
        self.method.on_epoch_end(epoch)
