"""What bundles share is the same in each: a change in one folder must reach the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

BUNDLES = sorted(p for p in (Path(__file__).resolve().parents[2] / "bundles").iterdir() if p.is_dir())
REFERENCE = next(p for p in BUNDLES if p.name == "brats_unet_dropout")
#: what makes a bundle what it is, and so may differ
OWN = {
    "network_def",
    "method",
    "loss",
    "cases",
    "mode",
    "batch_size",
    "roi_size",
    "modalities",
    "classes",
    "num_classes",
}


def read(bundle: Path, name: str) -> dict[str, Any]:
    return json.loads((bundle / "configs" / f"{name}.json").read_text())


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda p: p.name)
def test_files_without_anything_of_their_own_are_copies(bundle: Path) -> None:
    for name in ("LICENSE", "configs/logging.conf"):
        assert (bundle / name).read_bytes() == (REFERENCE / name).read_bytes(), name


@pytest.mark.parametrize("bundle", [b for b in BUNDLES if b.name.startswith("brats_")], ids=lambda p: p.name)
@pytest.mark.parametrize("name", ["train", "inference", "evaluate", "multi_gpu_train"])
def test_shared_parts_are_equal(bundle: Path, name: str) -> None:
    ours, reference = read(bundle, name), read(REFERENCE, name)
    for key, value in reference.items():
        if key in OWN or (name == "train" and key in ("modality_weight", "train", "run", "initialize")):
            continue
        assert ours.get(key) == value, key
    if name == "train":
        for key, value in reference["train"].items():
            if key != "handlers":
                assert ours["train"][key] == value, key
        handlers = [h["_target_"] for h in ours["train"]["handlers"]]
        assert [h["_target_"] for h in reference["train"]["handlers"]] == [
            h for h in handlers if not h.endswith("BalanceLog")
        ]


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda p: p.name)
def test_every_configuration_defines_the_same_network(bundle: Path) -> None:
    networks = [read(bundle, name)["network_def"] for name in ("train", "inference", "evaluate")]
    assert networks[0] == networks[1] == networks[2]


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda p: p.name)
def test_documents_name_the_commands(bundle: Path) -> None:
    text = (bundle / "docs" / "README.md").read_text()
    for part in ("configs/train.json", "configs/inference.json", "configs/evaluate.json", "torchrun", "Limits"):
        assert part in text
