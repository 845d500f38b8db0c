"""放不下的图画：tar 分片，从头到尾流过去 / What does not fit on a disk as files: tar shards, read as a stream.

The files are those of the library webdataset (`pip install webdataset`), which reads them here. In a shard, `a.jpg` and
`a.txt` (the caption) or `a.json` (`text`, and if you like `text_zh`, `source`, `split`) stand one after the other.
Nothing else of a shard is read, nothing is unpickled, and nothing is opened but files `*.tar` of the folder.

分片就是 webdataset 库的（`pip install webdataset`），这里也用它来读。分片里 `a.jpg` 和 `a.txt`（说明）或 `a.json`
（`text`，还可以有 `text_zh`、`source`、`split`）前后相连。别的不读，不用 pickle，只打开文件夹里的 `*.tar`。
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from torch.utils.data import IterableDataset, get_worker_info

from mmcore import checks
from mmlessons.border import typed
from mmlessons.data.folder import reading
from mmlessons.data.folder.problems import Notes, Problem
from mmlessons.data.folder.splitting import NAMES, ROLES, role

PICTURES = {suffix.removeprefix(".") for suffix in reading.SUFFIXES}


class Shards(IterableDataset):
    """一部分图画，从 tar 分片里读 / The pictures of one split, read from tar shards.

    Items are those of `Pictures`, without `index`. Each process of a DataLoader reads shards of its own. A source is
    drawn into the same split as in a folder with the same seed, unless few sources or duplicates call for another.
    Bad pictures are passed over; `problems` reads everything once and names them.

    每一项与 `Pictures` 的相同，只是没有 `index`。DataLoader 的每个进程读自己的分片。同样的种子下，一个来源抽到的部分与
    文件夹里相同，除非那里来源很少，或者有重复的图画。坏的跳过，`problems` 从头读一遍，把它们一一说出来。
    """

    @typed
    def __init__(self, path: Path | str, split: str, size: int | None = 32, transform: Callable | None = None,
                 seed: int = 0):
        checks.one_of(split, "split", ROLES)
        self.root, self.split, self.transform = Path(path).expanduser().resolve(), split, transform
        self.size = size if size is None else checks.whole(size, "size")
        self.seed = checks.whole(seed, "seed", 0)
        self.files = sorted(file for file in self.root.glob("*.tar") if file.is_file() and not file.is_symlink())
        checks.require(bool(self.files), f"{path} 里没有 .tar 分片", f"there is no shard .tar in {path}")

    def __iter__(self) -> Iterator[dict]:
        worker = get_worker_info()
        mine = self.files if worker is None else self.files[worker.id::worker.num_workers]
        for part, image, item in self._all(mine, Notes()):
            if part == ROLES.index(self.split):
                yield {"picture": reading.prepare(image, self.size, self.transform), **item}

    def problems(self) -> tuple[Problem, ...]:
        """哪里不对，怎么办 / What is wrong, and what to do, in all splits."""
        note = Notes()
        for _ in self._all(self.files, note):
            pass
        return note.all()

    def _all(self, files: list[Path], note: Notes) -> Iterator[tuple]:
        for path in files:
            for sample in _samples(path, note):
                file = f"{path.name}/{sample['__key__']}"
                suffix = next((suffix for suffix in sample if suffix in PICTURES), None)
                said = _said(sample)
                if suffix is None or said is None or not said["text"].strip():
                    note("no_file" if suffix is None else "not_json" if said is None else "no_text", file)
                    continue
                try:
                    image, changed = reading.read(sample[suffix])
                except reading.Unreadable as error:
                    note(error.kind, file, **error.known)
                    continue
                for kind, known in changed.items():
                    note(kind, file, **known)
                part = NAMES.get(said.pop("split").lower())
                if part is None:
                    part = role(self.seed, said["source"], reading.digest(image))
                yield part, image, {**said, "file": file}


def _samples(path: Path, note: Notes) -> Iterator[dict]:
    """What stands together under one name. We open the file, so that no address is followed and no program started."""
    try:
        from webdataset.tariterators import group_by_keys, tar_file_iterator
    except ImportError:
        checks.refuse("读 tar 分片需要 webdataset：pip install webdataset",
                      "tar shards need webdataset: pip install webdataset", ImportError)
    wanted = PICTURES | {"txt", "json"}

    def files() -> Iterator[dict]:
        for each in tar_file_iterator(file):
            yield {**each, "__url__": path.name}

    with path.open("rb") as file:
        try:
            yield from group_by_keys(files(), suffixes=wanted)
        except Exception:  # cut off or no archive, or one name twice
            note("broken_shard", path.name)


def _said(sample: dict) -> dict[str, str] | None:
    try:
        found = json.loads(sample.get("json", b"{}"))
        if "txt" in sample:
            found["text"] = sample["txt"].decode("utf-8-sig")
        said = {key: found.get(key) or "" for key in ("text", "text_zh", "source", "split")}
        return said if all(isinstance(value, str) for value in said.values()) else None
    except (ValueError, AttributeError, TypeError, RecursionError):
        return None
