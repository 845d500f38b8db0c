"""让公式、图和练习对得上代码 / Hold formulas, diagrams and exercises against the code.

测试用这里的函数核对每一课；读者也可以用它们自己核对。

The tests check every lesson with these functions; readers may check with them for themselves.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from torch import Tensor
from torch.overrides import TorchFunctionMode

from mmcore import checks

_FORMULA = re.compile(r"\$\$([^$]+?)\\tag\{(\d+\.\d+)\}\s*\$\$")
_NODE = r"(\w+)(?:\[.*?\]|\(.*?\)|\{.*?\})?"
_ARROW = re.compile(rf"{_NODE}\s*-->\s*(?={_NODE})")
_LINE = re.compile(rf"\s*{_NODE}(\s*-->\s*{_NODE})*\s*")


def formulas(text: str) -> dict[str, str]:
    r"""文中带 \\tag 的公式 / The formulas with a \\tag in a text: {tag: formula}, with single spaces."""
    return {tag: " ".join(body.split()) for body, tag in _FORMULA.findall(text)}


def drawn_arrows(diagram: str) -> set[tuple[str, str]]:
    """mermaid 图里的箭头 / The arrows in a mermaid diagram.

    只认 `flowchart` 和 `-->`；读不懂的行会报错，所以图里不会有没核对过的东西。

    It reads `flowchart` and `-->` alone; a line it cannot read is an error, so that a diagram holds nothing unchecked.

    Raises: ValueError 有读不懂的行 / for a line it cannot read.
    """
    head, *lines = [line for line in diagram.strip().splitlines() if line.strip()]
    for line in [] if head.split()[0] in ("flowchart", "graph") else [head]:
        _cannot_read(line)
    arrows = set()
    for line in lines:
        bare = re.sub(r'"[^"]*"', "", line)  # a label may hold any sign
        if not _LINE.fullmatch(bare):
            _cannot_read(line)
        arrows |= set(_ARROW.findall(bare))
    return arrows


def _cannot_read(line: str) -> None:
    checks.require(False, f"读不懂图里的这一行：{line.strip()}",
                   f"cannot read this line of the diagram: {line.strip()}")


class _Recorder(TorchFunctionMode):
    """记下每个张量由哪些张量算出 / Notes from which tensors each tensor was computed."""

    def __init__(self) -> None:
        super().__init__()
        self.parents: dict[int, list[Tensor]] = {}
        self.alive: list[Tensor] = []  # while a tensor lives, no other can have its id

    def __torch_function__(self, func: Callable, types: Sequence, args: tuple = (),
                           kwargs: dict | None = None) -> object:
        result = func(*args, **(kwargs or {}))
        inputs = _tensors((args, kwargs or {}))
        for out in _tensors(result) + _changed(func, args):
            self.alive.append(out)
            self.parents.setdefault(id(out), []).extend(x for x in inputs if x is not out)
        return result


def _changed(func: Callable, args: tuple) -> list[Tensor]:
    """就地写入改变的张量，视图连同它的底 / What an in-place write changes, a view's base included."""
    name = getattr(func, "__name__", "")
    if func is not Tensor.__setitem__ and (not name.endswith("_") or name.endswith("__")):
        return []
    target = args[0]
    return [target] if target._base is None else [target, target._base]


def _tensors(x: object) -> list[Tensor]:
    if isinstance(x, Tensor):
        return [x]
    if isinstance(x, dict):
        x = list(x.values())
    return [t for item in x for t in _tensors(item)] if isinstance(x, (tuple, list)) else []


def computed_arrows(forward: Callable[..., dict[str, Tensor]], inputs: dict[str, Tensor]) -> set[tuple[str, str]]:
    """真实计算里的箭头 / The arrows of the real computation.

    运行 `forward(**inputs)`，记下每一步运算。A → B：B 由 A 算出，且中间不经过别的有名字的张量。词元编号没有梯度，
    这里也看得见。

    Runs `forward(**inputs)` and notes every operation. A → B: B was computed from A without passing through another
    named tensor. Token ids have no gradient and are seen all the same.
    """
    with _Recorder() as recorder:
        outputs = forward(**inputs)
    name_of = {id(tensor): name for name, tensor in {**inputs, **outputs}.items()}
    arrows = set()
    for name, tensor in outputs.items():
        todo, seen = list(recorder.parents.get(id(tensor), [])), set()
        while todo:
            source = todo.pop()
            if id(source) in seen:
                continue
            seen.add(id(source))
            if id(source) in name_of:
                arrows.add((name_of[id(source)], name))
            else:
                todo += recorder.parents.get(id(source), [])
    return {(a, b) for a, b in arrows if a != b}


@dataclass(frozen=True)
class Case:
    """练习的一个检查 / One check of an exercise: the call, what it must give, what it is about in both languages."""

    args: tuple
    expected: float
    zh: str
    en: str


@dataclass(frozen=True)
class Verdict:
    """检查的结果 / What a check found."""

    ok: bool
    zh: str
    en: str

    def __repr__(self) -> str:
        return f"[{'✓' if self.ok else '…'}] {self.zh} / {self.en}"

    def _repr_html_(self) -> str:
        colour, sign = ("#1a7f37", "✓") if self.ok else ("#9a6700", "…")
        return (f'<div role="status" class="mm mm-say" style="border-color:{colour}">{sign} '
                f'<span lang="zh">{escape(self.zh)}</span><span lang="en">{escape(self.en)}</span></div>')


def check(answer: Callable[..., float | Tensor | None], cases: Sequence[Case], hint: tuple[str, str]) -> Verdict:
    """核对读者写的函数 / Check the function that a reader wrote.

    逐个检查，停在第一个不对的地方并说出差在哪里；函数还空着（返回 None）时给出提示。不会抛出错误，也不会中断笔记本。

    Goes from case to case and stops at the first that is wrong, saying how it differs; while the function is still
    empty (it returns None) it gives the hint. It raises nothing and does not stop the notebook.
    """
    for case in cases:
        try:
            got = answer(*case.args)
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            return Verdict(False, f"{case.zh}：你的代码抛出了 {what}", f"{case.en}: your code raised {what}")
        if got is None or got is Ellipsis:
            return Verdict(False, f"还没有答案。提示：{hint[0]}", f"No answer yet. Hint: {hint[1]}")
        try:
            value = float(got)
        except (TypeError, ValueError, RuntimeError):
            return Verdict(False, f"{case.zh}：需要一个数，得到 {type(got).__name__}",
                           f"{case.en}: expected one number, got {type(got).__name__}")
        if not abs(value - case.expected) < 1e-5:
            return Verdict(False, f"{case.zh}：应为 {case.expected:.4g}，得到 {value:.4g}。提示：{hint[0]}",
                           f"{case.en}: expected {case.expected:.4g}, got {value:.4g}. Hint: {hint[1]}")
    return Verdict(True, f"{len(cases)} 项检查全部通过", f"all {len(cases)} checks passed")
