"""表情数据：同一个概念，八位作者的手笔 / The emoji data: one concept, drawn by eight artists.

见同一文件夹的 CARD.md：来源、许可证、怎样制成、缺什么。

See CARD.md in this folder: source, licences, how it was made, what is not in it.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmcore import checks
from mmlessons.border import typed
from mmlessons.data import files

ASSETS = Path(__file__).parent / "assets"
VERSION = 1  # of the files below
SUBSETS = ("classroom", "held-out", "all")
ROLES = ("train", "validation", "test", "shift")


@dataclass(frozen=True)
class Concept:
    """一个概念及其两种语言的名字 / One concept and its names in two languages."""

    char: str
    group: str
    subgroup: str
    names: dict[str, str]  # {"en": "red apple", "zh": "红苹果"}
    keywords: dict[str, tuple[str, ...]]

    @property
    def title(self) -> tuple[str, str]:
        """（中文, English）名字 / The names as (Chinese, English)."""
        return self.names["zh"], self.names["en"]


@dataclass(frozen=True)
class Artist:
    """一位作者，及其在划分中的角色 / One artist and their role in the split."""

    name: str
    title: str
    author: str
    license: str
    role: str


@dataclass(frozen=True)
class Emoji:
    """C 个概念与每位作者的图画 / C concepts, and every artist's pictures of them.

    | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|
    | `concepts` | C | 概念，次序固定 / the concepts, in a fixed order |
    | `pictures[artist]` | (C, 3, 32, 32) uint8 | 图画，红绿蓝，白底 / pictures, RGB on white |
    | `drawn[artist]` | (C,) bool | 这位作者画过哪些 / which ones that artist drew |
    | `artists` | 8 | 作者与角色 / the artists and their roles |
    """

    concepts: tuple[Concept, ...]
    pictures: dict[str, Tensor]
    drawn: dict[str, Tensor]
    artists: dict[str, Artist]

    @typed
    def by_role(self, role: str) -> list[str]:
        """该角色的作者名 / The names of the artists with this role."""
        checks.one_of(role, "role", ROLES)
        return [name for name, artist in self.artists.items() if artist.role == role]

    @typed
    def pictures_by(self, artist: str) -> Tensor:
        """这位作者画的每一个概念 / Every concept in the hand of this artist: (C, 3, 32, 32).

        Raises ValueError for an unknown artist, or one who did not draw all of these concepts.

        没有这位作者，或他没有画全这些概念时报 ValueError。
        """
        checks.one_of(artist, "artist", tuple(self.pictures))
        missing = int((~self.drawn[artist]).sum())
        if missing:
            checks.refuse(f"{artist} 没有画过其中 {missing} 个概念；请用 classroom 或 held-out 子集",
                          f"{artist} did not draw {missing} of these concepts; use the subset classroom or held-out")
        return self.pictures[artist]

    def training_pictures(self) -> Tensor:
        """训练作者的图画 / The drawings of the artists to train on: (A, C, 3, 32, 32); refusals as `pictures_by`."""
        return torch.stack([self.pictures_by(artist) for artist in self.by_role("train")])

    @typed
    def names(self, language: str) -> list[str]:
        """每个概念的名字 / The name of every concept, in "en" or "zh"."""
        checks.one_of(language, "language", ("en", "zh"))
        return [concept.names[language] for concept in self.concepts]

    def texts(self) -> list[str]:
        """所有名字与关键词，两种语言 / All names and keywords, in both languages."""
        return [text for c in self.concepts for language in c.names
                for text in (c.names[language], *c.keywords[language])]


@typed
def drawings(concepts: Sequence[str], role: str) -> tuple[Tensor, tuple[str, ...]]:
    """这些概念的图画，由该角色的每位作者画 / The drawings of these concepts by every artist of a role.

    Takes English names; returns (A, N, 3, 32, 32) uint8 and the titles of the artists.

    给出英文名，得到 (A, N, 3, 32, 32) uint8 和作者的名字。
    """
    data = load()
    artists, names = data.by_role(role), data.names("en")
    for concept in concepts:
        checks.require(concept in names, f"没有叫 {concept!r} 的概念", f"there is no concept named {concept!r}")
    keep = [names.index(concept) for concept in concepts]
    return (torch.stack([data.pictures[artist][keep] for artist in artists]),
            tuple(data.artists[artist].title for artist in artists))


@typed
def load(subset: str = "classroom", folder: Path | str = ASSETS) -> Emoji:
    """载入表情数据 / Load the emoji data.

    `subset`: "classroom" is the 256 everyday concepts, "held-out" the 64 concepts that no training sees, "all" all.

    `subset`："classroom" 是 256 个日常概念，"held-out" 是训练中从未出现的 64 个概念，"all" 是全部。
    """
    checks.one_of(subset, "subset", SUBSETS)
    manifest, table, atlases = _read(Path(folder))
    keep = [i for i, row in enumerate(table) if subset in ("all", row.get("subset"))]
    return Emoji(
        concepts=tuple(_concept(table[i]) for i in keep),
        pictures={artist: tiles[keep] for artist, tiles in atlases.items()},
        drawn={artist: torch.tensor([artist in table[i]["drawn_by"] for i in keep]) for artist in atlases},
        artists={name: Artist(name, a["title"], a["author"], a["license"], a["role"])
                 for name, a in manifest["artists"].items()})


def _concept(row: dict) -> Concept:
    return Concept(row["char"], row["group"], row["subgroup"], dict(row["names"]),
                   {language: tuple(words) for language, words in row["keywords"].items()})


@cache
def _read(folder: Path) -> tuple[dict, list[dict], dict[str, Tensor]]:
    manifest, data = files.read(folder, VERSION, "makers.emoji")
    table, size, columns = json.loads(data["concepts.json"]), manifest["size"], manifest["columns"]
    atlases = {}
    for artist in manifest["artists"]:
        page = np.array(Image.open(io.BytesIO(data[f"{artist}.png"])).convert("RGB"))
        tiles = page.reshape(page.shape[0] // size, size, columns, size, 3).transpose(0, 2, 4, 1, 3)
        atlases[artist] = torch.from_numpy(tiles.reshape(-1, 3, size, size)[:len(table)].copy())
    return manifest, table, atlases
