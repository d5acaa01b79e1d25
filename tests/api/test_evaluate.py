"""``medmap_monai.evaluate`` and ``load_bundle``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import medmap_monai as mm

SMALL = {"overlays": ["phantom"], "device": "cpu"}


@pytest.fixture
def bundle(make_bundle: Callable[..., Path], random_weights: Path) -> Path:
    return make_bundle(weights=random_weights)


def test_an_evaluation_returns_the_tables_that_it_writes(bundle: Path, phantom_cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "BraTS20_Training_001").symlink_to(phantom_cohort / "BraTS20_Training_001")
    found = mm.evaluate(tmp_path / "in", bundle, tmp_path / "out", subsets=["flair+t2", "t1ce"], **SMALL)
    assert set(found.metrics["subset"]) == {"flair+t2", "t1ce"}
    assert found.summary == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert found.summary["n_cases"] == 1

    shutil.copy(tmp_path / "out" / "reliability.json", bundle / "models")
    study = mm.find_studies(tmp_path / "in")[0]
    segmented = mm.predict({"t1ce": study.images["t1ce"].path}, bundle, **SMALL)
    score = found.metrics.query("subset == 't1ce' and region == 'WT' and metric == 'dice'")["value"].item()
    assert segmented.expected_dice["WT"] == pytest.approx(score)
    assert segmented.warnings  # random weights: nothing to rely on


def test_the_parts_of_a_loaded_bundle_segment_a_study(bundle: Path, phantom_cohort: Path, random_weights: Path) -> None:
    loaded = mm.load_bundle(bundle, **SMALL)
    assert loaded.root == bundle.resolve()
    assert loaded.modalities == ("flair", "t1ce", "t1", "t2")
    assert loaded.metadata["version"]
    assert not loaded.network.training
    for name, value in torch.load(random_weights, weights_only=True).items():
        assert torch.equal(loaded.network.state_dict()[name], value)

    study = mm.find_studies(phantom_cohort)[0]
    sample = loaded.preprocessing({"study": study})
    mask = torch.tensor([[True, False, False, True]])
    with torch.no_grad():
        logits = loaded.inferer(sample["image"][None], loaded.network, modality_mask=mask)
    assert logits.shape == (1, len(loaded.classes), *sample["image"].shape[1:])
    single = mm.predict({k: study.images[k].path for k in ("flair", "t2")}, bundle, edition="brats2020", **SMALL)
    names = np.array(loaded.classes)
    shown = (sample["image"][[0, 3]] != 0).any(dim=0).numpy()  # where neither shows anything is background
    classes = logits.argmax(dim=1)[0].numpy() * shown
    for value, name in single.labels.items():
        np.testing.assert_array_equal(single.label_map == value, names[classes] == name)


def test_weights_of_ones_own_and_missing_ones(
    make_bundle: Callable[..., Path], random_weights: Path, tmp_path: Path
) -> None:
    empty = make_bundle()
    with pytest.raises(FileNotFoundError, match="no weights at"):
        mm.load_bundle(empty, **SMALL)
    assert mm.load_bundle(empty, weights=random_weights, **SMALL).classes[0] == "background"
    with pytest.raises(FileNotFoundError, match="is not a bundle"):
        mm.load_bundle(tmp_path / "nowhere")
