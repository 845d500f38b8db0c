"""听每个 assert 比较了什么 / Hears what each assert of a lesson compared, and with which values.

`watch(shell)` rewrites the asserts of each cell before it runs: each comparison hands over its operands and then
compares as before. `found` lists them in order: which cell, which comparison as the lesson writes it, how often it was
made, the lowest and the highest value of each operand. An assert without a comparison (`torch.equal(...)`) is listed as
it stands. The message of an assert, if it has one, tells the comparisons of a loop apart.
"""

import ast
import math
import operator

OPS = {ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq,
       ast.NotEq: operator.ne, ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
       ast.Is: operator.is_, ast.IsNot: operator.is_not}  # fmt: skip
SIGNS = {ast.Lt: "<", ast.LtE: "≤", ast.Gt: ">", ast.GtE: "≥", ast.Eq: "=", ast.NotEq: "≠"}
found = []  # one dict for each comparison
_places = {}  # (cell, line, text, message) → its dict
_nodes = []  # (operators, code of the comparison, line) that the rewritten code refers to


def numbers(value):
    """The lowest and the highest number in a value, or None if it holds no numbers."""
    if isinstance(value, (bool, str)):
        return None
    if hasattr(value, "numel"):
        return (float(value.min()), float(value.max())) if value.numel() and not value.is_complex() else None
    try:
        value = float(value)
    except (TypeError, ValueError):
        return None
    return (value, value) if math.isfinite(value) else None


class Rewrite(ast.NodeTransformer):
    """assert a < b  →  assert __mm_compare__(n, message, [a, b])"""

    def __init__(self):
        self.asserted = []

    def visit_Assert(self, node):
        message = node.msg or ast.Constant(None)
        self.asserted.append((message, node.lineno))
        before = len(_nodes)
        node.test = self.visit(node.test)
        self.asserted.pop()
        if len(_nodes) == before:  # no comparison in it
            _nodes.append(([], ast.unparse(node.test), node.lineno))
            node.test = call("__mm_check__", len(_nodes) - 1, message, node.test)
        return node

    def visit_Compare(self, node):
        if not self.asserted:
            return self.generic_visit(node)
        message, line = self.asserted[-1]
        _nodes.append(([type(op) for op in node.ops], ast.unparse(node), line))
        n = len(_nodes) - 1
        self.generic_visit(node)
        return call("__mm_compare__", n, message, ast.List([node.left, *node.comparators], ast.Load()))


    def visit_comprehension(self, node):
        node.iter = self.visit(node.iter)  # what its ifs compare chooses, and claims nothing
        return node


def call(name, n, message, value):
    return ast.Call(ast.Name(name, ast.Load()), [ast.Constant(n), message, value], [])


def watch(shell):
    """From now on, listen to every cell of this kernel."""

    class Cell(ast.NodeTransformer):
        def visit(self, tree):
            return ast.fix_missing_locations(Rewrite().visit(tree))

    def place(n, message):
        _, text, line = _nodes[n]
        cell = len(shell.user_ns["In"]) - 1  # execution_count has moved on already in some versions
        key = (cell, line, text, str(message))
        if key not in _places:
            _places[key] = {"cell": cell, "claim": text, "about": message, "times": 0, "values": []}
            found.append(_places[key])
        return _places[key]

    def compare(n, message, values):
        ops = _nodes[n][0]
        row, seen = place(n, message), [numbers(value) for value in values]
        if all(seen):
            row["times"] += max(value.numel() if hasattr(value, "numel") else 1 for value in values)
            old = row["values"] or seen
            row["values"] = [(min(a[0], b[0]), max(a[1], b[1])) for a, b in zip(old, seen, strict=True)]
            row["signs"] = [SIGNS.get(op, "?") for op in ops]
        else:
            row["times"] += 1
        holds = True
        for op, a, b in zip(ops, values, values[1:]):  # noqa: B905  (one shorter, on purpose)
            holds = OPS[op](a, b)
            if not hasattr(holds, "numel") and not holds:
                break
        return holds

    def check(n, message, value):
        place(n, message)["times"] += 1
        return value

    shell.user_ns["__mm_compare__"], shell.user_ns["__mm_check__"] = compare, check
    shell.ast_transformers.append(Cell())
