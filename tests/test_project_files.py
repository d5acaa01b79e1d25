"""The files that hosts and tools read: valid, and of one mind with the Makefile, ``.ci/run`` and the package."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import medmap_monai

REPOSITORY = Path(__file__).resolve().parents[1]
GITHUB = REPOSITORY / ".github"
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _commands() -> list[str]:
    jobs = _read(GITHUB / "workflows" / "ci.yml")["jobs"].values()
    return [step["run"] for job in jobs for step in job["steps"] if "run" in step]


def test_the_workflow_runs_what_ci_runs() -> None:
    script = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
    wanted = set(re.findall(r"^make \w+", script, re.MULTILINE))
    assert wanted >= {"make install", "make lint", "make docs", "make test"}
    assert wanted <= set(_commands())
    helpers = set(re.findall(r"\.ci/\w+", script)) - {".ci/run"}
    assert helpers == set(re.findall(r"\.ci/\w+", " ".join(_commands())))


def test_the_workflow_names_targets_that_exist() -> None:
    targets = set(re.findall(r"^(\w[\w-]*):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    used = {word for command in _commands() if command.startswith("make ") for word in command.split()[1:]}
    assert used == {"install", "lint", "test", "docs", "wheel"}
    assert used <= targets
    for job in _read(GITHUB / "workflows" / "ci.yml")["jobs"].values():
        assert job["runs-on"]
        assert job["timeout-minutes"]
        assert all(("run" in step) != ("uses" in step) for step in job["steps"])


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_asks_for_something(form: Path) -> None:
    content = _read(form)
    assert {"name", "description", "body"} <= set(content)
    asked = [part for part in content["body"] if part["type"] != "markdown"]
    assert asked
    assert len({part["id"] for part in asked}) == len(asked)
    assert all(part["attributes"]["label"] for part in asked)


def test_commits_meet_the_tools_of_lint() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    hooks = [hook for repo in _read(REPOSITORY / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    tools = {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in hooks}
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert lint is not None
    assert tools == set(re.findall(r"\$\(BIN\)/(\w+)", lint[1]))


def test_the_citation_names_this_version() -> None:
    content = _read(REPOSITORY / "CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(content)
    assert content["version"] == medmap_monai.__version__
    assert content["license"] == "Apache-2.0"
