"""课里断言的清单 / The list of what the lessons assert: docs/claims.md, made from a run of each.

    python tests/claims.py            # runs every lesson and writes the list
    python tests/claims.py 03 06      # those alone, and keeps what the list says of the others

`test_notebooks.py` holds the list against its own run of each lesson.
"""

import re
from pathlib import Path

from tests.harness import comparisons

LIST = Path(__file__).parents[2] / "docs" / "claims.md"
HEAD = """# 这些课断言了什么 · What the lessons assert

<div lang="zh">

这份清单由 `python tests/claims.py` 运行每一课得来，不是手写的；测试每次重新运行，再与它核对。“比较”是笔记本里的代码；
“数值”是这一次运行里每一项的最小与最大；“次数”是比较了多少回，三个种子就是三回或三的倍数。没有数值的，是整体相等一类
的核对。表的上方，先是这一格自己下的结论，再是（以 > 开头）紧挨着它的正文里比较了什么的句子。每课最后是不在断言旁边的
比较，各由哪一格的断言守着，或者为什么用不着。

</div>
<div lang="en">

This list comes from a run of each lesson by `python tests/claims.py`, not from anybody's hand; the tests run the
lessons anew and hold it against that. “Comparison” is the code in the notebook, “values” are the lowest and the highest
of each of its terms in that run, and “times” says how often it was made: with three seeds three times, or a multiple of
it. Where there are no values, something is checked as a whole, such as that two tensors are equal. Above a table stand
first the conclusion of the cell itself, then, after a >, the sentences of the prose beside it that compare. Each lesson
ends with those comparisons that stand beside no assert: by which one they are held, or why they need none.

</div>
"""
APART_HEAD = ("| 不在断言旁边的比较 comparisons beside no assert "
              "| 由谁守着，或为什么用不着 held by which, or why by none |")
NUMBER = re.compile(r"−?\d+(?:\.\d+)?(?:e[+-]\d+)?")


def number(x):
    text = f"{x:.0f}" if float(x).is_integer() and abs(x) < 1e5 else f"{x:.3g}" if abs(x) < 1e-3 else f"{x:.3f}"
    return text.replace("-", "−", 1) if text.startswith("-") else text


def interval(low, high):
    low, high = number(low), number(high)
    return low if low == high else f"{low} … {high}"


def said(cell):
    """What `live.note` says in a cell, in both languages."""
    return [output["data"]["text/plain"] for output in cell.outputs
            if "mm-note" in output.get("data", {}).get("text/html", "")]


def section(run):
    """What the list is to say of a lesson after a run of it, as lines."""
    cells = {cell.execution_count: cell for _, _, cell in run.cells}
    beside, apart, _ = comparisons.sort(run.stored, run.name)
    prose = {cell.execution_count: beside.get(i, []) for i, _, cell in run.cells}
    lines, before = [f"## {run.name}"], None
    for claim in run.claims:
        if claim["cell"] != before:
            before = claim["cell"]
            lines += ["", *(f"{sentence}  " for sentence in said(cells[before])), "",
                      *(f"> {sentence}  " for sentence in prose.pop(before, ())), "",
                      "| 比较 comparison | 数值 values | 次数 times |", "|---|---|---|"]
        about = " · ".join(claim["about"]) + ": " if isinstance(claim["about"], list) and claim["about"] else ""
        values = [interval(*pair) for pair in claim["values"]]
        signs = [*claim.get("signs", []), ""]
        shown = " ".join(f"{value} {sign}" for value, sign in zip(values, signs, strict=False)).strip()
        code = " ".join(claim["claim"].split()).replace("|", "\\|")
        lines.append(f"| {about}`{code}` | {shown} | {claim['times']} |")
    if apart:
        lines += ["", APART_HEAD, "|---|---|"]
    for sentence, why in apart.items():
        reason = " / ".join(comparisons.REASONS[why]) if why in comparisons.REASONS else f"`{why}`"
        lines.append(f"| {sentence} | {reason} |".replace("\n", " "))
    return lines


def stored(path):
    """What the list says of one lesson now."""
    parts = re.split(r"(?m)^(?=## )", LIST.read_text("utf-8"))
    return next((part.splitlines() for part in parts if part.startswith(f"## {path.stem}\n")), [])


def alike(one, other):
    """The same words, and numbers that another machine may give as well."""
    def close(a, b):
        a, b = (float(x.replace("−", "-")) for x in (a, b))
        return abs(a - b) <= 0.03 + 0.05 * max(abs(a), abs(b))
    columns = [line.rsplit("|", 3) for line in (one, other)]  # …, values, times, end
    if min(map(len, columns)) < 4 or not columns[0][0].strip():  # a sentence, or a row of two columns
        return one == other
    (claim, values, *rest), (claim2, values2, *rest2) = columns
    numbers = [NUMBER.findall(v.replace("…", " ")) for v in (ends(values), ends(values2))]
    return (claim, rest) == (claim2, rest2) and len(numbers[0]) == len(numbers[1]) and all(map(close, *numbers))


def ends(values):
    """Each interval with both its ends: a single number is an interval whose ends are alike."""
    return " ".join(part if "…" in part or not NUMBER.search(part) else f"{part} … {part}"
                    for part in re.split(r" [<>≤≥=≠?] ", values.strip()))
