"""工具自身也要会失败 / The harness itself: each fault it exists for is made here once, and must be found.

Tiny notebooks, built in a temporary folder; one run of a kernel serves many tests.
"""

import ast
import base64
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from test_browser import need_browser

from tests.harness import claims, comparisons, fresh, stored
from tests.harness.kernel_side import mm_claims

TESTS = Path(__file__).parent
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
    "an image of HTML without words": (stored.images_described, html("<img src='data:image/png;base64,AAAA' alt=''>")),
    "two languages that say different numbers": (stored.same_numbers, lesson(PAIR.replace("越小", "越小 0.65 "))),
    "a note that says different numbers": (stored.same_numbers, new_notebook(cells=[
        new_code_cell('live.note("高于 0.65", "above 0.56")')])),
    "bold that does not close": (stored.bold_is_bold, lesson(PAIR.replace("越小", "**越小。**越"))),
    "bold that does not open": (stored.bold_is_bold, lesson(PAIR.replace("越小", "越**（小）** "))),
    "someone's own kernel": (stored.plain_kernel, new_notebook(metadata={"kernelspec": {**KERNEL, "name": "mine"}})),
    "a number from nowhere": (stored.numbers_come_from_somewhere, lesson("# R@1 是 0.873 · R@1 is 0.873", *GOOD[1:])),
    "as many threads as there are": (stored.one_thread, lesson(*GOOD[:1], ("import torch", ""))),
    "a whole number from nowhere": (stored.numbers_come_from_somewhere, lesson("# 73 919 · 73919 names", *GOOD[1:])),
    "a plot retold in Chinese": (stored.plots_are_asked_about, lesson(PAIR.replace("温度", "看左图：声音领先。温度"))),
    "a plot retold in English": (stored.plots_are_asked_about,
                                 lesson(PAIR.replace("A small", "In the right plot sound leads. A small"))),
    "a note that nothing asserts": (stored.notes_say_what_was_asserted,
                                    lesson(*GOOD, ('live.note("高于 0.9。", "Above 0.9.")', ""))),
}


@pytest.mark.parametrize(("check", "notebook"), BAD.values(), ids=BAD)
def test_a_flaw_is_seen(check, notebook):
    assert list(check(notebook))


@pytest.mark.parametrize(("zh", "en"), [
    ("看左图：谁领先？", "Who leads in the left plot?"),
    ("右图是正确率，虚线是瞎猜。", "On the right is the accuracy; the dashed line is guessing."),
    ("损失最低是 $\\ln 2$。", "The lowest loss is $\\ln 2$."),
], ids=["a question", "what is drawn", "a theorem"])
def test_a_plot_may_be_asked_about_and_explained_and_a_theorem_may_be_told(zh, en):
    notebook = lesson(PAIR.replace("温度", f"{zh}温度").replace("A small", f"{en} A small"))
    assert not list(stored.plots_are_asked_about(notebook))


def test_an_error_that_is_the_lesson_is_allowed():
    assert not list(stored.clean_outputs(error(tags=["raises-exception"])))


# --- what a lesson asserts --------------------------------------------------------------------------------------------

def test_the_list_of_claims_hears_values_signs_and_how_often_and_an_assert_still_fails():
    shell = SimpleNamespace(user_ns={"In": ["", "x"]}, ast_transformers=[])
    mm_claims.found.clear()
    mm_claims.watch(shell)

    def run(source):
        tree = shell.ast_transformers[0].visit(ast.parse(source))
        exec(compile(tree, "cell", "exec"), shell.user_ns)

    run("scores = [0.8, 0.9, 0.7]\nassert all(0.5 < s < 1 for s in scores if s != 0.9)")
    run("for name, low in (('a', 1), ('b', 2)):\n    assert low > 0, name")
    run("assert isinstance(scores, list)")
    with pytest.raises(AssertionError):
        run("assert scores[0] < 0.5")
    rows = [(row["claim"], row["about"], row["times"], row["values"]) for row in mm_claims.found]
    assert rows == [("0.5 < s < 1", None, 2, [(0.5, 0.5), (0.7, 0.8), (1.0, 1.0)]),
                    ("low > 0", "a", 1, [(1.0, 1.0), (0.0, 0.0)]), ("low > 0", "b", 1, [(2.0, 2.0), (0.0, 0.0)]),
                    ("isinstance(scores, list)", None, 1, []), ("scores[0] < 0.5", None, 1, [(0.8, 0.8), (0.5, 0.5)])]


def say(zh, en):
    return f'<div lang="zh">\n\n{zh}\n\n</div>\n<div lang="en">\n\n{en}\n\n</div>'


