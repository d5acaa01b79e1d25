"""The package as an index takes it: source distribution, the wheel made of it, and that wheel used elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

import medmap_monai
from medmap_monai.utils.find_bundle import DEFAULT_BUNDLE, known_bundles

REPOSITORY = Path(__file__).resolve().parents[1]
pytest.importorskip("build", reason="needs build, of the extra 'test'")
pytest.importorskip("setuptools", minversion="77")


def command(*words: str | Path, cwd: Path, **environment: str) -> str:
    """What a command prints, without the packages of this checkout."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, words)),
        cwd=cwd,
        env={**kept, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Ending -> file of what `python -m build` makes of what git knows; the wheel comes from the source package."""
    folder = tmp_path_factory.mktemp("package")
    for name in command("git", "ls-files", "-z", cwd=REPOSITORY).split("\0"):
        if name and (REPOSITORY / name).is_file() and name.split("/")[0] not in ("tests", "benchmarks"):
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / "source" / name)
    command(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", cwd=folder / "source")
    return {path.suffix: path for path in (folder / "dist").iterdir()}


@pytest.fixture(scope="module")
def metadata(distributions: dict[str, Path]) -> Message:
    with zipfile.ZipFile(distributions[".whl"]) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode("utf-8"))


def test_an_index_takes_them(distributions: dict[str, Path]) -> None:
    pytest.importorskip("twine", reason="needs twine, of the extra 'test'")
    assert set(distributions) == {".gz", ".whl"}
    shown = command(sys.executable, "-m", "twine", "check", "--strict", *distributions.values(), cwd=REPOSITORY)
    assert shown.count("PASSED") == 2


def test_metadata_are_complete(metadata: Message) -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert metadata["Name"] == "medmap-monai"
    assert metadata["Version"] == medmap_monai.__version__
    assert metadata["License-Expression"] == citation["license"]
    assert metadata["Author"] == citation["authors"][0]["name"]
    assert set(citation["keywords"]) <= set(metadata["Keywords"].split(","))
    assert len(metadata["Summary"]) < 120
    tried = {line.rsplit(" ", 1)[1] for line in metadata.get_all("Classifier", []) if re.search(r":: 3\.\d+$", line)}
    minors = sorted(int(version.removeprefix("3.")) for version in tried)
    assert minors == list(range(minors[0], minors[-1] + 1))
    assert set(metadata["Requires-Python"].split(",")) == {f">=3.{minors[0]}", f"<3.{minors[-1] + 1}"}
    workflow = (REPOSITORY / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert set(re.findall(r'python-version: "([\d.]+)"', workflow)) <= tried


def test_the_readme_makes_sense_on_an_index(metadata: Message, distributions: dict[str, Path]) -> None:
    """No link or picture that only a clone has; what is named instead is in the source distribution."""
    shown = metadata.get_payload()
    assert metadata["Description-Content-Type"] == "text/markdown"
    targets = re.findall(r"\]\(([^)]+)\)", shown)
    assert targets
    assert all(target.startswith(("https://", "#")) for target in targets)
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    pages = set(re.findall(r"(?<!!)\[[^]]*\]\((?!https:)([^)#]+)[^)]*\)", readme))
    with tarfile.open(distributions[".gz"]) as archive:
        source = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert all(f"(`{page}`)" in shown and page in source for page in pages)
    plain = shown
    for page in pages:
        plain = plain.replace(f" (`{page}`)", "")
    paragraphs = [text for text in readme.split("\n\n") if not text.startswith("![")]
    links = r"\]\([^)]*\)|[\[\]]"
    assert set(re.sub(links, "", "\n\n".join(paragraphs)).split()) <= set(re.sub(links, "", plain).split())


def test_what_they_hold(distributions: dict[str, Path]) -> None:
    with zipfile.ZipFile(distributions[".whl"]) as archive:
        wheel = set(archive.namelist())
    with tarfile.open(distributions[".gz"]) as archive:
        source = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    for name, folder in known_bundles().items():
        kept = [*folder.glob("configs/*"), *folder.glob("docs/*"), folder / "LICENSE"]
        assert {f"medmap_monai/bundles/{name}/{file.relative_to(folder).as_posix()}" for file in kept} <= wheel
        assert f"bundles/{name}.json" in source
    for file in ("model.pt", "reliability.json"):
        assert f"medmap_monai/bundles/{DEFAULT_BUNDLE}/models/{file}" in wheel
    assert {"medmap_monai/zoo/parts/common/train.json", "medmap_monai/py.typed"} <= wheel
    assert not [name for name in wheel if re.match(r"tests/|medmap_monai/bundles/.*/runs/", name)]
    assert {"README.md", "LICENSE", "CHANGELOG.md", "docs/index.md", "docs/images/demo_grid.png"} <= source
    assert not [name for name in source if name.startswith("tests/")]
    assert distributions[".whl"].stat().st_size < 30e6


def test_the_wheel_in_an_environment_of_its_own(
    distributions: dict[str, Path], tmp_path: Path, random_weights: Path, phantom_cohort: Path
) -> None:
    """Outside the repository; what the package depends on is lent by this environment."""
    home = tmp_path / "environment"
    command(sys.executable, "-m", "venv", "--without-pip", home, cwd=tmp_path)
    python = home / "bin" / "python"
    install = ("install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    command(sys.executable, "-m", "pip", "--python", python, *install, distributions[".whl"], cwd=tmp_path)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = command(python, "-c", "import medmap_monai; print(medmap_monai.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(site)

    medmap = home / "bin" / "medmap"
    listed = command(medmap, "info", "--bundles", cwd=tmp_path, COLUMNS="250")
    assert all(name in listed for name in known_bundles())
    study = next(path for path in sorted(phantom_cohort.iterdir()) if path.is_dir())
    predict = [medmap, "predict", study, "--bundle", "brats_unet_dropout", "--overlay", "phantom", "--output", "out"]
    command(*predict, "--set", f"checkpoint={random_weights}", cwd=tmp_path)
    assert (tmp_path / "out" / f"{study.name}_seg.nii.gz").is_file()
