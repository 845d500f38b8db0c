"""书页上的源代码：包里正在用的那几行 / Source code on the page: the very lines of the package that run."""

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

from mmcore.checks import refuse


@dataclass(frozen=True)
class Source:
    """几段源代码 / Some pieces of source code."""

    code: str

    def _repr_markdown_(self) -> str:
        return f"```python\n{self.code}\n```"

    def __repr__(self) -> str:
        return self.code


def source(*things: Callable) -> Source:
    """函数、方法或类的源代码 / The source of functions, methods or classes.

    It is read from the package when the cell runs, so that it is what computes. Left out are docstrings and what
    only looks at the input, `@shapes` and `@typed`. Raises TypeError if one of them has no source.

    运行这一格时才从包里读出，所以它就是正在计算的代码。略去了文档和只核对输入的 `@shapes`、`@typed`。有一样没有源代码
    时报 TypeError。
    """
    return Source("\n\n".join(_code(thing) for thing in things))


def _code(thing: Callable) -> str:
    try:
        code = textwrap.dedent(inspect.getsource(thing))
    except (TypeError, OSError):
        refuse(f"{thing!r} 没有源代码", f"{thing!r} has no source", TypeError)
    lines, gone = code.rstrip().split("\n"), set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            if ast.get_docstring(node) and len(node.body) > 1:
                after = node.body[1]
                first = min([after.lineno, *(d.lineno for d in getattr(after, "decorator_list", []))])
                gone |= set(range(node.body[0].lineno, first))
            for decorator in node.decorator_list:
                if getattr(getattr(decorator, "func", decorator), "id", None) in ("shapes", "typed"):
                    gone |= set(range(decorator.lineno, decorator.end_lineno + 1))
    home = f"# {thing.__qualname__}, {thing.__module__.replace('.', '/')}.py"
    return "\n".join([home, *(line for number, line in enumerate(lines, 1) if number not in gone)])
