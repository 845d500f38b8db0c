"""场景的说明：一到三样东西，谁在谁的哪一边 / Captions of scenes: one to three things, and who is on which side of whom.

先说的那一样说它在哪个角，其余的都说在它的哪一边。按什么次序说，由 `order` 定：阅读的次序，或者反过来；次序不是藏着的，
所以每个场景、每种语言、每种次序只有一句对的话。

The thing named first gets its corner, and every other one the side of it on which it stands. `order` says in which
order things are named: as one reads, or the other way round. Nothing about the order is hidden, so that each scene has
exactly one right caption for each language and order.
"""

from collections.abc import Sequence

from mmcore import checks
from mmlessons.border import typed
from mmlessons.data.scenes.things import LANGUAGES, PLACES, THINGS

ORDERS = ("reading", "reverse")  # from the top left on, or from the bottom right back
MOST_NAMED = 3
RELATIONS = {  # (rows down, columns to the right): where the other thing is, seen from the one named first
    (0, 1): ("它右边", "to its right"), (0, -1): ("它左边", "to its left"),
    (1, 0): ("它下面", "below it"), (-1, 0): ("它上面", "above it"),
    (1, 1): ("它右下方", "to its lower right"), (1, -1): ("它左下方", "to its lower left"),
    (-1, 1): ("它右上方", "to its upper right"), (-1, -1): ("它左上方", "to its upper left"),
}


@typed
def caption(cells: Sequence[int], language: str = "en", order: str = "reading") -> str:
    """一个场景的说明 / The caption of a scene: caption([0, 1, -1, -1]) → "A dog at the top left, a cat to its right."

    `cells`：四格的事实，一到三格有东西，其余是 −1 / the facts of the four cells, one to three filled, the others −1.
    """
    checks.one_of(language, "language", LANGUAGES)
    checks.one_of(order, "order", ORDERS)
    checks.require(len(cells) == len(PLACES) and all(-1 <= thing < len(THINGS) for thing in cells),
                   f"cells 需要 {len(PLACES)} 个数，每个在 −1（空）与 {len(THINGS) - 1} 之间",
                   f"cells must be {len(PLACES)} numbers from −1 (empty) to {len(THINGS) - 1}")
    filled = [cell for cell in range(len(PLACES)) if cells[cell] >= 0]
    checks.require(1 <= len(filled) <= MOST_NAMED, f"说明只说 1 到 {MOST_NAMED} 样东西，图里有 {len(filled)} 样",
                   f"a caption names 1 to {MOST_NAMED} things, the picture has {len(filled)}")
    if order == "reverse":
        filled.reverse()
    first = filled[0]
    k = LANGUAGES.index(language)
    parts = []
    for cell in filled:
        thing, said = THINGS[cells[cell]], relation(first, cell)
        if cell == first:
            parts.append(f"{PLACES[cell][k]}有{thing.counted(1, 'zh')}" if k == 0
                         else f"{thing.article} at the {PLACES[cell][k]}")
        else:
            parts.append(f"{said[k]}有{thing.counted(1, 'zh')}" if k == 0 else f"{thing.article} {said[k]}")
    if k == 0:
        return "，".join(parts) + "。"
    line = ", ".join(parts) + "."
    return line[0].upper() + line[1:]


def relation(first: int, cell: int) -> tuple[str, str]:
    """从一格看另一格在哪一边 / Where a cell is, seen from another: relation(0, 3) → ("它右下方", "to its lower right").

    两格相同时没有哪一边，返回一对空字符串 / The same cell is on no side of itself: a pair of empty strings.
    """
    return RELATIONS.get((cell // 2 - first // 2, cell % 2 - first % 2), ("", ""))


def every_word() -> list[str]:
    """说明里的每个词都至少出现一次的一批说明 / Captions in which every word of any caption occurs: for a vocabulary."""
    alone = [[thing, -1, -1, -1] for thing in range(len(THINGS))]
    two = [[0 if cell in (a, b) else -1 for cell in range(len(PLACES))] for a in range(4) for b in range(a + 1, 4)]
    corners = [[0 if cell == a else -1 for cell in range(len(PLACES))] for a in range(4)]
    return [caption(cells, language, order) for cells in (*alone, *two, *corners) for language in LANGUAGES
            for order in ORDERS]
