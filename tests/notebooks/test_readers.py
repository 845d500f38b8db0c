"""读的人自己也要会失败 / The readers of notebooks and pages must fail too.

Each flaw they exist for is made here once, in tiny notebooks, and must be seen.
"""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.notebooks import stored
from tests.support import need_browser

KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}


def lesson(*cells):
    """A notebook as if stored after a run: a str is Markdown, a pair is code with what it printed."""
    notebook, count = new_notebook(metadata={"kernelspec": KERNEL}), 0
    for cell in cells:
        if isinstance(cell, str):
            notebook.cells.append(new_markdown_cell(cell))
            continue
        source, printed = cell
        count += 1
        outputs = [new_output("stream", name="stdout", text=printed)] if printed else []
        notebook.cells.append(new_code_cell(source, outputs=outputs, execution_count=count))
    return notebook


# --- as committed -----------------------------------------------------------------------------------------------------

PAIR = '<div lang="zh">\n\n温度 $\\tau$ 越小越尖锐。\n\n</div>\n<div lang="en">\n\nA small $\\tau$ sharpens.\n\n</div>'
DIAGRAM = "```mermaid\nflowchart LR\n A --> B\n```\n\n$$a$$"
PICTURE = "data:image/png;base64,AAAA"
GOOD = ("# 检索 · Retrieval\n\n" + PAIR, ("print('3 × 4')", "3 × 4\n"), DIAGRAM)


def with_output(**changes):
    notebook = lesson(*GOOD)
    notebook.cells[1].update(changes)
    return notebook


def html(text):
    return with_output(outputs=[new_output("display_data", data={"text/html": text})])


def error(tags=()):
    notebook = with_output(outputs=[new_output("error", ename="ValueError", evalue="no", traceback=[])])
    notebook.cells[1].metadata["tags"] = list(tags)
    return notebook


@pytest.mark.parametrize("check", stored.CHECKS, ids=lambda check: check.__name__)
def test_a_good_lesson_passes(check):
    assert not list(check(lesson(*GOOD)))


BAD = {
    "a cell never run": (stored.execution_order, with_output(execution_count=None)),
    "a cell run twice": (stored.execution_order, with_output(execution_count=2)),
    "an error": (stored.clean_outputs, error()),
    "a warning": (stored.clean_outputs, with_output(outputs=[new_output("stream", name="stderr", text="careful")])),
    "no English block": (stored.both_languages, lesson(PAIR.replace('lang="en"', ""))),
    "two Chinese blocks": (stored.both_languages, lesson(PAIR.replace('lang="en"', 'lang="zh"'))),
    "an English block in Chinese": (stored.both_languages, lesson(PAIR.replace("A small", "一个很小的"))),
    "a formula in one block only": (stored.both_languages, lesson(PAIR.replace("越小", "$$x$$"))),
    "a stub of a translation": (stored.both_languages, lesson(PAIR.replace("越小越尖锐", "越小越尖锐" * 12))),
    "prose for nobody": (stored.both_languages, lesson(PAIR + "\n\nThis sentence is in no block.")),
    "a Chinese sentence for nobody": (stored.both_languages, lesson(PAIR + "\n\n这句话不在块里。")),
    "a heading in one language": (stored.headings, lesson("# Retrieval")),
    "a heading in a block": (stored.headings, lesson("# 一 One\n" + PAIR.replace("温度", "\n## 二 Two\n"))),
    "a path": (stored.machine_traces, html("/home/me/x.py:3")),
    "an address in memory": (stored.machine_traces, html("&lt;A at 0x7f12345678&gt;")),
    "a script from elsewhere": (stored.loads_nothing, html('<script src="https://cdn.example/x.js"></script>')),
    "an image without words": (stored.images_described, lesson("![](x.png)")),
    "an image of HTML without words": (stored.images_described, html(f"<img src='{PICTURE}' alt=''>")),
    "two languages that say different numbers": (stored.same_numbers, lesson(PAIR.replace("越小", "越小 0.65 "))),
    "a note that says different numbers": (stored.same_numbers, new_notebook(cells=[
        new_code_cell('live.note("高于 0.65", "above 0.56")')])),
    "bold that does not close": (stored.bold_is_bold, lesson(PAIR.replace("越小", "**越小。**越"))),
    "bold that does not open": (stored.bold_is_bold, lesson(PAIR.replace("越小", "越**（小）** "))),
    "someone's own kernel": (stored.plain_kernel, new_notebook(metadata={"kernelspec": {**KERNEL, "name": "mine"}})),
    "a picture compared by its bytes": (stored.no_drawn_pictures_in_html, html(f"<img alt='a cat' src='{PICTURE}'>")),
    "as many threads as there are": (stored.one_thread, lesson(*GOOD[:1], ("import torch", ""))),
}


