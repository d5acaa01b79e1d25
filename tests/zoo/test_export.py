from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import load_net_with_metadata
from torch import Tensor, nn

import medmap_monai
from medmap_monai.networks.unet import ModalityUNet
from medmap_monai.zoo.export import ExportError, export_bundle, export_onnx, export_torchscript, main, verify_export

SOURCES = str(Path(medmap_monai.__file__).parents[1]).encode()


@pytest.fixture
def network() -> ModalityUNet:
    torch.manual_seed(0)
    return ModalityUNet(2, in_channels=2, out_channels=3, channels=(4, 8), deep_supervision=0).eval()


@pytest.fixture
def image() -> Tensor:
    return torch.rand(1, 2, 8, 8, generator=torch.Generator().manual_seed(1))


def test_torchscript_is_equal_takes_any_size_and_names_no_folder(
    tmp_path: Path, network: ModalityUNet, image: Tensor
) -> None:
    path = tmp_path / "models" / "model.ts"
    export_torchscript(network, path, {"metadata.json": '{"version": "0.1.0"}'})
    assert verify_export("torchscript", path, network, image) < 1e-5
    loaded, metadata, _ = load_net_with_metadata(str(path))
    assert metadata["version"] == "0.1.0"
    larger = torch.rand(3, 2, 16, 24)
    with torch.no_grad():
        torch.testing.assert_close(loaded(larger), network(larger))
    with zipfile.ZipFile(path) as archive:
        assert not [name for name in archive.namelist() if SOURCES in archive.read(name)]
    assert SOURCES not in path.read_bytes()


def test_onnx_is_one_reproducible_file_that_obeys_its_mask_and_names_no_folder(
    tmp_path: Path, network: ModalityUNet, image: Tensor
) -> None:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    contents = []
    for folder in ("a", "b"):
        path = tmp_path / folder / "model.onnx"
        export_onnx(network, path, image)
        assert [p.name for p in path.parent.iterdir()] == ["model.onnx"]
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]
    for name in (SOURCES, b"site-packages", str(tmp_path).encode()):
        assert name not in contents[0]
    assert verify_export("onnx", tmp_path / "a" / "model.onnx", network, image) < 1e-4
    session = onnxruntime.InferenceSession(contents[0], providers=["CPUExecutionProvider"])
    garbage = image.clone()
    garbage[:, 1] = 1e6  # in a channel that the mask calls absent
    found = [
        session.run(["pred"], {"image": x.numpy(), "modality_mask": np.array([[True, False]])})[0]
        for x in (image, garbage)
    ]
    assert np.array_equal(found[0], found[1])


def test_an_export_of_other_weights_is_found(tmp_path: Path, network: ModalityUNet, image: Tensor) -> None:
    export_torchscript(network, tmp_path / "model.ts")
    with torch.no_grad():
        next(iter(network.decoder.head.parameters())).add_(0.1)
    with pytest.raises(ExportError, match="torchscript differs from eager execution"):
        verify_export("torchscript", tmp_path / "model.ts", network, image)


def test_an_export_that_ignores_the_mask_is_found(tmp_path: Path, network: ModalityUNet, image: Tensor) -> None:
    class Unmasked(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, image: Tensor, modality_mask: Tensor | None = None) -> Tensor:
            return self.inner(image, torch.ones(image.shape[0], 2, dtype=torch.bool))

    export_torchscript(Unmasked(network), tmp_path / "model.ts")
    with pytest.raises(ExportError, match="differs"):
        verify_export("torchscript", tmp_path / "model.ts", network, image)


def test_the_reason_of_a_failure_comes_from_the_process_that_exports(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run here instead of in a process of its own, which the package of the other tests was made with."""

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        code = main(command[3:])
        return subprocess.CompletedProcess(command, code, "", "some warning\n" + capsys.readouterr().err)

    monkeypatch.setattr(subprocess, "run", run)
    (bundle / "models" / "model.pt").write_bytes(b"no weights")
    with pytest.raises(ExportError, match=r"^ValueError: .*model\.pt is not a checkpoint of plain tensors"):
        export_bundle(bundle, ["torchscript"])
    assert not (bundle / "models" / "model.ts").exists()