@pytest.mark.parametrize(("code", "zh", "en", "loose"), [
    ("assert a > b", "甲比乙高。", "A is higher than B.", 0),
    ("settle(claims)", "甲不如乙。", "A does worse.", 0),
    ("lesson.check(f, cases)", "甲比乙高。", "A is higher than B.", 2),
    ("def f():\n    assert a > b", "甲比乙高。", "A is higher than B.", 2),
    ("print(a > b)", "甲比乙高。", "A and B.", 1),
    ("print(a > b)", "甲和乙。", "A beats B.", 1),
    ("print(a > b)", "甲比乙高吗？", "Is A higher than B?", 0),
    ("print(a > b)", "甲和乙比较。", "A rather than B.", 0),
])
def test_a_comparison_in_prose_that_no_assert_stands_beside_is_found(code, zh, en, loose):
    assert len(comparisons.sort(lesson((code, ""), say(zh, en)), "a lesson")[2]) == loose


def test_a_comparison_held_elsewhere_names_an_assert_that_is_there(monkeypatch):
    rows = [("甲比乙高", "", "a > b"), ("", "A beats B", "said"), ("丙比丁高", "", "how"), ("", "C beats D", "c > d")]
    monkeypatch.setitem(comparisons.APART, "a lesson", rows)
    notebook = lesson(("assert a > b", ""), "# 题 · Title", say("甲比乙高。", "A beats B."))
    wrong = comparisons.sort(notebook, "a lesson")[2]
    assert sorted(wrong) == ["'C beats D' compares nothing, or no longer", "'c > d' is in no cell that asserts",
                             "'丙比丁高' compares nothing, or no longer"]


@pytest.mark.parametrize(("other", "same"), [
    ("| `a > 0.5` | 0.81 … 0.88 > 0.500 | 3 |", True),
    ("| `a > 0.5` | 0.80 > 0.500 | 3 |", True),
    ("| `a > 0.5` | 0.80 … 0.99 > 0.500 | 3 |", False),
    ("| `a > 0.5` | 0.80 … 0.85 > 0.500 | 2 |", False),
    ("| `a > 0.6` | 0.80 … 0.85 > 0.600 | 3 |", False),
])
def test_the_list_of_claims_forgives_another_machine_and_nothing_else(other, same):
    assert claims.alike("| `a > 0.5` | 0.80 … 0.85 > 0.500 | 3 |", other) is same


def test_the_list_of_claims_holds_the_sentences_word_for_word():
    assert claims.alike("| A beats B by 3. | data |", "| A beats B by 3. | data |")
    assert not claims.alike("| A beats B by 3. | data |", "| B beats A by 3. | data |")


# --- a fresh run ------------------------------------------------------------------------------------------------------

