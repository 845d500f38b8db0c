"""两样东西怎样摆：谁在左，谁在上，谁有两次 / How two things stand: which is on the left, above, or there twice.

每个场景有一句对的话，把其中两样东西对调，就是另一个场景的话，用词一个不差。所以只数词、不看词序的，两句分不出来。

Each scene has one right sentence, and with its two things exchanged it is the sentence of another scene, of the very
same words. Who counts words and does not look at their order cannot tell the two apart.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mmcore import checks
from mmlessons.border import typed
from mmlessons.data.scenes.things import LANGUAGES, THINGS

ARRANGEMENTS = ("side", "height", "count")  # left of, above, twice
_MOST = 12  # ways to place two things, at most
_SAID = {"side": ("左边", "left of"), "height": ("上面", "above")}


@typed
def sentence(kind: str, first: int, second: int, language: str = "en") -> str:
    """一个场景的话 / What is said of a scene: sentence("side", 0, 1) → "The dog is left of the cat.".

    `first` 是在左边、在上面或有两次的那一样 / `first` is the thing that is on the left, above, or there twice.
    """
    checks.one_of(kind, "kind", ARRANGEMENTS)
    checks.one_of(language, "language", LANGUAGES)
    a, b = (THINGS[checks.index(thing, name, len(THINGS))] for thing, name in ((first, "first"), (second, "second")))
    checks.require(first != second, f"first 和 second 都是 {first}：需要两样不同的东西",
                   f"first and second are both {first}: two different things are needed")
    if kind == "count":
        zh, en = f"{a.zh}有两{a.measure}，{b.zh}有一{b.measure}。", f"The {a.en} twice, the {b.en} once."
    else:
        zh, en = _SAID[kind]
        zh, en = f"{a.zh}在{b.zh}的{zh}。", f"The {a.en} is {en} the {b.en}."
    return zh if language == "zh" else en


def places() -> Tensor:
    """怎样摆 / The ways to place two things: (kinds, 12, 4), 0 for the first, 1 for the second, −1 for none.

    左右和上下各有两种摆法，两次一次的有 12 种；不够 12 种的重复填满 / There are two ways to stand side by side, and two
    one above the other; twelve to be there twice and once. Those that have fewer are repeated.
    """
    twice = [[1 if cell == one else -1 if cell == none else 0 for cell in range(4)]
             for one in range(4) for none in range(4) if one != none]
    return torch.tensor([[[0, 1, -1, -1], [-1, -1, 0, 1]] * (_MOST // 2),
                         [[0, -1, 1, -1], [-1, 0, -1, 1]] * (_MOST // 2), twice])


@typed
def draw_arrangements(count: int, generator: torch.Generator, pairs: Sequence[tuple[int, int]],
                      kinds: Sequence[str] = ARRANGEMENTS) -> dict[str, Tensor]:
    """抽出 N 个场景，两样东西的同一种摆法至多一次 / Draw N scenes; two things stand in one way once at most.

    所以一次抽出的话里，没有一句是另一句对调来的，也没有两句说同一件事。`pairs` 是可以同时出现的两样东西。

    So among the sentences of one draw, none is another one exchanged, and no two say the same. `pairs` lists the things
    that may stand together.

    | 返回 returned | 形状 shape | 含义 meaning |
    |---|---|---|
    | `kind` | (N,) int64 | 怎样摆，见 `ARRANGEMENTS` / how they stand, see `ARRANGEMENTS` |
    | `first`, `second` | (N,) int64 | 两样东西，次序同 `sentence` / the two things, in the order of `sentence` |
    | `language` | (N,) int64 | 用哪种语言说 / in which language it is said |
    | `cells` | (N, 4) int64 | 每格里的东西，空为 −1 / the thing in each cell, −1 for none |
    | `mirrored` | (N, 4) int64 | 两样东西对调以后 / with the two things exchanged |
    """
    checks.require(len(kinds) > 0, "kinds 需要至少一种", "kinds must name one at least")
    for kind in kinds:
        checks.one_of(kind, "kinds", ARRANGEMENTS)
    known = torch.tensor([ARRANGEMENTS.index(kind) for kind in kinds])
    most = len(pairs) * len(kinds)
    checks.require(1 <= count <= most, f"count 需要在 1 与 {most} 之间，收到 {count}",
                   f"count must be from 1 to {most}, got {count}")
    chosen = torch.randperm(most, generator=generator)[:count]
    kind, two = known[chosen // len(pairs)], torch.tensor(pairs)[chosen % len(pairs)]
    two = torch.where(torch.rand(count, 1, generator=generator) < 0.5, two, two.flip(1))
    place = places()[kind, torch.randint(_MOST, (count,), generator=generator)]
    language = torch.randint(len(LANGUAGES), (count,), generator=generator)

    def cells(things: Tensor) -> Tensor:
        return torch.where(place < 0, -1, things.gather(1, place.clamp(min=0)))

    return {"kind": kind, "first": two[:, 0], "second": two[:, 1], "language": language, "cells": cells(two),
            "mirrored": cells(two.flip(1))}
