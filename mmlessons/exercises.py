"""让公式、图和练习对得上代码 / Hold formulas, diagrams and exercises against the code.

测试用这里的函数核对每一课；读者也可以用它们自己核对。

The tests check every lesson with these functions; readers may check with them for themselves.
"""

import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from html import escape

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mmcore import checks

_FORMULA = re.compile(r"\$\$([^$]+?)\\tag\{(\d+\.\d+)\}\s*\$\$")
_HEAD = re.compile(r"\s*(flowchart|graph)\s+(LR|RL|TB|TD|BT)\s*")
_NODE = r"(\w+)(?:\[[^>]*?\]|\([^>]*?\)|\{[^>]*?\})?"
_ARROW = re.compile(rf"{_NODE}\s*-->\s*(?={_NODE})")
_LINE = re.compile(rf"\s*{_NODE}(\s*-->\s*{_NODE})*\s*")


def formulas(text: str) -> dict[str, str]:
    """文中有编号的公式 / The numbered formulas in a text: {tag: formula}, with single spaces.

    Raises: ValueError 有读不懂的编号，或同一编号有两种写法 / for a number it cannot read, or one number for two
    formulas.
    """
    read = _FORMULA.findall(text)
    written = len(re.findall(r"\\tag(?![a-zA-Z])", text))
    checks.require(written == len(read),
                   f"文中有 {written} 个 \\tag，只读懂 {len(read)} 个；写法应为 $$公式 \\tag{{2.1}}$$",
                   f"the text holds {written} \\tag and {len(read)} could be read; write $$formula \\tag{{2.1}}$$")
    found: dict[str, str] = {}
    for body, tag in read:
        body = " ".join(body.split())
        checks.require(found.setdefault(tag, body) == body, f"编号 {tag} 有两种不同的公式：{found[tag]} 和 {body}",
                       f"the number {tag} stands for two formulas: {found[tag]} and {body}")
    return found


def drawn_arrows(diagram: str) -> set[tuple[str, str]]:
    """mermaid 图里的箭头 / The arrows in a mermaid diagram.

    只认 `flowchart` 和 `-->`；读不懂的行、没有箭头的节点会报错，所以图里不会有没核对过的东西。

    It reads `flowchart` and `-->` alone; a line it cannot read and a node without an arrow are errors, so that a
    diagram holds nothing unchecked.

    Raises: ValueError 图是空的、有读不懂的行，或有节点不在任何箭头上 / for an empty diagram, a line it cannot read, or
    a node that is in no arrow.
    """
    head, *lines = [line for line in diagram.splitlines() if line.strip()] or [""]
    checks.require(bool(head and lines), "图是空的", "the diagram is empty")
    if not _HEAD.fullmatch(head):
        _cannot_read(head)
    arrows, nodes = set(), set()
    for line in lines:
        bare = re.sub(r'"[^"]*"', "", line)  # a label may hold any sign
        if not _LINE.fullmatch(bare):
            _cannot_read(line)
        arrows |= set(_ARROW.findall(bare))
        nodes |= set(re.findall(_NODE, bare))
    alone = ", ".join(sorted(nodes - {node for arrow in arrows for node in arrow}))
    checks.require(not alone, f"图里有节点不在任何箭头上：{alone}", f"the diagram has a node in no arrow: {alone}")
    return arrows


def _cannot_read(line: str) -> None:
    checks.require(False, f"读不懂图里的这一行：{line.strip()}",
                   f"cannot read this line of the diagram: {line.strip()}")


@dataclass(eq=False)
class _Value:
    """张量在某一刻的值，由哪些值算出 / What a tensor held at one moment, and the values it was computed from."""

    parents: list["_Value"]
    moment: int


