"""读者的练习：核对答案，说出差在哪里 / Readers' exercises: check an answer, and say how it differs."""

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from mmcore import checks
from mmlessons.border import typed
from mmlessons.live.output import bilingual


@typed
@dataclass(frozen=True)
class Refusal:
    """应当报错 / An error is wanted: of this kind, with each of `says` in its message."""

    error: type[Exception] = ValueError
    says: tuple[str, ...] = ()


@typed
@dataclass(frozen=True)
class Case:
    """练习的一个检查 / One check of an exercise: the call, what it must give, what it is about in both languages.

    With `of`, that is called and not the answer: it makes use of the answer itself and measures something of it.

    给了 `of`，就调用它而不是答案：它自己用到答案，量出一个数来。
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
                f"{bilingual((self.zh, self.en))}</div>")


@typed
def check(answer: Callable[..., float | Tensor | None], cases: Sequence[Case], start: tuple[str, str],
          hint: tuple[str, str]) -> Verdict:
    """核对读者写的函数 / Check the function that a reader wrote.

    While the function is still empty (it returns None), says `start`: where to begin. Then it goes from case to case
    and stops at the first that is wrong, saying how it differs, and `hint`. Each call gets fresh copies, so that a
    change in place spoils no later case. It raises nothing and does not stop the notebook.

    函数还空着（返回 None）时说 `start`：从哪里想起。写了以后逐个检查，停在第一个不对的地方，说出差在哪里和 `hint`。
    每次都传入新的副本，所以就地改动不会弄坏后面的检查。不会抛出错误，也不会中断笔记本。
    """
    checks.require(len(cases) > 0, "cases 需要至少一个检查", "cases must have one check at least")
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


@typed
@dataclass(frozen=True)
class Candidate:
    """读者的测试要考的一位 / One of those that a reader's test is tried on: what it is called with, and who it is."""

    args: tuple
    zh: str
    en: str


@typed
def separates(answer: Callable[..., float | Tensor | None], able: Sequence[Candidate], unable: Sequence[Candidate],
              start: tuple[str, str], hint: tuple[str, str], margin: float = 0.2) -> Verdict:
    """核对读者设计的测试 / Check a test that a reader designed: can it tell those who can from those who cannot?

    `answer(*candidate.args)` is the score that the test gives, one number, the higher the better. Each of `able` must
    score higher than each of `unable` by at least `margin`. As in `check`, an empty answer gets `start`, and nothing is
    raised.

    `answer(*candidate.args)` 是测试给的分，一个数，越高越好。`able` 里的每一位都要比 `unable` 里的每一位至少高出
    `margin`。与 `check` 一样，空着时说 `start`，不抛出错误。
    """
    checks.require(len(able) > 0 and len(unable) > 0, "able 和 unable 各需要至少一位",
                   "able and unable must have one candidate each at least")
    scores = []
    for who in [*able, *unable]:
        try:
            got = answer(*deepcopy(who.args))
        except Exception as raised:
            what = f"{type(raised).__name__}: {raised}"
            return Verdict(False, f"{who.zh}：你的代码抛出了 {what}", f"{who.en}: your code raised {what}")
        if got is None or got is Ellipsis:
            return Verdict(False, f"还没有答案。{start[0]}", f"No answer yet. {start[1]}")
        value = _number(got)
        if value is None or not math.isfinite(value):
            came = type(got).__name__ if value is None else f"{value}"
            return Verdict(False, f"{who.zh}：需要一个数，得到 {came}", f"{who.en}: expected one number, got {came}")
        scores.append(value)
    low = min(range(len(able)), key=scores.__getitem__)
    high = max(range(len(able), len(scores)), key=scores.__getitem__)
    good, bad = able[low], unable[high - len(able)]
    if scores[low] - scores[high] >= margin:
        return Verdict(True, f"分开了：{good.zh}至少得 {scores[low]:.2f}，{bad.zh}至多得 {scores[high]:.2f}",
                       f"Told apart: at least {scores[low]:.2f} for {good.en}, at most {scores[high]:.2f} for {bad.en}")
    return Verdict(False, f"分不开：{good.zh}得 {scores[low]:.2f}，{bad.zh}得 {scores[high]:.2f}。提示：{hint[0]}",
                   f"Not told apart: {scores[low]:.2f} for {good.en}, {scores[high]:.2f} for {bad.en}. "
                   f"Hint: {hint[1]}")


def _number(got: object) -> float | None:
    """It as a number, or None if it is none."""
    if isinstance(got, (str, bytes, bytearray)):
        return None
    try:
        return float(got.detach() if isinstance(got, Tensor) else got)
    except Exception:
        return None


@dataclass(frozen=True)
class _Difference:
    zh: str
    en: str
    is_kind: bool = False  # another kind of thing, where a hint about the values would mislead


def _not_refused(error: Exception | None, wanted: Refusal) -> _Difference | None:
    """How an error differs from the one that is wanted, None if it does not."""
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
    """How an answer differs, None if it does not; it never raises."""
    if isinstance(expected, Tensor):
        return _tensor_differs(got, expected)
    value = _number(got)
    if value is None:
        kind = type(got).__name__
        return _Difference(f"需要一个数，得到 {kind}", f"expected one number, got {kind}", True)
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
