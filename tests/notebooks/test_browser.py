"""浏览器里的课 / The lessons in a browser, as a reader meets them.

Each lesson is run once, in a fixture; the tests below then look at it and touch it, in this order. What they write:
screenshots in both languages, both themes and two widths, in tests/artifacts/ or where MM_SHOTS says.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

from tests.notebooks.stored import WORKSHOPS, label
from tests.support import need_browser

pytestmark = pytest.mark.browser

SHOTS = Path(os.environ.get("MM_SHOTS") or Path(__file__).parents[1] / "artifacts")
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
TRAINING, SLIDER, SEARCH = r"\.Training\(", "[sS]lider", r"\bsearch_box\(|\bText\("
CONTROL = r"\.Training\(|\.slider\(|\.menu\(|\bsearch_box\("
DIAGRAM, FORMULA = r"(?m)^```mermaid", r"\$"
LANGUAGES = ["zh", "en"]
# Any two of a language, a theme and a screen meet; a workshop, which has the same styles, meets each of them once.
DRESSES = [("zh", "light", "phone"), ("en", "light", "projector"), ("en", "dark", "phone"), ("zh", "dark", "projector")]
FEWER = [("en", "light", "projector"), ("zh", "dark", "phone")]
SCREENS = {"phone": (390, 844), "tablet": (1024, 768), "projector": (1920, 1080)}
BACK = """() => window.jupyterapp.shell.activateById([...window.jupyterapp.shell.widgets('main')]
    .find(widget => widget.context?.path === '00_start_here.ipynb').id)"""
CURRENT = "name => window.jupyterapp.shell.currentWidget?.context?.path === name"


@dataclass
class Visit:
    """One lesson after Run All, still open."""

    lab: object
    page: object
    source: str
    drag: object

    def needs(self, pattern):
        """Skip a test about something that this lesson does not have, as its source says."""
        if not re.search(pattern, self.source):
            pytest.skip(f"{pattern} is not in this lesson")


@pytest.fixture(scope="module")
def visit(notebook):
    source = "\n\n".join(cell.source for cell in nbformat.read(notebook, 4).cells)
    with need_browser().Lab(notebook.parent) as lab:
        page = lab.open(notebook.name)
        page.run_all()
        drag = None
        if re.search(TRAINING, source):
            try:
                drag = page.drag_while_training()
            except Exception as error:  # the tests about sliders say so, the others go on
                drag = error
        page.wait_until_done()
        yield Visit(lab, page, source, drag)


def test_runs_without_an_error(visit):
    assert not visit.page.errors()


def test_a_slider_acts_while_training_runs(visit):
    visit.needs(TRAINING)
    assert getattr(visit.drag, "delay", None) is not None, visit.drag
    assert visit.drag.before != visit.drag.after
    assert visit.drag.delay < 2000, visit.drag


def test_every_widget_is_shown(visit):
    assert "Error displaying widget" not in visit.page.text()
    assert "Loading widget" not in visit.page.text()


def test_diagrams_are_drawn(visit):
    visit.needs(DIAGRAM)
    drawn = visit.page.count(".jp-RenderedMermaid svg, .jp-RenderedMermaid img")
    assert drawn == len(re.findall(DIAGRAM, visit.source))
    assert not visit.page.count(".jp-RenderedMermaid.jp-mod-warning")
    assert "Syntax error in text" not in visit.page.text()


def test_formulas_are_typeset(visit):
    visit.needs(FORMULA)
    assert visit.page.count("mjx-container")
    assert not visit.page.count("mjx-merror, [data-mjx-error]")


def test_no_markdown_is_left_as_it_was_typed(visit):
    """`**先猜：**看` stays as typed: Markdown wants the colon outside the asterisks."""
    prose = visit.page.js("""() => [...document.querySelectorAll('.jp-RenderedMarkdown')].map(cell => {
        const copy = cell.cloneNode(true);
        copy.querySelectorAll('code, pre, mjx-container').forEach(e => e.remove());
        return copy.textContent; })""")
    assert prose
    assert [text for text in prose if "**" in text or "$$" in text or "](http" in text] == []


def test_every_slider_has_a_name(visit):
    visit.needs(SLIDER)
    names = [handle.get_attribute("aria-label") for handle in visit.page.sliders()]
    assert names
    assert all(names), names


def test_a_slider_answers_the_keyboard(visit):
    visit.needs(SLIDER)
    handle, value = visit.page.sliders()[0], visit.page.value
    before = value(handle)
    for key, back in (("ArrowRight", "ArrowLeft"), ("ArrowLeft", "ArrowRight")):  # at its end only one of them can
        handle.focus()
        handle.press(key)
        visit.page.settle()
        if value(handle) != before:
            handle.press(back)
            return
    pytest.fail(f"neither arrow key moves {handle.get_attribute('aria-label')!r} from {before}")


def test_a_search_changes_the_pictures(visit):
    visit.needs(SEARCH)
    box = visit.page.window.locator(".jp-Notebook .widget-text input").first
    before, word = visit.page.pictures(), box.input_value(timeout=5000)
    for query in ("dog", "火"):
        box.fill(query)
        box.press("Enter")
        visit.page.settle(1)
        now = visit.page.pictures()
        assert now != before, query
        before = now
    box.fill(word)
    box.press("Enter")
    assert not visit.page.errors()


@pytest.mark.parametrize("language", LANGUAGES)
def test_one_language_hides_the_other(visit, language):
    visit.page.choose_language(language)
    other = "en" if language == "zh" else "zh"
    assert not visit.page.visible(other)
    assert visit.page.visible(language)


def test_both_languages_can_be_shown(visit):
    visit.page.choose_language("both")
    assert visit.page.visible("zh")
    assert visit.page.visible("en")


@pytest.fixture(scope="module", params=[*DRESSES, FEWER[1]], ids="-".join)
def dressed(visit, notebook, request):
    """The lesson in one language, one theme and one width; tests that share it are run together."""
    language, theme, screen = request.param
    if request.param not in (FEWER if notebook in WORKSHOPS else DRESSES):
        pytest.skip("looked at in other dresses")
    visit.page.choose_theme(THEMES[theme])
    visit.page.choose_language(language)
    with visit.page.size(*SCREENS[screen]):
        yield "-".join(request.param)


def test_nothing_sticks_out(visit, dressed):
    assert visit.page.sticking_out() == []


def test_what_is_wider_than_the_page_scrolls_and_is_seen_to(visit, dressed):
    assert visit.page.hidden_at_the_side() == []


def test_the_letters_of_a_diagram_can_be_read(visit, dressed):
    visit.needs(DIAGRAM)
    assert min(visit.page.letters_of_diagrams()) >= 9


def test_screenshot(visit, notebook, dressed):
    shot = SHOTS / f"{label(notebook)}-{dressed}.png"
    visit.page.screenshot(shot)
    assert shot.stat().st_size > 20_000


def test_axe_finds_no_serious_barrier_in_what_is_ours(visit, dressed):
    assert visit.page.barriers() == []


def test_on_a_small_projector_nothing_is_cut_off(visit):
    with visit.page.size(*SCREENS["tablet"]):
        assert visit.page.sticking_out() == []
        assert visit.page.hidden_at_the_side() == []
        assert all(letters >= 9 for letters in visit.page.letters_of_diagrams())


def test_every_control_moves_and_nothing_breaks(visit):
    """Each to its ends, each choice, each text also as rubbish, each button; after it only the reloads are left."""
    visit.needs(CONTROL)
    moved, wrong = visit.page.move_everything()
    assert moved
    assert wrong == []
    assert not visit.page.errors()


def test_the_language_survives_a_reload(visit):
    visit.page.choose_language("zh")
    visit.page.save_and_reload()
    assert visit.page.visible("zh")
    assert not visit.page.visible("en")


def test_widgets_survive_a_reload(visit):
    assert "Error displaying widget" not in visit.page.text()
    assert not visit.page.errors()


def test_a_lesson_and_the_glossary_are_one_click_away(visit):
    """大门通向每一课 / From the start page; last but the console, since it leaves this notebook."""
    visit.needs(r"(?m)^\| \[.*\.ipynb\)")
    link = visit.page.window.locator('.jp-RenderedMarkdown td a[href*=".ipynb"]').first
    name = re.search(r"[\w-]+\.ipynb", link.get_attribute("href"))[0]
    link.click()
    visit.page.window.wait_for_function(CURRENT, arg=name, timeout=20_000)
    visit.page.js(BACK)
    visit.page.window.locator('.jp-RenderedMarkdown a[href*="glossary.md"]:visible').first.click()
    visit.page.window.wait_for_selector(".jp-MarkdownViewer table td", timeout=20_000)


def test_nothing_left_the_machine(visit):
    assert not visit.lab.network()


def test_the_console_is_clean(visit):
    assert not visit.lab.console
