from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from monai.bundle import get_all_bundles_list, get_bundle_info, get_bundle_versions

from medmap_monai.zoo.index import INDEX_NAME, IndexEntry, choose_version, read_index, write_index
from tests.zoo.conftest import NAME


def fake_package(folder: Path, name: str, version: str, inside: str | None = None) -> Path:
    path = folder / f"{name}_v{version}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/configs/metadata.json", json.dumps({"version": inside or version}))
    return path


def test_it_has_the_form_of_monais_zoo(zoo: Path, package: Path) -> None:
    content = package.read_bytes()
    assert json.loads((zoo / INDEX_NAME).read_text()) == {
        f"{NAME}_v0.1.0": {
            "checksum": hashlib.sha1(content).hexdigest(),
            "source": package.name,
            "name": NAME,
            "version": "0.1.0",
            "sha256": hashlib.sha256(content).hexdigest(),
            "size": len(content),
        }
    }


def test_sources_are_absolute_with_a_base_url(tmp_path: Path) -> None:
    fake_package(tmp_path, "a", "0.1.0")
    (entry,) = read_index(write_index(tmp_path, "https://example.org/zoo/").read_text())
    assert entry.source == "https://example.org/zoo/a_v0.1.0.zip"


def test_the_index_does_not_depend_on_when_it_is_made(zoo: Path) -> None:
    before = (zoo / INDEX_NAME).read_bytes()
    assert write_index(zoo).read_bytes() == before


def test_monai_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MONAI's own functions, which would fetch the index of a repository, get this one."""
    for version in ("0.1.0", "0.2.0"):
        fake_package(tmp_path, NAME, version)
    text = write_index(tmp_path, "https://example.org/zoo").read_text()

    class Response:
        def __init__(self) -> None:
            self.text = text

        def raise_for_status(self) -> None:
            pass

    def get(url: str, **_: Any) -> Response:
        assert url.endswith("/models/model_info.json")
        return Response()

    monkeypatch.setattr("monai.bundle.scripts.has_requests", True)
    monkeypatch.setattr("monai.bundle.scripts.requests", SimpleNamespace(get=get))
    assert get_all_bundles_list() == [(NAME, "0.2.0")]
    assert get_bundle_versions(NAME) == {"latest_version": "0.2.0", "all_versions": ["0.1.0", "0.2.0"]}
    assert get_bundle_info(NAME, "0.1.0")["browser_download_url"] == f"https://example.org/zoo/{NAME}_v0.1.0.zip"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: (folder / "a_v1.zip").write_bytes(b"no zip"), "not the package of a bundle a"),
        (lambda folder: fake_package(folder, "a", "1.0", inside="2.0"), "holds version 2.0"),
        (
            lambda folder: fake_package(folder, "a", "1.0").rename(folder / "b_v1.0.zip"),
            "not the package of a bundle b",
        ),
        (
            lambda folder: [fake_package(folder, "a", "1.0"), (folder / "a_v1.0.zip.sha256").write_text("00  x")],
            "differs from its checksum",
        ),
    ],
)
def test_only_intact_packages_are_indexed(tmp_path: Path, make: Any, message: str) -> None:
    make(tmp_path)
    with pytest.raises(ValueError, match=message):
        write_index(tmp_path)
    assert not (tmp_path / INDEX_NAME).exists()


@pytest.mark.parametrize("folder", ["empty", "absent"])
def test_no_package(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no package"):
        write_index(tmp_path / folder)


def entry(version: str, name: str = "a") -> IndexEntry:
    return IndexEntry(name, version, "x.zip", {}, None)


def test_the_newest_version_is_by_number_not_by_letters() -> None:
    entries = [entry("0.9.0"), entry("0.10.0"), entry("0.10.0rc1"), entry("9.0.0", "other")]
    assert choose_version(entries, "a").version == "0.10.0"
    assert choose_version(entries, "a", "0.9.0").version == "0.9.0"


def test_what_is_not_there_lists_what_is() -> None:
    with pytest.raises(ValueError, match=r"no bundle 'b'; it has \['a'\]"):
        choose_version([entry("0.9.0")], "b")
    with pytest.raises(ValueError, match=r"no version '1.0' of a; it has \['0.9.0', '0.10.0'\]"):
        choose_version([entry("0.10.0"), entry("0.9.0")], "a", "1.0")


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"a": {"source": "x"}}', '{"a_v1": {}}', '{"a_v1": 3}', '{"../a_v1": {"source": "x"}}'],
)
def test_what_is_no_index(text: str) -> None:
    with pytest.raises(ValueError, match=INDEX_NAME):
        read_index(text)


def test_an_index_of_monais_zoo_is_read(tmp_path: Path) -> None:
    text = json.dumps({"spleen_ct_v0.1.0": {"checksum": "AB" * 20, "source": "https://example.org/x.zip"}})
    assert read_index(text) == [
        IndexEntry("spleen_ct", "0.1.0", "https://example.org/x.zip", {"sha1": "ab" * 20}, None)
    ]


def test_copies_of_a_package_are_found_by_name(zoo: Path, package: Path) -> None:
    shutil.copyfile(package, zoo / f"{NAME}_v0.1.1.zip")
    with pytest.raises(ValueError, match=r"holds version 0\.1\.0"):
        write_index(zoo)
