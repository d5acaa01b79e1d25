"""Domain adaptation: a full-modality path and a missing-modality path that are drawn together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from medmap_monai.losses.deep_supervision import deep_supervision_loss
from medmap_monai.methods.base import Method, MethodOutput
from medmap_monai.methods.domain_discriminator import DomainDiscriminator
from medmap_monai.methods.knowledge_distillation import bottleneck_distance
from medmap_monai.networks.base import DecoderOutput, ModalityFeatures, ModalityNetwork


class DomainAdaptation(Method):
    r"""Train the path with missing modalities (target) beside the path with all of them (source).

    .. math:: L = L_{seg}^{full} + L_{seg}^{miss} + \lambda_{con} MSE(p_{full}, p_{miss})
              + \lambda_f MSE(b_{miss} / r, sg(b_{full}) / r) + \lambda_{adv} L_{adv}

    with class probabilities p, bottleneck features b and r the root mean square of the full path's per sample. Losses:
    ``full``, ``missing``, ``deep`` (both paths), ``consistency``, ``bottleneck`` and ``adversarial``. The alignment of
    each modality to the anchor is :class:`~medmap_monai.methods.medmap.MedMAP` around this method. Source: the family
    is named in the figures; these minimal terms are ours.

    Args:
        network: the deployed network, the missing-modality path.
        loss: ``loss(logits, label) -> scalar`` with label (B, 1, ...).
        full_network: a network of its own for the full path (training only); None: both paths share ``network``, which
            then encodes once.
        deep_weight: weight of the deep-supervision losses; 0 leaves them out.
        consistency_weight: :math:`\lambda_{con}`.
        bottleneck_weight: :math:`\lambda_f`; needs networks whose decoder reports ``fused`` features.
        detach_full: no gradient from the consistency loss into the full path.
        adversarial_weight: :math:`\lambda_{adv}` of a discriminator that tells the paths apart at the bottleneck,
            trained through gradient reversal; 0 builds none.
        discriminator_channels: input channels of the discriminator, those of the deepest fused features; needed when
            ``adversarial_weight`` is positive.

    Raises:
        ValueError: when the two networks do not fit, or the discriminator's channels are missing.
    """

    def __init__(
        self,
        network: ModalityNetwork,
        loss: Callable[[Tensor, Tensor], Tensor],
        full_network: ModalityNetwork | None = None,
        deep_weight: float = 1.0,
        consistency_weight: float = 1.0,
        bottleneck_weight: float = 0.1,
        detach_full: bool = False,
        adversarial_weight: float = 0.0,
        discriminator_channels: int | None = None,
    ) -> None:
        super().__init__(network)
        if full_network is not None:
            expected = (network.modalities, network.out_channels)
            got = (full_network.modalities, full_network.out_channels)
            if expected != got:
                raise ValueError(f"full_network has (modalities, classes) = {got}, the network {expected}")
        self.full_network = full_network
        self.loss = loss
        self.deep_weight = deep_weight
        self.consistency_weight = consistency_weight
        self.bottleneck_weight = bottleneck_weight
        self.detach_full = detach_full
        self.adversarial_weight = adversarial_weight
        self.discriminator: DomainDiscriminator | None = None
        if adversarial_weight > 0:
            if discriminator_channels is None:
                raise ValueError("adversarial_weight is positive: discriminator_channels is needed")
            self.discriminator = DomainDiscriminator(network.spatial_dims, discriminator_channels)

    def step(
        self, features: ModalityFeatures, image: Tensor, modality_mask: Tensor, present_mask: Tensor, label: Tensor
    ) -> MethodOutput:
        missing = self.network.decode(features, modality_mask)
        if self.full_network is None:
            full = self.network.decode(features, present_mask)
        else:
            full = self.full_network.decode(self.full_network.encode(image, present_mask), present_mask)
        losses = {"full": self.loss(full.logits, label), "missing": self.loss(missing.logits, label)}
        deep = [out.deep_logits for out in (full, missing) if out.deep_logits]
        if self.deep_weight and deep:
            terms = [deep_supervision_loss(self.loss, logits, label) for logits in deep]
            losses["deep"] = self.deep_weight * torch.stack(terms).sum()
        losses["consistency"] = self.consistency_weight * self._consistency(full.logits, missing.logits)
        if self.bottleneck_weight:
            losses["bottleneck"] = self.bottleneck_weight * bottleneck_distance(missing.fused, full.fused)
        if self.discriminator is not None:
            losses["adversarial"] = self.adversarial_weight * self._adversarial(
                self.discriminator, full, missing, modality_mask, present_mask
            )
        return MethodOutput(missing.logits, losses, {})

    def _consistency(self, full: Tensor, missing: Tensor) -> Tensor:
        target = full.detach() if self.detach_full else full
        return mse_loss(missing.float().softmax(dim=1), target.float().softmax(dim=1))

    @staticmethod
    def _adversarial(
        discriminator: DomainDiscriminator,
        full: DecoderOutput,
        missing: DecoderOutput,
        modality_mask: Tensor,
        present_mask: Tensor,
    ) -> Tensor:
        """Samples that lack nothing are the same in both domains and stay out."""
        if not full.fused or not missing.fused:
            raise ValueError("the network's decoder reports no fused features: set adversarial_weight to 0")
        rows = (modality_mask != present_mask).any(dim=1).to(full.logits.dtype)
        return discriminator.loss(full.fused[-1], missing.fused[-1], rows)
