"""冻结的特征：同一批表情，图画的与名字的，互不相识 / Frozen features: pictures and names that have never met.

两个编码器各自训练：一个只看过图画，一个只读过文字。见同一文件夹的 CARD.md：怎样制成、许可证、缺什么。

Two encoders were trained apart: one saw pictures alone, the other read texts alone. See CARD.md in this folder: how it
was made, licences, what is not in it.
"""

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmcore import checks
from mmlessons.border import typed
from mmlessons.data import emoji, files

ASSETS = Path(__file__).parent / "assets"
VERSION = 1  # of the files in assets
ARTISTS = {"noto": "train", "noto-v1": "train", "fluent": "train", "emojione": "train",
           "fxemoji": "validation", "twemoji": "test"}  # those of the emoji under licences without share-alike
LANGUAGES = ("zh", "en")
SUBSETS = ("classroom", "large", "validation", "held-out", "all")


@dataclass(frozen=True, eq=False)
class Views:
    """C 个概念，每个有几幅图画的特征和两种语言名字的特征 / C concepts, the features of their pictures and names.

    | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|
    | `concepts` | C | 概念，次序固定 / the concepts, in a fixed order |
    | `pictures[artist]` | (C, 128) float | 图画的特征，不小于 0 / features of the pictures, none below 0 |
    | `names[language]` | (C, 128) float | 名字的特征，不小于 0 / features of the names, none below 0 |
    | `drawn[artist]` | (C,) bool | 这位作者画过哪些；没画过的是 0 / which ones that artist drew; else zeros |

    两个编码器的 128 个数毫无关系：第 5 个数在一边与另一边是两回事。

    The 128 numbers of the two encoders have nothing to do with each other: the fifth means one thing here and another
    there.
    """

    concepts: tuple[emoji.Concept, ...]
    pictures: dict[str, Tensor]
    names: dict[str, Tensor]
    drawn: dict[str, Tensor]

    @typed
    def by_role(self, role: str) -> list[str]:
        """该角色的作者名 / The names of the artists with this role: "train", "validation" or "test"."""
        checks.one_of(role, "role", ("train", "validation", "test"))
        return [artist for artist, its in ARTISTS.items() if its == role]

    def groups(self) -> Tensor:
        """每个概念的小类编号 / The number of each concept's subgroup: (C,) int64."""
        names = sorted({concept.subgroup for concept in self.concepts})
        return torch.tensor([names.index(concept.subgroup) for concept in self.concepts])


@typed
def load(subset: str = "classroom", folder: Path | str = ASSETS) -> Views:
    """载入冻结的特征 / Load the frozen features.

    | 子集 subset | 概念 concepts | 用途 use |
    |---|---|---|
    | `classroom` | 256 | 对齐用来学习 / what an alignment learns from |
    | `large` | 825 | 课堂与其余的，想多学时用；有的作者没画全 / with all others, to learn from more; some not drawn |
    | `validation` | 64 | 没见过的概念，用来挑选 / unseen concepts, to choose by |
    | `held-out` | 64 | 没见过的概念，只用来考试 / unseen concepts, for the test alone |
    | `all` | 953 | 全部 / all |
    """
    checks.one_of(subset, "subset", SUBSETS)
    everything, places = _read(Path(folder))
    keep = torch.tensor(places[subset])
    return Views(concepts=tuple(everything.concepts[i] for i in places[subset]),
                 **{part: {name: x[keep] for name, x in getattr(everything, part).items()}
                    for part in ("pictures", "names", "drawn")})


def draw_artists(drawn: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """每个概念抽 `count` 位画过它的作者 / `count` artists for each concept, among those who drew it.

    (A, N) bool → (`count`, N)，每列互不相同，只要画过的够多 / no two alike in a column where enough of them drew it.
    """
    lot = torch.rand(drawn.shape, generator=generator).masked_fill(~drawn, -1.0)
    return lot.topk(count, dim=0).indices


@cache
def _read(folder: Path) -> tuple[Views, dict[str, list[int]]]:
    manifest, data = files.read(folder, VERSION, "makers.views")
    source = emoji.load("all")
    features = {name: torch.from_numpy(np.array(Image.open(io.BytesIO(data[f"{name}.png"])))).float()
                for name in (*ARTISTS, *LANGUAGES)}
    for name, x in features.items():
        checks.require(len(x) == len(source.concepts),
                       f"{name} 需要 {len(source.concepts)} 个概念的特征，收到 {len(x)} 个；请重新安装 mmcore",
                       f"{name} must have features of {len(source.concepts)} concepts, got {len(x)}; install mmcore "
                       "again")
    subset_of = {c.char: subset for subset in ("classroom", "held-out") for c in emoji.load(subset).concepts}
    subset_of |= dict.fromkeys(manifest["validation"], "validation")
    kinds = [subset_of.get(concept.char, "other") for concept in source.concepts]
    parts = {subset: {subset} for subset in SUBSETS} | {"large": {"classroom", "other"}, "all": set(kinds)}
    places = {subset: [i for i, kind in enumerate(kinds) if kind in parts[subset]] for subset in SUBSETS}
    scales = manifest["scales"]
    return Views(source.concepts, {artist: features[artist] * scales["pictures"] for artist in ARTISTS},
                 {language: features[language] * scales["names"] for language in LANGUAGES},
                 {artist: source.drawn[artist] for artist in ARTISTS}), places
