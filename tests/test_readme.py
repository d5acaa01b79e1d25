"""What the README shows works, and it stays short."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from medmap_monai.cli.main import app
from medmap_monai.data.phantom import write_cohort

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
MOST_WORDS = 700


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_bundle: Callable[[Path], Path]) -> Path:
    """Studies, single files and a small bundle under the names that the README uses."""
    monkeypatch.chdir(tmp_path)
    small_bundle(tmp_path / "bundles")
    write_cohort("STUDIES", "brats2020", cases=1, shape=(32, 32, 32), seed=5)
    for name in ("flair", "t1ce"):
        shutil.copy(next(Path("STUDIES").rglob(f"*_{name}.nii.gz")), f"{name}.nii.gz")
    return tmp_path


def _blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == language]


def test_it_is_short() -> None:
    assert len(README.split()) <= MOST_WORDS


def test_the_commands_work(workplace: Path) -> None:
    commands = [line for block in _blocks("") for line in block.splitlines()]
    assert [shlex.split(command)[:2] for command in commands] == [
        ["medmap", "info"],
        ["medmap", "predict"],
        ["medmap", "evaluate"],
    ]
    for command in commands:
        result = CliRunner().invoke(app, shlex.split(command)[1:])
        assert result.exit_code == 0, f"{command}\n{result.output}"
    assert list((workplace / "OUT").glob("*_seg.nii.gz"))
    assert (workplace / "EVALUATION" / "summary.json").is_file()


def test_the_python_works(workplace: Path) -> None:
    use, train = _blocks("python")
    names: dict[str, object] = {}
    exec(compile(use, "README.md", "exec"), names)
    assert names["result"].label_map.shape == (32, 32, 32)  # type: ignore[attr-defined]
    seen = torch.tensor([[True, True, False, False]])
    shape = (16, 16, 16)
    names["batch"] = {
        "image": torch.rand(1, 4, *shape),
        "modality_mask": seen,
        "present_mask": torch.ones(1, 4, dtype=torch.bool),
        "label": torch.randint(0, 4, (1, 1, *shape)),
    }
    exec(compile(train, "README.md", "exec"), names)
    method = names["method"]
    assert isinstance(method, torch.nn.Module)
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in method.parameters())
