"""Documents keep their promises: links lead somewhere, and every command they show exists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer

from medmap_monai.cli.main import app

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    [
        *REPOSITORY.glob("*.md"),
        *REPOSITORY.glob("docs/**/*.md"),
        *REPOSITORY.glob("bundles/*/docs/*.md"),
        *REPOSITORY.glob("data_splits/*.md"),
    ]
)


def _name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_relative_links_resolve(document: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8")):
        if not link.startswith(("http:", "https:", "mailto:")):
            assert (document.parent / link).exists(), f"{_name(document)} links to {link}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_medmap_commands_and_options_exist(document: Path) -> None:
    group = typer.main.get_command(app)
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", document.read_text(encoding="utf-8"), flags=re.M | re.S)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    for line in lines:
        words = line.removeprefix("$ ").split()
        if not words or words[0] != "medmap" or len(words) < 2:
            continue
        command = group
        while words[1:] and hasattr(command, "commands") and words[1] in command.commands:
            command = command.commands[words.pop(1)]
        assert command is not group or words[1].startswith("-"), f"{_name(document)}: {line}"
        known = {option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]}
        for word in words[1:]:
            if word.startswith("#"):
                break
            if re.fullmatch(r"--[a-z0-9-]+(=.*)?", word):
                assert word.split("=")[0] in {*known, "--help"}, f"{_name(document)}: {word} in: {line}"


def test_getting_started_shows_the_bundle_commands_of_every_bundle() -> None:
    commands = [
        line
        for line in (REPOSITORY / "docs" / "getting-started.md").read_text(encoding="utf-8").splitlines()
        if line.startswith(("python -m monai.bundle", "torchrun"))
    ]
    assert len(commands) == 5
    tested = (REPOSITORY / "tests/bundles/test_commands.py").read_text(encoding="utf-8")
    for run_id in ("training", "inference", "evaluate"):
        assert any(f" run {run_id} " in command for command in commands)
        assert f'"{run_id}"' in tested
    for document in REPOSITORY.glob("bundles/*/docs/README.md"):
        text = document.read_text(encoding="utf-8")
        train = json.loads((document.parents[1] / "configs" / "train.json").read_text(encoding="utf-8"))
        data = "--anatomy_dir" if "anatomy_dir" in train else "--dataset_dir"  # what a bundle trains on
        own = [command.replace("train.json --dataset_dir", f"train.json {data}") for command in commands]
        assert all(command in text for command in own), _name(document)


def test_no_machine_paths_or_secrets() -> None:
    for document in DOCUMENTS:
        assert not re.search(r"/(home|Users|work|root)/\w", document.read_text(encoding="utf-8")), _name(document)
