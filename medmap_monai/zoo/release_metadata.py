"""The metadata of a released bundle: versions of the packages it was made with, its weights and how it scored."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import Any

from medmap_monai.modalities import Modalities
from medmap_monai.zoo.record import require_same_weights

_PACKAGES = {"monai_version": "monai", "pytorch_version": "torch", "numpy_version": "numpy"}


def release_metadata(
    metadata: Mapping[str, Any],
    weights_sha256: str,
    summary: Mapping[str, Any] | None = None,
    overlay: str | None = None,
) -> dict[str, Any]:
    """``metadata.json`` as the package carries it.

    Args:
        metadata: of the bundle in the repository.
        weights_sha256: of ``models/model.pt``, in hexadecimal.
        summary: ``summary.json`` of a subset evaluation of these very weights; becomes ``eval_metrics``.
        overlay: configuration with which the weights were trained, besides ``train.json``.

    Raises:
        ValueError: a required package is not installed; the summary belongs to other weights or modalities, or holds
            no Dice.
    """
    released = copy.deepcopy(dict(metadata))
    for key, package in _PACKAGES.items():
        released[key] = _version(package)
    released["required_packages_version"] = {
        package: _version(package) for package in metadata["required_packages_version"]
    }
    released["weights"] = {"file": "models/model.pt", "sha256": weights_sha256}
    if overlay is not None:
        released["weights"]["trained_with"] = overlay
    released["eval_metrics"] = {} if summary is None else _eval_metrics(metadata, weights_sha256, summary)
    return released


def _eval_metrics(metadata: Mapping[str, Any], weights_sha256: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Dice per subset and region, and its mean over subsets."""
    require_same_weights(summary, weights_sha256)
    channels = metadata["network_data_format"]["inputs"]["image"]["channel_def"]
    modalities = Modalities(tuple(channels[key] for key in sorted(channels, key=int)))
    if list(modalities) != list(summary["modalities"]):
        raise ValueError(f"the summary has modalities {summary['modalities']}, the metadata {list(modalities)}")
    dice: dict[str, dict[str, float]] = {}
    cases: dict[str, int] = {}
    for entry in summary["scores"]:
        if entry["metric"] == "dice" and entry["mean"] is not None:
            dice.setdefault(entry["subset"], {})[entry["region"]] = entry["mean"]
            cases[entry["subset"]] = max(int(entry["n"]), cases.get(entry["subset"], 0))
    if not dice:
        raise ValueError("the summary holds no Dice")
    names = [modalities.subset_name(mask) for mask in modalities.subset_masks()]
    means = {a["region"]: a["mean"] for a in summary["averages"] if a["metric"] == "dice" and a["mean"] is not None}
    return {
        "data": summary["data"],
        "synthetic": bool(summary["synthetic"]),
        "protocol": summary["protocol"],
        "n_cases": int(summary["n_cases"]),
        "mean_dice": means,
        "dice": {name: dice[name] for name in names if name in dice},
        "cases": {name: cases[name] for name in names if name in dice},
    }


def _version(package: str) -> str:
    """Installed version, without a local part such as ``+cpu``."""
    try:
        return installed_version(package).split("+")[0]
    except PackageNotFoundError as error:
        raise ValueError(f"metadata require the package {package}, which is not installed here") from error