@pytest.mark.parametrize(("check", "notebook"), BAD.values(), ids=BAD)
def test_a_flaw_is_seen(check, notebook):
    assert list(check(notebook))


def test_an_error_that_is_the_lesson_is_allowed():
    assert not list(stored.clean_outputs(error(tags=["raises-exception"])))


# --- JupyterLab and the browser ---------------------------------------------------------------------------------------

FLAWED = '''
import asyncio, logging, socket, sys, threading
import ipywidgets as W
from IPython.display import display

made = [W.IntSlider(description="disabled", disabled=True), W.Dropdown(description="stuck", options=["only"])]
made[0].observe(lambda change: 1 / 0, "value")

def fault(kind, **options):
    """A widget named `kind` whose callback does what the function below does."""
    def decorate(callback):
        widget = getattr(W, options.pop("widget", "IntSlider"))(description=kind, **options)
        made.append(widget)
        if isinstance(widget, W.Button):
            widget.on_click(callback)
        else:
            widget.observe(callback, "value")
    return decorate

@fault("raises at its end", value=3, max=7)
def _(change):
    if change["new"] == 7:
        raise ValueError("the seventh has no picture")

@fault("raises when clicked", widget="Button")
def _(button):
    raise KeyError("clicked")

@fault("raises on Chinese", widget="Text")
def _(change):
    change["new"].encode("ascii")

@fault("raises later", widget="Checkbox")
def _(change):
    async def later():
        await asyncio.sleep(0.1)
        raise RuntimeError("raised later")
    asyncio.get_running_loop().create_task(later())

@fault("raises elsewhere", widget="Checkbox")
def _(change):
    def work():
        raise RuntimeError("raised elsewhere")
    thread = threading.Thread(target=work)
    thread.start(); thread.join()

@fault("logs", widget="Checkbox")
def _(change):
    logging.error("logged an error")

@fault("warns", widget="Checkbox")
def _(change):
    print("on stderr", file=sys.stderr)

told = W.HTML()
made.append(told)
@fault("tells", widget="Checkbox")
def _(change):
    told.value = '<div class="mm-error"><pre>KeyError: told</pre></div>'

out = W.Output()
@fault("hides", widget="Dropdown", options=["a", "b"])
def _(change):
    with out:
        print("hidden warning", file=sys.stderr)

display(*made, out)
'''

NETWORK = """
import socket, subprocess, sys
def reach(host):
    try:
        socket.create_connection((host, 80), timeout=1).close()
    except OSError:
        pass
for host in ("example.com", "192.0.2.1", "127.0.0.1"):
    reach(host)
swallow = "import socket\\ntry: socket.socket().connect(('192.0.2.2', 80))\\nexcept OSError: pass"
subprocess.run([sys.executable, "-c", swallow])
"""

SHOWN = """
import sys
import ipywidgets as W
from IPython.display import HTML, display
display(HTML('<img src="https://example.com/x.png" alt="x"><script>console.error("broken script")</script>'))
print("careful", file=sys.stderr)
"""

DEAF = """
import asyncio
status, used = W.HTML(), W.HTML("tau=0.07")
status.add_class("mm-status"); used.add_class("mm-values")
slider = W.FloatSlider(description="deaf", value=0.07, max=1, step=0.01)
panel = W.VBox([status, used, slider])
panel.add_class("mm-panel")
display(panel)
async def train():
    for step in range(140):
        status.value = f"step {step}"
        await asyncio.sleep(0.05)
task = asyncio.get_running_loop().create_task(train())
"""

