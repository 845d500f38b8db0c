"""学到的东西的副本，可以退回去 / Copies of what is learned, to go back to."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Protocol

KEPT = 4  # copies, the latest


class Keepable(Protocol):
    """能存下、能放回的东西：模型、优化器、步长表 / What can be kept and put back: a model, an optimiser, a schedule."""

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> object: ...


class Snapshots:
    """最近几步的副本 / Copies of the latest steps. `keeps()` returns what is learned now."""

    def __init__(self, keeps: Callable[[], Sequence[Keepable]] | None):
        self._keeps = keeps
        self.taken: list[tuple[int, list[dict]]] = []  # (step, states), the latest last

    def take(self, i: int) -> None:
        """存下第 i 步 / Keep step i."""
        if self._keeps is not None and (not self.taken or self.taken[-1][0] != i):
            states = [deepcopy(thing.state_dict()) for thing in self._keeps()]
            self.taken = [*self.taken, (i, states)][-KEPT:]

    def clear(self) -> None:
        self.taken = []

    def before(self, i: int) -> list[tuple[int, list[dict]]]:
        """第 i 步以前的副本；没有就是第一份 / The copies from before step i, else the first."""
        return [kept for kept in self.taken if kept[0] < i] or self.taken[:1]

    def go_back(self, i: int) -> int | None:
        """放回第 i 步以前最近的一份，返回它的步数 / Put back the latest copy before step i; returns its step.

        None if the model is another one by now; then nothing changes and the copies are dropped.
        """
        self.taken = self.before(i)
        at, states = self.taken[-1]
        things = list(self._keeps())
        if [_form(thing.state_dict()) for thing in things] != [_form(state) for state in states]:
            self.clear()
            return None
        for thing, state in zip(things, states, strict=True):
            thing.load_state_dict(deepcopy(state))
        return at


def _form(state: object) -> object:
    """Names and sizes, no values; what an optimiser notes, which only its first step creates, is left out."""
    if isinstance(state, Mapping):
        return {name: _form(part) for name, part in state.items() if name != "state"}
    return tuple(state.shape) if hasattr(state, "shape") else None
