"""tar 分片 / Tar shards, written with the standard library and read with webdataset."""

import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from mmlessons.data import emoji, folder
from mmlessons.data.folder.shards import Shards
from mmlessons.data.folder.splitting import drawn

pytest.importorskip("webdataset")
COUNT = 60


def png(i: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(emoji.load().pictures["noto"][i].permute(1, 2, 0).numpy()).save(content, "PNG")
    return content.getvalue()


def write(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as shard:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            shard.addfile(info, io.BytesIO(content))


def sample(i: int, **said: str) -> dict[str, bytes]:
    said = {"text": f"number {i}", "source": f"me {i // 2}"} | said
    return {f"{i:03}.png": png(i), f"{i:03}.json": json.dumps(said).encode()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for part in range(3):
        write(tmp_path / f"{part}.tar", {name: content for i in range(part * 20, part * 20 + 20)
                                         for name, content in sample(i).items()})
    return tmp_path


def read(root: Path, **how) -> dict[str, list[dict]]:
    return {split: list(Shards(root, split, **how)) for split in ("train", "validation", "test")}


def test_pixels_captions_and_sources_are_those_written_and_a_source_is_in_one_split(root: Path) -> None:
    found = read(root, seed=1)
    assert sum(map(len, found.values())) == COUNT
    for split, items in found.items():
        assert len(items) > 0
        for item in items:
            i = int(item["file"][-3:])
            assert torch.equal(item["picture"], emoji.load().pictures["noto"][i])
            assert (item["text"], item["source"]) == (f"number {i}", f"me {i // 2}")
            lot = drawn(1, item["source"])
            assert split == ("train" if lot < 0.8 else "validation" if lot < 0.9 else "test")


def test_the_same_pictures_in_a_folder_are_split_alike(root: Path, tmp_path: Path) -> None:
    place = tmp_path / "folder"
    place.mkdir()
    lines = ["file_name,text,source"]
    for i in range(COUNT):
        (place / f"{i:03}.png").write_bytes(png(i))
        lines.append(f"{i:03}.png,x,me {i // 2}")
    (place / "metadata.csv").write_text("\n".join(lines))
    data = folder.load(place)
    for split, items in read(root).items():
        assert [item["file"][-3:] for item in items] == [data.rows[i].file[:3] for i in data.splits[split].tolist()]


def test_processes_share_the_shards_and_read_each_picture_once(root: Path) -> None:
    loader = DataLoader(Shards(root, "train"), batch_size=8, num_workers=2)
    files = [file for batch in loader for file in batch["file"]]
    assert sorted(files) == sorted(item["file"] for item in Shards(root, "train"))


def test_without_a_source_the_content_decides_and_copies_stay_together(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", {f"{copy}{i}.{kind}": content for i in range(COUNT) for copy in "ab"
                               for kind, content in (("png", png(i)), ("txt", b"cat"))})
    for items in read(tmp_path).values():
        names = [item["file"].rpartition("/")[2] for item in items]
        assert {name[1:] for name in names if name[0] == "a"} == {name[1:] for name in names if name[0] == "b"}


def test_what_is_wrong_is_named_and_the_rest_is_used(root: Path) -> None:
    ran = root / "ran"

    class Bomb:
        def __reduce__(self):
            return Path.touch, (ran,)

    write(root / "3.tar", {
        **sample(0, split="test"), "a.png": b"x", "a.txt": b"cat", "b.png": png(1), "c.txt": b"cat", "d.png": png(2),
        "d.json": b"[1]", "e.png": png(2), "e.txt": b"\xff", "f.pickle": pickle.dumps(Bomb()), "f.png": png(3),
        "f.txt": "猫".encode(), "../g.png": png(4), "../g.txt": b"up", "h.png": b"", "h.txt": b"cat"})
    cut = (root / "0.tar").read_bytes()
    (root / "4.tar").write_bytes(cut[:len(cut) // 2 + 100])
    (root / "5.tar").write_bytes(b"no archive")
    (root / "6.tar").symlink_to("/etc/passwd")
    found = Shards(root, "train").problems()
    assert [(p.kind, p.file) for p in found] == [
        ("not_a_picture", "3.tar/a"), ("no_text", "3.tar/b"), ("no_file", "3.tar/c"), ("not_json", "3.tar/d"),
        ("not_json", "3.tar/e"), ("empty_file", "3.tar/h"), ("broken_shard", "4.tar"), ("broken_shard", "5.tar")]
    items = [item for items in read(root).values() for item in items]
    assert {item["file"] for item in items if item["file"].startswith("3")} == {"3.tar/000", "3.tar/f", "3.tar/../g"}
    assert len([item for item in items if item["file"].startswith("4")]) >= 9
    assert not ran.exists()
    assert not (root.parent / "g.png").exists()


def test_wrong_arguments_and_no_shards_get_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"里没有 \.tar 分片.*there is no shard \.tar"):
        Shards(tmp_path, "train")
    with pytest.raises(ValueError, match="exam"):
        Shards(tmp_path, "exam")
    with pytest.raises(TypeError, match="path 需要是"):
        Shards(7, "train")


def test_a_transform_is_given_the_picture(root: Path) -> None:
    assert np.array_equal(next(iter(Shards(root, "train", transform=np.asarray)))["picture"].shape, (32, 32, 3))
