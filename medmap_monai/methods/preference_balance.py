"""PASSION's balancing: relative preference, the task-wise gate and the gradient-wise factor beta."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from monai.utils import StrEnum, look_up_option
from torch import Tensor, nn


class PreferenceGate(StrEnum):
    """Which modalities get the gated losses."""

    RP_NEGATIVE = "rp_negative"  # farther from the teacher than average: the published code
    RP_POSITIVE = "rp_positive"  # nearer than average: a later repository of the same authors
    OFF = "off"  # all of them


class GateGranularity(StrEnum):
    """Over what relative preferences are judged."""

    SAMPLE = "sample"  # each sample on its own
    BATCH_SUM = "batch_sum"  # sum over the batch, one gate for all its samples: the published code


class DistanceDivisor(StrEnum):
    """What an epoch's summed distances are divided by."""

    COUNT = "count"  # how often the modality was seen
    ITERATIONS = "iterations"  # number of batches: the published code for PDT and IDT-drop


class PreferenceBalance(nn.Module):
    """Who is ahead and who lags, from the students' prototype distances D (B, M).

    Relative preference ``RP = 1 - D / mean D``, the mean over the modalities that the sample shows: positive for a
    modality near the teacher (dominant), negative for one far from it (weak). It is 0, hence never NaN, where it says
    nothing: fewer than two modalities, or no distance at all. Per sample it opens the gate of a weak modality's
    losses; per epoch it moves ``beta``:
    ``beta <- clip(beta - eta RP, beta_min, beta_max)``, then ``beta <- sqrt(M) beta / norm(beta)``.

    All state is in buffers and resumes exactly. Under torch.distributed the sums of an epoch are added over ranks
    before ``beta`` moves, so every rank holds the same one.

    Source: PASSION's published code, with the fixes that docs/explanation/passion.md lists.

    Args:
        modalities: number of modalities M.
        gate: ``"rp_negative"`` (published), ``"rp_positive"`` or ``"off"``.
        gate_tolerance: widens the gate: open while RP < tolerance (``rp_positive``: RP > -tolerance). A negative
            value narrows it.
        granularity: ``"sample"``, or ``"batch_sum"`` as published; equal for one sample per batch.
        distance_divisor: ``"count"``, or ``"iterations"`` as published for PDT and IDT-drop (under IDT-drop that
            makes rare modalities look near the teacher).
        eta: first step size; 0 keeps every ``beta`` at 1.
        eta_factor: what eta is multiplied with in every epoch that is a multiple of ``eta_interval``, epoch 0
            included, as published (0.015 for the first hundred epochs).
        eta_interval: see ``eta_factor``.
        warmup_epochs: epochs without balancing, and without eta's growth.
        beta_min: lower bound of beta before it is normalised.
        beta_max: upper bound of beta before it is normalised.

    Attributes:
        beta: factors (M,), norm sqrt(M).
        eta: step size that was used last.
        epoch_distance: D of the last epoch (M,), NaN for a modality that was not seen.
        epoch_preference: RP of the last epoch (M,), NaN for a modality that was not seen.

    Raises:
        ValueError: for an unknown option or bounds out of order.
    """

    beta: Tensor
    eta: Tensor
    distance_sum: Tensor
    distance_count: Tensor
    iterations: Tensor
    epoch_distance: Tensor
    epoch_preference: Tensor

    def __init__(
        self,
        modalities: int,
        gate: str = "rp_negative",
        gate_tolerance: float = 0.0,
        granularity: str = "sample",
        distance_divisor: str = "count",
        eta: float = 0.01,
        eta_factor: float = 1.5,
        eta_interval: int = 100,
        warmup_epochs: int = 0,
        beta_min: float = 0.1,
        beta_max: float = 4.0,
    ) -> None:
        super().__init__()
        if modalities < 1:
            raise ValueError(f"modalities must be at least 1, got {modalities}")
        if not 0 < beta_min <= 1 <= beta_max:
            raise ValueError(f"beta starts at 1, which must lie in its bounds; got [{beta_min}, {beta_max}]")
        if eta_interval < 1 or warmup_epochs < 0 or eta < 0:
            raise ValueError(
                "eta_interval must be at least 1, eta and warmup_epochs at least 0; "
                f"got {eta_interval}, {eta}, {warmup_epochs}"
            )
        self.modalities = modalities
        self.gate_rule = look_up_option(gate, PreferenceGate)
        self.gate_tolerance = gate_tolerance
        self.granularity = look_up_option(granularity, GateGranularity)
        self.distance_divisor = look_up_option(distance_divisor, DistanceDivisor)
        self.first_eta = eta
        self.eta_factor = eta_factor
        self.eta_interval = eta_interval
        self.warmup_epochs = warmup_epochs
        self.beta_min = beta_min
        self.beta_max = beta_max
        self.register_buffer("beta", torch.ones(modalities))
        self.register_buffer("eta", torch.tensor(float(eta)))
        self.register_buffer("distance_sum", torch.zeros(modalities))
        self.register_buffer("distance_count", torch.zeros(modalities))
        self.register_buffer("iterations", torch.zeros(()))
        # reported only, and NaN for what was not seen, which federated learning refuses to exchange: not saved
        self.register_buffer("epoch_distance", torch.full((modalities,), float("nan")), persistent=False)
        self.register_buffer("epoch_preference", torch.full((modalities,), float("nan")), persistent=False)

    def preference(self, distance: Tensor, mask: Tensor) -> Tensor:
        """Relative preference (B, M) of every sample; 0 outside ``mask`` and where it is undefined.

        Args:
            distance: (B, M), without gradient.
            mask: bool (B, M), the modalities that have a student.
        """
        mask = mask & distance.isfinite()
        kept = torch.where(mask, distance, torch.zeros_like(distance))
        number = mask.sum(1, keepdim=True)
        mean = kept.sum(1, keepdim=True) / number.clamp_min(1)
        defined = mask & (number > 1) & (mean > 0)
        return torch.where(defined, 1.0 - kept / torch.where(mean > 0, mean, torch.ones_like(mean)), 0.0)

    def gate(self, preference: Tensor, mask: Tensor) -> Tensor:
        """Bool (B, M): True where the gated losses are active, a part of ``mask``.

        Args:
            preference: what :meth:`preference` returned.
            mask: bool (B, M), the modalities that have a student.
        """
        if self.gate_rule == PreferenceGate.OFF:
            return mask
        if self.granularity == GateGranularity.BATCH_SUM:
            preference = preference.sum(0, keepdim=True)
        if self.gate_rule == PreferenceGate.RP_NEGATIVE:
            return mask & (preference < self.gate_tolerance)
        return mask & (preference > -self.gate_tolerance)

    @torch.no_grad()
    def accumulate(self, distance: Tensor, mask: Tensor) -> None:
        """Add one batch's distances (B, M) under ``mask`` (B, M) to the epoch's sums; not finite ones are left out."""
        mask = mask & distance.isfinite()
        self.distance_sum += torch.where(mask, distance, torch.zeros_like(distance)).sum(0)
        self.distance_count += mask.sum(0)
        self.iterations += 1

    def eta_at(self, epoch: int) -> float:
        """Step size of epoch ``epoch`` (from 0), a function of the epoch alone."""
        growths = epoch // self.eta_interval - (self.warmup_epochs - 1) // self.eta_interval
        return self.first_eta * self.eta_factor ** max(growths, 0)

    @torch.no_grad()
    def end_epoch(self, epoch: int) -> None:
        """Move ``beta`` by the epoch's preferences and empty the sums; called on every rank.

        Args:
            epoch: the epoch that ended, from 0.
        """
        sums = torch.cat([self.distance_sum, self.distance_count, self.iterations.reshape(1)])
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(sums)
        total, count, iterations = sums.split([self.modalities, self.modalities, 1])
        seen = count > 0
        divisor = count if self.distance_divisor == DistanceDivisor.COUNT else iterations.expand_as(count)
        distance = total / divisor.clamp_min(1)
        mean = distance.sum() / seen.sum().clamp_min(1)
        preference = torch.where(seen & (mean > 0), 1.0 - distance / torch.where(mean > 0, mean, 1.0), 0.0)
        nan = torch.full_like(distance, float("nan"))
        self.epoch_distance.copy_(torch.where(seen, distance, nan))
        self.epoch_preference.copy_(torch.where(seen, preference, nan))
        if epoch >= self.warmup_epochs:
            eta = self.eta_at(epoch)
            self.eta.fill_(eta)
            if eta > 0 and bool(seen.any()):
                beta = (self.beta - eta * preference).clamp(self.beta_min, self.beta_max)
                self.beta.copy_(math.sqrt(self.modalities) * beta / beta.norm())
        self.distance_sum.zero_()
        self.distance_count.zero_()
        self.iterations.zero_()

    def balance_report(self) -> dict[str, Tensor]:
        """What the balance log writes at the end of an epoch: values (M,) per modality, or scalars."""
        return {
            "beta": self.beta,
            "eta": self.eta,
            "relative_preference": self.epoch_preference,
            "epoch_distance": self.epoch_distance,
        }
