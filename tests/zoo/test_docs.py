"""The commands of the how-to pages run as they are written, one page after the other in an empty folder."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from monai.bundle import download
from typer.testing import CliRunner

from medmap_monai.cli.main import app
from medmap_monai.zoo.check import CHECKS
from tests.zoo.conftest import BUNDLES, NAME, copy_bundle, serve

PAGES = BUNDLES.parent / "docs" / "how-to"


def text(page: str) -> str:
    return (PAGES / f"{page}.md").read_text(encoding="utf-8")


def blocks(page: str, language: str = "") -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text(page), re.DOTALL | re.MULTILINE)
    return [content for name, content in fenced if name == language]


def medmap(command: str) -> str:
    program, *arguments = shlex.split(command)
    assert program == "medmap"
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, f"{command}\n{result.output}"
    return result.output


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    copy_bundle(tmp_path / "bundles")


def test_check_a_bundle() -> None:
    commands = [line for block in blocks("check-a-bundle") for line in block.splitlines() if line.startswith("medmap")]
    assert [shlex.split(command)[-2:] for command in commands][-1] == ["--skip", "onnx"]
    shown = blocks("check-a-bundle")[-1].splitlines()
    assert shown[0] == f"bundles/{NAME}"
    skipped = " ".join(f"--skip {name}" for name in CHECKS if name not in ("layout", "license"))
    printed = medmap(f"{commands[0]} {skipped}").splitlines()
    assert printed[:3] == shown[:3]
    assert printed[-1] == shown[-1]


def test_every_check_is_explained() -> None:
    assert re.findall(r"^\| `(\w+)` \|", text("check-a-bundle"), re.MULTILINE) == list(CHECKS)


def test_publish(trained: Path, summary: Path, studies: Path) -> None:
    shutil.copyfile(trained / "models" / "model.pt", "model.pt")
    Path("evaluation").mkdir()
    shutil.copyfile("model.pt", f"bundles/{NAME}/models/model.pt")
    shutil.copyfile(summary, "evaluation/summary.json")
    shutil.copytree(studies, "studies")
    commands = [line for block in blocks("publish") for line in block.splitlines() if line.strip()]
    serving = next(i for i, command in enumerate(commands) if "http.server" in command)
    assert commands[serving] == "python -m http.server 8000 --directory zoo"
    for command in commands[:serving]:
        medmap(command)
    run = []
    for url in serve(Path("zoo")):
        for command in commands[serving + 1 :]:
            here = command.replace("http://localhost:8000", url)
            if here.startswith("medmap "):
                medmap(here)
                run.append("medmap")
            elif here.startswith("python -m monai.bundle download "):
                words = shlex.split(here)[4:]
                options = {key.removeprefix("--"): value for key, value in zip(words[::2], words[1::2], strict=True)}
                download(**options)  # type: ignore[arg-type]
                run.append("monai")
            else:
                assert here.startswith("hf upload "), here  # needs an account
    assert run == ["medmap", "medmap", "monai", "medmap"]
    assert Path("installed", "brats_starter", "models", "model.pt").is_file()
    assert len(list(Path("predictions").glob("*_seg.nii.gz"))) == 2
    (code,) = blocks("publish", "python")
    found: dict[str, torch.nn.Module] = {}
    exec(code, found)
    expected = torch.load("model.pt", weights_only=True)
    loaded = found["network"].state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in expected.items())


@pytest.mark.filterwarnings("ignore:executing the bundle config")
def test_federated() -> None:
    for command in blocks("federated")[0].splitlines():
        medmap(command)
    (code,) = blocks("federated", "python")
    found: dict[str, list[dict[str, float]]] = {}
    exec(code, found)
    assert [0 <= metrics["val_mean_dice"] <= 1 for metrics in found["metrics"]] == [True, True]
    for site in ("north", "south"):
        assert Path("runs", site, "models", "model.pt").is_file()
        assert Path("runs", site, "training.csv").is_file()
