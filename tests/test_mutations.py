"""变异：每次轮到几个，看测试抓不抓得住 / Mutations: a few each time, in turn, and the tests must catch them.

全部都试：`python tests/mutations.py` / All of them: `python tests/mutations.py`.
"""

from datetime import date

import pytest
from mutations import MUTATIONS, ROOT, caught, mutate

EACH_TIME = 4
TODAY = [MUTATIONS[(date.today().toordinal() * EACH_TIME + k) % len(MUTATIONS)] for k in range(EACH_TIME)]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_still_finds_its_line_and_breaks_no_syntax(mutation) -> None:
    source = (ROOT / "mmcore" / mutation.file).read_text("utf-8")
    compile(mutate(source, mutation), mutation.file, "exec")


def test_every_fault_of_the_first_design_is_among_them() -> None:
    assert {mutation.fault for mutation in MUTATIONS} >= set(range(1, 18))
    assert len([mutation for mutation in MUTATIONS if mutation.fault is None]) >= 20
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)


@pytest.mark.parametrize("mutation", TODAY, ids=lambda mutation: mutation.name)
def test_what_is_broken_today_is_caught(mutation) -> None:
    assert caught(mutation)
