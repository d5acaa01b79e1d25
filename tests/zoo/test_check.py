from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medmap_monai.zoo.bundle_folder import BundleFolder, smallest_shape
from medmap_monai.zoo.check import CHECKS, Status, check_bundle
from medmap_monai.zoo.outcome import CheckFailedError, CheckSkippedError

SLOW = ("torchscript", "onnx")


def edit(path: Path, **changes: Any) -> None:
    """Set (or with None remove) entries of a JSON file; ``a__b`` goes into ``a``."""
    content = json.loads(path.read_text())
    for key, value in changes.items():
        place, *parts = content, *key.split("__")
        for part in parts[:-1]:
            place = place[part]
        if value is None:
            del place[parts[-1]]
        else:
            place[parts[-1]] = value
    path.write_text(json.dumps(content))


def outcome(bundle: Path, check: str) -> tuple[Status, str]:
    """One check alone, as the report would show it."""
    others = [name for name in CHECKS if name != check]
    result = next(r for r in check_bundle(bundle, skip=others) if r.check == check)
    return result.status, result.detail


def test_a_sound_bundle_passes_and_neither_it_nor_this_process_is_changed(bundle: Path) -> None:
    def seed() -> None:
        for function in (random.seed, np.random.seed, torch.manual_seed):
            function(5)

    def draw() -> tuple[float, float, float, bool]:
        flag = torch.backends.cudnn.deterministic
        return random.random(), float(np.random.rand()), float(torch.rand(())), flag  # noqa: NPY002

    seed()
    expected = draw()
    before = {p: p.read_bytes() for p in bundle.rglob("*") if p.is_file()}
    seed()
    results = list(check_bundle(bundle, skip=SLOW))
    assert draw() == expected
    assert {p: p.read_bytes() for p in bundle.rglob("*") if p.is_file()} == before
    assert [r.check for r in results] == list(CHECKS)
    assert [str(r) for r in results if r.status is Status.FAIL] == []
    assert {r.check for r in results if r.status is Status.SKIP} == set(SLOW)


def break_logging(bundle: Path) -> None:
    file = bundle / "configs" / "logging.conf"
    file.write_text(file.read_text().replace("args=(sys.stdout,)", "args=(__import__('os').getcwd(),)"))


def repeat_key(bundle: Path) -> None:
    file = bundle / "configs" / "inference.json"
    file.write_text(file.read_text().replace("{", '{"seed": 1, "seed": 2,', 1))


def big_file(bundle: Path) -> None:
    with (bundle / "docs" / "film.mp4").open("wb") as file:
        file.truncate(26 << 20)


FAULTS: list[tuple[str, Callable[[Path], Any], str]] = [
    ("layout", lambda b: (b / "LICENSE").unlink(), "missing: LICENSE"),
    ("layout", lambda b: (b / "configs" / "inference.json").unlink(), "configs/inference.json"),
    ("license", lambda b: (b / "LICENSE").write_text("Select a license"), "placeholder"),
    ("readme", lambda b: (b / "docs" / "README.md").write_text("soon"), "next to nothing"),
    ("readme", lambda b: (b / "configs" / "evaluate.json").unlink(), "configs/evaluate.json, which do not exist"),
    ("file_sizes", big_file, "docs/film.mp4"),
    (
        "file_sizes",
        lambda b: (b / "large_files.yml").write_text("large_files: [{path: ../x.pt, url: 'https://example.org'}]"),
        "../x.pt",
    ),
    ("metadata", lambda b: edit(b / "configs" / "metadata.json", task=None), "'task' is a required property"),
    (
        "metadata",
        lambda b: edit(b / "configs" / "metadata.json", network_data_format__inputs__image__num_channels="four"),
        "num_channels",
    ),
    (
        "metadata",
        lambda b: edit(b / "configs" / "metadata.json", unsupported_exports={"tensorrt": "no"}),
        "unsupported_exports",
    ),
    ("version", lambda b: edit(b / "configs" / "metadata.json", version="0.2.0"), "0.2.0 is not in the changelog"),
    (
        "version",
        lambda b: edit(b / "configs" / "metadata.json", changelog={"0.1.0": "a", "0.10.0": "b"}),
        "goes up to 0.10.0",
    ),
    (
        "version",
        lambda b: edit(b / "configs" / "metadata.json", version="new", changelog={"new": "a"}),
        "look like 0.1.0",
    ),
    (
        "personal_paths",
        lambda b: edit(b / "configs" / "train.json", dataset_dir="/data/brats"),
        "train.json: /data/brats",
    ),
    ("personal_paths", lambda b: (b / "docs" / "notes.md").write_text("in /home/alice/runs"), "notes.md: /home/"),
    ("logging", break_logging, "logging"),
    ("references", lambda b: edit(b / "configs" / "train.json", train__trainer__device="@devise"), "-> @devise"),
    ("references", lambda b: edit(b / "configs" / "phantom.json", batch_size="@batches"), "train+phantom"),
    ("references", lambda b: edit(b / "configs" / "train.json", training=None), "no 'training' to run"),
    ("references", repeat_key, "twice"),
    ("references", lambda b: edit(b / "configs" / "phantom.json", **{"nets#channels": [4]}), "nets"),
    (
        "targets",
        lambda b: edit(b / "configs" / "train.json", method___target_="medmap_monai.methods.Nothing"),
        "there is no medmap_monai.methods.Nothing",
    ),
    ("targets", lambda b: edit(b / "configs" / "train.json", lr_scheduler__powr=0.9), "powr"),
    ("train_workflow", lambda b: edit(b / "configs" / "train.json", train__trainer__max_epoch=3), "max_epoch"),
    ("targets", lambda b: edit(b / "configs" / "phantom.json", **{"network_def#chanels": [4, 8]}), "chanels"),
    ("overlay_keys", lambda b: edit(b / "configs" / "phantom.json", epoch=3), "phantom.json: 'epoch'"),
    ("overlay_keys", lambda b: edit(b / "configs" / "inference.json", notes="x"), "inference.json: 'notes'"),
    (
        "channels",
        lambda b: edit(b / "configs" / "inference.json", modalities=["t1", "t1ce", "flair", "t2"]),
        "inference: modalities is ['t1', 't1ce', 'flair', 't2']",
    ),
    ("channels", lambda b: edit(b / "configs" / "train.json", num_classes=3), "train: num_classes is 3"),
    (
        "network_def",
        lambda b: edit(b / "configs" / "evaluate.json", network_def__deep_supervision=2),
        "network_def of evaluate differs",
    ),
    ("network_def", lambda b: edit(b / "configs" / "evaluate.json", num_classes=5), "network_def of evaluate differs"),
    ("train_workflow", lambda b: edit(b / "configs" / "train.json", train__inferer=None), "inferer"),
    (
        "train_workflow",
        lambda b: edit(b / "configs" / "train.json", validate__evaluator__inferer="@train#inferer"),
        "val_inferer",
    ),
    (
        "infer_workflow",
        lambda b: edit(b / "configs" / "inference.json", dataset__transform="@postprocessing"),
        "preprocessing",
    ),
    (
        "network_in_out",
        lambda b: edit(b / "configs" / "metadata.json", network_data_format__outputs__pred__num_channels=3),
        "metadata say [1, 3, 32, 32, 32]",
    ),
    (
        "network_in_out",
        lambda b: edit(b / "configs" / "metadata.json", network_data_format__outputs__pred__dtype="float16"),
        "float16",
    ),
]


