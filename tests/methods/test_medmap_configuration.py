"""The four MedMAP bundles build and train with every anchor, as ``docs/explanation/medmap.md`` says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from medmap_monai.methods.medmap import MedMAP
from medmap_monai.networks.aligned import AlignedNetwork

ROOT = Path(__file__).parents[2]
SLS = {"fused", "deep", "align"}  # the phantom overlay switches the loss of single modalities off
LOSSES = {
    "brats_medmap_rfnet": SLS,
    "brats_medmap_mmformer": SLS,
    "brats_medmap_da": {"full", "missing", "deep", "consistency", "bottleneck", "align"},
    "brats_medmap_kd": {"fused", "deep", "distill", "bottleneck"},
}


def configuration(bundle: str, **values: Any) -> ConfigParser:
    """The bundle's training with its phantom overlay, not yet built."""
    parser = ConfigParser()
    parser.read_config([ROOT / "bundles" / bundle / "configs" / f"{name}.json" for name in ("train", "phantom")])
    parser.update({"device": "cpu", **values})
    return parser


@pytest.mark.parametrize("anchor", ["adaptive", "fixed", "normal", "none"])
@pytest.mark.parametrize("bundle", LOSSES)
def test_every_anchor_is_one_value(bundle: str, anchor: str) -> None:
    parser = configuration(bundle, anchor=anchor)
    aligned = parser.get_parsed_content("teacher_method" if bundle.endswith("kd") else "method")
    assert isinstance(aligned, MedMAP)
    assert isinstance(aligned.network, AlignedNetwork)
    assert aligned.network.anchor == anchor
    image, label = torch.randn(2, 4, 32, 32, 32), torch.randint(0, 4, (2, 1, 32, 32, 32))
    visible = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0]]).bool()
    everything = torch.ones_like(visible)
    method = parser.get_parsed_content("method")
    losses = method.train()(image, visible, everything, label).losses
    assert set(losses) == LOSSES[bundle]
    losses.update(aligned.train()(image, visible, everything, label).losses)
    assert (float(losses["align"].detach()) > 0) == (anchor != "none")
    assert all(bool(value.isfinite()) for value in losses.values())


def test_values_of_distillation_reach_the_method() -> None:
    method = configuration("brats_medmap_kd", distill_weight=0.25, bottleneck_weight=0.5).get_parsed_content("method")
    assert (method.distill_weight, method.bottleneck_weight) == (0.25, 0.5)


def test_weights_of_alignment_are_those_of_the_page() -> None:
    found = {}
    for bundle in LOSSES:
        parser = configuration(bundle)
        aligned = parser.get_parsed_content("teacher_method" if bundle.endswith("kd") else "method")
        found[bundle.removeprefix("brats_medmap_")] = aligned.weight
    assert found == {"rfnet": 0.1, "mmformer": 0.1, "da": 1.0, "kd": 4.0}
    page = (ROOT / "docs" / "explanation" / "medmap.md").read_text(encoding="utf-8")
    assert "weight (0.1 in the SLS bundles, 1 in DA, 4 in KD;" in page


def test_a_dedicated_student_is_one_value() -> None:
    method = configuration("brats_medmap_kd", student_subset=["t2", "flair"]).get_parsed_content("method")
    assert method.subset.tolist() == [True, False, False, True]


@pytest.mark.parametrize(("subset", "seen"), [(["t2", "flair"], [True, False, False, True]), (None, [True] * 4)])
def test_a_dedicated_student_is_validated_on_its_subset(
    subset: list[str] | None, seen: list[bool], phantom_cohort: Path
) -> None:
    parser = configuration("brats_medmap_kd", student_subset=subset, dataset_dir=str(phantom_cohort))
    sample = parser.get_parsed_content("validate#dataset")[0]
    assert sample["modality_mask"].tolist() == seen
    assert type(sample["modality_mask"]) is torch.Tensor


def test_a_teacher_that_is_trained_anew_does_not_go_on_from_its_checkpoint(phantom_cohort: Path) -> None:
    for reuse, resume in ((True, True), (False, False)):
        given = {"reuse_teacher": reuse, "resume": True, "dataset_dir": str(phantom_cohort)}
        parser = configuration("brats_medmap_kd", **given)
        for handlers in ("teacher#handlers", "train#handlers"):
            assert parser.get_parsed_content(handlers)[-1].resume is resume


def test_the_page_names_values_that_bundles_have() -> None:
    page = (ROOT / "docs" / "explanation" / "medmap.md").read_text(encoding="utf-8")
    section = page.split("## In a bundle")[1].split("\n## ")[0]
    rows = [row.split("|")[1] for row in section.splitlines() if row.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    known = set().union(*(configuration(bundle).config for bundle in LOSSES))
    assert named
    assert named <= known
