"""What there is to know of bundles before one chooses: a row each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmap_monai.data.edition import Edition
from medmap_monai.data.edition_file import EDITION_FILE, read_edition
from medmap_monai.data.editions import EDITIONS, get_edition
from medmap_monai.modalities import SUBSET_SEPARATOR
from medmap_monai.zoo.bundle_folder import BundleFolder
from medmap_monai.zoo.record import measured

RECIPE = "recipe, no weights"
WITH_WEIGHTS = "real weights"
SYNTHETIC = "real weights, synthetic training"


@dataclass(frozen=True)
class BundleRow:
    """One bundle.

    name, title, task, version: as its folder and metadata say.
    modalities: in channel order.
    regions: what is scored.
    weights: whether ``models/model.pt`` is there.
    evidence: what is known of it: :data:`RECIPE`, :data:`WITH_WEIGHTS` or :data:`SYNTHETIC`.
    complete: region -> expected Dice with all modalities; empty where it was not evaluated.
    worst: region -> (Dice, modality): the lowest with a single one.
    evaluated_on: what the Dice was measured on.
    license: of the code and the weights.
    """

    name: str
    title: str
    task: str
    version: str
    modalities: tuple[str, ...]
    regions: tuple[str, ...]
    weights: bool
    evidence: str
    complete: Mapping[str, float]
    worst: Mapping[str, tuple[float, str]]
    evaluated_on: str
    license: str


def bundle_row(folder: str | Path) -> BundleRow:
    """The row of a bundle.

    Raises:
        FileNotFoundError, ValueError: it is no bundle, or a file of it cannot be read.
    """
    bundle = BundleFolder(folder)
    metadata = bundle.metadata
    channels = metadata["network_data_format"]["inputs"]["image"].get("channel_def", {})
    modalities = tuple(channels[key] for key in sorted(channels, key=int))
    weights = bundle.weights_file.is_file()
    reliability = measured(bundle)
    complete, worst = _expected(reliability, modalities)
    regions = tuple(complete) or _regions(bundle, modalities)
    trained_on = str(metadata.get("training_data", metadata.get("data_source", ""))).lower()
    synthetic = "synthetic" in trained_on or metadata.get("weights", {}).get("trained_with") == "phantom"
    return BundleRow(
        name=bundle.name,
        title=str(metadata.get("name", bundle.name)),
        task=str(metadata.get("task", "")),
        version=str(metadata["version"]),
        modalities=modalities,
        regions=regions,
        weights=weights,
        evidence=RECIPE if not weights else SYNTHETIC if synthetic else WITH_WEIGHTS,
        complete=complete,
        worst=worst,
        evaluated_on=_evaluated_on(reliability),
        license=_license(bundle),
    )


def _expected(
    reliability: Mapping[str, Any] | None, modalities: tuple[str, ...]
) -> tuple[dict[str, float], dict[str, tuple[float, str]]]:
    if reliability is None:
        return {}, {}
    table: Mapping[str, Mapping[str, Any]] = reliability["subsets"]
    wanted = set(modalities)
    everything = next((cells for name, cells in table.items() if set(name.split(SUBSET_SEPARATOR)) == wanted), {})
    complete = {region: float(cell["mean"]) for region, cell in everything.items()}
    worst = {}
    for region in complete:
        single = [(float(table[m][region]["mean"]), m) for m in modalities if region in table.get(m, {})]
        if single:
            worst[region] = min(single)
    return complete, worst


def _evaluated_on(reliability: Mapping[str, Any] | None) -> str:
    if reliability is None:
        return ""
    data = str(reliability.get("data") or "unnamed data")
    kind = " (synthetic)" if reliability.get("synthetic") else ""
    return f"{data}{kind}, n = {reliability.get('cases')}"


def _regions(bundle: BundleFolder, modalities: tuple[str, ...]) -> tuple[str, ...]:
    """The regions of the bundle's edition, or of the first one with its modalities and number of classes."""
    own = bundle.root / "configs" / EDITION_FILE
    if own.is_file():
        return tuple(read_edition(own).regions)
    classes = bundle.metadata["network_data_format"]["outputs"]["pred"]["num_channels"]
    fitting: list[Edition] = [
        edition
        for edition in map(get_edition, EDITIONS)
        if set(edition.modalities) == set(modalities) and len(edition.classes) == classes
    ]
    return tuple(fitting[0].regions) if fitting else ()


def _license(bundle: BundleFolder) -> str:
    """The first words of the licence: its name."""
    file = bundle.root / "LICENSE"
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []
    words = [line for line in lines if line][:2]
    if words[:1] == ["Apache License"]:
        return f"Apache-{words[1].split()[1].rstrip(',')}"
    return words[0] if words else "none"
