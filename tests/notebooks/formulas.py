"""读出有编号的公式 / Reads numbered formulas, from a page or a docstring."""

import re

_FORMULA = re.compile(r"\$\$([^$]+?)\\tag\{(\d+\.\d+)\}\s*\$\$")


def formulas(text: str) -> dict[str, str]:
    """{tag: formula} with single spaces; ValueError for a tag it cannot read, or one tag on two formulas."""
    read = _FORMULA.findall(text)
    written = len(re.findall(r"\\tag(?![a-zA-Z])", text))
    if written != len(read):
        raise ValueError(f"{written} \\tag, and {len(read)} could be read; write $$formula \\tag{{2.1}}$$")
    found: dict[str, str] = {}
    for body, tag in read:
        body = " ".join(body.split())
        if found.setdefault(tag, body) != body:
            raise ValueError(f"the number {tag} stands for two formulas: {found[tag]} and {body}")
    return found
