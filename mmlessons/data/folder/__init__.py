"""你自己的图画：一个文件夹就是一个数据集 / Pictures of your own: a folder is a data set.

The folder is laid out as Hugging Face's imagefolder: pictures and a `metadata.csv` or `metadata.jsonl` with the columns
`file_name` and `text`, and if you like `text_zh`, `source` (artist, camera, place) and `split`; or one sub-folder for
each label. Folders `train`, `validation` and `test` around these give the split. `load` looks at every picture once, to
find damage and duplicates, and keeps none. They are read again when they are asked for, so 300,000 take hardly more
memory than 30. Whatever is wrong with a picture or a row is in `problems`, and the others can be used. Nothing outside
the folder is read, and nothing is unpickled. Pictures that are nearly alike are not found.

文件夹的样子就是 Hugging Face 的 imagefolder：图画，加上 `metadata.csv` 或 `metadata.jsonl`，有 `file_name` 和 `text`
两列，还可以有 `text_zh`、`source`（作者、相机、地点）和 `split`；或者每个标签一个子文件夹。外面再套一层 `train`、
`validation`、`test`，就是划分。`load` 把每幅图画看一遍，找出损坏的和重复的，一幅也不留在内存里。要用时再读，所以三十万
幅和三十幅占的内存差不多。哪幅图画、哪一行不对，都写在 `problems` 里，别的照样能用。文件夹外面的不读，也不用 pickle。
只是相像的图画，这里找不出来。
"""

from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmcore import checks
from mmlessons.border import typed
from mmlessons.data.folder import finding, reading
from mmlessons.data.folder.finding import Row, Rows
from mmlessons.data.folder.problems import Notes, Problem
from mmlessons.data.folder.splitting import ROLES, divide


@dataclass(frozen=True, eq=False)
class Folder:
    """一个文件夹的图画 / The pictures of a folder.

    | 名字 name | 含义 meaning |
    |---|---|
    | `rows` | 能用的每一行，按文件名排列 / every row that can be used, in the order of the file names |
    | `splits` | 每一部分有哪些行 / which rows each split has: `{"train": tensor([0, 1]), "validation": …, "test": …}` |
    | `problems` | 哪里不对，怎么办 / what is wrong, and what to do |
    | `duplicates` | 像素完全相同的文件 / files that have exactly the same pixels |
    """

    root: Path
    rows: Sequence[Row]
    splits: dict[str, Tensor]
    problems: tuple[Problem, ...]
    duplicates: tuple[tuple[str, ...], ...]

    def texts(self, split: str) -> list[str]:
        """这一部分的说明 / The captions of a split."""
        checks.one_of(split, "split", ROLES)
        return [self.rows[i].text for i in self.splits[split].tolist()]

    @typed
    def pictures(self, split: str, size: int | None = None, transform: Callable | None = None) -> "Pictures":
        """这一部分的图画，要用时才读 / The pictures of a split, read when they are asked for.

        With `size` each is scaled to fit a white square, (3, size, size) uint8, and without it keeps its own size.
        `transform` is given the picture (PIL, RGB) in their place, for example the preparation of a pretrained model.

        给了 `size`，就缩放到白底的正方形里，(3, size, size) uint8；不给就是原来的大小。也可以改用 `transform`，它得到
        PIL 的 RGB 图画，例如某个预训练模型的预处理。
        """
        checks.one_of(split, "split", ROLES)
        size = size if size is None else checks.whole(size, "size")
        return Pictures(self.root, self.rows, self.splits[split], size, transform)

    @typed
    def loader(self, split: str, batch: int = 32, size: int | None = 32, transform: Callable | None = None,
               workers: int = 0, seed: int | None = None) -> DataLoader:
        """一批一批地读 / Read in batches, by `workers` processes; in a new order each time where there is a seed.

        用 `workers` 个进程读；给了种子，每一遍的次序都不同，种子相同则次序相同。
        """
        data = self.pictures(split, size, transform)
        order = None if seed is None else torch.Generator().manual_seed(checks.whole(seed, "seed", 0))
        return DataLoader(data, checks.whole(batch, "batch"), shuffle=order is not None, generator=order,
                          num_workers=checks.whole(workers, "workers", 0))


