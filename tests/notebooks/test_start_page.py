"""大门与术语表 / The start page and the glossary: the map is true, and one thing has one name."""

import ast
import re
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest

from tests.notebooks import stored
from tests.notebooks.stored import DOOR, LESSONS, NOTEBOOKS, WORKSHOPS, label

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
LINK = re.compile(r"\[([^]]+)\]\(([^)#\s]+)\)")
ROW = re.compile(r"^\| *\[(?P<title>[^]]+)\]\((?P<file>[^)]+\.ipynb)\) *\| *<div lang=\"zh\">(?P<zh>.+?)</div>"
                 r"<div lang=\"en\">(?P<en>.+?)</div> *\| *(?P<read>\d+) *\| *(?P<compute>[\d.]+) *\|(?P<first>.*)\|$",
                 re.M)
README_ROW = re.compile(r"^\| *\[(?P<title>[^]]+)\]\(notebooks/(?P<file>[^)]+\.ipynb)\) *\| *(?P<question>.+?) *\| *"
                        r"(?P<read>\d+) min，计算约 (?P<compute>[\d.]+) min / computing (?P<again>[\d.]+) min *\|.*\|$",
                        re.M)
FORGOTTEN = "a lesson needs one row in the map of 00_start_here.ipynb and one in the table of README.md"


MAP = {row["file"]: row for text in stored.prose_cells(DOOR) for row in ROW.finditer(text)}
TABLE = {row["file"]: row for row in README_ROW.finditer(README)}


# -- the map ----------------------------------------------------------------------------------------------------------

def test_every_lesson_is_on_the_map_and_in_the_readme_and_nothing_else_is():
    names = [path.name for path in LESSONS]
    assert sorted(MAP) == names, FORGOTTEN  # in the order of the two strands
    assert [name for name in TABLE if name != DOOR.name] == list(MAP), FORGOTTEN


def test_every_row_that_links_to_a_notebook_could_be_read():
    """A row that `ROW` cannot read would be a row that nothing checks."""
    rows = [line for text in stored.prose_cells(DOOR) for line in text.splitlines() if line.startswith("| [")]
    assert len(rows) == len(MAP)
    assert len(re.findall(r"^\| *\[.*notebooks/.*\.ipynb", README, re.M)) == len(TABLE)


def test_the_map_says_what_the_readme_and_the_lessons_say():
    for path in LESSONS:
        row, other = MAP[path.name], TABLE[path.name]
        assert row["title"] == other["title"]
        number, _, title = row["title"].partition(" ")
        assert path.stem.startswith(number + "_")
        assert f"{row['zh']} {row['en']}" == other["question"]
        assert row["read"] == other["read"]
        assert row["compute"] == other["compute"] == other["again"]
        heading = stored.HEADING.findall(stored.prose_cells(path)[0])[0]
        for part in title.split(" · "):  # the lesson's own title, in both languages
            assert part in heading


def before(name, seen=()):
    """Everything to be read before this lesson, through others as well."""
    assert name not in seen, f"{name} would have to be read before itself"
    direct = [target for _, target in LINK.findall(MAP[name]["first"])]
    return set(direct).union(*(before(other, (*seen, name)) for other in direct))


def test_what_is_to_be_read_first_is_a_lesson_and_never_the_lesson_itself():
    for name, row in MAP.items():
        assert before(name) <= set(MAP)
        for shown, target in LINK.findall(row["first"]):
            assert target.startswith(shown + "_")


def test_of_two_lessons_that_share_a_formula_one_is_to_be_read_before_the_other_or_a_third_before_both():
    """什么建立在什么之上，由公式作证 / What builds on what: the formulas bear witness."""
    tags = {path.name: set(re.findall(r"\\tag\{([\d.]+)\}", "\n".join(stored.prose_cells(path)))) for path in LESSONS}
    for one in MAP:
        for other in MAP:
            if one < other and one not in before(other) and other not in before(one):
                explained = set().union(*(tags[third] for third in before(one) & before(other)))
                assert not tags[one] & tags[other] - explained, (one, other)


def test_the_stored_check_of_the_machine_names_every_data_set():
    """A stale page would vouch for the data of yesterday."""
    printed = "\n".join(text for _, text in stored.texts(nbformat.read(DOOR, 4)))
    sets = [path.parent.name for path in (ROOT / "mmlessons/data").glob("*/CARD.md")]
    assert sets
    assert [name for name in sets if name not in printed] == []


@pytest.mark.parametrize("path", [DOOR, DOOR.parent / "glossary.md", ROOT / "README.md"], ids=lambda p: p.name)
def test_every_relative_link_exists(path):
    text = "\n".join(stored.prose_cells(path)) if path.suffix == ".ipynb" else path.read_text("utf-8")
    links = [target for _, target in LINK.findall(text) if not target.startswith("http")]
    assert path.name == "glossary.md" or "glossary.md" in " ".join(links)
    assert [target for target in links if not (path.parent / target).exists()] == []


def test_every_link_of_an_html_export_exists():
    from nbconvert import HTMLExporter

    html = HTMLExporter().from_filename(str(DOOR))[0]
    body = html[html.index("<main") if "<main" in html else html.index("<body"):]
    links = {unquote(link) for link in re.findall(r'<a\b[^>]*\bhref="([^"#]+)"', body) if "://" not in link}
    assert {*MAP, "glossary.md"} <= links
    assert [link for link in links if not (DOOR.parent / link).exists()] == []