@pytest.mark.parametrize(("check", "fault", "message"), FAULTS)
def test_each_fault_fails_its_check(bundle: Path, check: str, fault: Callable[[Path], Any], message: str) -> None:
    fault(bundle)
    status, detail = outcome(bundle, check)
    assert status is Status.FAIL
    assert message in detail


def test_a_name_that_hides_the_version_is_refused(bundle: Path) -> None:
    renamed = bundle.rename(bundle.with_name("brats_vnet"))
    assert outcome(renamed, "layout")[0] is Status.FAIL


@pytest.mark.parametrize("check", ["weights", "torchscript"])
def test_weights_of_another_network(bundle: Path, trained: Path, check: str) -> None:
    """Those of the overlay's smaller network: the weights fail; exports, which cannot be made, do not fail too."""
    shutil.copyfile(trained / "models" / "model.pt", bundle / "models" / "model.pt")
    status, detail = outcome(bundle, check)
    if check == "weights":
        assert status is Status.FAIL
        assert "does not fit the network" in detail
    else:
        assert (status, detail) == (Status.SKIP, "the weights do not load")


def test_an_export_can_be_declared_as_not_supported(bundle: Path) -> None:
    edit(bundle / "configs" / "metadata.json", unsupported_exports={"onnx": "uses an operator that it lacks"})
    assert outcome(bundle, "metadata")[0] is Status.PASS
    assert outcome(bundle, "onnx") == (
        Status.SKIP,
        "declared as not supported: uses an operator that it lacks",
    )


def test_an_export_that_differs_fails(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medmap_monai.zoo import network_checks

    def export_something_else(network: torch.nn.Module, path: Path) -> None:
        torch.jit.save(torch.jit.script(_Shifted()), path)

    monkeypatch.setattr(network_checks, "export_torchscript", export_something_else)
    status, detail = outcome(bundle, "torchscript")
    assert status is Status.FAIL
    assert "differs from eager" in detail


class _Shifted(torch.nn.Module):
    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return image + 1.0


def test_unknown_check_and_no_bundle(tmp_path: Path, bundle: Path) -> None:
    with pytest.raises(ValueError, match="licence"):
        list(check_bundle(bundle, skip=["licence"]))
    with pytest.raises(FileNotFoundError, match="is not a bundle"):
        list(check_bundle(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [([32, "32*n", "16 * n"], (32, 32, 16)), (["2**p", "2**p*n", "*"], (2, 2, 1))],
)
def test_smallest_shape(shape: list[int | str], expected: tuple[int, ...]) -> None:
    assert smallest_shape(shape) == expected


@pytest.mark.parametrize("entry", ["n*32", "__import__('os')", "", -3])
def test_smallest_shape_evaluates_nothing(entry: int | str) -> None:
    with pytest.raises(ValueError, match="allowed are"):
        smallest_shape([entry])


def test_monai_accepts_the_network_too(bundle: Path) -> None:
    from monai.bundle import verify_net_in_out

    config = bundle / "configs"
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(config / "metadata.json"),
        config_file=str(config / "inference.json"),
        device="cpu",
    )


def test_released_files_leave_data_and_runs_at_home(bundle: Path) -> None:
    for name in ("data/case/x.nii.gz", "runs/training.csv", "models/checkpoint.pt", "docs/.draft", "notes.txt"):
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_text("x")
    released = [str(p.relative_to(bundle)) for p in BundleFolder(bundle).released_files()]
    assert "LICENSE" in released
    assert "configs/metadata.json" in released
    assert "docs/README.md" in released
    assert not {"notes.txt", "docs/.draft"} & set(released)
    assert {name.split("/")[0] for name in released} == {"LICENSE", "configs", "docs"}


def test_outcomes_are_plain_exceptions() -> None:
    assert not issubclass(CheckFailedError, CheckSkippedError)
    assert not issubclass(CheckSkippedError, CheckFailedError)
