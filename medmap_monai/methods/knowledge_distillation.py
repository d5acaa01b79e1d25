"""Knowledge distillation: a teacher that saw every modality teaches a student for incomplete input."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from medmap_monai.losses.deep_supervision import deep_supervision_loss
from medmap_monai.losses.feature_size import root_mean_square
from medmap_monai.losses.temperature_kl import TemperatureKLLoss
from medmap_monai.methods.base import Method, MethodOutput
from medmap_monai.networks.base import ModalityFeatures, ModalityNetwork


class TeacherTraining(Method):
    """Supervise a network on every modality that exists for the case, whatever dropout hides.

    Losses: ``fused`` and ``deep`` (weights 1/2, 1/4, ... from the finest map). Wrap it in
    :class:`~medmap_monai.methods.medmap.MedMAP` for an aligned teacher.

    Args:
        network: the teacher.
        loss: ``loss(logits, label) -> scalar`` with label (B, 1, ...).
        deep_weight: weight of the deep-supervision loss; 0 leaves it out.
    """

    def __init__(
        self, network: ModalityNetwork, loss: Callable[[Tensor, Tensor], Tensor], deep_weight: float = 1.0
    ) -> None:
        super().__init__(network)
        network.requires_grad_(True)  # the student's method, when it was built first, has frozen it
        self.loss = loss
        self.deep_weight = deep_weight

    def step(
        self, features: ModalityFeatures, image: Tensor, modality_mask: Tensor, present_mask: Tensor, label: Tensor
    ) -> MethodOutput:
        output = self.network.decode(features, present_mask)
        losses = {"fused": self.loss(output.logits, label)}
        if self.deep_weight and output.deep_logits:
            losses["deep"] = self.deep_weight * deep_supervision_loss(self.loss, output.deep_logits, label)
        return MethodOutput(output.logits, losses, {})


class KnowledgeDistillation(Method):
    r"""Train a student on incomplete input from a frozen teacher that sees all modalities of the case.

    .. math:: L = L_{seg} + \lambda_{kd} T^2 KL(\sigma(t/T) \| \sigma(s/T)) + \lambda_f MSE(b_s / r, sg(b_t) / r)

    with logits s, t, bottleneck features b and r the root mean square of :math:`b_t` per sample: residual encoders
    without a last norm reach sizes of 10 and more, and the plain difference then outweighs the labels. Losses:
    ``fused``, ``deep``, ``distill`` (the divergence per voxel) and ``bottleneck``. Only the student is deployed.
    Source: the family is named in the figures; these minimal terms are ours.

    Args:
        network: the student.
        teacher: a trained network with the same modalities and classes; it is frozen and kept in eval mode. Load its
            weights before the first step, see
            :class:`~medmap_monai.methods.knowledge_distillation_teacher.TeacherStage`.
        loss: ``loss(logits, label) -> scalar`` with label (B, 1, ...).
        deep_weight: weight of the deep-supervision loss; 0 leaves it out.
        distill_weight: :math:`\lambda_{kd}`. It counts every voxel, background too: at 0.5 phantom students did
            not learn the enhancing tumour.
        temperature: T.
        bottleneck_weight: :math:`\lambda_f`; needs networks whose decoder reports ``fused`` features of equal shape.
        subset: a mask of M flags: the student is dedicated to this subset and never sees anything else (a case with
            none of it is an error). None: one student for any subset.

    Raises:
        ValueError: when teacher and student do not fit, or ``subset`` is empty or has the wrong length.
    """

    def __init__(
        self,
        network: ModalityNetwork,
        teacher: ModalityNetwork,
        loss: Callable[[Tensor, Tensor], Tensor],
        deep_weight: float = 1.0,
        distill_weight: float = 0.05,
        temperature: float = 4.0,
        bottleneck_weight: float = 0.1,
        subset: Sequence[bool] | None = None,
    ) -> None:
        super().__init__(network)
        fits = (teacher.modalities, teacher.out_channels) == (network.modalities, network.out_channels)
        if not fits:
            raise ValueError(
                f"the teacher has {teacher.modalities} modalities and {teacher.out_channels} classes, the student "
                f"{network.modalities} and {network.out_channels}"
            )
        self.teacher = teacher.requires_grad_(False).eval()
        self.loss = loss
        self.deep_weight = deep_weight
        self.distill_weight = distill_weight
        self.bottleneck_weight = bottleneck_weight
        self.divergence = TemperatureKLLoss(temperature, clamp=None, reduction="sum_class")
        self.subset: Tensor | None
        self.register_buffer("subset", _subset_mask(subset, network.modalities), persistent=False)

    def train(self, mode: bool = True) -> KnowledgeDistillation:
        """Training mode for the student only: the teacher's norms, dropout and anchors stay as at inference."""
        super().train(mode)
        self.teacher.eval()
        return self

    def needed_modalities(self, modality_mask: Tensor, present_mask: Tensor) -> Tensor:
        """The student sees what its mask allows, a dedicated one its subset; the teacher encodes for itself."""
        return modality_mask if self.subset is None else present_mask & self.subset

    def step(
        self, features: ModalityFeatures, image: Tensor, modality_mask: Tensor, present_mask: Tensor, label: Tensor
    ) -> MethodOutput:
        if self.subset is not None:
            modality_mask = present_mask & self.subset
            if not bool(modality_mask.any(dim=1).all()):
                raise ValueError("a training case has none of the modalities of the student's subset: leave it out")
        with torch.no_grad():
            teacher = self.teacher.decode(self.teacher.encode(image, present_mask), present_mask)
        student = self.network.decode(features, modality_mask)
        losses = {"fused": self.loss(student.logits, label)}
        if self.deep_weight and student.deep_logits:
            losses["deep"] = self.deep_weight * deep_supervision_loss(self.loss, student.deep_logits, label)
        losses["distill"] = self.distill_weight * self.divergence(student.logits, teacher.logits)
        if self.bottleneck_weight:
            losses["bottleneck"] = self.bottleneck_weight * bottleneck_distance(student.fused, teacher.fused)
        return MethodOutput(student.logits, losses, {})


def bottleneck_distance(fused: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """Mean squared difference of the deepest fused features (B, C, ...), no gradient into ``target``.

    In units of the target's mean square, sample by sample: 0 for equal features, 1 for a student that says nothing.

    Raises:
        ValueError: when a network reports no fused features, or the shapes differ.
    """
    if not fused or not target:
        raise ValueError("the network's decoder reports no fused features: set the bottleneck weight to 0")
    if fused[-1].shape != target[-1].shape:
        raise ValueError(f"bottleneck shapes differ: {list(fused[-1].shape)} and {list(target[-1].shape)}")
    teacher = target[-1].detach().float()
    size = root_mean_square(teacher)
    return mse_loss(fused[-1].float() / size, teacher / size)


def _subset_mask(subset: Sequence[bool] | None, modalities: int) -> Tensor | None:
    if subset is None:
        return None
    flags = [bool(flag) for flag in subset]
    if len(flags) != modalities or not any(flags):
        raise ValueError(f"subset needs {modalities} flags with at least one True, got {list(subset)}")
    return torch.tensor(flags)
