"""没有死按钮：一页可能遇到的每一种状态 / No dead control: every state that a page can be in.

Never run here, loaded again, in a second window, restarted, without a kernel, opened the next day; in JupyterLab and in
Jupyter Notebook, and as a page of Voila. What cannot be used says so, in both languages. Screenshots are written where
those of test_browser.py are.
"""

import importlib.util
import shutil

import pytest
from nbformat import write
from nbformat.v4 import new_code_cell, new_notebook

from tests.notebooks.stored import DOOR
from tests.notebooks.test_browser import SHOTS
from tests.notebooks.test_interruption import SETUP, STEP, TRAIN, button, says, trains
from tests.support import need_browser

pytestmark = pytest.mark.browser

CURVE = "() => document.querySelector('.jp-OutputArea .mm-curves img')?.src"
USABLE = """() => [...document.querySelectorAll('.jp-OutputArea :is(button, input, select, [role=slider])')]
    .filter(e => e.checkVisibility() && !e.disabled && !e.closest('[inert], .mm-switch, .mm-unseen'))
    .map(e => e.outerHTML.slice(0, 200))"""
SHOWN = """text => [...document.querySelectorAll('.jp-OutputArea [lang]')]
    .some(e => e.checkVisibility() && e.textContent.includes(text))"""
DOING = "() => [...document.querySelectorAll('.jp-OutputArea .mm-doing')].filter(e => e.checkVisibility()).length"
SHOW = """() => { const cell = window.jupyterapp.shell.currentWidget.content;
    cell.activeCellIndex = 2; cell.activeCell.model.sharedModel.setSource('from mmlessons import live\\nlive.show()');
    return window.jupyterapp.commands.execute('notebook:run-cell'); }"""
NO_KERNEL = {"zh": "这些控件背后没有内核", "en": "No kernel is behind these controls"}
PAGES = {"lab": "doc/tree", "notebook": "notebooks"}


def need(package):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"没有安装 {package} / {package} is not installed")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("states")
    notebook = new_notebook(cells=[new_code_cell(SETUP), new_code_cell(TRAIN), new_code_cell("print(2 + 2)")])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3 (ipykernel)"}
    for name in [*PAGES, "voila"]:
        write(notebook, folder / f"{name}.ipynb")
    shutil.copy(DOOR, folder)
    with need_browser().Lab(folder) as lab:
        yield lab


@pytest.fixture(scope="module", params=PAGES)
def kind(request):
    """Jupyter's two pages; tests that share one are run together."""
    if request.param == "notebook":
        need("notebook")
    return request.param


@pytest.fixture(scope="module")
def page(lab, kind):
    page = lab.open(f"{kind}.ipynb", at=PAGES[kind])
    page.run_all()
    page.wait_until_done()
    return page


def seen(page, name):
    """A screenshot in each language."""
    for language in ("zh", "en"):
        page.choose_language(language)
        page.screenshot(SHOTS / f"state-{name}-{language}.png")
    page.choose_language("both")


def moves(page):
    """The training goes on, and one sees it: steps, and the curve."""
    before = page.js(CURVE)
    trains(page)
    page.window.wait_for_function(f"before => ({CURVE})() !== before", arg=before, timeout=20_000)


def rests(page):
    """Nothing can be pressed, both languages say why, and no panel says that it trains."""
    page.window.wait_for_selector(".mm-panel .mm-asleep", timeout=20_000)
    assert page.js(USABLE) == []
    assert page.js(DOING) == 0
    for language, text in NO_KERNEL.items():
        page.choose_language(language)
        assert page.js(SHOWN, text)
    page.choose_language("both")


def test_a_file_that_was_never_run_here_shows_stills_and_says_how_to_begin(lab, kind):
    page = lab.open(DOOR.name, at=PAGES[kind])
    page.window.wait_for_selector(".jp-OutputArea img", timeout=20_000)
    assert not page.js("() => document.querySelector('.mm-switch').checkVisibility()")
    assert page.js(USABLE) == []
    assert page.js(SHOWN, "这个文件在这里还没有运行过")
    assert page.js(SHOWN, "This file has not been run here yet")
    assert "Error displaying widget" not in page.text()
    page.screenshot(SHOTS / f"state-{kind}-never-run.png")
    page.window.close()


def test_the_curve_is_seen_once_and_moves(page):
    moves(page)
    pictures = "() => [...document.querySelectorAll('.jp-OutputArea img')].filter(e => e.checkVisibility()).length"
    assert page.js(pictures) == 1


def test_loaded_again_before_it_was_saved_one_line_brings_the_panel_back(page, kind):
    trains(page)
    at = page.js(STEP)
    page.window.reload(wait_until="domcontentloaded")
    page.wait_until_ready()
    page.js(SHOW)
    page.window.wait_for_selector(".mm-panel .mm-status", timeout=20_000)
    moves(page)
    assert page.js(STEP) > at


def test_loaded_again_after_it_was_saved_the_panel_is_alive(page, kind):
    page.run_all()
    page.wait_until_done()
    trains(page)
    page.save_and_reload()
    moves(page)
    seen(page, f"{kind}-loaded-again")
    button(page, "Pause").click()
    says(page, "paused")
    button(page, "Resume").click()
    moves(page)


def test_in_a_second_window_the_same_training_is_seen_and_steered(lab, page, kind):
    other = lab.open(f"{kind}.ipynb", at=PAGES[kind])
    other.window.wait_for_selector(".mm-panel .mm-status", timeout=20_000)
    moves(other)
    button(other, "Pause").click()
    for one in (other, page):
        says(one, "paused")
    seen(other, f"{kind}-second-window")
    button(page, "Resume").click()
    for one in (other, page):
        moves(one)
    other.window.close()


def test_after_a_restart_of_the_kernel_no_panel_says_that_it_trains(page, kind):
    page.js("() => window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel.restart()")
    page.wait_until_ready()
    rests(page)
    seen(page, f"{kind}-restarted")


def test_run_again_after_the_restart_everything_moves(page):
    page.run_all()
    page.wait_until_done()
    moves(page)
    assert page.count(".mm-asleep, [inert]") == 0


def test_opened_the_next_day_it_shows_how_it_stood_and_says_why_nothing_moves(lab, page, kind):
    trains(page)
    page.end_kernel()
    page.window.close()
    again = lab.open(f"{kind}.ipynb", at=PAGES[kind])
    again.window.wait_for_selector(".mm-panel [role=slider]", timeout=20_000)
    again.settle(1)
    rests(again)
    assert again.js(STEP) > 0
    assert "Error displaying widget" not in again.text()
    seen(again, f"{kind}-next-day")
    assert not again.errors()
    again.window.close()


def test_as_a_page_of_voila_training_can_be_steered(lab):
    need("voila")
    window = lab.window("voila/render/voila.ipynb")
    window.wait_for_selector(".mm-panel .mm-status", timeout=90_000)
    page = need_browser().Page(window)
    moves(page)
    page.window.locator(".mm-panel button", has_text="Pause").click()
    says(page, "paused")
    window.locator(".mm-switch label:has(input[value=en])").click()
    window.screenshot(path=str(SHOTS / "state-voila-en.png"))
    window.locator(".mm-switch label:has(input[value=zh])").click()
    window.screenshot(path=str(SHOTS / "state-voila-zh.png"))
    assert page.js("() => document.querySelectorAll('.mm-asleep, [inert]').length") == 0
    window.close()
