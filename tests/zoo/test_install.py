from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import stat
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import torch

from medmap_monai.zoo import install
from medmap_monai.zoo.archive import UnsafeArchiveError
from medmap_monai.zoo.fetch import FetchError, locate
from medmap_monai.zoo.index import INDEX_NAME
from medmap_monai.zoo.install import install_bundle
from medmap_monai.zoo.safe_weights import UnsafeFileError
from tests.zoo.conftest import NAME, QuietHandler, serve
from tests.zoo.test_safe_weights import RunsCode

PACKAGE = f"{NAME}_v0.1.0.zip"


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def everything(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*")}


def change_index(zoo: Path, **changes: Any) -> None:
    content = json.loads((zoo / INDEX_NAME).read_text())
    content[f"{NAME}_v0.1.0"] = {
        key: value for key, value in {**content[f"{NAME}_v0.1.0"], **changes}.items() if value is not None
    }
    (zoo / INDEX_NAME).write_text(json.dumps(content))


def repack(zoo: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> None:
    """Add members to the package; the index vouches for it, as that of a malicious zoo would."""
    with zipfile.ZipFile(zoo / PACKAGE, "a") as archive:
        for name, content in members:
            archive.writestr(name, content)
    content = (zoo / PACKAGE).read_bytes()
    change_index(
        zoo,
        sha256=hashlib.sha256(content).hexdigest(),
        checksum=hashlib.sha1(content).hexdigest(),
        size=len(content),
    )


def assert_nothing_installed(target: Path) -> None:
    assert not target.exists() or everything(target) == set()


def test_installs_what_was_packed_from_a_server_and_from_a_folder(
    server: str, zoo: Path, package: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(package) as archive:
        expected = {name.removeprefix(f"{NAME}/"): archive.read(name) for name in archive.namelist()}
    sources: list[str | Path] = [server, f"{server}/", f"{server}/{INDEX_NAME}", zoo, zoo / INDEX_NAME]
    for number, source in enumerate(sources):
        folder = install_bundle(NAME, source, to=tmp_path / str(number))
        assert folder == tmp_path / str(number) / NAME
        assert files(folder) == expected
        assert everything(tmp_path / str(number)) >= {NAME}
        assert len(list((tmp_path / str(number)).iterdir())) == 1
    assert stat.S_IMODE(folder.stat().st_mode) & 0o555 == 0o555 & ~umask()


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_an_installed_bundle_is_only_exchanged_on_request(zoo: Path, tmp_path: Path) -> None:
    folder = install_bundle(NAME, zoo, to=tmp_path / "to")
    (folder / "LICENSE").write_text("changed")
    with pytest.raises(FileExistsError, match="--replace"):
        install_bundle(NAME, zoo, to=tmp_path / "to")
    assert (folder / "LICENSE").read_text() == "changed"
    install_bundle(NAME, zoo, to=tmp_path / "to", replace=True)
    assert "Apache License" in (folder / "LICENSE").read_text()
    assert [p.name for p in (tmp_path / "to").iterdir()] == [NAME]


CHANGES = [
    pytest.param({"sha256": "0" * 64}, "sha256 is", id="sha256"),
    pytest.param({"checksum": "0" * 40}, "sha1 is", id="sha1"),
    pytest.param({"sha256": None, "checksum": None}, "no checksum", id="no checksum"),
    pytest.param({"size": 1000}, "larger than the 1000 bytes", id="smaller"),
    pytest.param({"size": 10**9}, "ended after", id="larger"),
    pytest.param({"source": "other_v0.1.0.zip"}, "cannot fetch", id="absent file"),
]


@pytest.mark.parametrize(("changes", "message"), CHANGES)
def test_a_package_that_is_not_the_one_of_the_index(
    server: str, zoo: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    change_index(zoo, **changes)
    with pytest.raises(FetchError, match=message):
        install_bundle(NAME, server, to=tmp_path / "to")
    assert_nothing_installed(tmp_path / "to")


def test_a_changed_byte_is_found(server: str, zoo: Path, tmp_path: Path) -> None:
    content = bytearray((zoo / PACKAGE).read_bytes())
    content[len(content) // 2] ^= 1
    (zoo / PACKAGE).write_bytes(content)
    with pytest.raises(FetchError, match="is not the file that the index describes"):
        install_bundle(NAME, server, to=tmp_path / "to")
    assert_nothing_installed(tmp_path / "to")


class Truncating(QuietHandler):
    """Promise the whole package and close the connection half way."""

    def copyfile(self, source: Any, outputfile: Any) -> None:
        content = source.read()
        outputfile.write(content if len(content) < 10_000 else content[: len(content) // 2])


class Redirecting(QuietHandler):
    """Send whoever asks for the package to a file of their own machine."""

    def do_GET(self) -> None:
        if self.path.endswith(".zip"):
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
        else:
            super().do_GET()


class Babbling(QuietHandler):
    """Answer with what is not HTTP, as a port of another service does."""

    def do_GET(self) -> None:
        self.wfile.write(b"220 ready\r\n")
        self.close_connection = True


class BabblingForPackages(Babbling):
    """Serve the index, and not the package."""

    def do_GET(self) -> None:
        if self.path.endswith(".zip"):
            super().do_GET()
        else:
            QuietHandler.do_GET(self)


@pytest.mark.parametrize("handler", [Truncating, Redirecting, Babbling, BabblingForPackages])
def test_a_server_that_misbehaves(zoo: Path, tmp_path: Path, handler: type[SimpleHTTPRequestHandler]) -> None:
    for url in serve(zoo, handler):
        with pytest.raises(FetchError, match=r"cannot fetch|cannot read http|ended after"):
            install_bundle(NAME, url, to=tmp_path / "to")
    assert_nothing_installed(tmp_path / "to")


def test_no_server(tmp_path: Path) -> None:
    (url,) = list(serve(tmp_path))  # it is gone now
    with pytest.raises(FetchError, match="cannot read http"):
        install_bundle(NAME, url, to=tmp_path / "to")
    with pytest.raises(FetchError, match="cannot read"):
        install_bundle(NAME, tmp_path / "nowhere", to=tmp_path / "to")


def link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(f"{NAME}/models/link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("member", "content"),
    [
        (f"{NAME}/../../escaped", b"x"),
        ("../escaped", b"x"),
        ("/tmp/escaped", b"x"),
        ("elsewhere/file", b"x"),
        (link(), b"/etc"),
        (f"{NAME}/bomb", bytes(60_000_000)),
    ],
)
def test_malicious_packages(zoo: Path, tmp_path: Path, member: str | zipfile.ZipInfo, content: bytes) -> None:
    with zipfile.ZipFile(zoo / PACKAGE, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content, compress_type=zipfile.ZIP_DEFLATED)
    repack(zoo)
    before = everything(tmp_path)
    with pytest.raises(UnsafeArchiveError):
        install_bundle(NAME, zoo, to=tmp_path / "to", max_bytes=50_000_000)
    assert everything(tmp_path) - before <= {"to"}


@pytest.mark.parametrize("name", ["models/extra.pt", "models/teacher.pkl", "docs/figure.png", "configs/x.json"])
def test_weights_that_run_code_are_refused(zoo: Path, tmp_path: Path, name: str) -> None:
    witness = tmp_path / "code has run"
    repack(zoo, (f"{NAME}/{name}", pickle.dumps({"weights": RunsCode(witness)})))
    with pytest.raises(UnsafeFileError, match=Path(name).name):
        install_bundle(NAME, zoo, to=tmp_path / "to")
    assert_nothing_installed(tmp_path / "to")
    assert not witness.exists()


def test_a_torch_file_that_runs_code_is_refused(zoo: Path, tmp_path: Path) -> None:
    witness = tmp_path / "code has run"
    torch.save({"weights": RunsCode(witness)}, tmp_path / "x.pt")
    repack(zoo, (f"{NAME}/models/other.pt", (tmp_path / "x.pt").read_bytes()))
    with pytest.raises(UnsafeFileError, match=r"other\.pt"):
        install_bundle(NAME, zoo, to=tmp_path / "to")
    assert not witness.exists()
    assert_nothing_installed(tmp_path / "to")


def test_a_package_of_another_version_than_the_index_says(zoo: Path, tmp_path: Path) -> None:
    content = (zoo / INDEX_NAME).read_text().replace(f"{NAME}_v0.1.0", f"{NAME}_v0.2.0", 1)
    (zoo / INDEX_NAME).write_text(content)
    with pytest.raises(UnsafeArchiveError, match=r"holds version 0\.1\.0, the index says 0\.2\.0"):
        install_bundle(NAME, zoo, to=tmp_path / "to")
    assert_nothing_installed(tmp_path / "to")


@pytest.mark.parametrize("moment", ["fetch", "unpack_archive", "refuse_code", "_appear"])
@pytest.mark.parametrize("replace", [False, True])
def test_an_interrupted_install_leaves_things_as_they_were(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, replace: bool
) -> None:
    to = tmp_path / "to"
    if replace:
        install_bundle(NAME, zoo, to=to)
        (to / NAME / "LICENSE").write_text("mine")
    else:
        to.mkdir()
    before = files(to)
    original = getattr(install, moment)

    def interrupted(*args: Any, **kwargs: Any) -> None:
        if moment in ("fetch", "unpack_archive"):
            original(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(install, moment, interrupted)
    with pytest.raises(KeyboardInterrupt):
        install_bundle(NAME, zoo, to=to, replace=True)
    assert files(to) == before
    monkeypatch.undo()
    install_bundle(NAME, zoo, to=to, replace=True)
    assert "Apache License" in (to / NAME / "LICENSE").read_text()


def test_a_failed_exchange_brings_the_old_bundle_back(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = install_bundle(NAME, zoo, to=tmp_path / "to")
    (folder / "LICENSE").write_text("mine")
    replace = os.replace

    def fail_once(source: Path, target: Path) -> None:
        if Path(target) == folder and "unpacked" in str(source):
            raise OSError("disk trouble")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_once)
    with pytest.raises(OSError, match="disk trouble"):
        install_bundle(NAME, zoo, to=tmp_path / "to", replace=True)
    assert (folder / "LICENSE").read_text() == "mine"
    assert [p.name for p in (tmp_path / "to").iterdir()] == [NAME]


def test_what_is_left_of_a_killed_install_is_in_nobodys_way(zoo: Path, tmp_path: Path) -> None:
    leftover = tmp_path / f".tmp-killed-{NAME}"
    leftover.mkdir()
    (leftover / "package.zip").write_bytes(b"half")
    assert install_bundle(NAME, zoo, to=tmp_path / "to").is_dir()


def test_a_read_only_folder_is_named(zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="not writable"):
        install_bundle(NAME, zoo, to=tmp_path / "file")


class TestLocate:
    """Sources of an index: relative, absolute, and none of somebody else's file system."""

    def test_relative_to_the_url_of_the_index(self) -> None:
        assert locate("https://example.org/zoo", "a.zip") == "https://example.org/zoo/a.zip"
        assert locate("https://example.org/zoo/model_info.json", "a.zip") == "https://example.org/zoo/a.zip"
        assert locate("https://example.org/zoo", "https://cdn.example.org/a.zip") == "https://cdn.example.org/a.zip"

    @pytest.mark.parametrize("source", ["file:///etc/passwd", "ftp://example.org/a.zip"])
    def test_no_other_scheme(self, source: str) -> None:
        with pytest.raises(ValueError, match="does not lie on a web server"):
            locate("https://example.org/zoo", source)

    @pytest.mark.parametrize("source", ["../a.zip", "/etc/passwd", "sub/a.zip"])
    def test_a_folder_gives_only_its_own_files(self, tmp_path: Path, source: str) -> None:
        with pytest.raises(ValueError, match="beside the index"):
            locate(tmp_path, source)

    def test_a_copied_zoo_is_read_from_the_copy(self, tmp_path: Path) -> None:
        url = "https://example.org/zoo/a.zip"
        assert locate(tmp_path, url) == url
        (tmp_path / "a.zip").write_bytes(b"")
        assert locate(tmp_path, url) == str(tmp_path / "a.zip")


def test_an_index_of_absurd_size_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medmap_monai.zoo.fetch._INDEX_LIMIT", 100)
    (tmp_path / INDEX_NAME).write_text(" " * 1000)
    with pytest.raises(FetchError, match="larger than"):
        install_bundle(NAME, tmp_path, to=tmp_path / "to")


@pytest.fixture(autouse=True)
def _nothing_outside(tmp_path: Path) -> Iterator[None]:
    yield
    assert not (tmp_path.parent / "escaped").exists()
    assert not Path("/tmp/escaped").exists()
    shutil.rmtree(tmp_path / "to", ignore_errors=True)
