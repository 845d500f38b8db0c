"""训练、验证、测试：按来源，不拆开重复的 / Training, validation and test: by source, and duplicates together."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from mmlessons.data.folder.problems import Notes

ROLES = ("train", "validation", "test")
NAMES = {"train": 0, "training": 0, "训练": 0, "validation": 1, "valid": 1, "val": 1, "dev": 1, "验证": 1, "test": 2,
         "testing": 2, "测试": 2}
ENDS = np.array([0.8, 0.9])  # below the first: training; from the second on: test


def drawn(seed: int, what: str) -> float:
    """这个来源或内容抽到的数，0 到 1 / The number from 0 to 1 that is drawn for this source or content.

    The same on every machine, and whatever else is in the folder. 在每台机器上都一样，与文件夹里别的东西无关。
    """
    digest = hashlib.blake2b(f"{seed} {what}".encode(errors="backslashreplace"), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


def role(seed: int, source: str, content: int) -> int:
    """一幅图画抽到哪一部分 / The split that one picture is drawn into: that of its source, or of its content."""
    return int(np.searchsorted(ENDS, drawn(seed, source or f"{content:016x}"), side="right"))


def divide(rows: Sequence, digests: np.ndarray, asked: np.ndarray, seed: int,
           note: Notes) -> tuple[dict[str, Tensor], tuple[tuple[str, ...], ...]]:
    """哪些行在哪一部分，哪些文件重复 / Which rows are in which split, and which files are duplicates.

    Contents and sources are joined where a row has both, and what hangs together is one group. A group has the split
    that is given to one of its rows, or else the one drawn for its sources (or content). Where one picture is given
    several splits, all its copies go to the first of them, so that the test loses a picture and gains no leak.

    一行既有内容又有来源，就把两者连起来，连在一起的是一组。组里有一行给了划分，就照它；没有就按来源（或内容）抽。同一幅图画
    给了几个划分时，都归到最前面的那个：测试少一幅，但不会漏题。
    """
    contents, content = np.unique(digests, return_inverse=True)
    numbers: dict[str, int] = {}
    source = np.fromiter((numbers.setdefault(row.source, len(numbers)) if row.source else -1 for row in rows), np.int64)
    has, count = source >= 0, len(contents) + len(numbers)
    edges = coo_array((np.ones(has.sum()), (content[has], len(contents) + source[has])), (count, count))
    _, group = connected_components(edges, directed=False)

    lot = np.full(group.max() + 1, 2.0)
    np.minimum.at(lot, group[len(contents):], [drawn(seed, text) for text in numbers])
    free = np.flatnonzero(lot[group[:len(contents)]] == 2.0)  # contents without a source
    lot[group[free]] = [drawn(seed, f"{value:016x}") for value in contents[free].tolist()]
    of_group = _parts(lot, fill=bool((asked < 0).all()))
    said = _least(group[content], asked, len(of_group))
    of_group = np.where(said < 3, said, of_group)
    of_content = _least(content, asked, len(contents))
    split = np.where(of_content < 3, of_content, of_group[group[:len(contents)]])[content]

    names: dict[int, dict[str, int]] = {}  # content → file → row, for contents of several rows
    several = np.bincount(content)[content] > 1
    for at in np.flatnonzero(several).tolist():
        files = names.setdefault(int(content[at]), {})
        files.setdefault(rows[at].file, at)
    for copies in names.values():
        (other, _), *rest = copies.items()
        for file, at in rest:
            moved = asked[at] >= 0 and asked[at] != split[at]
            note("moved" if moved else "copy", file, rows[at].row, other=other, split=ROLES[split[at]],
                 given=ROLES[asked[at]])
    for text, parts in _in_several(numbers, source[asked >= 0], split[asked >= 0]):
        note("split_of_source", "", source=repr(text), splits=", ".join(ROLES[part] for part in parts))
    for part, role in enumerate(ROLES):
        if not (split == part).any():
            note("empty_split", "", split=role, groups=len(of_group))
    return ({role: torch.from_numpy(np.flatnonzero(split == part)) for part, role in enumerate(ROLES)},
            tuple(tuple(copies) for copies in names.values() if len(copies) > 1))


def _least(group: np.ndarray, asked: np.ndarray, count: int) -> np.ndarray:
    """The first split that is given in each group, 3 where none is."""
    least = np.full(count, 3)
    np.minimum.at(least, group, np.where(asked < 0, 3, asked))
    return least


def _parts(lot: np.ndarray, fill: bool) -> np.ndarray:
    """The split of each group by its lot; to `fill`, none is left without a group where there are three."""
    train, test = np.searchsorted(np.sort(lot), ENDS)
    if fill and len(lot) >= 3:
        train = min(max(train, 1), len(lot) - 2)
        test = min(max(test, train + 1), len(lot) - 1)
    return np.searchsorted([train, test], np.argsort(np.argsort(lot, kind="stable")), side="right")


def _in_several(numbers: dict[str, int], source: np.ndarray, split: np.ndarray) -> list[tuple[str, list[int]]]:
    """The sources whose rows are in several splits, and in which."""
    held = np.zeros((len(numbers) + 1, len(ROLES)), bool)
    held[source, split] = True  # rows without a source are in the last line
    return [(text, np.flatnonzero(held[number]).tolist()) for text, number in numbers.items()
            if held[number].sum() > 1]
