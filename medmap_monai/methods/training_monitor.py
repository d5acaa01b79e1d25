"""DMAF-Net's dynamic training monitor: who lags behind the fused path, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from monai.utils import StrEnum, look_up_option
from torch import Tensor, nn


class GradientMode(StrEnum):
    """What the gradient scales act on."""

    GRAD = "grad"  # the gradients of each modality's encoder
    LR = "lr"  # the learning rate of each modality's encoder
    OFF = "off"  # nothing


class DynamicTrainingMonitor(nn.Module):
    r"""Running distillation gaps of the modalities, and the loss weights and gradient scales made of them.

    With :math:`g_d^m` the mean of distillation term d over this step's samples that have modality m:

    .. math::
        G_d^m &\leftarrow \rho\, G_d^m + (1 - \rho)\, g_d^m \quad \text{(the first value as it is)} \\
        r^m &= \mathrm{mean}_d\; G_d^m / \mathrm{mean}_{m'} G_d^{m'} \\
        w^m &= \mathrm{clip}\big((r^m)^\alpha, w_\min, w_\max\big), \quad w \leftarrow M w / \textstyle\sum w \\
        s^m &= \mathrm{clip}\big((r^m)^\gamma, s_\min, s_\max\big), \quad s \leftarrow M s / \textstyle\sum s

    so a modality that is farther from the fused path than the others gets larger losses and larger encoder gradients.
    A modality that a step does not show keeps its gaps; one that was never shown has :math:`r^m = 1` and no part in
    the mean. Values that are not finite are taken as not shown, and a term that was never shown has no part in
    :math:`\mathrm{mean}_d`.

    All state is in buffers and resumes exactly. Under torch.distributed every rank must call :meth:`update` in every
    step: sums and counts are added over ranks, so all of them hold the same state.

    Source: the published abstract names the idea (track gaps, reweight losses, scale gradients); every formula is ours.

    Args:
        modalities: number of modalities M.
        terms: names of the distillation terms, in the order of :meth:`update`'s rows.
        momentum: :math:`\rho` in [0, 1).
        alpha: exponent of the loss weights; 0 switches them off.
        weight_bounds: bounds of the loss weights before they are normalised.
        gamma: exponent of the gradient scales.
        scale_bounds: bounds of the gradient scales before they are normalised.
        grad_mode: ``"grad"``, ``"lr"`` or ``"off"``; see :class:`~medmap_monai.methods.dmaf.DMAF`.
        warmup_steps: steps in which gaps are collected while weights and scales stay 1.
        eps: added to both sides of a ratio, so that no gap at all means ratio 1.

    Attributes:
        gaps: :math:`G`, (D, M).
        seen: number of steps that showed each, (D, M).
        steps: number of updates.
        weights: :math:`w`, (M,), mean 1.
        scales: :math:`s`, (M,), mean 1.

    Raises:
        ValueError: when an argument is outside its range.
    """

    gaps: Tensor
    seen: Tensor
    steps: Tensor
    weights: Tensor
    scales: Tensor

    def __init__(
        self,
        modalities: int,
        terms: Sequence[str] = ("covariance", "attention", "prototype"),
        momentum: float = 0.9,
        alpha: float = 1.0,
        weight_bounds: tuple[float, float] = (0.1, 4.0),
        gamma: float = 0.5,
        scale_bounds: tuple[float, float] = (0.5, 2.0),
        grad_mode: str = "grad",
        warmup_steps: int = 0,
        eps: float = 1e-8,
    ) -> None:
        super().__init__()
        if modalities < 1 or not terms:
            raise ValueError(f"the monitor needs modalities and terms, got {modalities} and {list(terms)}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
        for name, (low, high) in (("weight_bounds", weight_bounds), ("scale_bounds", scale_bounds)):
            if not 0 < low <= 1 <= high:
                raise ValueError(f"{name} must be positive and enclose 1, got [{low}, {high}]")
        if warmup_steps < 0:
            raise ValueError(f"warmup_steps must be at least 0, got {warmup_steps}")
        self.modalities = modalities
        self.terms = tuple(terms)
        self.momentum = momentum
        self.alpha = alpha
        self.weight_bounds = (float(weight_bounds[0]), float(weight_bounds[1]))
        self.gamma = gamma
        self.scale_bounds = (float(scale_bounds[0]), float(scale_bounds[1]))
        self.grad_mode = look_up_option(grad_mode, GradientMode)
        self.warmup_steps = warmup_steps
        self.eps = eps
        self.register_buffer("gaps", torch.zeros(len(self.terms), modalities))
        self.register_buffer("seen", torch.zeros(len(self.terms), modalities, dtype=torch.int64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("weights", torch.ones(modalities))
        self.register_buffer("scales", torch.ones(modalities))

    @torch.no_grad()
    def update(self, sums: Tensor, counts: Tensor) -> None:
        """Take in one step.

        Args:
            sums: (D, M), sum over this rank's samples of each term of each modality.
            counts: (M,), number of samples in each of these sums.
        """
        state = torch.cat([sums, counts.reshape(1, -1).to(sums.dtype)]).to(self.gaps.dtype)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(state)
        sums, counts = state[:-1], state[-1]
        gap = sums / counts.clamp_min(1)
        shown = (counts > 0) & gap.isfinite()
        moved = torch.where(self.seen > 0, self.momentum * self.gaps + (1 - self.momentum) * gap, gap)
        self.gaps.copy_(torch.where(shown, moved, self.gaps))
        self.seen += shown
        self.steps += 1
        ratio = torch.where(self.steps > self.warmup_steps, self.ratios(), 1.0)
        self.weights.copy_(self._balanced(ratio, self.alpha, self.weight_bounds))
        self.scales.copy_(self._balanced(ratio, self.gamma, self.scale_bounds))

    def ratios(self) -> Tensor:
        """:math:`r` (M,): each modality's gap in units of the mean gap, averaged over terms; above 1 = lagging."""
        known = self.seen > 0
        mean = (self.gaps * known).sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp_min(1)
        ratio = torch.where(known, (self.gaps + self.eps) / (mean + self.eps), 1.0)
        used = known.any(1, keepdim=True)  # a term that is switched off says nothing about anybody
        return torch.where(used.any(), (ratio * used).sum(0) / used.sum().clamp_min(1), 1.0)

    def _balanced(self, ratio: Tensor, exponent: float, bounds: tuple[float, float]) -> Tensor:
        value = ratio.pow(exponent).clamp(*bounds)
        return self.modalities * value / value.sum()

    def balance_report(self) -> dict[str, Tensor]:
        """What the balance log writes: values (M,) per modality; NaN for the gap of a modality never seen."""
        nan = torch.full_like(self.gaps, float("nan"))
        gaps = torch.where(self.seen > 0, self.gaps, nan)
        report = {f"gap_{term}": gaps[d] for d, term in enumerate(self.terms)}
        return {**report, "loss_weight": self.weights, "gradient_scale": self.scales}
