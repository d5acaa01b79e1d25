"""AlignedNetwork: a network whose missing features are replaced by an anchor distribution (MedMAP)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import torch
from monai.utils.module import look_up_option
from torch import Tensor, nn

from medmap_monai.losses.alignment import Anchor
from medmap_monai.networks.anchor_weights import fixed_anchor_weights
from medmap_monai.networks.base import ModalityNetwork, one_hot_mask
from medmap_monai.networks.features import DecoderOutput, ModalityFeatures, mask_at, zero_absent


class AnchorType(StrEnum):
    """The anchor: learned mixture (P*_mix), fixed mixture (P^k_mix), standard normal (P_N), or no alignment."""

    ADAPTIVE = "adaptive"
    FIXED = "fixed"
    NORMAL = "normal"
    NONE = "none"


class TrainingSource(StrEnum):
    """What the replacement is mixed from in training: every present modality, or only those the fused path may see."""

    FULL = "full"
    AVAILABLE = "available"


class InferenceScale(StrEnum):
    """Whether features are scaled by their mixture weight at inference, as the published fragment does."""

    NONE = "none"
    WEIGHT = "weight"


class AlignedNetwork(ModalityNetwork):
    r"""Any :class:`ModalityNetwork` with missing features replaced by an anchor.

    At level l the anchor is the mixture :math:`P = \sum_m w_m f_m` of the modalities' features, with weights
    renormalised over those it is mixed from. A missing modality's features become the anchor, a present one keeps its
    own, and fusion then sees every modality of that level. A mixture needs nothing that is missing: at inference it is
    made from the available modalities only, per sample. The alignment loss itself belongs to training, see
    :class:`medmap_monai.methods.medmap.MedMAP`. Source: the published fragment, with masks per sample and one scale in
    training and inference; levels, P_N parameters and the choice of sources are ours.

    Args:
        network: the network to wrap; its own arguments decide dimensions, modalities and classes.
        anchor: ``"adaptive"`` (weights softmax of learned parameters), ``"fixed"`` (``weights``), ``"normal"`` (zero
            mean, unit variance) or ``"none"`` (the wrapped network unchanged).
        levels: pyramid levels to align, 0 = finest (as published); negative levels count from the deepest. At the
            deepest level of a network with tokens these are the tokens. On phantoms the deepest cost less than the
            finest.
        weights: for ``"fixed"``: one non-negative number per modality, the index of one modality (one-hot), or
            ``"uniform"`` (also when not given). Where none of the weighted modalities is available, the mixture is
            uniform over the others.
        init_std: standard deviation of the initial parameters of ``"adaptive"``.
        shared_weights: one weight vector for all levels instead of one per level.
        detach_anchor: stop gradients from the anchor into the features that it is mixed from.
        training_source: ``"available"``: in training the anchor is mixed as at inference; ``"full"`` (as published):
            from every present modality, hidden ones included. On phantoms that cost 12 points with one modality at the
            finest level: the fused path learns to rely on what it will not have.
        inference_scale: ``"weight"`` multiplies the features of modality m by :math:`w_m` at inference.
        replace_levels: levels where missing features are replaced; None means ``levels``, ``[]`` means alignment
            without replacement.
        learn_normal: learn mean and log-variance (scalars per level) of the normal anchor.

    Raises:
        ValueError: when an option is unknown, the weights do not fit or no level is given.

    Example:
        >>> from medmap_monai.networks.unet import ModalityUNet
        >>> unet = ModalityUNet(spatial_dims=3, in_channels=4, out_channels=4)
        >>> net = AlignedNetwork(unet, anchor="adaptive")
        >>> net(torch.rand(2, 4, 32, 32, 32)).shape
        torch.Size([2, 4, 32, 32, 32])
    """

    __jit_unused_properties__ = ["encoders"]  # noqa: RUF012 (TorchScript reads a plain class attribute)

    def __init__(
        self,
        network: ModalityNetwork,
        anchor: str = "adaptive",
        levels: Sequence[int] = (-1,),
        weights: Sequence[float] | int | str | None = None,
        init_std: float = 0.1,
        shared_weights: bool = False,
        detach_anchor: bool = False,
        training_source: str = "available",
        inference_scale: str = "none",
        replace_levels: Sequence[int] | None = None,
        learn_normal: bool = False,
    ) -> None:
        super().__init__(network.spatial_dims, network.modalities, network.out_channels, network.stride, [])
        del self.encoders  # the property below: one set of encoders, under one name in the state dict
        self.network = network
        self.has_unimodal_decoder = network.has_unimodal_decoder
        self.anchor = str(look_up_option(anchor, AnchorType))
        self.training_source = str(look_up_option(training_source, TrainingSource))
        self.inference_scale = str(look_up_option(inference_scale, InferenceScale))
        if not levels and self.anchor != AnchorType.NONE:
            raise ValueError("levels is empty: give at least one level to align, or anchor='none'")
        if weights is not None and self.anchor != AnchorType.FIXED:
            raise ValueError(f"weights belong to anchor='fixed', got anchor={self.anchor!r}")
        self.detach_anchor = detach_anchor
        self.shared_weights = shared_weights
        replaced = levels if replace_levels is None else replace_levels
        self.aligned_levels: list[int] = _unique(levels)
        self.replaced_levels: list[int] = _unique(replaced)
        self.anchor_levels: list[int] = _unique([*levels, *replaced])
        self._mixes = self.anchor in (AnchorType.ADAPTIVE, AnchorType.FIXED)
        self._learns_mixture = self.anchor == AnchorType.ADAPTIVE
        self._replaces = self.anchor != AnchorType.NONE and len(self.replaced_levels) > 0
        self._privileged = self.training_source == TrainingSource.FULL
        self._scales = self.inference_scale == InferenceScale.WEIGHT and self._mixes
        rows = 1 if shared_weights else max(len(self.anchor_levels), 1)
        if self._learns_mixture:
            self.mixture = nn.Parameter(init_std * torch.randn(rows, self.modalities))
        else:
            fixed = fixed_anchor_weights(weights, self.modalities) if self.anchor == AnchorType.FIXED else [1.0]
            self.register_buffer("mixture", torch.tensor([fixed] * rows), persistent=self.anchor == AnchorType.FIXED)
        learned = learn_normal and self.anchor == AnchorType.NORMAL
        self._learns_normal = learned
        if learned:
            self.normal_mean = nn.Parameter(torch.zeros(rows))
            self.normal_log_variance = nn.Parameter(torch.zeros(rows))
        else:
            self.register_buffer("normal_mean", torch.zeros(rows), persistent=False)
            self.register_buffer("normal_log_variance", torch.zeros(rows), persistent=False)
        self.placement: Tensor
        self.register_buffer("placement", self._placement(), persistent=self.anchor != AnchorType.NONE)
        self.register_load_state_dict_pre_hook(_require_placement)

    def _placement(self) -> Tensor:
        """What decides where features are replaced, and by what, without having a weight of its own.

        It is kept with the weights: those of one level would load into a network that replaces another one, and the
        segmentations would be wrong without a sign of it.
        """
        replaced = self.replaced_levels if self._replaces else []
        kinds = [list(AnchorType).index(AnchorType(self.anchor)), int(self._scales)]
        return torch.tensor([*kinds, *replaced])

    @property
    def encoders(self) -> nn.ModuleList:  # type: ignore[override]
        """The encoders of the wrapped network."""
        return self.network.encoders

    def anchor_weights(self, source: Tensor, level: int) -> Tensor:
        """Mixture weights of one level, renormalised over ``source``: (B, M), rows sum to 1 (0 without any source).

        Args:
            source: bool (B, M), the modalities that the anchor is mixed from.
            level: one of ``anchor_levels``, as given to the constructor.
        """
        kept = torch.where(source, self._mixture_of(level).unsqueeze(0), torch.zeros_like(source, dtype=torch.float32))
        total = kept.sum(dim=1, keepdim=True)
        uniform = source.to(kept.dtype) / source.sum(dim=1, keepdim=True).clamp(min=1)
        # a fixed mixture may give all its weight to modalities that this sample lacks
        return torch.where(total > 0, kept / torch.where(total > 0, total, torch.ones_like(total)), uniform)

    def anchor_map(self, features: Tensor, source: Tensor, level: int) -> Tensor:
        """The anchor's mean for one level: features (B, M, C, ...) -> (B, C, ...); masks may differ by sample."""
        if not self._mixes:
            mean = self.normal_mean[self._row_of(level)]
            return torch.zeros_like(features[:, 0]) + mean.to(features.dtype)
        if self.detach_anchor:
            features = features.detach()
        weights = self.anchor_weights(source, level).to(features.dtype)
        shape = [features.shape[0]] + [1] * (features.ndim - 2)
        mixed = torch.zeros_like(features[:, 0])
        for m in range(self.modalities):
            part = weights[:, m].reshape(shape) * features[:, m]
            mixed = mixed + torch.where(source[:, m].reshape(shape), part, torch.zeros_like(part))
        return mixed

    def anchors(self, features: ModalityFeatures, source: Tensor) -> dict[int, tuple[Tensor, Anchor]]:
        """What an alignment loss compares, by aligned level: features (B, M, C, ...) and their anchor.

        Args:
            features: features of :meth:`encode`.
            source: bool (B, M), the modalities to align and to mix the anchor from: all that exist for the case.
        """
        out: dict[int, tuple[Tensor, Anchor]] = {}
        if self.anchor == AnchorType.NONE:
            return out
        for level in self.aligned_levels:
            maps = features.at(level)
            if self._mixes:
                weights = self.anchor_weights(source, level)
                anchor = Anchor(self.anchor_map(maps, source, level), weights, None, self.detach_anchor)
            else:
                row = self._row_of(level)
                log_variance = self.normal_log_variance[row] if self._learns_normal else None
                anchor = Anchor(self.normal_mean[row], None, log_variance)
            out[level] = (maps, anchor)
        return out

    def encode(self, image: Tensor, present_mask: Tensor | None = None) -> ModalityFeatures:
        return self.network.encode(image, present_mask)

    def prepare(self, features: ModalityFeatures, wanted: Tensor | None = None) -> ModalityFeatures:
        return self.network.prepare(features, wanted)

    def decode(self, features: ModalityFeatures, modality_mask: Tensor, rows: Tensor | None = None) -> DecoderOutput:
        """Fill in what is missing, then let the wrapped network segment; a mask per level is passed on as it is."""
        if not self._replaces:
            return self.network.decode(features, modality_mask, rows)
        if rows is not None:
            features = features.rows(rows)
        visible = self.visible_masks(modality_mask, len(features.pyramid))
        return self.network.decode(self.fill(features, modality_mask), visible)

    def decode_student(
        self, features: ModalityFeatures, sample: Tensor, modality: Tensor, visible: Tensor
    ) -> DecoderOutput:
        """A student has one modality: its anchor must not be mixed from the others, present as they may be."""
        if not self._replaces:
            return self.network.decode_student(features, sample, modality, visible)
        one_hot = one_hot_mask(modality, self.modalities)
        taken = features.rows(sample)
        tokens = None if taken.tokens is None else zero_absent(taken.tokens, one_hot)
        alone = [zero_absent(level, one_hot) for level in taken.pyramid]
        return self.decode(ModalityFeatures(alone, tokens, one_hot, taken.parts), one_hot)

    def decode_unimodal(self, features: ModalityFeatures, sample: Tensor, modality: Tensor) -> Tensor:
        return self.network.decode_unimodal(features, sample, modality)

    def visible_masks(self, modality_mask: Tensor, depth: int) -> Tensor:
        """Masks per level (B, L, M): at replaced levels a row with any modality sees them all."""
        masks: list[Tensor] = []
        for level in range(depth):
            mask = mask_at(modality_mask, level)
            if level in self.replaced_levels or level - depth in self.replaced_levels:
                mask = mask.any(dim=1, keepdim=True).expand_as(mask)
            masks.append(mask)
        return torch.stack(masks, dim=1)

    def fill(self, features: ModalityFeatures, modality_mask: Tensor) -> ModalityFeatures:
        """Features with the missing ones replaced by the anchor at the replaced levels.

        Raises:
            ValueError: in training with ``training_source="full"`` when the features do not say what was present.
        """
        filled = features
        for level in self.replaced_levels:
            maps = features.at(level)
            visible = mask_at(modality_mask, features.index_of(level))
            source = visible
            if self.training and self._privileged:
                present = features.present
                if present is None:
                    raise ValueError("training_source='full' needs features.present: take features from encode")
                source = present
            shape = list(visible.shape) + [1] * (maps.ndim - 2)
            anchor = self.anchor_map(maps, source, level)
            maps = torch.where(visible.reshape(shape), maps, anchor.unsqueeze(1))
            if self._scales and not self.training:
                scale = self._mixture_of(level).to(maps.dtype)
                maps = maps * scale.reshape([1, self.modalities] + [1] * (maps.ndim - 2))
            filled = filled.with_level(level, maps)
        return filled

    def _row_of(self, level: int) -> int:
        return 0 if self.shared_weights else self.anchor_levels.index(level)

    def _mixture_of(self, level: int) -> Tensor:
        """Mixture weights (M,) before any renormalisation."""
        row = self.mixture[self._row_of(level)]
        return torch.softmax(row, dim=0) if self._learns_mixture else row


def _require_placement(module: AlignedNetwork, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Before weights are loaded: an error where they are of another anchor or of other levels."""
    errors: list[str] = rest[-1]
    saved = state.get(f"{prefix}placement")
    if saved is None or torch.equal(saved.cpu(), module.placement.cpu()):
        return  # a missing key is reported by load_state_dict
    errors.append(f"the weights are of a network with {_in_words(saved)}; this one has {_in_words(module.placement)}")
    state[f"{prefix}placement"] = module.placement  # one message is enough


def _in_words(placement: Tensor) -> str:
    kind, scaled, *replaced = placement.tolist()
    scale = ", scaled by the weights" if scaled else ""
    return f"anchor '{list(AnchorType)[kind]}', features replaced at levels {replaced}{scale}"


def _unique(levels: Sequence[int]) -> list[int]:
    """The levels as whole numbers, each once, in the order given."""
    return list(dict.fromkeys(int(level) for level in levels))