FLAWED = '''
import asyncio, logging, socket, sys, threading
import ipywidgets as W
from IPython.display import display

def fault(kind, **options):
    """A widget named `kind` whose callback does what the function below does."""
    def decorate(callback):
        widget = getattr(W, options.pop("widget", "IntSlider"))(description=kind, **options)
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
@fault("tells", widget="Checkbox")
def _(change):
    told.value = '<div class="mm-error"><pre>KeyError: told</pre></div>'

out = W.Output()
@fault("hides", widget="Dropdown", options=["a", "b"])
def _(change):
    with out:
        print("hidden warning", file=sys.stderr)

never = W.IntSlider(description="disabled", disabled=True)
never.observe(lambda change: 1 / 0, "value")
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


@pytest.fixture(scope="module")
def flawed(tmp_path_factory):
    path = tmp_path_factory.mktemp("flawed") / "flawed.ipynb"
    nbformat.write(lesson((FLAWED, ""), (NETWORK, "")), path)
    return fresh.run(path, timeout=60)


@pytest.mark.parametrize("problem", [
    "'raises at its end' {'value': 7}: ValueError: the seventh has no picture",
    "'raises when clicked' click: KeyError: 'clicked'",
    "'raises on Chinese' {'value': '红色的苹果'}: UnicodeEncodeError",
    "RuntimeError: raised later",
    "'raises elsewhere' {'value': True}: in a thread: RuntimeError: raised elsewhere",
    "'logs' {'value': True}: logged: logged an error",
    "'tells' {'value': True}: shows KeyError: told",
    "stderr: on stderr",
])  # fmt: skip
def test_what_a_widget_swallows_is_found(flawed, problem):
    assert any(problem in found for found in flawed.widget_problems), flawed.widget_problems


def test_a_disabled_widget_is_left_alone(flawed):
    assert not [found for found in flawed.widget_problems if "disabled" in found]


def test_an_error_held_by_an_output_widget_is_found(flawed):
    assert any("hidden warning" in held for held in flawed.held_errors)


@pytest.mark.parametrize("host", ["example.com", "192.0.2.1", "192.0.2.2"])
def test_a_swallowed_attempt_to_reach_the_network_is_found(flawed, host):
    assert any(host in attempt for attempt in flawed.network), flawed.network


def test_this_machine_may_be_reached(flawed):
    assert not any("127.0.0.1" in attempt for attempt in flawed.network)


def curve(a, noise=0.0):
    figure = Figure(figsize=(4, 3))
    FigureCanvasAgg(figure)
    x = np.linspace(0, 5, 100)
    figure.subplots().plot(x, np.exp(-a * x) + noise * np.sin(40 * x), lw=2)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return base64.b64encode(file.getvalue()).decode()


def test_another_curve_is_another_figure_and_a_last_digit_is_not():
    assert fresh.difference(curve(1), curve(1)) == 0
    assert fresh.difference(curve(1), curve(1.02, noise=0.005)) < 0.25
    assert fresh.difference(curve(1), curve(3)) > 0.25


# --- nbval and the fresh run ------------------------------------------------------------------------------------------

SHOWS = """
from IPython.display import clear_output, display
print("gone"); clear_output(); print("also gone"); clear_output(wait=True)
handle = display("first", display_id=True)
handle.update("second")
"""


def nbval(folder, notebook):
    """pytest --nbval in another process, with the conftest.py of this repository; (passed, what it said)."""
    nbformat.write(notebook, folder / "lesson.ipynb")
    shutil.copy(TESTS.parent / "conftest.py", folder)
    command = [sys.executable, "-m", "pytest", "-q", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider"]
    env = os.environ | {"PYTHONPATH": str(TESTS)}
    done = subprocess.run([*command, "lesson.ipynb"], cwd=folder, env=env, capture_output=True, text=True, timeout=120)
    return done.returncode == 0, done.stdout


def test_nbval_sees_what_jupyterlab_shows(tmp_path):
    shows = lesson((SHOWS, ""), ("print(1)", "1\n"))
    shows.cells[0].outputs = [new_output("display_data", data={"text/plain": "'second'"})]
    passed, said = nbval(tmp_path, shows)
    assert passed, said
    assert "warning" not in said
    assert "unhandled" not in said


def test_nbval_sees_a_stale_text_and_a_stale_update(tmp_path):
    shows = lesson((SHOWS, ""), ("print(1)", "2\n"))
    shows.cells[0].outputs = [new_output("display_data", data={"text/plain": "'first'"})]
    passed, said = nbval(tmp_path, shows)
    assert not passed
    assert "2 failed" in said


# --- JupyterLab and the browser ---------------------------------------------------------------------------------------

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
    cells = [(SHOWN, ""), UNDRAWN, (DEAF, ""), ("await task", ""), ("raise ValueError('meant')", ""), ("1 / 0", "")]
    notebook = lesson(*cells)
    notebook.cells[4].metadata["tags"] = ["raises-exception"]
    nbformat.write(notebook, folder / "broken.ipynb")
    with lab_module.Lab(folder) as lab:
        page = lab.open("broken.ipynb")
        page.run_all()
        drag = page.drag_while_training()
        page.wait_until_done()
        page.settle(1)
        yield lab, page, drag


@pytest.mark.browser
def test_a_slider_that_training_does_not_hear_is_found(broken):
    drag = broken[2]
    assert drag.shown > 0.5
    assert drag.delay is None


@pytest.mark.browser
def test_what_the_reader_would_see_of_errors_is_found(broken):
    lab, page, _ = broken
    assert any("ZeroDivisionError" in error for error in page.errors())
    assert any("careful" in error for error in page.errors())
    assert any("broken script" in line for line in lab.console)
    assert not any("meant" in error for error in page.errors())
    assert "meant" in page.text()


@pytest.mark.browser
def test_a_picture_from_elsewhere_is_found_and_not_loaded(broken):
    assert set(broken[0].network()) == {"https://example.com/x.png"}


@pytest.mark.browser
def test_an_undrawn_diagram_and_an_untypeset_formula_are_found(broken):
    _, page, _ = broken
    assert page.count(".jp-RenderedMermaid.jp-mod-warning")
    assert page.count("mjx-merror, [data-mjx-error]")


@pytest.mark.parametrize(("required", "outcome"), [("0", pytest.skip.Exception), ("1", pytest.fail.Exception)])
def test_without_a_browser_tests_are_skipped_or_fail_if_it_is_required(monkeypatch, required, outcome):
    monkeypatch.setenv("MM_CHROMIUM", "/no/such/browser")
    monkeypatch.setenv("MM_REQUIRE_BROWSER", required)
    with pytest.raises(outcome, match="Chromium"):
        need_browser()
