"""几个种子的结果合成一个 / The results of several seeds as one: every field holds the numbers of all seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch


def over_seeds(results: Sequence[Any]) -> Any:
    """一个数换成一列，一个种子一个 / A number becomes a float64 tensor with one number for each seed.

    Dataclasses and mappings keep their shape: `over_seeds(found).recall.seen` is (S,). A list of K numbers becomes
    (S, K).

    数据类与字典的样子不变：`over_seeds(found).recall.seen` 是 (S,)。K 个数的列表变成 (S, K)。
    """
    first = results[0]
    if is_dataclass(first):
        return replace(first, **{field.name: over_seeds([getattr(result, field.name) for result in results])
                                 for field in fields(first)})
    if isinstance(first, Mapping):
        return {key: over_seeds([result[key] for result in results]) for key in first}
    return torch.tensor(results, dtype=torch.float64)
