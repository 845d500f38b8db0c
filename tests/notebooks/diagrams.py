"""图里的箭头，和真实计算里的箭头 / The arrows that a diagram draws, and those of the real computation."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, strided
from torch.overrides import TorchFunctionMode

_HEAD = re.compile(r"\s*(flowchart|graph)\s+(LR|RL|TB|TD|BT)\s*")
_NODE = r"(\w+)(?:\[[^>]*?\]|\([^>]*?\)|\{[^>]*?\})?"
_ARROW = re.compile(rf"{_NODE}\s*-->\s*(?={_NODE})")
_LINE = re.compile(rf"\s*{_NODE}(\s*-->\s*{_NODE})*\s*")


def drawn_arrows(diagram: str) -> set[tuple[str, str]]:
    """The arrows in a mermaid `flowchart`; anything in it that could not be checked is a ValueError."""
    head, *lines = [line for line in diagram.splitlines() if line.strip()] or [""]
    if not head or not lines:
        raise ValueError("the diagram is empty")
    bare = [re.sub(r'"[^"]*"', "", line) for line in lines]  # a label may hold any sign
    for line, form in [(head, _HEAD), *((line, _LINE) for line in bare)]:
        if not form.fullmatch(line):
            raise ValueError(f"cannot read this line of the diagram: {line.strip()}")
    arrows = {arrow for line in bare for arrow in _ARROW.findall(line)}
    alone = {node for line in bare for node in re.findall(_NODE, line)} - {node for arrow in arrows for node in arrow}
    if alone:
        raise ValueError(f"the diagram has a node in no arrow: {', '.join(sorted(alone))}")
    return arrows


@dataclass(eq=False)
class _Value:
    """What a tensor held at one moment, and the values it was computed from."""

    parents: list["_Value"]
    moment: int


class _Recorder(TorchFunctionMode):
    """Notes from which values each value was computed.

    An in-place write gives a tensor a new value, and who used it before still points to the old one; tensors that share
    its memory (a view and its base) take the new one when they are read next.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[int, _Value] = {}
        self.writes: dict[int, _Value] = {}  # the last write into each memory
        self.alive: list[Tensor] = []  # while a tensor lives, no other can have its id

    def __torch_function__(self, func: Callable, types: Sequence, args: tuple = (),
                           kwargs: dict | None = None) -> object:
        inputs = _tensors((args, kwargs or {}))
        parents = [self.value(x) for x in inputs]
        before = [_version(x) for x in inputs]
        result = func(*args, **(kwargs or {}))
        for x, version in zip(inputs, before, strict=True):
            if _version(x) != version:  # PyTorch counts the writes itself, however a function is called
                self.writes[_memory(x)] = self._note(x, parents)
        for x in _tensors(result):
            if id(x) not in self.values:
                self._note(x, parents)
        return result

    def value(self, x: Tensor) -> _Value:
        """What it holds now."""
        own = self.values.get(id(x)) or self._note(x, [])
        write = self.writes.get(_memory(x))
        return own if write is None or write.moment <= own.moment else self._note(x, [own, write])

    def _note(self, x: Tensor, parents: list[_Value]) -> _Value:
        self.alive.append(x)
        self.values[id(x)] = _Value(parents, len(self.alive))
        return self.values[id(x)]


def _version(x: Tensor) -> int:
    return 0 if x.is_inference() else x._version


def _memory(x: Tensor) -> int:
    return x.untyped_storage()._cdata if x.layout == strided else id(x)


def _tensors(x: object) -> list[Tensor]:
    if isinstance(x, Tensor):
        return [x]
    if isinstance(x, dict):
        x = list(x.values())
    return [t for item in x for t in _tensors(item)] if isinstance(x, (tuple, list)) else []


def computed_arrows(forward: Callable[..., dict[str, Tensor]], inputs: dict[str, Tensor]) -> set[tuple[str, str]]:
    """The arrows of `forward(**inputs)`.

    A → B: B was computed from A without passing through another named tensor. Token ids have no gradient and are seen
    all the same. Not seen is what leaves the tensors (`.numpy()`, `.tolist()`, `.item()`), nor vmap, scripted functions
    and in-place writes in inference mode; an output that comes from no named tensor is therefore a ValueError.
    """
    _check_named(inputs)
    recorder = _Recorder()
    name_of = {recorder.value(x): name for name, x in inputs.items()}
    with recorder:
        outputs = forward(**inputs)
    _check_named(outputs)
    if {id(x) for x in inputs.values()} & {id(x) for x in outputs.values()}:
        raise ValueError("an output is an input itself: nothing was computed")
    results = {name: recorder.value(x) for name, x in outputs.items()}
    name_of |= {value: name for name, value in results.items()}
    arrows = set()
    for name, value in results.items():
        todo, seen = list(value.parents), set()
        while todo:
            source = todo.pop()
            if source in seen:
                continue
            seen.add(source)
            if source in name_of:
                arrows.add((name_of[source], name))
            else:
                todo += source.parents
        if not any(b == name for _, b in arrows):
            raise ValueError(f"{name} was computed from no named tensor, or in a way that is not seen")
    return arrows


def _check_named(tensors: dict[str, Tensor]) -> None:
    for name, x in tensors.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(x).__name__}")
    if len({id(x) for x in tensors.values()}) != len(tensors):
        raise ValueError(f"among {', '.join(tensors)} two names are one tensor")