UNDRAWN = "```mermaid\nflowchart LR\n A -- B\n```\n\n$\\frac{a}$"


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A lesson that fails the reader in several ways, as the browser saw it; the tests below look at what was told."""
    lab_module = need_browser()
    folder = tmp_path_factory.mktemp("broken")
    cells = [(SHOWN, ""), UNDRAWN, (DEAF, ""), ("await task", ""), ("raise ValueError('meant')", ""), (NETWORK, ""),
             (FLAWED, ""), ("1 / 0", "")]
    notebook = lesson(*cells)
    notebook.cells[4].metadata["tags"] = ["raises-exception"]
    nbformat.write(notebook, folder / "broken.ipynb")
    with lab_module.Lab(folder) as lab:
        page = lab.open("broken.ipynb")
        page.run_all()
        drag = page.drag_while_training()
        page.wait_until_done()
        page.settle(1)
        before = page.errors()
        _, still = page.move_everything()
        page.settle(3)
        yield lab, page, drag, before, still


@pytest.mark.browser
def test_a_slider_that_training_does_not_hear_is_found(broken):
    drag = broken[2]
    assert drag.shown > 0.5
    assert drag.delay is None


@pytest.mark.browser
def test_what_the_reader_would_see_of_errors_is_found(broken):
    lab, page, _, before, _ = broken
    assert any("ZeroDivisionError" in error for error in before)
    assert any("careful" in error for error in before)
    assert any("broken script" in line for line in lab.console)
    assert not any("meant" in error for error in page.errors())
    assert "meant" in page.text()


@pytest.mark.browser
@pytest.mark.parametrize("problem", [
    "ValueError: the seventh has no picture", "KeyError: 'clicked'", "'ascii' codec can't encode",
    "RuntimeError: raised later", "RuntimeError: raised elsewhere", "logged an error", "KeyError: told", "on stderr",
    "hidden warning",
])
def test_what_a_widget_swallows_is_found_once_it_is_moved(broken, problem):
    _, page, _, before, _ = broken
    assert not any(problem in error for error in before)
    assert any(problem in error for error in page.errors()), page.errors()


@pytest.mark.browser
def test_a_disabled_control_is_left_alone_and_one_that_cannot_move_is_told(broken):
    assert not any("division by zero" in error for error in set(broken[1].errors()) - set(broken[3]))
    assert ["stuck" in name for name in broken[4]] == [True]


@pytest.mark.browser
def test_a_picture_from_elsewhere_is_found_and_not_loaded(broken):
    pages = [attempt for attempt in broken[0].network() if attempt.startswith("http")]
    assert set(pages) == {"https://example.com/x.png"}


@pytest.mark.browser
@pytest.mark.parametrize("host", ["example.com", "192.0.2.1", "192.0.2.2"])
def test_a_swallowed_attempt_of_a_kernel_or_its_child_to_reach_the_network_is_found(broken, host):
    attempts = broken[0].network()
    assert any(host in attempt and not attempt.startswith("http") for attempt in attempts), attempts
    assert not any("127.0.0.1" in attempt for attempt in attempts)


@pytest.mark.browser
def test_an_undrawn_diagram_and_an_untypeset_formula_are_found(broken):
    page = broken[1]
    assert page.count(".jp-RenderedMermaid.jp-mod-warning")
    assert page.count("mjx-merror, [data-mjx-error]")


@pytest.mark.parametrize(("required", "outcome"), [("0", pytest.skip.Exception), ("1", pytest.fail.Exception)])
def test_without_a_browser_tests_are_skipped_or_fail_if_it_is_required(monkeypatch, required, outcome):
    monkeypatch.setenv("MM_CHROMIUM", "/no/such/browser")
    monkeypatch.setenv("MM_REQUIRE_BROWSER", required)
    with pytest.raises(outcome, match="Chromium"):
        need_browser()
