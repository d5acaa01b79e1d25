"""PASSION: self-distillation from the fused path into every modality, balanced by relative preference."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import torch
from monai.utils import StrEnum, look_up_option
from torch import Tensor

from medmap_monai.losses.deep_supervision import deep_weight
from medmap_monai.losses.label_maps import LabelMaps, label_maps
from medmap_monai.losses.prototype import PrototypeLoss
from medmap_monai.losses.segmentation import WeightedCEDiceLoss
from medmap_monai.losses.temperature_kl import TemperatureKLLoss
from medmap_monai.methods.base import Method, MethodOutput
from medmap_monai.methods.case_counts import CaseCounts
from medmap_monai.methods.loss_weights import PassionWeights
from medmap_monai.methods.preference_balance import PreferenceBalance, PreferenceGate
from medmap_monai.methods.self_distillation import SelfDistillation, mean_where, rows_to_matrix
from medmap_monai.methods.students import StudentMode, map_students
from medmap_monai.networks.base import DecoderOutput, ModalityFeatures, ModalityNetwork
from medmap_monai.utils.fixed_course import data_may_decide
from medmap_monai.utils.grouped import grouped


class TrainingMode(StrEnum):
    """Which data a run trains on; the transforms take the same value."""

    PDT = "pdt"
    IDT = "idt"
    IDT_DROP = "idt_drop"


class UnimodalLoss(StrEnum):
    """What is supervised by the label for one modality alone."""

    AUTO = "auto"  # the network's unimodal decoder where it has one, else off
    DECODER = "decoder"
    STUDENT = "student"
    OFF = "off"


class _Batch(NamedTuple):
    """One step's input. ``own`` (B, M): the (sample, modality) pairs that have a student."""

    features: ModalityFeatures
    visible: Tensor
    own: Tensor
    label: LabelMaps


