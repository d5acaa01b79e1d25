"""Alignment of each modality's features to one anchor distribution (MedMAP)."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import torch
from monai.utils.module import look_up_option
from torch import Tensor, nn


class AlignmentForm(StrEnum):
    """What is compared: features voxel by voxel, the same free of scale, or each channel's distribution over space."""

    MSE = "mse"
    RELATIVE = "relative"
    GAUSSIAN_KL = "gaussian_kl"


class Anchor(NamedTuple):
    """An anchor distribution of one level.

    mean: the anchor map P (B, C, ...), or a scalar for a normal anchor.
    weights: mixture weights (B, M) that P was mixed with, zero for what is not in the mixture; None for a normal one.
    log_variance: scalar log-variance of a normal anchor; None means unit variance.
    detached: whether the anchor is a constant for the gradient of the loss (``mean`` then already is one).
    """

    mean: Tensor
    weights: Tensor | None
    log_variance: Tensor | None = None
    detached: bool = False


class AlignmentLoss(nn.Module):
    r"""Distance of every available modality's features :math:`f_m` to an anchor :math:`P`.

    With the default ``form="mse"`` and all M modalities present this is the published

    .. math:: L = \frac{1}{2M} \sum_m \mathrm{mean}\,(f_m - P)^2,

    the KL divergence between unit-variance normal distributions around :math:`f_m` and :math:`P`, averaged over
    modalities and elements. Samples are averaged; in a sample the sum runs over its available modalities only and is
    divided by their number, so incomplete training data need no other loss. Source: the published fragment for
    ``mse`` (its factor 1/8 is 1/(2M) for four modalities); the other forms are ours.

    Args:
        form: ``"mse"`` as above. ``"relative"`` divides it, per sample, by the features' mean variance over space, so
            that making all features small does not lower it (measured: at the first level ``mse`` mostly does that);
            a normal anchor has a scale of its own and is compared as with ``mse``. ``"gaussian_kl"`` is the
            closed-form KL divergence between normal distributions of each channel over space, the anchor being the
            moment-matched mixture; it aligns statistics and leaves the spatial content alone.
        weight_terms_by_anchor: weigh the terms of the sum by the mixture weights instead of uniformly. Then the loss
            is the weighted Jensen-Shannon form: by the compensation identity no other anchor gives a smaller value.
            A normal anchor has no weights, its terms stay uniform.

    Raises:
        ValueError: for an unknown form.
    """

    def __init__(self, form: str = "mse", weight_terms_by_anchor: bool = False) -> None:
        super().__init__()
        self.form = look_up_option(form, AlignmentForm)
        self.weight_terms_by_anchor = weight_terms_by_anchor

    def forward(self, features: Tensor, anchor: Anchor, mask: Tensor) -> Tensor:
        """Scalar loss of one level.

        Args:
            features: (B, M, C, ...), zero where ``mask`` is False.
            anchor: the anchor of the level.
            mask: bool (B, M), the modalities to align.
        """
        return self.reduce(self.terms(features, anchor, mask), anchor, mask)

    def terms(self, features: Tensor, anchor: Anchor, mask: Tensor) -> Tensor:
        """Distance of each modality to the anchor, (B, M); zero where ``mask`` is False."""
        with torch.autocast(features.device.type, enabled=False):
            features = features.float() if features.dtype in (torch.float16, torch.bfloat16) else features
            if self.form == AlignmentForm.GAUSSIAN_KL:
                distance = _spatial_gaussian_kl(features, anchor)
            else:
                distance = _unit_variance_kl(features, anchor)
                if self.form == AlignmentForm.RELATIVE and anchor.weights is not None:
                    distance = distance / _mean_variance(features, mask)
            return torch.where(mask, distance, torch.zeros_like(distance))

    def reduce(self, terms: Tensor, anchor: Anchor, mask: Tensor) -> Tensor:
        """Sum over modalities with uniform or anchor weights over ``mask``, then mean over samples with any."""
        weights = mask.to(terms.dtype)
        if self.weight_terms_by_anchor and anchor.weights is not None:
            weights = anchor.weights.to(terms.dtype) * weights
        per_sample = (weights * terms).sum(dim=1) / weights.sum(dim=1).clamp_min(torch.finfo(terms.dtype).tiny)
        return per_sample.sum() / mask.any(dim=1).sum().clamp_min(1)


def _unit_variance_kl(features: Tensor, anchor: Anchor) -> Tensor:
    """KL(N(f, 1) || anchor) averaged over elements, (B, M)."""
    mean = anchor.mean.to(features.dtype)
    squared = (features - (mean.unsqueeze(1) if mean.ndim else mean)).square().flatten(2).mean(dim=2)
    if anchor.log_variance is None:
        return 0.5 * squared
    log_variance = anchor.log_variance.to(features.dtype)
    return 0.5 * ((squared + 1.0) * torch.exp(-log_variance) + log_variance - 1.0)


def _mean_variance(features: Tensor, mask: Tensor, eps: float = 1e-4) -> Tensor:
    """Variance over space, averaged over channels and over the modalities in ``mask``: (B, 1)."""
    variance = features.flatten(3).var(dim=3, correction=0).mean(dim=2)
    count = mask.sum(dim=1, keepdim=True).clamp_min(1)
    return torch.where(mask, variance, torch.zeros_like(variance)).sum(dim=1, keepdim=True) / count + eps


def _spatial_gaussian_kl(features: Tensor, anchor: Anchor, eps: float = 1e-4) -> Tensor:
    """KL between per-channel normal distributions over space, averaged over channels, (B, M).

    ``eps`` keeps variances of constant channels positive; features of a normalised network have variances near 1.
    """
    flat = features.flatten(3)
    mean = flat.mean(dim=3)
    variance = flat.var(dim=3, correction=0) + eps
    if anchor.weights is None:
        anchor_mean = anchor.mean.to(mean.dtype)
        log_variance = torch.zeros_like(anchor_mean) if anchor.log_variance is None else anchor.log_variance
        anchor_variance = torch.exp(log_variance.to(mean.dtype))
    else:
        weights = anchor.weights.to(mean.dtype).unsqueeze(2)
        means, variances = (mean.detach(), variance.detach()) if anchor.detached else (mean, variance)
        mixed = (weights * means).sum(dim=1, keepdim=True)
        anchor_mean = mixed
        anchor_variance = (weights * (variances + (means - mixed).square())).sum(dim=1, keepdim=True)
        anchor_variance = anchor_variance.clamp_min(eps)  # a sample without any modality has no mixture
    ratio = variance / anchor_variance
    kl = 0.5 * (ratio + (mean - anchor_mean).square() / anchor_variance - 1.0 - torch.log(ratio))
    return kl.mean(dim=2)
