"""DMAF-Net's training: relation and prototype distillation from the fused path, balanced by a training monitor."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from monai.utils import convert_to_tensor, look_up_option
from torch import Tensor
from torch.optim import Optimizer

from medmap_monai.losses.covariance_consistency import CovarianceConsistencyLoss
from medmap_monai.losses.deep_supervision import deep_supervision_loss
from medmap_monai.losses.feature_size import root_mean_square
from medmap_monai.losses.masked_attention_alignment import MaskedAttentionAlignmentLoss
from medmap_monai.losses.prototype_alignment import PrototypeAlignmentLoss
from medmap_monai.losses.segmentation import WeightedCEDiceLoss
from medmap_monai.losses.temperature_kl import TemperatureKLLoss
from medmap_monai.methods.base import Method, MethodOutput
from medmap_monai.methods.case_counts import CaseCounts
from medmap_monai.methods.loss_weights import DMAFWeights
from medmap_monai.methods.self_distillation import mean_where, rows_to_matrix
from medmap_monai.methods.students import StudentMode, decode_students
from medmap_monai.methods.training_monitor import DynamicTrainingMonitor, GradientMode
from medmap_monai.networks.base import ModalityFeatures, ModalityNetwork
from medmap_monai.utils.grouped import grouped


class DMAF(Method):
    r"""DMAF-Net's objective, on any network that tells its fused features.

    With :math:`e^m` the deepest features of modality m, f the deepest fused features (the teacher, detached),
    :math:`\delta_m` whether a sample has m, :math:`w^m` the monitor's loss weight and :math:`\omega_m` the
    missing-rate weight, the losses of a sample are

    - ``fused`` and ``deep``: the segmentation loss of the fused prediction and of its deep-supervision maps;
    - ``modality``: :math:`\sum_m \delta_m L(z^m, y)`, each modality on its own, through the network's unimodal
      decoder or, where it has none, through the fused decoder with that modality alone;
    - ``covariance``, ``attention``, ``prototype``: :math:`\lambda \sum_m \delta_m w^m \omega_m L_d(e^m, f)`;
    - ``pixel`` (off by default): the same with the temperature KL divergence of the single-modality predictions.

    With ``feature_scale="teacher"`` both features of a pair are divided by the root mean square of f before they are
    compared. Without it a loss has the square (covariances: the fourth power) of whatever size the features happen to
    have: residual encoders without a last norm reach sizes of 10, and the distillation terms then outweigh the labels
    a thousandfold.

    The monitor is fed with the gaps of samples whose fused path sees at least two modalities: with one, teacher and
    student see the same, and the gap says nothing about which modality lags.

    ``grad_mode="grad"`` of the monitor multiplies the gradients of encoder m by its scale before clipping. Adam(W)
    divides each gradient by its running size, so there a scale that changes slowly has hardly any effect; with
    ``"lr"`` the learning rate is scaled instead: build the optimizer over :meth:`parameter_groups`; the trainer calls
    :meth:`attach_optimizer`.

    Source: reconstruction from DMAF-Net's figures and abstract; the formulas are ours, see
    ``docs/explanation/dmafnet.md``.

    Args:
        network: the network to train. The attention loss needs deepest channels that its heads divide.
        segmentation_loss: ``loss(logits, label) -> scalar``; ``WeightedCEDiceLoss()`` when None.
        weights: of the losses but ``fused``, a :class:`~medmap_monai.methods.loss_weights.DMAFWeights` or its
            arguments; 0 leaves a loss out.
        covariance_loss: replaces ``CovarianceConsistencyLoss(channels)``.
        attention_loss: replaces ``MaskedAttentionAlignmentLoss(channels)``.
        prototype_loss: replaces ``PrototypeAlignmentLoss()``.
        pixel_loss: replaces ``TemperatureKLLoss()``.
        feature_scale: ``"teacher"`` compares features relative to the size of f, ``"none"`` as they are.
        attention_keys: ``"all"`` positions may be attended to, or those that show ``"foreground"``.
        monitor: replaces ``DynamicTrainingMonitor(M)``; one with ``alpha=0, grad_mode="off"`` only watches.
        cases: number of training cases in all and per modality, for :math:`\omega`; all 1 when None.
        students: how single-modality paths through the fused decoder run, see
            :class:`~medmap_monai.methods.students.StudentMode`.

    Raises:
        ValueError: when the network has no fused features, their shape is not that of its deepest features, its
            encoders cannot be scaled, or an option does not fit.

    Example:
        >>> from medmap_monai.networks.unet import ModalityUNet
        >>> method = DMAF(ModalityUNet(spatial_dims=3, in_channels=2, out_channels=3, channels=(4, 8)))
        >>> mask = torch.tensor([[True, True]])
        >>> out = method(torch.rand(1, 2, 8, 8, 8), mask, mask, torch.ones(1, 1, 8, 8, 8))
        >>> sorted(out.losses)
        ['attention', 'covariance', 'fused', 'modality', 'prototype']
    """

    omega: Tensor

    def __init__(
        self,
        network: ModalityNetwork,
        segmentation_loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        weights: DMAFWeights | Mapping[str, float] | None = None,
        covariance_loss: CovarianceConsistencyLoss | None = None,
        attention_loss: MaskedAttentionAlignmentLoss | None = None,
        prototype_loss: PrototypeAlignmentLoss | None = None,
        pixel_loss: TemperatureKLLoss | None = None,
        feature_scale: str = "teacher",
        attention_keys: str = "all",
        monitor: DynamicTrainingMonitor | None = None,
        cases: CaseCounts | None = None,
        students: str = "batched",
    ) -> None:
        super().__init__(network)
        self.segmentation_loss = segmentation_loss or WeightedCEDiceLoss()
        self.weights = grouped(DMAFWeights, weights)
        #: feature terms and their weights
        self.compared = self.weights.distillation
        channels = deepest_channels(network) if self.compared else 0
        # a loss without weight would own parameters without gradient, which DDP rejects
        self.covariance_loss: CovarianceConsistencyLoss | None = None
        self.attention_loss: MaskedAttentionAlignmentLoss | None = None
        if "covariance" in self.compared:
            self.covariance_loss = covariance_loss or CovarianceConsistencyLoss(channels)
        if "attention" in self.compared:
            self.attention_loss = attention_loss or MaskedAttentionAlignmentLoss(channels)
        self.prototype_loss = prototype_loss or PrototypeAlignmentLoss()
        self.pixel_loss = pixel_loss or TemperatureKLLoss()
        self.relative = look_up_option(feature_scale, ("teacher", "none")) == "teacher"
        self.foreground_keys = look_up_option(attention_keys, ("all", "foreground")) == "foreground"
        self.students = look_up_option(students, StudentMode)
        terms = tuple(self.compared) or tuple(DMAFWeights().distillation)
        self.monitor = monitor or DynamicTrainingMonitor(network.modalities, terms)
        if self.monitor.modalities != network.modalities or set(self.compared) - set(self.monitor.terms):
            raise ValueError(
                f"the monitor watches {self.monitor.terms} of {self.monitor.modalities} modalities; "
                f"this method has {tuple(self.compared)} of {network.modalities}"
            )
        if self.monitor.grad_mode != GradientMode.OFF and len(network.encoders) != network.modalities:
            raise ValueError(
                f"{type(network).__name__} has no encoder per modality to scale: give a monitor with grad_mode='off'"
            )
        omega = [1.0] * network.modalities if cases is None else cases.missing_rate_weights()
        if len(omega) != network.modalities:
            raise ValueError(f"cases has {len(omega)} modalities, the network {network.modalities}")
        self.register_buffer("omega", torch.tensor(omega))
        self._attached: int | None = None

    def needed_modalities(self, modality_mask: Tensor, present_mask: Tensor) -> Tensor:
        """Without single-modality and distillation terms nobody looks at a hidden modality."""
        used = self.weights.modality or self.compared or self.weights.pixel
        return present_mask if used else modality_mask

    def course(self) -> Hashable:
        return self.training

    def step(
        self, features: ModalityFeatures, image: Tensor, modality_mask: Tensor, present_mask: Tensor, label: Tensor
    ) -> MethodOutput:
        label = convert_to_tensor(label, track_meta=False)
        present = self.needed_modalities(modality_mask, present_mask)
        fused = self.network.decode(features, modality_mask)
        losses = {"fused": self.segmentation_loss(fused.logits, label)}
        if self.weights.deep and fused.deep_logits:
            losses["deep"] = self.weights.deep * deep_supervision_loss(self.segmentation_loss, fused.deep_logits, label)
        values = self._distillation(features.pyramid[-1], fused.fused[-1], label, present) if self.compared else {}
        if values and self.training:
            self._watch(values, present & (modality_mask.sum(1, keepdim=True) > 1))
        report = {name: mean_where(value, present) for name, value in values.items()}
        if self.weights.modality or self.weights.pixel:
            logits, sample, modality = self._unimodal_logits(features, present, modality_mask)
            if self.weights.modality:
                total, report["modality"] = self._supervised(logits, label, sample, modality)
                losses["modality"] = self.weights.modality * total
            if self.weights.pixel:
                rows = self.pixel_loss.rows(logits, self.pixel_loss.target(fused.logits, label.shape[2:]).rows(sample))
                values["pixel"] = rows_to_matrix(rows, sample, modality, present.shape)
                report["pixel"] = mean_where(values["pixel"], present)
        balance = self.monitor.weights * self.omega
        for name, value in values.items():
            losses[name] = self.compared.get(name, self.weights.pixel) * (balance * value).sum(1).mean()
        return MethodOutput(fused.logits, losses, report)

    def _distillation(self, deepest: Tensor, fused: Tensor, label: Tensor, present: Tensor) -> dict[str, Tensor]:
        """Each distillation term of each modality of each sample: (B, M), zero where there is none."""
        sample, modality = torch.nonzero(present, as_tuple=True)
        if self.relative:
            size = root_mean_square(fused.detach())
            deepest, fused = deepest / size.unsqueeze(1), fused / size
        student, teacher = deepest[sample, modality], fused[sample]
        areas: Tensor | None = None
        if "prototype" in self.compared or self.foreground_keys:
            areas = self.prototype_loss.class_areas(label, self.network.out_channels, deepest.shape[3:])[sample]
        rows: dict[str, Tensor] = {}
        if self.covariance_loss is not None:
            rows["covariance"] = self.covariance_loss(student, teacher, modality)
        if self.attention_loss is not None:
            keys = (areas[:, 1:] > 0).any(1).flatten(1) if self.foreground_keys and areas is not None else None
            rows["attention"] = self.attention_loss(student, teacher, keys)
        if "prototype" in self.compared and areas is not None:
            rows["prototype"] = self.prototype_loss(student, teacher, areas)
        return {name: rows_to_matrix(value, sample, modality, present.shape) for name, value in rows.items()}

    def _watch(self, values: dict[str, Tensor], telling: Tensor) -> None:
        """Give the monitor this step's gaps of the (sample, modality) pairs in ``telling`` (B, M)."""
        off = torch.full(telling.shape[1:], float("nan"), device=telling.device)  # a term without weight shows nobody
        gaps = [
            torch.where(telling, values[name].detach(), 0.0).sum(0) if name in values else off
            for name in self.monitor.terms
        ]
        self.monitor.update(torch.stack(gaps), telling.sum(0))

    def _unimodal_logits(
        self, features: ModalityFeatures, present: Tensor, modality_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (R, K, ...) of each modality alone, with the sample and the modality of every row."""
        if self.network.has_unimodal_decoder:
            sample, modality = torch.nonzero(present, as_tuple=True)
            return self.network.decode_unimodal(features, sample, modality), sample, modality
        students = decode_students(self.network, features, present, self.students, modality_mask)
        return students.output.logits, students.sample, students.modality

    def _supervised(self, logits: Tensor, label: Tensor, sample: Tensor, modality: Tensor) -> tuple[Tensor, Tensor]:
        """Segmentation loss summed over modalities (mean over samples), and its mean for each modality (M,)."""
        total = logits.new_zeros(())
        means = logits.new_full((self.network.modalities,), float("nan"), dtype=torch.float32)
        for m in modality.unique().tolist():
            rows = modality == m
            value = self.segmentation_loss(logits[rows], label[sample[rows]])
            total = total + value * (rows.sum() / len(label))
            means[m] = value.detach()
        return total, means

    def after_backward(self) -> None:
        """Scale the gradients of every modality's encoder (``grad_mode="grad"``)."""
        if self.monitor.grad_mode != GradientMode.GRAD:
            return
        for encoder, scale in zip(self.network.encoders, self.monitor.scales, strict=True):
            for parameter in encoder.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(scale)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Optimizer groups: the encoder of each modality (marked ``modality``: its index), then all the rest."""
        groups: list[dict[str, Any]] = [
            {"params": list(encoder.parameters()), "modality": m} for m, encoder in enumerate(self.network.encoders)
        ]
        taken = {id(p) for group in groups for p in group["params"]}
        return [*groups, {"params": [p for p in self.parameters() if id(p) not in taken]}]

    def attach_optimizer(self, optimizer: Optimizer) -> Optimizer:
        """Let the monitor scale learning rates during each step of ``optimizer`` (``grad_mode="lr"``).

        The rate of a group that :meth:`parameter_groups` marked is multiplied right before the step and put back
        after it, so schedules and checkpoints see the unscaled one. Does nothing in the other modes, nor for an
        optimizer that is attached already.

        Returns:
            the optimizer, so that a config can attach it where it is made.

        Raises:
            ValueError: when the optimizer has no marked groups.
        """
        if self.monitor.grad_mode != GradientMode.LR or self._attached == id(optimizer):
            return optimizer
        if not any("modality" in group for group in optimizer.param_groups):
            raise ValueError("grad_mode='lr' needs an optimizer over parameter_groups(), got one without such groups")
        unscaled: list[Any] = []

        def scale(opt: Optimizer, _args: Any, _kwargs: Any) -> None:
            unscaled[:] = [group["lr"] for group in opt.param_groups]
            for group in opt.param_groups:
                if "modality" in group:
                    group["lr"] = group["lr"] * float(self.monitor.scales[group["modality"]])

        def restore(opt: Optimizer, _args: Any, _kwargs: Any) -> None:
            for group, rate in zip(opt.param_groups, unscaled, strict=True):
                group["lr"] = rate

        self._attached = id(optimizer)
        optimizer.register_step_pre_hook(scale)
        optimizer.register_step_post_hook(restore)
        return optimizer


@torch.no_grad()
def deepest_channels(network: ModalityNetwork) -> int:
    """Channels of the deepest features of one modality, which must be those of the deepest fused features.

    Found by a run on zeros of twice the stride, since the contract of networks does not tell it.

    Raises:
        ValueError: when there are no fused features or their shape differs.
    """
    device = next(network.parameters()).device
    image = torch.zeros(1, network.modalities, *[2 * network.stride] * network.spatial_dims, device=device)
    mask = torch.ones(1, network.modalities, dtype=torch.bool, device=device)
    training = network.training
    network.eval()
    try:
        features = network.encode(image, mask)
        fused = network.decode(network.prepare(features), mask).fused
    finally:
        network.train(training)
    own = list(features.pyramid[-1][:, 0].shape)
    if not fused or list(fused[-1].shape) != own:
        got = list(fused[-1].shape) if fused else "none"
        raise ValueError(f"{type(network).__name__}: DMAF needs deepest fused features of shape {own}, got {got}")
    return own[1]
