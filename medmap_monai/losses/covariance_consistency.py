"""Covariance consistency: each modality's channels should vary together as the fused channels do."""

from __future__ import annotations

import torch
from monai.utils import StrEnum, look_up_option
from torch import Tensor, nn

from medmap_monai.losses.label_maps import full_precision


class CovarianceForm(StrEnum):
    """What is compared: covariances (mean square or CORAL's scale) or correlations."""

    MSE = "mse"
    CORAL = "coral"
    CORRELATION = "corr"


class LinearSharing(StrEnum):
    """Whether all modalities share one linear map or own one each."""

    SHARED = "shared"
    PER_MODALITY = "per_modality"


class CovarianceConsistencyLoss(nn.Module):
    r"""Squared difference between the channel covariances of one modality's features and of the fused features.

    Tokens are the N voxels of the deepest level. With :math:`\Sigma(\cdot)` the covariance of channels over positions
    and a trained linear map W,

    .. math:: L = \frac{1}{C^2} \lVert W \Sigma(e) W^\top - \Sigma(f) \rVert_F^2 .

    The published figure shows the linear map on the modality's side only, and the comparison of two covariance
    matrices; everything else is ours (``docs/explanation/dmafnet.md``). Covariances run over positions and not over
    the batch, which is 1 in this family of methods. A bias would cancel, so there is none; W starts as the identity.

    The loss is zero when the features agree and W is the identity (as it is at the start), and when there is a single
    position, whose covariance is zero. It reads neither labels nor other modalities.

    Args:
        channels: channels C of both features.
        modalities: number of modalities M; needed for ``linear="per_modality"``.
        form: ``"mse"`` as above, ``"coral"`` with 1/(4 C^2) as in Deep CORAL, ``"corr"`` for correlations.
        linear: one map for all modalities (``"shared"``) or one each (``"per_modality"``).
        detach_teacher: stop the gradient into the fused features.
        eps: added to variances under the root of ``"corr"``.

    Raises:
        ValueError: for an unknown option, or ``"per_modality"`` without ``modalities``.
    """

    def __init__(
        self,
        channels: int,
        modalities: int | None = None,
        form: str = "mse",
        linear: str = "shared",
        detach_teacher: bool = True,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.form = look_up_option(form, CovarianceForm)
        self.linear = look_up_option(linear, LinearSharing)
        self.detach_teacher = detach_teacher
        self.eps = eps
        if self.linear == LinearSharing.PER_MODALITY and modalities is None:
            raise ValueError("linear='per_modality' needs the number of modalities")
        maps = 1 if self.linear == LinearSharing.SHARED else modalities or 1
        self.weight = nn.Parameter(torch.eye(channels).repeat(maps, 1, 1))

    def forward(self, student: Tensor, teacher: Tensor, modality: Tensor | None = None) -> Tensor:
        """One value per row: (R,).

        Args:
            student: features of one modality per row, (R, C, ...).
            teacher: fused features of the same samples, (R, C, ...).
            modality: (R,) which modality each row is; needed for ``linear="per_modality"``.

        Raises:
            ValueError: when the shapes differ or ``modality`` is missing.
        """
        if student.shape != teacher.shape:
            raise ValueError(f"features differ in shape: {list(student.shape)} and {list(teacher.shape)}")
        with torch.autocast(student.device.type, enabled=False):
            teacher = teacher.detach() if self.detach_teacher else teacher
            weight: Tensor = self.weight
            if self.linear == LinearSharing.PER_MODALITY:
                if modality is None:
                    raise ValueError("linear='per_modality' needs the modality of every row")
                weight = weight.index_select(0, modality)
            covariance = channel_covariance(full_precision(student))
            # the covariance of W e is W cov(e) W^T: no need to map every position
            mapped = weight.to(covariance.dtype) @ covariance @ weight.to(covariance.dtype).transpose(1, 2)
            target = channel_covariance(full_precision(teacher))
            if self.form == CovarianceForm.CORRELATION:
                mapped, target = self._correlation(mapped), self._correlation(target)
            value = (mapped - target).square().flatten(1).mean(1)
            return value / 4 if self.form == CovarianceForm.CORAL else value

    def _correlation(self, covariance: Tensor) -> Tensor:
        scale = (torch.diagonal(covariance, dim1=1, dim2=2).clamp_min(0.0) + self.eps).rsqrt()
        return covariance * scale.unsqueeze(1) * scale.unsqueeze(2)


def channel_covariance(features: Tensor) -> Tensor:
    """Unbiased covariance of channels over positions: (R, C, ...) -> (R, C, C); zero for a single position."""
    x = features.flatten(2)
    x = x - x.mean(2, keepdim=True)
    return x @ x.transpose(1, 2) / max(x.shape[2] - 1, 1)
