"""The network contract: encode every modality on its own, decode any subset of them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from monai.data.meta_tensor import MetaTensor
from torch import Tensor, nn

from medmap_monai.networks.blocks.backend import groups_encoders, selects_rows, stack_modalities
from medmap_monai.networks.blocks.modality_encoder import encode_grouped
from medmap_monai.networks.features import DecoderOutput, ModalityFeatures, zero_absent


def available(image: Tensor, mask: Tensor | None) -> Tensor:
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


def scatter_rows(features: list[Tensor], rows: Tensor, batch: int) -> list[Tensor]:
    """Put features of ``rows`` back into a batch of ``batch`` rows, zeros elsewhere."""
    if rows.shape[0] == batch:
        return features
    out: list[Tensor] = []
    for f in features:
        empty = torch.zeros([batch] + list(f.shape[1:]), dtype=f.dtype, device=f.device)
        out.append(empty.index_copy(0, rows, f))
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

    def encode(self, image: Tensor, present_mask: Tensor | None = None) -> ModalityFeatures:
        """Features of each modality on its own.

        On a CPU encoders run only on the rows that have their modality; on other devices and in graphs all rows are
        computed and masked afterwards (:mod:`~medmap_monai.networks.blocks.backend`).

        Args:
            image: (B, M, ...). What an absent channel holds, NaN included, has no influence.
            present_mask: bool (B, M); derived from the image when None.

        Returns:
            features with exact zeros for absent modalities.
        """
        return self.encode_pyramid(image, present_mask)

    def encode_pyramid(self, image: Tensor, present_mask: Tensor | None) -> ModalityFeatures:
        """The part of :meth:`encode` that runs the encoders."""
        self.check_image(image)
        if not torch.jit.is_scripting():
            if isinstance(image, MetaTensor):  # those of a batch cannot be cut into rows
                image = image.as_tensor()
        mask = available(image, present_mask)
        image = zero_absent(image, mask)
        if not torch.jit.is_scripting():
            if groups_encoders(image):
                grouped = encode_grouped(list(self.encoders), image, mask)
                if grouped is not None:
                    return ModalityFeatures(grouped, None, mask)
        if selects_rows(image):
            levels = self._encode_present(image, mask)
        else:
            levels = [zero_absent(level, mask) for level in self._encode_all(image)]
        return ModalityFeatures(levels, None, mask)

    def _encode_present(self, image: Tensor, mask: Tensor) -> list[Tensor]:
        """Every encoder on the rows that have its modality: (B, M, C_l, ...) per level, zero elsewhere."""
        batch = image.shape[0]
        encoded: list[list[Tensor]] = []
        template: list[Tensor] = []
        for m, encoder in enumerate(self.encoders):
            channel = image[:, m : m + 1]
            rows = torch.nonzero(mask[:, m]).flatten()
            if rows.shape[0] > 0:
                chosen = channel if rows.shape[0] == batch else channel.index_select(0, rows)
                template = scatter_rows(encoder(chosen), rows, batch)
                encoded.append(template)
            elif m == 0 and not bool(mask.any()):  # nothing at all: one encoder tells the shapes
                template = [torch.zeros_like(f) for f in encoder(channel)]
                encoded.append(template)
            else:
                encoded.append([])
        levels: list[Tensor] = []
        for level, like in enumerate(template):
            zero = torch.zeros([1] * like.ndim, dtype=like.dtype, device=like.device).expand_as(like)
            maps = [feature[level] if len(feature) > 0 else zero for feature in encoded]
            levels.append(stack_modalities(maps, like))
        return levels

    def _encode_all(self, image: Tensor) -> list[Tensor]:
        """Every encoder on every row: (B, M, C_l, ...) per level."""
        encoded: list[list[Tensor]] = []
        for m, encoder in enumerate(self.encoders):
            encoded.append(encoder(image[:, m : m + 1]))
        levels: list[Tensor] = []
        for level, like in enumerate(encoded[0]):
            levels.append(stack_modalities([feature[level] for feature in encoded], like))
        return levels

    def prepare(self, features: ModalityFeatures, wanted: Tensor | None = None) -> ModalityFeatures:
        """Work that no modality mask changes, such as per-modality parts of the first fusion layers.

        Only levels without parts are done, so it costs nothing to call again. :meth:`forward` and the all-subset sweep
        call it once for all subsets; :meth:`decode` calls it for what is missing.

        Args:
            features: what :meth:`encode` returned.
            wanted: bool (B, M), modalities that will be decoded; None means those that are present.
        """
        return features

    def decode(self, features: ModalityFeatures, modality_mask: Tensor, rows: Tensor | None = None) -> DecoderOutput:
        """Segment from the modalities that ``modality_mask`` allows; implemented by every backbone.

        Args:
            features: what :meth:`encode` returned, prepared or not.
            modality_mask: bool (R, M); or (R, L, M), one mask per pyramid level, where features of some levels were
                filled in for a missing modality and must be seen there.
            rows: (R,), the sample of each row, where rows share the features of fewer samples; None for one row per
                sample, in order.
        """
        raise NotImplementedError("a backbone implements decode")

    def decode_student(
        self, features: ModalityFeatures, sample: Tensor, modality: Tensor, visible: Tensor
    ) -> DecoderOutput:
        """:meth:`decode` for R rows that see one modality each.

        Args:
            features: what :meth:`encode` returned, prepared or not.
            sample: (R,), the sample of each row.
            modality: (R,), the modality that the row sees.
            visible: bool (B, M), what the fused path sees; only published students of some backbones look at it.
        """
        return self.decode(features, one_hot_mask(modality, self.modalities), sample)

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

    def forward(self, image: Tensor, modality_mask: Tensor | None = None) -> Tensor:
        """Logits (B, K, ...) in train and eval mode alike; a row without any modality gives certain background."""
        mask = available(image, modality_mask)
        features = self.prepare(self.encode(image, mask))
        return background_where_empty(self.decode(features, mask).logits, mask)


def one_hot_mask(modality: Tensor, modalities: int) -> Tensor:
    """Bool (R, M): row r sees ``modality[r]`` alone."""
    return torch.nn.functional.one_hot(modality, modalities).to(torch.bool)


def background_where_empty(logits: Tensor, mask: Tensor, background_logit: float = 10.0) -> Tensor:
    """``logits`` (B, K, ...), replaced by finite background logits in rows whose mask (B, M) is all False."""
    background = torch.zeros_like(logits)
    background[:, 0] = background_logit
    rows = mask.any(dim=1).reshape([mask.shape[0]] + [1] * (logits.ndim - 1))
    return torch.where(rows, logits, background)
