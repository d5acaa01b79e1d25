"""A package as a model repository: the hub's own readers and command line, without a network."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from monai.bundle import download

from medmap_monai.zoo.archive import unpack_archive
from medmap_monai.zoo.bundle_folder import BundleFolder
from tests.zoo.conftest import BUNDLES, NAME

hub = pytest.importorskip("huggingface_hub", reason="needs huggingface_hub, of the extra 'test'")
PAGE = (BUNDLES.parent / "docs" / "how-to" / "publish.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## Hugging Face\n", 1)[1].split("\n## ", 1)[0]


@pytest.fixture
def folder(package: Path, tmp_path: Path) -> Path:
    return unpack_archive(package, tmp_path / "installed", NAME)


def test_the_card_is_read_as_it_is_meant(folder: Path) -> None:
    card = read_card(folder)
    assert card.data.model_name == NAME
    hub.ModelCard(str(card))  # what the library writes back is read again


def test_every_file_may_be_uploaded(folder: Path) -> None:
    check_files(folder)


def read_card(folder: Path) -> Any:
    """The model card as the hub reads it: licence, library, task and results are understood, pictures are there."""
    card = hub.ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "monai")
    assert card.data.pipeline_tag == "image-segmentation"
    assert {result.metric_type for result in card.data.eval_results} == {"dice"}
    assert {result.metric_name.split(",")[0] for result in card.data.eval_results} >= {"WT", "TC", "ET"}
    assert all(0 <= result.metric_value <= 1 for result in card.data.eval_results)
    assert "synthetic" in card.data.eval_results[0].dataset_name
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", card.text):
        assert (folder / picture).is_file()
    return card


def check_files(folder: Path) -> None:
    """The hub's validators take the name of the repository and every file; none is hidden."""
    from huggingface_hub.utils import validate_repo_id

    validate_repo_id(f"OWNER/{folder.name}")
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        hub.CommitOperationAdd(path.relative_to(folder).as_posix(), path)
    assert {folder / "README.md", folder / "LICENSE", folder / "models" / "model.pt"} <= set(files)
    assert not any(part.startswith(".") for path in files for part in path.relative_to(folder).parts)


def test_the_commands_of_the_page(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`hf upload`, then MONAI's download from the hub; a folder stands in for the hub."""
    from huggingface_hub.cli.hf import main

    remote = tmp_path / "hub" / "OWNER" / NAME

    def upload(self: Any, *, repo_id: str, folder_path: str, path_in_repo: str, **_: Any) -> Any:
        assert (repo_id, path_in_repo) == (f"OWNER/{NAME}", ".")
        shutil.copytree(folder_path, remote)
        return SimpleNamespace(commit_url="", oid="0", pr_url=None, repo_url=SimpleNamespace(repo_id=repo_id))

    def fetch(repo_id: str, revision: str, local_dir: str) -> str:
        assert (repo_id, revision) == (f"OWNER/{NAME}", "main")
        return str(shutil.copytree(remote, local_dir))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub.HfApi, "create_repo", lambda self, repo_id, **_: SimpleNamespace(repo_id=repo_id))
    monkeypatch.setattr(hub.HfApi, "upload_folder", upload)
    monkeypatch.setattr(hub, "snapshot_download", fetch)
    branches = SimpleNamespace(tags=[], branches=[SimpleNamespace(name="main")])
    monkeypatch.setattr(hub, "list_repo_refs", lambda repo_id: branches)
    command, of_the_starter = re.findall(r"^hf .*$", SECTION, re.MULTILINE)
    assert of_the_starter == command.replace(NAME, "brats_starter")
    monkeypatch.setattr(sys, "argv", command.split())
    with contextlib.suppress(SystemExit):
        main()
    assert (remote / "README.md").read_bytes() == (folder / "README.md").read_bytes()
    (command,) = re.findall(r"python -m monai\.bundle download ([^`]*)", SECTION)
    words = command.split()
    options = {key.removeprefix("--"): value for key, value in zip(words[::2], words[1::2], strict=True)}
    download(**options, bundle_dir="from_hub")  # type: ignore[arg-type]
    assert BundleFolder(tmp_path / "from_hub" / NAME).weights_file.is_file()
