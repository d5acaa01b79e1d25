"""Every bundle of the repository passes the zoo's checks, as it is in the repository."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medmap_monai.zoo.bundle_folder import CONFIG_SETS, BundleFolder
from medmap_monai.zoo.check import CHECKS, Status, check_bundle
from tests.zoo.conftest import BUNDLES, copy_bundle

NAMES = sorted(p.name for p in BUNDLES.iterdir() if (p / "configs").is_dir())
#: the first bundle with each network; exporting the same one again would tell nothing
EXPORTED = {
    json.dumps([config["modalities"], config["network_def"]]): name
    for name in reversed(NAMES)
    for config in [json.loads((BUNDLES / name / "configs" / "inference.json").read_text(encoding="utf-8"))]
}.values()


def test_there_are_bundles() -> None:
    assert "brats_unet_dropout" in NAMES
    assert set(EXPORTED) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_no_check_fails(name: str, tmp_path: Path) -> None:
    """Skipped may only be what the bundle declares, ONNX, which has a test of its own, and what was exported before."""
    folder = copy_bundle(tmp_path, name)
    left_out = ["onnx"] if name in EXPORTED else ["onnx", "torchscript"]
    results = list(check_bundle(folder, skip=left_out))
    assert [str(r) for r in results if r.status is Status.FAIL] == []
    declared = set(BundleFolder(folder).metadata.get("unsupported_exports", {}))
    assert {r.check for r in results if r.status is Status.SKIP} <= {*left_out, *declared}
    assert all(r.detail for r in results)


@pytest.mark.parametrize("name", NAMES)
def test_has_every_configuration(name: str) -> None:
    """Training, inference, evaluation, several processes, the phantom, and inference from TorchScript."""
    bundle = BundleFolder(BUNDLES / name)
    unsupported = bundle.metadata.get("unsupported_exports", {})
    wanted = {key for key in CONFIG_SETS if "inference_ts" not in key or "torchscript" not in unsupported}
    assert set(bundle.config_sets()) == wanted


def test_onnx_equals_eager(tmp_path: Path) -> None:
    """One bundle only, since each takes 5 to 15 s; `medmap bundle check bundles/*` does the same for all of them."""
    pytest.importorskip("onnxscript")
    folder = copy_bundle(tmp_path, "brats_unet_dropout")
    (result,) = [r for r in check_bundle(folder, skip=[c for c in CHECKS if c != "onnx"]) if r.check == "onnx"]
    assert result.status is Status.PASS, result.detail