class Pictures(Dataset):
    """一部分图画，每幅连着它的一行 / The pictures of a split, each with its row.

    An item is a dict of `picture`, `text`, `text_zh`, `source`, `file` and `index`, the number of the row.

    每一项是字典：`picture`、`text`、`text_zh`、`source`、`file`，和行的编号 `index`。
    """

    def __init__(self, root: Path, rows: Sequence[Row], which: Tensor, size: int | None, transform: Callable | None):
        self.root, self.rows, self.which, self.size, self.transform = root, rows, which, size, transform

    def __len__(self) -> int:
        return len(self.which)

    def __getitem__(self, i: int) -> dict:
        index = int(self.which[i])
        row = self.rows[index]
        try:
            image, _ = reading.read(finding.place(self.root, row.file))
        except reading.Unreadable as error:
            checks.refuse(f"{row.file} 在载入之后变了，请重新 load（{error}）",
                          f"{row.file} has changed since it was loaded; load the folder again ({error})")
        return {"picture": reading.prepare(image, self.size, self.transform), "text": row.text,
                "text_zh": row.text_zh, "source": row.source, "file": row.file, "index": index}


@typed
def load(path: Path | str, seed: int = 0, threads: int = 0) -> Folder:
    """载入一个文件夹 / Load a folder; its pictures are read later.

    Where no split is given, whole sources (rows without a source: pictures) are drawn with the seed, 80 in 100 for
    training, 10 for validation and 10 for the test. Duplicates, and the sources that they connect, stay in one split.
    Several rows may name one picture. `threads` more threads look at the pictures, which helps where they are large.
    Raises ValueError if nothing can be used, and says why.

    没有给 split 的，按种子把整个来源（没有来源的，按图画）抽到训练、验证、测试，约 80、10、10。重复的图画，以及由它们
    连起来的来源，都留在同一部分。一幅图画可以有几行。`threads` 是另外用几个线程来看图画，图画大时有用。一幅也不能用时
    报 ValueError，说明原因。
    """
    root, seed, threads = Path(path).expanduser(), checks.whole(seed, "seed", 0), checks.whole(threads, "threads", 0)
    checks.require(root.exists(), f"没有 {path} 这个文件夹", f"there is no folder {path}")
    checks.require(root.is_dir(), f"{path} 是文件，不是文件夹；压缩包请先解开",
                   f"{path} is a file and no folder; unpack it first if it is an archive")
    root, note = root.resolve(), Notes()
    names, metadata, odd = finding.walk(root)
    checks.require(bool(names or metadata or odd), f"{path} 里没有图画", f"there is no picture in {path}")
    rows, given = finding.match(root, names, metadata, odd, note)
    del names
    kept, digests = _look(root, rows, threads, note)
    if not kept:
        said = [problem for problem in note.kept if not problem.used][:3]
        checks.refuse(f"{path} 里没有能用的图画。" + "；".join(f"{p.file} {p.zh}" for p in said),
                      f"nothing in {path} can be used. " + "; ".join(f"{p.file} {p.en}" for p in said))
    rows.keep(kept)
    splits, duplicates = divide(rows, np.array(digests, np.uint64), given[np.array(kept)], seed, note)
    return Folder(root, rows, splits, note.all(), duplicates)


def _look(root: Path, rows: Rows, threads: int, note: Notes) -> tuple[array, array]:
    """Every picture once: which rows can be used, and the digest of the picture of each."""
    kept, digests = array("q"), array("Q")
    groups = ((name, list(group)) for name, group in groupby(range(len(rows)), key=lambda i: rows[i].file))
    with ThreadPoolExecutor(max(1, threads)) as pool:
        while some := list(islice(groups, 1000)):
            names = [name for name, _ in some]
            seen = (pool.map if threads else map)(_seen, [root] * len(names), names)
            for (name, group), (digest, changed) in zip(some, seen, strict=True):
                for kind, known in changed.items():
                    note(kind, name, rows[group[0]].row, **known)
                said = set()
                for i in group if digest is not None else ():
                    row = rows[i]
                    if (row.text, row.text_zh) in said:
                        note("same_row", name, row.row)
                        continue
                    said.add((row.text, row.text_zh))
                    kept.append(i)
                    digests.append(digest)
    return kept, digests


def _seen(root: Path, name: str) -> tuple[int | None, dict[str, dict]]:
    try:
        image, changed = reading.read(finding.place(root, name))
    except reading.Unreadable as error:
        return None, {error.kind: error.known}
    return reading.digest(image), changed


__all__ = ["Folder", "Pictures", "Problem", "Row", "load"]
