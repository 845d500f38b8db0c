"""打断与乱来，在真实的 JupyterLab 里 / Interruption and misuse, in a real JupyterLab.

A tiny notebook that trains a line without an end; each test treats it as an impatient reader would.
"""

import re
import textwrap

import pytest
from nbformat import write
from nbformat.v4 import new_code_cell, new_notebook

from tests.support import need_browser

pytestmark = pytest.mark.browser

SETUP = "import torch\n\nfrom mmcore.training import optimize\nfrom mmlessons import live\n\nlive.page()"
TRAIN = textwrap.dedent("""\
    def reset():
        global model, optimizer
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)


    def step(lr):
        optimizer.param_groups[0]["lr"] = lr
        x = torch.randn(8, 3)
        return {"loss": optimize(model, optimizer, lambda: ((model(x) - x[:, :1]) ** 2).mean())}


    run = live.Training(step, 100_000, [live.Plot("损失", "loss", {"loss": ("损失", "loss")})], every=50, reset=reset,
                        sliders={"lr": live.slider("步长", "step size", 0.01, 1e-4, 1e6, log=True)},
                        keeps=lambda: (model, optimizer))
    run.start()""")
STEP = "() => Number((document.querySelector('.jp-Notebook .mm-status')?.textContent.match(/第 (\\d+)/) || [0, 0])[1])"
STATUS = "() => document.querySelector('.jp-Notebook .mm-status')?.textContent || ''"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("impatient")
    for name in ("one", "two"):
        notebook = new_notebook(cells=[new_code_cell(SETUP), new_code_cell(TRAIN), new_code_cell("print(2 + 2)")])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3 (ipykernel)"}
        write(notebook, folder / f"{name}.ipynb")
    with need_browser().Lab(folder) as lab:
        yield lab


@pytest.fixture(scope="module")
def page(lab):
    page = lab.open("one.ipynb")
    page.run_all()
    page.wait_until_done()
    return page


def trains(page, more=30, seconds=30):
    """Wait until the step number has risen by so many."""
    now = page.js(STEP)
    page.window.wait_for_function(f"([now, more]) => ({STEP})() >= now + more", arg=[now, more], timeout=seconds * 1000)


def says(page, text, seconds=20):
    page.window.wait_for_function(f"text => ({STATUS})().includes(text)", arg=text, timeout=seconds * 1000)


def button(page, text):
    return page.window.locator(".mm-panel button", has_text=text).first


def test_a_slider_dragged_wildly_for_ten_seconds_breaks_nothing(page):
    trains(page)
    handle, mouse = page.sliders()[0], page.window.mouse
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    mouse.move(x, y)
    mouse.down()
    for k in range(200):
        mouse.move(x + (-1) ** k * (k * 7 % 40), y + k % 9)
        page.settle(0.05)
    mouse.move(x, y)
    mouse.up()
    page.settle(1)
    trains(page)
    shown = page.value(handle)
    used = page.js("() => document.querySelector('.jp-Notebook .mm-values').textContent")
    assert float(re.search(r"lr=([\d.e+-]+)", used)[1]) == pytest.approx(shown, rel=0.02)
    assert not page.errors()


def test_the_cell_run_again_while_it_trains_starts_anew_and_the_other_cells_run(page):
    trains(page)
    page.run_all()
    page.wait_until_done()
    trains(page)
    assert page.count(".mm-panel") == 1
    assert "4" in page.js("() => [...document.querySelectorAll('.jp-OutputArea-output')].at(-1).textContent")
    assert not page.errors()


def test_stop_in_the_middle_pauses_and_resume_goes_on(page):
    trains(page)
    page.command("notebook:interrupt-kernel")
    says(page, "paused")
    at = page.js(STEP)
    page.settle(1)
    assert page.js(STEP) == at
    button(page, "Resume").click()
    trains(page)
    assert not page.errors()


def test_a_loss_that_explodes_is_said_and_back_to_good_weights_is_one_click(page):
    handle = page.sliders()[0]
    handle.focus()
    handle.press("End")  # a step size of a million
    says(page, "stopped by an error")
    assert "FloatingPointError" in page.text()
    handle.press("Home")
    button(page, "Back to step").click()
    says(page, "paused")
    button(page, "Resume").click()
    trains(page)
    assert "FloatingPointError" not in page.text()


def test_two_notebooks_train_at_once_and_neither_feels_the_other(lab, page):
    other = lab.open("two.ipynb")
    other.run_all()
    other.wait_until_done()
    for one in (page, other, page):
        trains(one)
    other.command("notebook:interrupt-kernel")
    says(other, "paused")
    trains(page)
    assert not page.errors() + other.errors()
    other.window.close()


def test_after_a_restart_of_the_kernel_the_notebook_runs_anew(page):
    page.js("() => window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel.restart()")
    page.wait_until_ready()
    page.run_all()
    page.wait_until_done()
    trains(page)
    assert not page.errors()


def test_opened_again_the_next_day_the_panel_is_there_without_running_anything(lab, page):
    button(page, "Pause").click()
    says(page, "paused")
    at = page.js(STEP)
    page.end_kernel()
    page.window.close()
    again = lab.open("one.ipynb")
    again.window.wait_for_selector(".mm-panel [role=slider]", timeout=20_000)
    assert again.js(STEP) == at
    assert "Error displaying widget" not in again.text()
    assert again.js("() => [...document.querySelectorAll('.jp-RenderedImage img')].length") == 1  # the curve
    again.window.close()


def test_the_console_stays_clean(lab, page):
    assert not lab.console
    assert not lab.network()
