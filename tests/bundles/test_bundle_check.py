"""Every bundle of the repository passes the zoo's checks, as it is in the repository."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medmap_monai.zoo.bundle_folder import CONFIG_SETS, BundleFolder
from medmap_monai.zoo.check import CHECKS, Status, check_bundle
from tests.zoo.conftest import BUNDLES, copy_bundle

STARTER = BUNDLES / "brats_starter"
VERIFY = BUNDLES.parents[1] / "shared" / "checks" / "verify_bundle.py"
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
    if (BUNDLES / name / "models" / "model.pt").is_file():
        shutil.copy(BUNDLES / name / "models" / "model.pt", folder / "models")
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


def test_onnx_equals_eager() -> None:
    """The one with weights, since each takes 5 to 15 s; `medmap bundle check bundles/*` does the same for all."""
    pytest.importorskip("onnxscript")
    results = check_bundle(STARTER, skip=[c for c in CHECKS if c not in ("weights", "onnx")])
    found = {result.check: result for result in results}
    assert found["weights"].detail.startswith("models/model.pt")
    assert found["onnx"].status is Status.PASS, found["onnx"].detail


@pytest.mark.skipif(not VERIFY.is_file(), reason="needs ../shared/checks/verify_bundle.py")
def test_the_starter_passes_the_checks_that_are_not_ours(run_command: Callable[..., Any]) -> None:
    """With its weights; TorchScript by MONAI's own command. ONNX, which passes too, is left to the test above."""
    options = ["--schema", str(VERIFY.with_name("metadata_schema.json")), "--require-weights", "--skip", "onnx"]
    done = run_command("python", str(VERIFY), str(STARTER), *options, cwd=BUNDLES)
    lines = done.stdout.splitlines()
    assert lines[-1] == "0 failed"
    assert {line.split()[1] for line in lines if line.startswith("SKIP")} == {"large_files_entries", "onnx"}
    assert "PASS torchscript  bundle weights; equals eager" in lines
