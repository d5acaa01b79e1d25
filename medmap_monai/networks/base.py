"""The network contract: encode every modality on its own, decode any subset of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import List, NamedTuple, Optional  # noqa: UP035 (TorchScript reads these forms)

import torch
from torch import Tensor, nn

from medmap_monai.networks.blocks.backend import pad_lone_row, stack_modalities


class ModalityFeatures(NamedTuple):
    """What :meth:`ModalityNetwork.encode` returns; nothing in it depends on which subset will be decoded.

    pyramid: encoder features, level 0 = finest, each (B, M, C_l, ...); zero for an absent modality.
    tokens: deepest per-modality features after a per-modality transformer, (B, M, C, ...); None without one.
    projected: per-modality parts of the first fusion layers (see :meth:`ModalityNetwork.prepare`); empty when not
        computed. Whoever changes ``pyramid`` or ``tokens`` calls :meth:`ModalityNetwork.refresh`.
    present: the mask (B, M) that :meth:`ModalityNetwork.encode` used; None where features were made by hand.
    """

    pyramid: List[Tensor]  # noqa: UP006
    tokens: Optional[Tensor]  # noqa: UP045
    projected: List[Tensor]  # noqa: UP006
    present: Optional[Tensor] = None  # noqa: UP045


class DecoderOutput(NamedTuple):
    """What :meth:`ModalityNetwork.decode` returns.

    logits: (B, K, ...) at full resolution.
    deep_logits: deep-supervision logits at their own resolution, finest first.
    features: decoder features, finest first; element 0 has full resolution (prototype losses read it).
    fused: fused encoder features per level, finest first; empty where a backbone has none.
    """

    logits: Tensor
    deep_logits: List[Tensor]  # noqa: UP006
    features: List[Tensor]  # noqa: UP006
    fused: List[Tensor]  # noqa: UP006


def available(image: Tensor, mask: Optional[Tensor]) -> Tensor:  # noqa: UP045
    """Bool mask (B, M): ``mask`` itself, or, without one, "the channel is not zero everywhere".

    Only whole volumes may be judged by their content: a background window of a present modality is zero as well, so
    inference always passes the mask of the volume.
    """
    if mask is None:
        return (image != 0).flatten(2).any(dim=2)
    if mask.ndim != 2 or mask.shape[0] != image.shape[0] or mask.shape[1] != image.shape[1]:
        raise ValueError(
            f"modality mask has shape {list(mask.shape)}, the image {list(image.shape)} needs {list(image.shape[:2])}"
        )
    return mask.to(device=image.device, dtype=torch.bool)


def zero_absent(features: Tensor, mask: Tensor) -> Tensor:
    """``features`` (B, M, ...) with exact zeros where ``mask`` (B, M) is False, NaN and Inf included."""
    shape = list(mask.shape) + [1] * (features.ndim - 2)
    return torch.where(mask.reshape(shape), features, torch.zeros_like(features))


def level_mask(mask: Tensor, level: int) -> Tensor:
    """The mask (B, M) of one pyramid level: ``mask`` itself, or its slice where a mask per level (B, L, M) is given.

    ``level`` may be negative: -1 is the deepest level, whose mask also holds for ``tokens``.
    """
    return mask if mask.ndim == 2 else mask[:, level]


def take_rows(features: ModalityFeatures, rows: Tensor) -> ModalityFeatures:
    """The features of ``rows`` (R,), repeated rows allowed."""
    pyramid: List[Tensor] = []  # noqa: UP006
    for level in features.pyramid:
        pyramid.append(level.index_select(0, rows))
    projected: List[Tensor] = []  # noqa: UP006
    for level in features.projected:
        projected.append(level.index_select(0, rows))
    tokens = features.tokens
    present = features.present
    return ModalityFeatures(
        pyramid,
        None if tokens is None else tokens.index_select(0, rows),
        projected,
        None if present is None else present.index_select(0, rows),
    )


def scatter_rows(features: List[Tensor], rows: Tensor, batch: int) -> List[Tensor]:  # noqa: UP006
    """Put features of ``rows`` back into a batch of ``batch`` rows, zeros elsewhere; surplus (padding) rows are cut."""
    n = rows.shape[0]
    out: List[Tensor] = []  # noqa: UP006
    for f in features:
        kept = f[:n]
        if n != batch:
            empty = torch.zeros([batch] + list(f.shape[1:]), dtype=f.dtype, device=f.device)
            kept = empty.index_copy(0, rows, kept)
        out.append(kept)
    return out


class ModalityNetwork(nn.Module):
    """Base of every backbone.

    A subclass hands its encoders to this constructor and implements :meth:`decode`; a backbone with per-modality
    tokens extends :meth:`encode`, one whose fusion starts with per-modality layers implements :meth:`prepare`.

    Args:
        spatial_dims: 2 or 3.
        in_channels: number of modalities M.
        out_channels: number of classes K, background included.
        stride: total stride; every spatial size must be a multiple of it.
        encoders: one module per modality, each mapping (B, 1, ...) to a list of features, finest first.

    Raises:
        ValueError: when an argument is outside its range or the encoders are not one per modality.
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, stride: int, encoders: Iterable[nn.Module]
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}")
        if in_channels < 1:
            raise ValueError(f"in_channels (the number of modalities) must be at least 1, got {in_channels}")
        if out_channels < 2:
            raise ValueError(f"out_channels (classes with background) must be at least 2, got {out_channels}")
        built = list(encoders)  # a generator is only asked when the other arguments are in order
        if len(built) not in (0, in_channels):
            raise ValueError(f"{in_channels} modalities need as many encoders, got {len(built)}")
        self.spatial_dims = spatial_dims
        self.modalities = in_channels
        self.out_channels = out_channels
        self.stride = stride
        self.encoders = nn.ModuleList(built)
        self.has_unimodal_decoder = False
        self.reads_concatenation = False  # a hint for the memory layout of the pyramid

    def check_image(self, image: Tensor) -> None:
        """Raise ValueError when ``image`` is not (B, M, ...) with spatial sizes that the network can halve."""
        if image.ndim != self.spatial_dims + 2 or image.shape[1] != self.modalities:
            raise ValueError(
                f"image has shape {list(image.shape)}; expected (B, {self.modalities}) "
                f"and {self.spatial_dims} spatial sizes"
            )
        for size in image.shape[2:]:
            if size % self.stride != 0:
                raise ValueError(f"spatial size {list(image.shape[2:])} must be a multiple of {self.stride}")

    def encode(self, image: Tensor, present_mask: Optional[Tensor] = None) -> ModalityFeatures:  # noqa: UP045
        """Features of each modality on its own.

        Encoders run only on the rows that have their modality. In training an encoder without any row still takes
        part in the graph with zero gradients, so DDP and weight decay treat every parameter alike. Tracing and
        export compute all rows and mask afterwards.

        Args:
            image: (B, M, ...). What an absent channel holds, NaN included, has no influence.
            present_mask: bool (B, M); derived from the image when None.

        Returns:
            features with exact zeros for absent modalities.
        """
        return self.encode_pyramid(image, present_mask)

    def encode_pyramid(self, image: Tensor, present_mask: Optional[Tensor] = None) -> ModalityFeatures:  # noqa: UP045
        """The part of :meth:`encode` that runs the encoders; a backbone that adds tokens calls it."""
        self.check_image(image)
        mask = available(image, present_mask)
        image = zero_absent(image, mask)
        batch = image.shape[0]
        skip = True
        if not torch.jit.is_scripting():
            skip = not torch.jit.is_tracing() and not torch.compiler.is_compiling()
        encoded: List[List[Tensor]] = []  # noqa: UP006
        template: List[Tensor] = []  # noqa: UP006
        for m, encoder in enumerate(self.encoders):
            channel = image[:, m : m + 1]
            if not skip:
                encoded.append(encoder(channel))
            else:
                rows = torch.nonzero(mask[:, m]).flatten()
                if rows.shape[0] > 0:
                    chosen = channel if rows.shape[0] == batch else channel.index_select(0, rows)
                    template = scatter_rows(encoder(pad_lone_row(chosen)), rows, batch)
                    encoded.append(template)
                elif m == 0 and not bool(mask.any()):  # nothing at all: one encoder tells the shapes
                    template = [torch.zeros_like(f) for f in encoder(channel)]
                    encoded.append(template)
                else:
                    encoded.append([])
        if not skip:
            template = encoded[0]
        pyramid: List[Tensor] = []  # noqa: UP006
        for level, like in enumerate(template):
            zero = torch.zeros([1] * like.ndim, dtype=like.dtype, device=like.device).expand_as(like)
            maps: List[Tensor] = []  # noqa: UP006
            for feature in encoded:
                maps.append(feature[level] if len(feature) > 0 else zero)
            stacked = stack_modalities(maps, like, self.reads_concatenation)
            pyramid.append(stacked if skip else zero_absent(stacked, mask))
        if not torch.jit.is_scripting():
            if self.training and skip:
                pyramid = self._touch_idle_encoders(pyramid, encoded)
        return ModalityFeatures(pyramid, None, [], mask)

    @torch.jit.unused
    def _touch_idle_encoders(self, pyramid: List[Tensor], encoded: List[List[Tensor]]) -> List[Tensor]:  # noqa: UP006
        """Tie the parameters of encoders without rows to the graph with factor zero."""
        idle = [p for m, f in enumerate(encoded) if not f for p in self.encoders[m].parameters() if p.requires_grad]
        if not idle:
            return pyramid
        zero = torch.stack([p.reshape(-1)[0] for p in idle]).sum() * 0.0
        return [level + zero.to(level.dtype) for level in pyramid]

    def prepare(self, features: ModalityFeatures) -> ModalityFeatures:
        """Work on features that no modality mask changes, such as per-modality parts of the first fusion layers.

        :meth:`forward` and the all-subset sweep call it once; :meth:`decode` must also accept unprepared features.
        """
        return features

    def refresh(self, features: ModalityFeatures, levels: List[int]) -> ModalityFeatures:  # noqa: UP006
        """Prepared features again after ``pyramid`` (or, at the deepest level, ``tokens``) changed at ``levels``.

        This one prepares everything anew; a backbone overrides it where the other levels can be kept.
        """
        if len(features.projected) == 0:
            return features
        return self.prepare(ModalityFeatures(features.pyramid, features.tokens, [], features.present))

    def decode(self, features: ModalityFeatures, modality_mask: Tensor) -> DecoderOutput:
        """Segment from the modalities that ``modality_mask`` allows; implemented by every backbone.

        Args:
            features: what :meth:`encode` returned, prepared or not.
            modality_mask: bool (B, M); or (B, L, M), one mask per pyramid level (:func:`level_mask`), where features
                of some levels were filled in for a missing modality and must be seen there.
        """
        raise NotImplementedError("a backbone implements decode")

    def decode_rows(
        self,
        features: ModalityFeatures,
        rows: Optional[Tensor],  # noqa: UP045
        modality_mask: Tensor,
    ) -> DecoderOutput:
        """Like :meth:`decode` for R rows that share the encoded features of fewer samples, such as students.

        Args:
            features: features of B samples, prepared or not.
            rows: (R,), the sample of each row; None for R = B in order.
            modality_mask: bool (R, M) or (R, L, M).
        """
        return self.decode(features if rows is None else take_rows(features, rows), modality_mask)

    @torch.jit.unused
    def student_mask(self, one_hot: Tensor, modality_mask: Tensor) -> Tensor:
        """The mask for :meth:`decode_rows` with which rows decode one modality alone.

        Args:
            one_hot: bool (R, M), the modality of each row.
            modality_mask: bool (R, M), what the fused path of the row's sample may see.

        Returns:
            ``one_hot`` itself, unless the published student paths of a backbone do otherwise.
        """
        return one_hot

    @torch.jit.unused
    def decode_unimodal(self, features: ModalityFeatures, sample: Tensor, modality: Tensor) -> Tensor:
        """Logits (R, K, ...) of the training-only decoder that all modalities share, one row per (sample, modality).

        Args:
            features: features of :meth:`encode`.
            sample: (R,), the sample of each row.
            modality: (R,), the modality that the row sees.

        Raises:
            NotImplementedError: when the network has none (``has_unimodal_decoder`` is False).
        """
        raise NotImplementedError(f"{type(self).__name__} has no decoder for single modalities")

    def forward(self, image: Tensor, modality_mask: Optional[Tensor] = None) -> Tensor:  # noqa: UP045
        """Logits (B, K, ...) in train and eval mode alike; a row without any modality gives certain background."""
        mask = available(image, modality_mask)
        features = self.prepare(self.encode(image, mask))
        return background_where_empty(self.decode(features, mask).logits, mask)


def background_where_empty(logits: Tensor, mask: Tensor, background_logit: float = 10.0) -> Tensor:
    """``logits`` (B, K, ...), replaced by finite background logits in rows whose mask (B, M) is all False."""
    background = torch.zeros_like(logits)
    background[:, 0] = background_logit
    rows = mask.any(dim=1).reshape([mask.shape[0]] + [1] * (logits.ndim - 1))
    return torch.where(rows, logits, background)
