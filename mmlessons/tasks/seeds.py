"""几个种子的结果合成一个 / The results of several seeds as one: every field holds the numbers of all seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch

from mmcore import checks
from mmlessons.border import typed


@typed
def over_seeds(results: Sequence[Any]) -> Any:
    """一个数换成一列，一个种子一个 / A number becomes a float64 tensor with one number for each seed.

    Dataclasses and mappings keep their shape: `over_seeds(found).recall.seen` is (S,). A list or tensor of K
    numbers becomes (S, K).

    数据类与字典的样子不变：`over_seeds(found).recall.seen` 是 (S,)。K 个数的列表或张量变成 (S, K)。
    """
    checks.require(len(results) > 0, "results 是空的，一个种子也没有", "results is empty, without a seed")
    first = results[0]
    if is_dataclass(first) or isinstance(first, Mapping):
        checks.require(all(type(result) is type(first) for result in results),
                       "每个种子的结果需要是同一种", "the results of all seeds must be of one kind", TypeError)
    if is_dataclass(first):
        return replace(first, **{field.name: over_seeds([getattr(result, field.name) for result in results])
                                 for field in fields(first)})
    if isinstance(first, Mapping):
        checks.require(all(result.keys() == first.keys() for result in results), "每个种子的结果需要有同样的名字",
                       "the results of all seeds must have the same names")
        return {key: over_seeds([result[key] for result in results]) for key in first}
    try:
        return torch.stack([torch.as_tensor(result, dtype=torch.float64) for result in results])
    except (TypeError, ValueError, RuntimeError):
        checks.refuse("结果需要是数，或同样长的几列数", "results must be numbers, or lists of one length", TypeError)