class _Recorder(TorchFunctionMode):
    """记下每个值由哪些值算出 / Notes from which values each value was computed.

    就地写入给张量一个新的值，写入之前用过它的仍指向旧的值；共用内存的张量（视图和它的底）下次被读到时也换成新的。

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
        """此刻的值 / What it holds now."""
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
    return x.untyped_storage()._cdata if x.layout == torch.strided else id(x)


def _tensors(x: object) -> list[Tensor]:
    if isinstance(x, Tensor):
        return [x]
    if isinstance(x, dict):
        x = list(x.values())
    return [t for item in x for t in _tensors(item)] if isinstance(x, (tuple, list)) else []


def computed_arrows(forward: Callable[..., dict[str, Tensor]], inputs: dict[str, Tensor]) -> set[tuple[str, str]]:
    """真实计算里的箭头 / The arrows of the real computation.

    运行 `forward(**inputs)`，记下每一步运算。A → B：B 由 A 算出，且中间不经过别的有名字的张量。词元编号没有梯度，
    这里也看得见。看不见的是离开张量的计算：`.numpy()`、`.tolist()`、`.item()`，以及 vmap、编译成脚本的函数和
    inference_mode 里的就地写入。

    Runs `forward(**inputs)` and notes every operation. A → B: B was computed from A without passing through another
    named tensor. Token ids have no gradient and are seen all the same. Not seen is what leaves the tensors: `.numpy()`,
    `.tolist()`, `.item()`, nor vmap, scripted functions and in-place writes in inference mode.

    Raises: TypeError 输入或输出不是张量 / if an input or output is no tensor; ValueError 两个名字是同一个张量，或一个
    输出不由任何有名字的张量算出 / if two names are one tensor, or an output was computed from no named tensor.
    """
    _check_named(inputs)
    recorder = _Recorder()
    name_of = {recorder.value(x): name for name, x in inputs.items()}
    with recorder:
        outputs = forward(**inputs)
    _check_named(outputs)
    checks.require(not {id(x) for x in inputs.values()} & {id(x) for x in outputs.values()},
                   "一个输出就是一个输入，没有计算", "an output is an input itself: nothing was computed")
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
        checks.require(any(b == name for _, b in arrows),
                       f"{name} 不由任何有名字的张量算出，或者那步计算看不见",
                       f"{name} was computed from no named tensor, or in a way that is not seen")
    return arrows


def _check_named(tensors: dict[str, Tensor]) -> None:
    for name, x in tensors.items():
        checks.require(isinstance(x, Tensor), f"{name} 需要是张量，收到 {type(x).__name__}",
                       f"{name} must be a tensor, got {type(x).__name__}", TypeError)
    checks.require(len({id(x) for x in tensors.values()}) == len(tensors),
                   f"{', '.join(tensors)} 中有两个名字是同一个张量",
                   f"among {', '.join(tensors)} two names are one tensor")


@dataclass(frozen=True)
class Refusal:
    """应当报错 / An error is wanted: of this kind, with each of `says` in its message."""

    error: type[Exception] = ValueError
    says: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """练习的一个检查 / One check of an exercise: the call, what it must give, what it is about in both languages.

    给了 `of`，就调用它而不是答案：它自己用到答案，量出一个数来。

    With `of`, that is called and not the answer: it makes use of the answer itself and measures something of it.
    """

    args: tuple
    expected: float | Tensor | Refusal
    zh: str
    en: str
    hint: tuple[str, str] | None = None  # what this case alone gives away, in place of the hint of the exercise
    of: Callable[..., float | Tensor] | None = None


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


def check(answer: Callable[..., float | Tensor | None], cases: Sequence[Case], start: tuple[str, str],
          hint: tuple[str, str]) -> Verdict:
    """核对读者写的函数 / Check the function that a reader wrote.

    函数还空着（返回 None）时说 `start`：从哪里想起。写了以后逐个检查，停在第一个不对的地方，说出差在哪里和 `hint`。
    每次都传入新的副本，所以就地改动不会弄坏后面的检查。不会抛出错误，也不会中断笔记本。

    While the function is still empty (it returns None), says `start`: where to begin. Then it goes from case to case
    and stops at the first that is wrong, saying how it differs, and `hint`. Each call gets fresh copies, so that a
    change in place spoils no later case. It raises nothing and does not stop the notebook.
    """
    for case in cases:
        wanted, error, got = case.expected, None, None
        try:
            got = (case.of or answer)(*deepcopy(case.args))
        except Exception as raised:
            error = raised
        if error is None and (got is None or got is Ellipsis):
            return Verdict(False, f"还没有答案。{start[0]}", f"No answer yet. {start[1]}")
        if isinstance(wanted, Refusal):
            wrong = _not_refused(error, wanted)
        elif error is None:
            wrong = _differs(got, wanted)
        else:
            what = f"{type(error).__name__}: {error}"
            return Verdict(False, f"{case.zh}：你的代码抛出了 {what}", f"{case.en}: your code raised {what}")
        if wrong is not None:
            zh, en = ("", "") if wrong.is_kind else case.hint or hint
            return Verdict(False, f"{case.zh}：{wrong.zh}" + (f"。提示：{zh}" if zh else ""),
                           f"{case.en}: {wrong.en}" + (f". Hint: {en}" if en else ""))
    return Verdict(True, f"{len(cases)} 项检查全部通过", f"all {len(cases)} checks passed")


@dataclass(frozen=True)
class _Difference:
    zh: str
    en: str
    is_kind: bool = False  # another kind of thing, where a hint about the values would mislead


def _not_refused(error: Exception | None, wanted: Refusal) -> _Difference | None:
    """错误差在哪里 / How an error differs from the one that is wanted, None if it does not."""
    kind = wanted.error.__name__
    if error is None:
        return _Difference(f"应当抛出 {kind}，却没有报错", f"expected a {kind}, and there was no error")
    if not isinstance(error, wanted.error):
        came = f"{type(error).__name__}: {error}"
        return _Difference(f"应当抛出 {kind}，得到 {came}", f"expected a {kind}, got {came}")
    unsaid = ", ".join(word for word in wanted.says if word not in str(error))
    if not unsaid:
        return None
    return _Difference(f"{kind} 里应当说出 {unsaid}，得到：{error}",
                       f"the {kind} should tell {unsaid}, and says: {error}")


def _differs(got: object, expected: float | Tensor) -> _Difference | None:
    """答案差在哪里；None 表示没有 / How an answer differs, None if it does not; it never raises."""
    if isinstance(expected, Tensor):
        return _tensor_differs(got, expected)
    kind = _Difference(f"需要一个数，得到 {type(got).__name__}", f"expected one number, got {type(got).__name__}", True)
    if isinstance(got, (str, bytes, bytearray)):
        return kind
    try:
        value = float(got.detach() if isinstance(got, Tensor) else got)
    except Exception:
        return kind
    if abs(value - expected) < 1e-5:
        return None
    return _Difference(f"应为 {expected:.4g}，得到 {value:.4g}", f"expected {expected:.4g}, got {value:.4g}")


def _tensor_differs(got: object, expected: Tensor) -> _Difference | None:
    shape = checks.shape_of(expected)
    if not isinstance(got, Tensor) or got.is_complex() or got.shape != expected.shape or got.layout != torch.strided:
        came = checks.shape_of(got) if isinstance(got, Tensor) else type(got).__name__
        came += f" {got.dtype}" if isinstance(got, Tensor) and got.is_complex() else ""
        return _Difference(f"需要形状 {shape} 的张量，得到 {came}",
                           f"expected a tensor of shape {shape}, got {came}", True)
    x, wanted = (t.detach().cpu().double() for t in (got, expected))
    wrong = (~torch.isclose(x, wanted, rtol=1e-4, atol=1e-7)).nonzero()
    if len(wrong) == 0:
        return None
    at = tuple(wrong[0].tolist())
    return _Difference(f"位置 {list(at)} 应为 {wanted[at]:.4g}，得到 {x[at]:.4g}",
                       f"at {list(at)} expected {wanted[at]:.4g}, got {x[at]:.4g}")
