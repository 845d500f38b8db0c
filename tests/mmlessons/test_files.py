"""随包附带的数据文件：写出去，读回来 / The data files shipped with the package: written, and read back."""

import importlib
import json
import shutil
from pathlib import Path

import pytest

import mmlessons
from mmlessons.data import files

SETS = sorted(path.parent for path in Path(mmlessons.__file__).parent.glob("data/*/assets/manifest.json"))


def test_what_was_written_is_read_back_and_what_is_not_listed_is_there_too(tmp_path: Path) -> None:
    content = {"a.bin": b"\x00\x01", "b.json": b"{}"}
    files.write(tmp_path / "new", {"version": 3, "名字": "七"}, content, {"licenses/MIT.txt": b"free"})
    manifest, data = files.read(tmp_path / "new", 3, "builder")
    assert data == content
    assert list(manifest) == ["version", "名字", "sha256"]
    assert (tmp_path / "new/licenses/MIT.txt").read_bytes() == b"free"


@pytest.mark.parametrize("folder", SETS, ids=lambda path: path.parent.name)
def test_the_shipped_manifests_are_to_the_byte_what_write_makes_of_their_files(folder: Path, tmp_path: Path) -> None:
    shipped = (folder / "manifest.json").read_bytes()
    manifest = json.loads(shipped)
    listed = manifest.pop("sha256")
    files.write(tmp_path, manifest, {name: (folder / name).read_bytes() for name in listed})
    assert (tmp_path / "manifest.json").read_bytes() == shipped


@pytest.mark.parametrize("folder", SETS, ids=lambda path: path.parent.name)
def test_a_missing_or_damaged_file_or_one_of_another_version_is_named_and_not_loaded(folder: Path, tmp_path: Path):
    module = importlib.import_module(f"mmlessons.data.{folder.parent.name}")
    copy = Path(shutil.copytree(folder, tmp_path / "assets"))
    for name in json.loads((folder / "manifest.json").read_bytes())["sha256"]:
        good = (folder / name).read_bytes()
        (copy / name).write_bytes(good[:100] + bytes([good[100] ^ 1]) + good[101:])
        with pytest.raises(ValueError, match=rf"{name} 已损坏.*{name} is damaged"):
            module.load(folder=copy)
        (copy / name).unlink()
        with pytest.raises(ValueError, match=rf"缺少数据文件 {name}.*{name} is missing.*makers.{folder.parent.name}"):
            module.load(folder=copy)
        (copy / name).write_bytes(good)
    for manifest, said in (("{", "manifest.json is damaged"), ('{"version": 99}', "must be version 1, got 99")):
        (copy / "manifest.json").write_text(manifest)
        with pytest.raises(ValueError, match=said):
            module.load(folder=copy)
