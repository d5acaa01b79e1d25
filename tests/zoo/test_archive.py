from __future__ import annotations

import stat
import struct
import zipfile
from pathlib import Path

import pytest

from medmap_monai.zoo.archive import UnsafeArchiveError, unpack_archive, write_archive

NAME = "bundle"


def entry(name: str, mode: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def make_zip(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def everything_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_writes_the_same_bytes_whatever_the_files_dates_modes_and_order(tmp_path: Path) -> None:
    for folder, names in (("a", ("x.txt", "sub/y.txt")), ("b", ("sub/y.txt", "x.txt"))):
        for name in names:
            file = tmp_path / folder / NAME / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(name)
            file.chmod(0o600 if folder == "a" else 0o755)
        write_archive(tmp_path / folder / NAME, tmp_path / f"{folder}.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == [f"{NAME}/sub/y.txt", f"{NAME}/x.txt"]


def test_unpacks_what_it_wrote(tmp_path: Path) -> None:
    source = tmp_path / NAME
    (source / "models").mkdir(parents=True)
    (source / "models" / "model.pt").write_bytes(bytes(range(256)) * 5000)
    (source / "LICENSE").write_text("text")
    write_archive(source, tmp_path / "package.zip")
    root = unpack_archive(tmp_path / "package.zip", tmp_path / "out", NAME)
    assert root == tmp_path / "out" / NAME
    assert everything_below(root) == everything_below(source)
    assert (root / "models" / "model.pt").read_bytes() == (source / "models" / "model.pt").read_bytes()


GOOD = (f"{NAME}/LICENSE", b"text")
MALICIOUS = [
    pytest.param([(f"{NAME}/../../x", b"")], "climbs out", id="climbs"),
    pytest.param([("../x", b"")], "climbs out", id="climbs at once"),
    pytest.param([(f"{NAME}/a\\..\\..\\x", b"")], "climbs out", id="climbs with backslashes"),
    pytest.param([("/tmp/x", b"")], "absolute", id="absolute"),
    pytest.param([("C:/x", b"")], "absolute", id="absolute on Windows"),
    pytest.param([("\\\\server\\x", b"")], "absolute", id="network path"),
    pytest.param([("other/x", b"")], "does not lie in", id="beside the bundle"),
    pytest.param([(NAME, b"")], "does not lie in", id="a file in place of the folder"),
    pytest.param([(f"{NAME}/./x", b"")], "portable", id="dot"),
    pytest.param([(f"{NAME}//x", b"")], "portable", id="empty part"),
    pytest.param([(f"{NAME}/a\nb", b"")], "portable", id="control character"),
    pytest.param([(f"{NAME}/nul.txt", b"")], "portable", id="device name"),
    pytest.param([(f"{NAME}/{'d/' * 200}x", b"")], "portable", id="long path"),
    pytest.param([(entry(f"{NAME}/x", stat.S_IFLNK | 0o777), b"/etc/passwd")], "is a link", id="symbolic link"),
    pytest.param([(entry(f"{NAME}/x", stat.S_IFIFO | 0o644), b"")], "not a plain file", id="named pipe"),
    pytest.param([(f"{NAME}/x", b"1"), (f"{NAME}/X", b"2")], "occurs twice", id="same name but for case"),
    pytest.param([(f"{NAME}/x", b"1"), (f"{NAME}/x/y", b"2")], "lies inside a file", id="file as folder"),
    pytest.param([(f"{NAME}/x", bytes(3_000_000))], "unpacks to", id="zip bomb"),
    pytest.param([(f"{NAME}/{i}", b"") for i in range(60)], "entries", id="too many files"),
]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("members", "message"), MALICIOUS)
def test_refuses_malicious_packages_before_writing_anything(
    tmp_path: Path, members: list[tuple[str | zipfile.ZipInfo, bytes]], message: str
) -> None:
    package = make_zip(tmp_path / "package.zip", GOOD, *members)
    (tmp_path / "out").mkdir()
    before = everything_below(tmp_path)
    with pytest.raises(UnsafeArchiveError, match=message):
        unpack_archive(package, tmp_path / "out", NAME, max_files=50, max_bytes=1_000_000)
    assert everything_below(tmp_path) == before


def test_a_bomb_that_lies_about_its_size_does_not_unpack(tmp_path: Path) -> None:
    """The size is understated in both headers, so the judgement beforehand passes."""
    package = make_zip(tmp_path / "package.zip", (f"{NAME}/x", bytes(3_000_000)))
    content = package.read_bytes()
    assert content.count(struct.pack("<L", 3_000_000)) == 2
    package.write_bytes(content.replace(struct.pack("<L", 3_000_000), struct.pack("<L", 1000)))
    with pytest.raises(UnsafeArchiveError, match="intact"):
        unpack_archive(package, tmp_path / "out", NAME, max_bytes=1_000_000)
    assert sum(p.stat().st_size for p in (tmp_path / "out").rglob("*") if p.is_file()) <= 1_000_000


@pytest.mark.parametrize("keep", [0, 10, 200, -30])
def test_a_truncated_package_is_not_intact(tmp_path: Path, keep: int) -> None:
    package = make_zip(tmp_path / "package.zip", GOOD, (f"{NAME}/x", bytes(range(256))))
    package.write_bytes(package.read_bytes()[:keep])
    with pytest.raises(UnsafeArchiveError, match="intact"):
        unpack_archive(package, tmp_path / "out", NAME)


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    source = tmp_path / NAME
    source.mkdir()
    (source / "x").write_bytes(b"abcdefgh" * 100)
    write_archive(source, tmp_path / "package.zip")
    content = bytearray((tmp_path / "package.zip").read_bytes())
    content[content.index(b"abcdefgh") + 20] ^= 1
    (tmp_path / "package.zip").write_bytes(content)
    with pytest.raises(UnsafeArchiveError, match="intact"):
        unpack_archive(tmp_path / "package.zip", tmp_path / "out", NAME)


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    package = make_zip(tmp_path / "package.zip", GOOD)
    content = bytearray(package.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    package.write_bytes(content)
    with pytest.raises(UnsafeArchiveError, match="encrypted"):
        unpack_archive(package, tmp_path / "out", NAME)


def test_does_not_write_over_an_existing_folder(tmp_path: Path) -> None:
    (tmp_path / "out" / NAME).mkdir(parents=True)
    package = make_zip(tmp_path / "package.zip", GOOD)
    with pytest.raises(FileExistsError):
        unpack_archive(package, tmp_path / "out", NAME)