def test_the_first_command_of_the_readme_opens_the_start_page():
    command = re.search(r"```bash\n(.*)\n```", README)[1]
    assert command.endswith("jupyter lab --config=jupyter_lab_config.py notebooks/" + DOOR.name)


# -- a lesson as a whole ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("path", LESSONS, ids=label)
def test_a_lesson_fits_into_a_double_period(path):
    assert len(nbformat.read(path, 4).cells) <= stored.MOST_CELLS


def test_every_lesson_has_a_workshop_and_a_page_for_teachers_and_they_lead_to_each_other():
    assert [path.name for path in WORKSHOPS] == [path.name for path in LESSONS]
    for lesson, workshop in zip(LESSONS, WORKSHOPS, strict=True):
        links = {target for text in stored.prose_cells(lesson) for _, target in LINK.findall(text)}
        assert {f"workshops/{lesson.name}", f"../docs/teachers/{lesson.stem}.md"} <= links, lesson.name
        assert f"](../{lesson.name})" in "\n".join(stored.prose_cells(workshop))
        assert (ROOT / f"docs/teachers/{lesson.stem}.md").is_file()


@pytest.mark.parametrize("path", [DOOR, *LESSONS, *WORKSHOPS], ids=label)
def test_sentences_are_not_chained_by_semicolons(path):
    """分号少，句子才一读就懂 / Few semicolons, so that a sentence is understood on first reading."""
    chinese, english = (" ".join(part) for part in zip(*halves(path), strict=True))
    characters, words = len(stored.CHINESE.findall(chinese)), len(stored.ENGLISH.findall(english))
    assert chinese.count("；") < 1 + 4 * characters / 1000
    assert english.count(";") < 1 + 8 * words / 1000
    assert len(re.findall(r"\balone\b", english)) < 1 + words / 1000


# -- the glossary -----------------------------------------------------------------------------------------------------

GLOSSARY = (DOOR.parent / "glossary.md").read_text("utf-8")
CELLS = [[cell.strip() for cell in line.strip("|").split("|")] for line in GLOSSARY.splitlines()
         if line.startswith("|") and not re.match(r"\|(-|:| *中文| *不用)", line)]
TERMS = {row[0]: [row[1], *filter(None, row[2].split(", "))] for row in CELLS if len(row) == 4}
AVOID = {row[0]: row[1] for row in CELLS if len(row) == 3}


def halves(path):
    """(Chinese, English) of every Markdown cell, without code, links' addresses and papers' titles."""
    for text in stored.prose_cells(path):
        found, _ = stored.blocks(stored.FENCE.sub("", text))
        parts = [" ".join(content for language, content in found if language == which) for which in ("zh", "en")]
        yield tuple(stored.LINK.sub(" ", stored.INLINE_CODE.sub(" ", part)) for part in parts)


def says(english, forms):
    return any(re.search(r"(?<![a-z])" + re.escape(form), english, re.I) for form in forms)


def docstrings():
    for path in (ROOT / "mmcore").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                yield ast.get_docstring(node) or ""


def test_the_glossary_has_one_row_for_a_term_and_a_line_in_both_languages():
    rows = [row for row in CELLS if len(row) == 4]
    assert len(TERMS) == len(rows) > 40
    assert len({row[1] for row in rows}) == len(rows)
    for zh, en, _, line in rows:
        assert stored.CHINESE.search(line), zh
        assert len(stored.ENGLISH.findall(line)) > 2, zh
        assert stored.ENGLISH.search(en), zh
    assert set(AVOID) & set(TERMS) == set()
    known = " ".join([*TERMS, *(form for forms in TERMS.values() for form in forms)])
    better = [other for other in AVOID.values() if stored.CHINESE.search(other)]
    assert [other for other in better if other not in known and other[2:] not in known] == []


def test_the_glossary_holds_terms_that_are_used():
    text = " ".join([*("\n".join(stored.prose_cells(path)) for path in NOTEBOOKS), *docstrings()])
    assert [zh for zh in TERMS if zh not in text] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=label)
def test_a_lesson_translates_each_term_as_the_glossary_does(path):
    """中文用了一个词，同一格的英文就用它的译法 / Where the Chinese has a term, the English has its partner in the cell.

    英文的句子有时不必说出这个词，所以一课里每个词可以有一格（或四分之一）不说；换成别的词，就会超过。反过来不查：
    英文的 test、order、weight 常有别的意思。

    English prose may at times leave the word unsaid, so for each term one cell of a lesson (or a quarter) may; another
    translation would be more than that. The other direction is not tested: test, order, weight often mean something
    else in English.
    """
    cells, wrong = list(halves(path)), []
    for zh, forms in TERMS.items():
        used = [english for chinese, english in cells if zh in chinese]
        unsaid = [english for english in used if not says(english, forms)]
        if len(unsaid) > max(1, len(used) // 4) or (len(used) > 1 and len(unsaid) == len(used)):
            wrong.append(f"{zh}: {len(unsaid)} of {len(used)} English halves have none of {forms}, "
                         f"the first being: {unsaid[0].strip()[:80]!r}")
    assert not wrong, "\n".join([*wrong, "use the glossary's term, or add the form to notebooks/glossary.md"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=label)
def test_a_lesson_uses_no_second_name_for_one_thing(path):
    code = "\n".join(cell.source for _, cell in stored.code(nbformat.read(path, 4)))
    chinese, english = (" ".join(part) for part in zip(*halves(path), strict=True))
    wrong = {word: better for word, better in AVOID.items()
             if (word in chinese + code if stored.CHINESE.search(word) else says(english, [word]))}
    assert not wrong, f"{path.name}: write {wrong}"
