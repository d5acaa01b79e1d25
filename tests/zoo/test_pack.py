from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import zipfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import medmap_monai
from medmap_monai.engines.case_maps import read_case_maps, write_case_maps
from medmap_monai.metrics.reliability import expected_quality, read_reliability
from medmap_monai.modalities import BRATS
from medmap_monai.report.kept_case import kept_case
from medmap_monai.report.runs import read_run
from medmap_monai.zoo.bundle_folder import BundleFolder
from medmap_monai.zoo.bundle_table import bundle_row
from medmap_monai.zoo.index import write_index
from medmap_monai.zoo.pack import BundleRejectedError, pack_bundle
from medmap_monai.zoo.record import PICTURE, WORST_PICTURE, measured, record_evaluation
from medmap_monai.zoo.release_metadata import release_metadata
from medmap_monai.zoo.zoo_page import write_pages
from tests.zoo.conftest import NAME
from tests.zoo.test_check import edit

ROOT = f"{NAME}/"


def read(package: Path, name: str) -> str:
    with zipfile.ZipFile(package) as archive:
        return archive.read(ROOT + name).decode()


def pack(trained: Path, output: Path, **options: Any) -> Path:
    return pack_bundle(trained, trained / "models" / "model.pt", output, overlay="phantom", **options)


def test_the_package_has_the_zoos_layout(package: Path) -> None:
    assert package.name == f"{NAME}_v0.1.0.zip"
    with zipfile.ZipFile(package) as archive:
        names = set(archive.namelist())
        modes = {(entry.date_time, entry.external_attr >> 16) for entry in archive.infolist()}
    expected = {"LICENSE", "README.md", "docs/README.md", "docs/subsets.png", "configs/logging.conf"}
    expected |= {f"models/{name}" for name in ("model.pt", "model.ts", "reliability.json")}
    configs = ("metadata", "train", "inference", "inference_ts", "evaluate", "multi_gpu_train", "phantom")
    expected |= {f"configs/{name}.json" for name in configs}
    assert names == {ROOT + name for name in expected}
    assert modes == {((1980, 1, 1, 0, 0, 0), 0o100644)}


def test_packing_again_gives_the_same_bytes(package: Path, trained: Path, summary: Path, tmp_path: Path) -> None:
    again = pack(trained, tmp_path, exports=["torchscript"], summary=summary)
    assert again.read_bytes() == package.read_bytes()


def test_the_checksum_file_is_what_sha256sum_reads(package: Path) -> None:
    line = package.with_name(package.name + ".sha256").read_text()
    assert line == f"{hashlib.sha256(package.read_bytes()).hexdigest()}  {package.name}\n"
    if shutil.which("sha256sum"):
        subprocess.run(
            ["sha256sum", "-c", package.name + ".sha256"], cwd=package.parent, check=True, capture_output=True
        )


def test_the_package_names_no_folder_of_this_machine(package: Path, trained: Path) -> None:
    sources = Path(medmap_monai.__file__).parents[1]
    with zipfile.ZipFile(package) as archive:
        for folder in (sources, trained.parent, Path.home()):
            found = [name for name in archive.namelist() if f"{folder}/".encode() in archive.read(name)]
            assert found == [], folder


def test_metadata_tell_versions_weights_and_results(package: Path, trained: Path, summary: Path) -> None:
    metadata = json.loads(read(package, "configs/metadata.json"))
    assert metadata["monai_version"] == version("monai")
    assert metadata["pytorch_version"] == version("torch").split("+")[0]
    assert metadata["numpy_version"] == version("numpy")
    assert metadata["required_packages_version"]["medmap_monai"] == medmap_monai.__version__
    weights = (trained / "models" / "model.pt").read_bytes()
    assert metadata["weights"] == {
        "file": "models/model.pt",
        "sha256": hashlib.sha256(weights).hexdigest(),
        "trained_with": "phantom",
    }
    scores = json.loads(summary.read_text())["scores"]
    found = metadata["eval_metrics"]
    assert found["synthetic"] is True
    assert found["n_cases"] == 2
    assert list(found["dice"]) == ["+".join(subset) for subset in BRATS.subsets()]
    for entry in scores:
        if entry["metric"] == "dice" and entry["mean"] is not None:
            assert found["dice"][entry["subset"]][entry["region"]] == entry["mean"]
    assert found["cases"]["t1"] == 1  # one of the two studies has no T1
    assert found["cases"]["flair"] == 2


