"""变异：mutmut 把公式一处一处弄坏，看测试抓不抓得住 / Mutants: mutmut breaks the formulas one place at a time.

    python -m tests.mutants run                      # all of [tool.mutmut] in pyproject.toml: some hours
    python -m tests.mutants run "mmcore.ranking.*"   # one module
    python -m tests.mutants results                  # who survived
    python -m tests.mutants show NAME

mutmut leaves every decorated function alone; ours carry `@shapes` and are what it is here for.
"""

import os

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # it forks, and threads do not survive that

import libcst as cst
from mutmut.__main__ import cli
from mutmut.mutation.file_mutation import MutationVisitor

skips = MutationVisitor._skip_node_and_children


def skips_but_shapes(visitor: MutationVisitor, node: cst.CSTNode) -> bool:
    if isinstance(node, cst.FunctionDef) and node.decorators:
        calls = [decorator.decorator for decorator in node.decorators]
        if all(isinstance(call, cst.Call) and getattr(call.func, "value", "") == "shapes" for call in calls):
            node = node.with_changes(decorators=())
    return skips(visitor, node)


MutationVisitor._skip_node_and_children = skips_but_shapes
if __name__ == "__main__":
    cli()