class Passion(Method):
    """PASSION around any network.

    The fused path over the visible modalities is the teacher; student m is the same decoder with modality m alone.
    With omega_m the missing-rate weight, beta_m and the gate mu of
    :class:`~medmap_monai.methods.preference_balance.PreferenceBalance`, a sample's losses are

    - ``fused`` and ``deep``: weighted cross-entropy + Dice of the fused prediction and its deep-supervision maps;
    - ``pixel``: ``0.5 sum_m beta_m omega_m KL_m``, student against teacher at temperature 4, deep maps included;
    - ``prototype``: ``0.1 sum_m mu_m omega_m P_m``, similarity maps of the finest decoder features;
    - ``unimodal``: ``sum_m mu_m beta_m omega_m S_m``, the label against one modality through the network's own
      unimodal decoder.

    In warm-up epochs only ``unimodal``, without gate. No gradient reaches the teacher from a distillation term, and
    students of absent modalities are not run. Source: PASSION's published code; docs/explanation/passion.md lists
    the deviations (they vanish at batch size one) and the switches that undo them.

    Args:
        network: the network to train.
        mode: ``"idt"``, ``"idt_drop"`` (students: the drawn subset only) or ``"pdt"`` (omega = 1).
        cases: number of training cases in all and per modality, for omega; see
            :func:`~medmap_monai.methods.case_counts.count_cases`.
        modality_weight: omega itself in channel order, instead of ``cases``.
        balance: gate and beta; the published rule per sample when None.
        unimodal: ``"auto"``, ``"decoder"``, ``"student"`` (supervise the students instead: ours, costs nothing more)
            or ``"off"``.
        students: ``"auto"``, ``"batched"``, ``"sequential"`` or ``"checkpoint"`` (least memory), see
            :class:`~medmap_monai.methods.students.StudentMode`.
        weights: of the losses but ``fused``, a :class:`~medmap_monai.methods.loss_weights.PassionWeights` or its
            arguments; 0 leaves a loss out.
        reduction: ``"mean"`` over the samples of a batch, or ``"sum"`` as published.
        segmentation_loss: replaces ``WeightedCEDiceLoss()``. Its batch form pools Dice over all rows that are
            supervised together, for ``unimodal`` those of all modalities.
        pixel_loss: replaces ``TemperatureKLLoss()``.
        prototype_loss: replaces ``PrototypeLoss()``.

    Raises:
        ValueError: for an unknown option, omega that is neither given nor computable, ``unimodal="decoder"`` on a
            network without such a decoder, or a warm-up without any unimodal loss.

    Example:
        >>> from medmap_monai.networks.unet import ModalityUNet
        >>> unet = ModalityUNet(spatial_dims=3, in_channels=2, out_channels=3, channels=(4, 8), deep_supervision=0)
        >>> method = Passion(unet, cases=CaseCounts(("flair", "t2"), 10, {"flair": 8, "t2": 5}))
        >>> mask = torch.tensor([[True, True]])
        >>> out = method(torch.rand(1, 2, 8, 8, 8), mask, mask, torch.ones(1, 1, 8, 8, 8))
        >>> sorted(out.losses)
        ['fused', 'pixel', 'prototype']
    """

    omega: Tensor

    def __init__(
        self,
        network: ModalityNetwork,
        mode: str = "idt",
        cases: CaseCounts | None = None,
        modality_weight: Sequence[float] | None = None,
        balance: PreferenceBalance | None = None,
        unimodal: str = "auto",
        students: str = "auto",
        weights: PassionWeights | Mapping[str, float] | None = None,
        reduction: str = "mean",
        segmentation_loss: WeightedCEDiceLoss | None = None,
        pixel_loss: TemperatureKLLoss | None = None,
        prototype_loss: PrototypeLoss | None = None,
    ) -> None:
        super().__init__(network)
        self.mode = look_up_option(mode, TrainingMode)
        self.balance = balance or PreferenceBalance(network.modalities)
        self.students = look_up_option(students, StudentMode)
        self.reduction = look_up_option(reduction, ("mean", "sum"))
        self.weights = grouped(PassionWeights, weights)
        self.segmentation_loss = segmentation_loss or WeightedCEDiceLoss()
        self.pixel_loss = pixel_loss or TemperatureKLLoss()
        self.prototype_loss = prototype_loss or PrototypeLoss()
        self.unimodal = self._unimodal_source(unimodal)
        if self.balance.modalities != network.modalities:
            raise ValueError(f"the balance has {self.balance.modalities} modalities, the network {network.modalities}")
        if self.balance.warmup_epochs and self.unimodal == UnimodalLoss.OFF:
            raise ValueError("warm-up trains the unimodal loss alone, and this configuration has none")
        self.register_buffer("omega", torch.tensor(self._omega(cases, modality_weight)))
        self.epoch = 0

    def _unimodal_source(self, unimodal: str) -> UnimodalLoss:
        source = look_up_option(unimodal, UnimodalLoss)
        able = self.network.has_unimodal_decoder
        if source == UnimodalLoss.AUTO:
            source = UnimodalLoss.DECODER if able else UnimodalLoss.OFF
        if source == UnimodalLoss.DECODER and not able:
            raise ValueError(
                f"{type(self.network).__name__} has no unimodal decoder: give unimodal='student', or 'off'"
            )
        return UnimodalLoss.OFF if self.weights.unimodal == 0 else source

    def _omega(self, cases: CaseCounts | None, modality_weight: Sequence[float] | None) -> list[float]:
        number = self.network.modalities
        if modality_weight is not None:
            weights = [float(weight) for weight in modality_weight]
        elif self.mode == TrainingMode.PDT:
            weights = [1.0] * number
        elif cases is not None:
            weights = cases.missing_rate_weights()
        else:
            raise ValueError(
                f"mode {self.mode.value!r} needs the number of training cases per modality: give cases "
                f"(medmap_monai.methods.case_counts.count_cases), or modality_weight {[1.0] * number} for no weighting"
            )
        if len(weights) != number:
            raise ValueError(f"the network has {number} modalities, omega has {len(weights)}: {weights}")
        return weights

    def on_epoch_start(self, epoch: int) -> None:
        """Remember the epoch, which decides about warm-up."""
        self.epoch = epoch

    def on_epoch_end(self, epoch: int) -> None:
        """Move beta."""
        self.balance.end_epoch(epoch)

    def course(self) -> Hashable | None:
        """Warm-up or not. With a Dice pooled over the rows that the gate chose, values of the batch choose rows."""
        if self.unimodal == UnimodalLoss.DECODER and getattr(self.segmentation_loss, "batch", False):
            return None
        return ("warm-up" if self.epoch < self.balance.warmup_epochs else "balanced", self.training)

    def needed_modalities(self, modality_mask: Tensor, present_mask: Tensor) -> Tensor:
        """Under IDT-drop a hidden modality has no student, so nobody looks at it."""
        return modality_mask if self.mode == TrainingMode.IDT_DROP else present_mask

    def step(
        self, features: ModalityFeatures, image: Tensor, modality_mask: Tensor, present_mask: Tensor, label: Tensor
    ) -> MethodOutput:
        own = self.needed_modalities(modality_mask, present_mask)
        precision = torch.promote_types(features.pyramid[0].dtype, torch.float32)
        maps = label_maps(label, self.network.out_channels, precision)
        batch = _Batch(features, modality_mask, own, maps)
        if self.epoch < self.balance.warmup_epochs:
            return self._warm_up(batch)
        return self._balanced(batch)

    def _balanced(self, batch: _Batch) -> MethodOutput:
        """A step with all losses."""
        own = batch.own
        fused = self.network.decode(batch.features, batch.visible)
        losses = {"fused": self._reduce(self.segmentation_loss.rows(fused.logits, batch.label))}
        if self.weights.deep and fused.deep_logits:
            losses["deep"] = self.weights.deep * self._reduce(self._deep(fused, batch.label))
        values = self._students(batch, fused)
        report = {name: mean_where(value, own) for name, value in values.items()}
        gate = own
        if "distance" in values:
            preference = self.balance.preference(values["distance"], own)
            gate = self.balance.gate(preference, own)
            report["preference"] = mean_where(preference, own)
            report["gate"] = mean_where(gate.to(preference.dtype), own)
            if self.training:
                self.balance.accumulate(values["distance"], own)
        if self.unimodal == UnimodalLoss.DECODER:
            values["unimodal"] = self._unimodal_rows(batch, gate)
            report["unimodal"] = mean_where(values["unimodal"], gate)
        if self.weights.pixel:
            losses["pixel"] = self.weights.pixel * self._weighted(values["pixel"], own, self.balance.beta)
        if self.weights.prototype:
            losses["prototype"] = self.weights.prototype * self._weighted(values["prototype"], gate)
        if self.unimodal != UnimodalLoss.OFF:
            losses["unimodal"] = self.weights.unimodal * self._weighted(values["unimodal"], gate, self.balance.beta)
        return MethodOutput(fused.logits, losses, report)

    def _warm_up(self, batch: _Batch) -> MethodOutput:
        """A step with the unimodal loss alone and without gate; the other losses are there, as zeros."""
        own = batch.own
        with torch.no_grad():
            fused = self.network.decode(batch.features, batch.visible)
        if self.unimodal == UnimodalLoss.DECODER:
            value = self._unimodal_rows(batch, own)
        else:
            value = self._students(batch, None)["unimodal"]
        zero = fused.logits.new_zeros(())
        losses = {"fused": zero}
        if self.weights.deep and fused.deep_logits:
            losses["deep"] = zero
        losses.update({name: zero for name in ("pixel", "prototype") if name in self._student_terms()})
        losses["unimodal"] = self.weights.unimodal * self._weighted(value, own, self.balance.beta)
        return MethodOutput(fused.logits, losses, {"unimodal": mean_where(value, own)})

    def _student_terms(self) -> list[str]:
        """Names of the values that this configuration needs of every student."""
        names = ["pixel"] if self.weights.pixel else []
        if self.weights.prototype or self.balance.gate_rule != PreferenceGate.OFF:
            names += ["prototype", "distance"]
        return names + (["unimodal"] if self.unimodal == UnimodalLoss.STUDENT else [])

    def _students(self, batch: _Batch, fused: DecoderOutput | None) -> dict[str, Tensor]:
        """Values (B, M) of all students by name; without a teacher, of their own label loss only."""
        names = self._student_terms() if fused is not None else ["unimodal"]
        if not names:
            return {}
        distillation = SelfDistillation(self.pixel_loss, self.prototype_loss)
        targets = None if fused is None else distillation.teacher(fused, batch.label)

        def terms(output: DecoderOutput, sample: Tensor) -> list[Tensor]:
            values: list[Tensor] = []
            if targets is not None:
                chosen = targets.rows(sample)
                values += [distillation.pixel(output, chosen)] if "pixel" in names else []
                values += distillation.prototype(output, chosen) if "distance" in names else []
            if "unimodal" in names:
                values.append(self.segmentation_loss.rows(output.logits, batch.label.rows(sample)))
            return values

        rows, sample, modality = map_students(
            self.network, batch.features, batch.own, terms, self.students, batch.visible
        )
        shape = batch.own.shape
        return {name: rows_to_matrix(r, sample, modality, shape) for name, r in zip(names, rows, strict=True)}

    def _unimodal_rows(self, batch: _Batch, mask: Tensor) -> Tensor:
        """Label loss (B, M) of the unimodal decoder for the pairs in ``mask``; the others are not computed, or do not
        count."""
        sample, modality = torch.nonzero(mask if data_may_decide() else batch.own, as_tuple=True)
        if sample.numel() == 0:
            return batch.label.one_hot.new_zeros(mask.shape)
        logits = self.network.decode_unimodal(batch.features, sample, modality)
        values = self.segmentation_loss.rows(logits, batch.label.rows(sample))
        return rows_to_matrix(values, sample, modality, mask.shape)

    def _deep(self, output: DecoderOutput, label: LabelMaps) -> Tensor:
        """Label loss (B,) of the deep-supervision maps."""
        terms = [
            deep_weight(level) * self.segmentation_loss.rows(logits, label)
            for level, logits in enumerate(output.deep_logits)
        ]
        return torch.stack(terms).sum(0)

    def _weighted(self, values: Tensor, mask: Tensor, beta: Tensor | None = None) -> Tensor:
        """Scalar from values (B, M): weighted by omega, and beta where given, over the pairs in ``mask``."""
        weight = self.omega if beta is None else self.omega * beta
        return self._reduce((torch.where(mask, values, 0.0) * weight.to(values.dtype)).sum(1))

    def _reduce(self, values: Tensor) -> Tensor:
        """Scalar from one value per sample."""
        return values.sum() if self.reduction == "sum" else values.mean()