def test_the_model_card_shows_use_results_and_limits(package: Path) -> None:
    card = read(package, "README.md")
    _, front, body = card.split("---\n", 2)
    shown = yaml.safe_load(front)
    (results,) = shown.pop("model-index")
    assert results["name"] == NAME
    assert shown == {
        "license": "apache-2.0",
        "library_name": "monai",
        "pipeline_tag": "image-segmentation",
        "tags": ["monai", "medical", "segmentation", "missing-modalities", "mr"],
    }
    for heading in ("## Limits", "## Intended use", "## Results", "## This release"):
        assert body.count(heading) == 1
    assert "synthetic studies" in body
    metadata = json.loads(read(package, "configs/metadata.json"))
    for subset, values in metadata["eval_metrics"]["dice"].items():
        row = next(line for line in body.splitlines() if line.startswith(f"| {subset.replace('+', ' + ')} |"))
        assert f"{100 * values['WT']:.1f}" in row
    picture = "![One case, segmented from every subset of its modalities](docs/subsets.png)\n\n"
    assert read(package, "docs/README.md") == body.lstrip("\n").replace(picture, "")


def test_a_hub_reads_the_front_matter(package: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    card = hub.ModelCard(read(package, "README.md"))
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "monai"
    assert not card.text.lstrip().startswith("---")


def test_expected_quality_travels_with_the_weights(package: Path, tmp_path: Path) -> None:
    (tmp_path / "reliability.json").write_text(read(package, "models/reliability.json"))
    quality = expected_quality(read_reliability(tmp_path / "reliability.json"), "flair")
    metadata = json.loads(read(package, "configs/metadata.json"))
    assert quality.values["WT"].mean == metadata["eval_metrics"]["dice"]["flair"]["WT"]


def test_the_overlay_is_part_of_the_packages_configurations(package: Path, trained: Path) -> None:
    overlay = json.loads((trained / "configs" / "phantom.json").read_text())
    for name in ("train", "inference", "evaluate"):
        packed = json.loads(read(package, f"configs/{name}.json"))
        assert packed["network_def"]["channels"] == overlay["network_def#channels"]
        assert packed["roi_size"] == overlay["roi_size"]
        source = json.loads((trained / "configs" / f"{name}.json").read_text())
        source["network_def"] = packed["network_def"]
        source["roi_size"] = packed["roi_size"]
        assert packed == source


def test_the_package_keeps_the_grid_and_the_protocol_of_the_training(trained: Path, tmp_path: Path) -> None:
    overlay = json.loads((trained / "configs" / "phantom.json").read_text())
    grid = {"orientation": "RAS", "spacing": [2.0, 2.0, 2.0], "protocol": "legacy"}
    mine = trained / "configs" / "mine.json"
    mine.write_text(json.dumps(overlay | grid))
    try:
        path = pack_bundle(trained, trained / "models" / "model.pt", tmp_path, overlay="mine")
    finally:
        mine.unlink()
    with zipfile.ZipFile(path) as archive:
        for stage in ("train", "inference", "evaluate"):
            packed = json.loads(archive.read(f"{trained.name}/configs/{stage}.json"))
            assert {key: packed[key] for key in grid} == grid


def test_without_evaluation_the_card_says_so(trained: Path, tmp_path: Path) -> None:
    package = pack(trained, tmp_path)
    assert "has not been evaluated" in read(package, "README.md")
    assert json.loads(read(package, "configs/metadata.json"))["eval_metrics"] == {}


def test_weights_of_another_network_are_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not fit the network"):
        pack_bundle(trained, trained / "models" / "model.pt", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_training_checkpoint_is_refused(trained: Path, tmp_path: Path) -> None:
    state = torch.load(trained / "models" / "model.pt", weights_only=True)
    torch.save({"epoch": 1, "method": state}, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="epoch, method"):
        pack_bundle(trained, tmp_path / "checkpoint.pt", tmp_path, overlay="phantom")


def test_a_summary_of_other_weights_is_refused(trained: Path, summary: Path, tmp_path: Path) -> None:
    other = json.loads(summary.read_text())
    other["checkpoint"]["sha256"] = "0" * 64
    (tmp_path / "summary.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match="summary belongs to other weights"):
        pack(trained, tmp_path, summary=tmp_path / "summary.json")


def test_a_summary_in_another_order_of_modalities_is_refused(trained: Path, summary: Path) -> None:
    metadata = json.loads((trained / "configs" / "metadata.json").read_text())
    other = json.loads(summary.read_text())
    other["modalities"] = other["modalities"][::-1]
    with pytest.raises(ValueError, match="the summary has modalities"):
        release_metadata(metadata, other["checkpoint"]["sha256"], other)


def test_a_required_package_that_is_absent_is_named(trained: Path) -> None:
    metadata = json.loads((trained / "configs" / "metadata.json").read_text())
    metadata["required_packages_version"]["no-such-package-here"] = "1.0"
    with pytest.raises(ValueError, match="no-such-package-here"):
        release_metadata(metadata, "0" * 64)


def test_a_released_version_does_not_change(trained: Path, bundle: Path, tmp_path: Path) -> None:
    weights = trained / "models" / "model.pt"
    first = pack_bundle(bundle, weights, tmp_path / "zoo", overlay="phantom").read_bytes()
    assert pack_bundle(bundle, weights, tmp_path / "zoo", overlay="phantom").read_bytes() == first
    edit(bundle / "configs" / "metadata.json", description="another text")
    with pytest.raises(FileExistsError, match="Raise the version"):
        pack_bundle(bundle, weights, tmp_path / "zoo", overlay="phantom")
    changed = pack_bundle(bundle, weights, tmp_path / "zoo", overlay="phantom", replace=True)
    assert changed.read_bytes() != first
    assert len(list((tmp_path / "zoo").iterdir())) == 2


def test_a_bundle_that_fails_a_check_is_not_packed(trained: Path, bundle: Path, tmp_path: Path) -> None:
    (bundle / "configs" / "logging.conf").unlink()
    with pytest.raises(BundleRejectedError, match=r"FAIL layout .*logging\.conf"):
        pack_bundle(bundle, trained / "models" / "model.pt", tmp_path / "zoo", overlay="phantom")
    assert not (tmp_path / "zoo").exists()


@pytest.mark.parametrize(("exports", "message"), [(["tensorrt"], "tensorrt"), (["onnx"], "does not support export")])
def test_exports_that_cannot_be_made(
    trained: Path, bundle: Path, tmp_path: Path, exports: list[str], message: str
) -> None:
    edit(bundle / "configs" / "metadata.json", unsupported_exports={"onnx": "for a reason"})
    with pytest.raises(ValueError, match=message):
        pack_bundle(bundle, trained / "models" / "model.pt", tmp_path / "zoo", exports, overlay="phantom")


def test_an_unknown_overlay_lists_those_that_exist(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="phantom"):
        pack_bundle(trained, trained / "models" / "model.pt", tmp_path, overlay="tiny")


def test_the_worst_case_is_drawn_where_there_is_another(trained: Path, summary: Path, tmp_path: Path) -> None:
    evaluation = Path(shutil.copytree(summary.parent, tmp_path / "evaluation"))
    (file,) = read_run(evaluation).maps()
    maps = read_case_maps(file)
    cases = {str(case_id) for case_id in read_run(evaluation).table["case_id"]}
    (other,) = cases - {maps.case_id}
    write_case_maps(replace(maps, case_id=other), file.with_name("other.npz"))
    run = read_run(evaluation)
    dice = run.table[run.table["metric"] == "dice"].groupby("case_id")["value"].mean()
    worst, middle = kept_case(run, worst=True), kept_case(run)
    assert worst is not None
    assert middle is not None
    assert dice[worst.case_id] < dice[middle.case_id]
    root = Path(shutil.copytree(trained, tmp_path / NAME))
    assert record_evaluation(BundleFolder(root), evaluation / "summary.json")[1:] == [
        root / PICTURE,
        root / WORST_PICTURE,
    ]
    kept = pack(root, tmp_path / "kept")
    assert f"]({WORST_PICTURE.as_posix()})" in read(kept, "README.md")
    write_index(tmp_path / "kept")
    write_pages(tmp_path / "kept")
    assert f'src="{kept.stem}_worst.png"' in (tmp_path / "kept" / "cards" / f"{kept.stem}.html").read_text()
    record_evaluation(BundleFolder(root), summary)  # one kept case: no worst one
    assert not (root / WORST_PICTURE).exists()


def test_a_bundle_keeps_what_an_evaluation_of_its_weights_found(
    trained: Path, summary: Path, package: Path, tmp_path: Path
) -> None:
    """Packing needs no summary then; other weights make it void, everywhere."""
    root = Path(shutil.copytree(trained, tmp_path / NAME))
    files = record_evaluation(BundleFolder(root), summary)
    assert files == [root / "models" / "reliability.json", root / PICTURE]
    assert bundle_row(root).complete
    kept = pack(root, tmp_path / "kept")
    with zipfile.ZipFile(kept) as archive:
        assert archive.read(f"{ROOT}{PICTURE.as_posix()}").startswith(b"\x89PNG")
    assert f"]({PICTURE.as_posix()})" in read(kept, "README.md")
    given, found = (json.loads(read(p, "configs/metadata.json"))["eval_metrics"] for p in (package, kept))
    for region, value in found["mean_dice"].items():
        assert value == pytest.approx(given["mean_dice"][region], abs=1e-6)
    for subset, cells in found["dice"].items():  # regions with post-processing are not kept
        assert cells == {region: given["dice"][subset][region] for region in cells}
    weights = root / "models" / "model.pt"
    state = torch.load(weights, weights_only=True)
    torch.save({name: value + 1 for name, value in state.items()}, weights)
    assert measured(BundleFolder(root)) is None
    assert not bundle_row(root).complete
    with pytest.raises(ValueError, match="belongs to other weights"):
        record_evaluation(BundleFolder(root), summary)
    other = pack(root, tmp_path / "other")
    assert json.loads(read(other, "configs/metadata.json"))["eval_metrics"] == {}
    with zipfile.ZipFile(other) as archive:
        names = archive.namelist()
    assert not {f"{ROOT}{PICTURE.as_posix()}", f"{ROOT}models/reliability.json"} & set(names)
