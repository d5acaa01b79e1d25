"""A bundle's parts as Python objects: network with weights, preprocessing, inferer."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.inferers import Inferer

from medmap_monai.engines.training_checkpoint import load_model
from medmap_monai.networks.base import ModalityNetwork
from medmap_monai.utils.bundle_workflow import only_given, open_workflow
from medmap_monai.utils.plain_errors import plain_errors


@dataclass(frozen=True)
class LoadedBundle:
    """What ``configs/inference.json`` of a bundle describes.

    root: the bundle's folder.
    network: ``network(image, modality_mask)`` gives logits (B, K, ...); with its weights, in eval mode, on ``device``.
    preprocessing: ``{"study": Study}`` -> ``image`` (M, X, Y, Z), ``modality_mask`` (M,) and the rest of a sample.
    inferer: ``inferer(image, network, modality_mask=mask)`` for whole volumes.
    modalities: names in channel order.
    classes: names by class index, background first.
    device: where the network is.
    metadata: ``configs/metadata.json``.
    """

    root: Path
    network: ModalityNetwork
    preprocessing: Callable[[dict[str, Any]], Any]
    inferer: Inferer
    modalities: tuple[str, ...]
    classes: tuple[str, ...]
    device: torch.device
    metadata: Mapping[str, Any]


def load_bundle(
    bundle: str | os.PathLike[str],
    *,
    overlays: Sequence[str] = (),
    device: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> LoadedBundle:
    """Open a bundle and load its weights.

    Args:
        bundle: the bundle.
        overlays: configurations merged over ``inference.json``, such as ``phantom``.
        device: ``cpu``, ``cuda``, ``cuda:1``; the best there is when None.
        weights: state dict to load instead of the bundle's ``models/model.pt``.
        settings: any other value of the configuration, by its id.

    Raises:
        FileNotFoundError: no bundle, or no weights.
        ValueError: weights that do not fit the network.

    Example:
        >>> import medmap_monai as mm
        >>> bundle = mm.load_bundle("brats_unet_dropout")  # doctest: +SKIP
        >>> bundle.network(torch.rand(1, 4, 96, 96, 96), torch.tensor([[True, False, True, False]]))  # doctest: +SKIP
    """
    overrides = {"device": device, "checkpoint": None if weights is None else os.fspath(weights)}
    with plain_errors():
        parser = open_workflow(bundle, "inference", overlays, {**only_given(overrides), **(settings or {})}).parser
        content = {key: parser.get_parsed_content(key) for key in ("network", "preprocessing", "inferer", "device")}
        load_model(content["network"], parser.get_parsed_content("checkpoint"))
    return LoadedBundle(
        root=Path(parser.get_parsed_content("bundle_root")).resolve(),
        network=content["network"].eval(),
        preprocessing=content["preprocessing"],
        inferer=content["inferer"],
        modalities=tuple(parser.get_parsed_content("modalities")),
        classes=tuple(parser.get_parsed_content("classes")),
        device=torch.device(content["device"]),
        metadata=dict(parser.get("_meta_", {})),
    )
