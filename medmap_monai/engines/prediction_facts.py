"""What all predictions of one run share: model, weights, configuration, and the quality to expect of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from medmap_monai.engines.fingerprint import software_versions, weights_sha256
from medmap_monai.engines.how_segmented import how_segmented, unlike_measured
from medmap_monai.metrics.reliability import RELIABILITY_FILE, ExpectedQuality, expected_quality, read_reliability
from medmap_monai.utils.describe import describe, description_sha256
from medmap_monai.utils.files import file_sha256
from medmap_monai.utils.json_file import read_own_record

NOTICE = "Research use only; not a medical device."


@dataclass(frozen=True)
class PredictionFacts:
    """Facts of a run.

    model, version: name and version of the bundle, or class of the network where there is no bundle.
    weights: ``file`` and ``sha256``.
    config_sha256: of everything configured that can change a result, and of this package's version.
    protocol: the preprocessing, ``clinical`` or ``legacy``; empty where it is not told.
    software: versions.
    reliability: content of the bundle's ``reliability.json``, when it belongs to these weights.
    remarks: what the user should know about the run.
    """

    model: str
    version: str
    weights: Mapping[str, str]
    config_sha256: str
    protocol: str
    software: Mapping[str, str]
    reliability: Mapping[str, Any] | None = None
    remarks: Sequence[str] = field(default_factory=tuple)

    def fingerprint(self, inputs: Mapping[str, Mapping[str, Any]]) -> str:
        """SHA-256 of weights, configuration and the content of the input files: equal ones give equal results."""
        files = {name: [file["sha256"], file.get("channel")] for name, file in sorted(inputs.items())}
        content = [self.weights["sha256"], self.config_sha256, files]
        return hashlib.sha256(json.dumps(content).encode("utf-8")).hexdigest()

    def what_changed(self, record: Mapping[str, Any], inputs: Mapping[str, Mapping[str, Any]]) -> str:
        """Why the result that ``record`` describes has to be made anew, in few words."""
        old: Mapping[str, Any] = record.get("inputs") or {}
        if (record.get("weights") or {}).get("sha256") != self.weights["sha256"]:
            return "made with other weights"
        if record.get("config_sha256") != self.config_sha256:
            return "made with another configuration or version"
        added, gone = [n for n in inputs if n not in old], [n for n in old if n not in inputs]
        changed = [n for n in inputs if n in old and old[n].get("sha256") != inputs[n]["sha256"]]
        parts = [("new", added), ("gone", gone), ("changed", changed)]
        return "; ".join(f"{word} since: {'+'.join(names)}" for word, names in parts if names) or "input changed"

    def expected(self, used: Sequence[str]) -> ExpectedQuality | None:
        """Expected Dice with the modalities ``used``; None where nothing is known."""
        if self.reliability is None or not set(used) <= set(self.reliability["modalities"]):
            return None
        return expected_quality(self.reliability, list(used))

    def as_json(self) -> dict[str, Any]:
        """What every record and header repeats."""
        return {
            "model": self.model,
            "version": self.version,
            "weights": dict(self.weights),
            "config_sha256": self.config_sha256,
            "protocol": self.protocol,
            "software": dict(self.software),
        }


def collect_facts(
    network: nn.Module,
    checkpoint: str | os.PathLike[str] | None,
    parts: Mapping[str, Any],
    bundle: str | os.PathLike[str] | None = None,
    protocol: str = "",
    reliability: str | os.PathLike[str] | None = None,
) -> PredictionFacts:
    """Facts of a run with ``network``.

    Args:
        network: the network, whether or not its weights are loaded.
        checkpoint: file of the weights; None: those that the network has.
        parts: whatever else decides about a result: preprocessing, inferer, classes, ...; described, not run.
        bundle: folder of the bundle; by default the one in whose ``models`` the checkpoint lies.
        protocol: name of the preprocessing.
        reliability: expected quality; by default ``reliability.json`` beside the checkpoint.

    Raises:
        FileNotFoundError: there is no such checkpoint, or no such ``reliability``.
        ValueError: ``reliability`` was given and is not readable as one.
    """
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None and not path.is_file():
        raise FileNotFoundError(f"no weights at {path}: train the bundle first, or put a model.pt there")
    weights = (
        {"file": "", "sha256": weights_sha256(network)}
        if path is None
        else {"file": path.name, "sha256": file_sha256(path)}
    )
    versions = software_versions()
    root = Path(bundle) if bundle is not None else _bundle_of(path)
    metadata = _metadata(root)
    content, remarks = _reliability(path, reliability, weights["sha256"], how_segmented(protocol, parts))
    configured = {"network": str(network), "parts": describe(dict(parts)), "version": versions["medmap_monai"]}
    return PredictionFacts(
        model=root.resolve().name if root is not None and metadata else type(network).__name__,
        version=str(metadata.get("version", "")),
        weights=weights,
        config_sha256=description_sha256(configured),
        protocol=protocol,
        software=versions,
        reliability=content,
        remarks=remarks,
    )


def _bundle_of(checkpoint: Path | None) -> Path | None:
    if checkpoint is None:
        return None
    root = checkpoint.absolute().parent.parent
    return root if (root / "configs" / "metadata.json").is_file() else None


def _metadata(root: Path | None) -> dict[str, Any]:
    return {} if root is None else read_own_record(root / "configs" / "metadata.json") or {}


def _reliability(
    checkpoint: Path | None, given: str | os.PathLike[str] | None, sha256: str, how: Mapping[str, Any]
) -> tuple[Mapping[str, Any] | None, tuple[str, ...]]:
    """The expected quality of these weights, and what is to be said about it."""
    beside = None if checkpoint is None else checkpoint.parent / RELIABILITY_FILE
    if given is None and (beside is None or not beside.is_file()):
        return None, ()
    path = Path(given) if given is not None else beside
    assert path is not None
    try:
        content = read_reliability(path)
    except ValueError as error:
        if given is not None:
            raise
        return None, (f"the expected quality is unknown: {error}",)
    belongs = (content.get("checkpoint") or {}).get("sha256")
    if belongs and belongs != sha256:
        text = f"{path} was measured with other weights ({belongs[:12]}, these are {sha256[:12]})"
        return (content, (text,)) if given is not None else (None, (f"the expected quality is unknown: {text}",))
    unlike = unlike_measured(content, how)
    if unlike:
        text = f"{path} was measured otherwise: {'; '.join(unlike)}"
        return (content, (text,)) if given is not None else (None, (f"the expected quality is unknown: {text}",))
    return content, ()
