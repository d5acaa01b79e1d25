"""Pack, index, serve, install, segment: the same label maps as before; and MONAI's own tools on the same files."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import load
from monai.bundle import run as run_bundle

from medmap_monai.zoo.bundle_folder import BundleFolder
from medmap_monai.zoo.install import install_bundle
from tests.zoo.conftest import NAME, SHAPE, run

PACKAGE = f"{NAME}_v0.1.0.zip"


def label_maps(folder: Path) -> dict[str, np.ndarray]:
    return {p.name: np.asarray(nib.load(p).dataobj) for p in sorted(folder.glob("*_seg.nii.gz"))}  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def expected(trained: Path, studies: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Label maps of the bundle before it was packed."""
    output = tmp_path_factory.mktemp("before")
    run(trained, "inference", ["phantom"], studies, output)
    maps = label_maps(output)
    assert len(maps) == 2
    assert all(len(np.unique(values)) > 1 for values in maps.values())  # or every comparison would hold
    return maps


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def segment(bundle: Path, configs: list[str], studies: Path, output: Path) -> dict[str, np.ndarray]:
    """What ``python -m monai.bundle run inference`` does."""
    run_bundle(
        run_id="inference",
        config_file=[str(bundle / "configs" / f"{name}.json") for name in configs],
        logging_file=False,  # type: ignore[arg-type]
        workflow_type="infer",
        bundle_root=str(bundle),
        dataset_dir=str(studies),
        output_dir=str(output),
        device="cpu",
        roi_size=SHAPE,
    )
    return label_maps(output)


def test_an_installed_bundle_segments_as_before(
    server: str, studies: Path, expected: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """Without the overlay that the weights were trained with: the package's configurations contain it."""
    folder = install_bundle(NAME, server, to=tmp_path / "fresh")
    assert_same(segment(folder, ["inference"], studies, tmp_path / "out"), expected)
    assert_same(segment(folder, ["inference", "phantom"], studies, tmp_path / "again"), expected)


def test_torchscript_alone_segments_as_before(
    zoo: Path, studies: Path, expected: dict[str, np.ndarray], tmp_path: Path
) -> None:
    folder = install_bundle(NAME, zoo, to=tmp_path / "fresh")
    (folder / "models" / "model.pt").unlink()
    assert_same(segment(folder, ["inference", "inference_ts"], studies, tmp_path / "out"), expected)


def test_monai_downloads_and_loads_it(
    server: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``python -m monai.bundle download``, without starting Python once more."""
    options = ["--name", NAME, "--url", f"{server}/{PACKAGE}", "--bundle_dir", str(tmp_path / "bundles")]
    monkeypatch.setattr(sys, "argv", ["monai.bundle", "download", *options])
    runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
    folder = tmp_path / "bundles" / NAME
    original = BundleFolder(trained).build_network(["phantom"])
    original.load_state_dict(torch.load(trained / "models" / "model.pt", weights_only=True))
    image = BundleFolder(folder).example_input()
    with torch.no_grad():
        wanted = original(image)
        for workflow_type in ("train", "inference"):
            network: Any = load(NAME, bundle_dir=tmp_path / "bundles", workflow_type=workflow_type, device="cpu")
            assert torch.equal(network.eval()(image), wanted)
        script, metadata, _ = load(NAME, bundle_dir=tmp_path / "bundles", load_ts_module=True, device="cpu")  # type: ignore[misc]
        torch.testing.assert_close(script(image), wanted, rtol=1e-3, atol=1e-4)
    assert metadata["eval_metrics"]["synthetic"] is True


def test_monai_refuses_a_package_that_was_changed(server: str, zoo: Path, tmp_path: Path) -> None:
    """With the index's checksum, as MONAI's zoo does it."""
    import json

    from monai.apps.utils import HashCheckError, download_url

    checksum = json.loads((zoo / "model_info.json").read_text())[f"{NAME}_v0.1.0"]["checksum"]
    url = f"{server}/{PACKAGE}"
    download_url(url, tmp_path / "a.zip", hash_val=checksum, hash_type="sha1", progress=False)
    (zoo / PACKAGE).write_bytes((zoo / PACKAGE).read_bytes()[:-1])
    with pytest.raises(HashCheckError):
        download_url(url, tmp_path / "b.zip", hash_val=checksum, hash_type="sha1", progress=False)
