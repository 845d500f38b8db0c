"""真实的 JupyterLab，真实的浏览器 / A real JupyterLab in a real, headless Chromium.

    with Lab(Path("notebooks")) as lab:
        page = lab.open("06_cross_modal_retrieval.ipynb")
        page.run_all()
        page.drag_while_training()
        page.wait_until_done()

The server sees a copy of the folder, settings of its own and no network; the browser reaches this server and nothing
else. What is asked of the page stands in lab.js.
"""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import TimeoutError, sync_playwright

SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none", "autoStartDefaultKernel": True, "scrollPastEnd": False},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--no-first-run"]  # fmt: skip
OWN = re.compile(r"^(?:https?|wss?)://127\.0\.0\.1[:/]|^(?:data|blob|about):")
READY = "() => lab.kernel()?.status === 'idle'"
SCRIPT = Path(__file__).with_suffix(".js")
CONFIG = Path(__file__).parents[2] / "jupyter_lab_config.py"
KNOWN_NOISE = ()  # parts of console errors that are JupyterLab's own, each with its reason; 4.6 has none


def find_chromium():
    """The browser to use, or None; MM_CHROMIUM names another."""
    chosen = os.environ.get("MM_CHROMIUM")
    names = [chosen] if chosen else ["chromium", "chromium-browser", "google-chrome"]
    return next(filter(None, map(shutil.which, names)), None)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Lab:
    """JupyterLab with a browser, both gone when the `with` ends."""

    def __init__(self, notebooks, start_timeout=90):
        self.notebooks, self.start_timeout = Path(notebooks), start_timeout
        self.console, self.left_machine = [], []

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="mm-lab-"))
        self.server = self.playwright = self.browser = None
        try:
            ignore = shutil.ignore_patterns(".ipynb_checkpoints")
            shutil.copytree(self.notebooks, self.folder / "notebooks", ignore=ignore)
            self.start_server()
            self.playwright = sync_playwright().start()
            self.browser = self.playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM)
        except BaseException:
            self.__exit__()
            raise
        return self

    def environment(self):
        """For processes whose Python cannot leave the machine (tests/startup); attempts are noted in `network`."""
        kept = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy") and not k.startswith("JPY_")}
        kept.pop("MM_LIVE", None)  # here somebody is watching
        return kept | {"MM_NETWORK_LOG": str(self.folder / "network"), "IPYTHONDIR": str(self.folder / "ipython")}

    def start_server(self):
        for plugin, values in SETTINGS.items():
            file = self.folder / f"settings/@jupyterlab/{plugin}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(values))
        own = {"JUPYTERLAB_SETTINGS": "settings", "JUPYTERLAB_WORKSPACES": "workspaces", "JUPYTER_CONFIG": "config",
               "JUPYTER_DATA": "data", "JUPYTER_RUNTIME": "runtime"}  # fmt: skip
        env = self.environment() | {f"{name}_DIR": str(self.folder / folder) for name, folder in own.items()}
        self.token, self.url = secrets.token_hex(16), f"http://127.0.0.1:{free_port()}"
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--config={CONFIG}", "--ip=127.0.0.1",
                   f"--port={self.url.rpartition(':')[2]}", "--ServerApp.port_retries=0",
                   f"--IdentityProvider.token={self.token}", f"--ServerApp.root_dir={self.folder / 'notebooks'}",
                   "--LabApp.expose_app_in_browser=True",
                   "--JupyterNotebookApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly",
                   "--LabApp.news_url=None"]  # fmt: skip
        log = self.folder / "server.log"
        with log.open("w") as out:
            self.server = psutil.Popen(command, env=env, cwd=self.folder, stdout=out, stderr=subprocess.STDOUT)
        end = time.monotonic() + self.start_timeout
        while True:
            with suppress(OSError):
                self.ask("/api/status")
                return
            if self.server.poll() is not None or time.monotonic() > end:
                raise RuntimeError("JupyterLab did not start:\n" + log.read_text()[-2000:])
            time.sleep(0.2)

    def ask(self, path, method="GET"):
        request = urllib.request.Request(self.url + path, method=method)
        request.add_header("Authorization", f"token {self.token}")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as answer:
            return answer.read()

    def __exit__(self, *_):
        for thing, end in ((self.browser, "close"), (self.playwright, "stop")):
            with suppress(Exception):
                getattr(thing, end)()
        if self.server:
            family = [self.server]
            with suppress(psutil.Error):
                family += self.server.children(recursive=True)
            with suppress(OSError):
                self.ask("/api/shutdown", "POST")
            for process in psutil.wait_procs(family, timeout=8)[1]:
                with suppress(psutil.Error):
                    process.kill()
            with suppress(psutil.Error):
                self.server.wait(5)
        shutil.rmtree(self.folder, ignore_errors=True)

    def network(self):
        """What tried to leave the machine, from the browser, the server or a kernel."""
        log = self.folder / "network"
        return self.left_machine + (log.read_text("utf-8").splitlines() if log.exists() else [])

    def guard(self, route):
        if OWN.match(route.request.url):
            route.fallback()
        else:
            self.left_machine.append(route.request.url)
            route.abort()

    def note(self, kind, text):
        if kind in {"error", "pageerror"} and not any(known in text for known in KNOWN_NOISE):
            self.console.append(f"{kind}: {text[:400]}")

    def open(self, notebook, width=1280, height=900, at="doc/tree"):
        """The notebook in a new window, its kernel started and idle; `at` is doc/tree of JupyterLab, or notebooks."""
        page = Page(self.window(f"{at}/{notebook}", width, height))
        page.wait_until_ready()
        return page

    def window(self, path, width=1280, height=900):
        """What the server has at this path, in a new window."""
        context = self.browser.new_context(viewport={"width": width, "height": height})
        context.route("**/*", self.guard)
        context.add_init_script(path=SCRIPT)
        window = context.new_page()
        window.on("console", lambda m: self.note(m.type, f"{m.text} ({m.location.get('url', '')})"))
        window.on("pageerror", lambda e: self.note("pageerror", str(e)))
        window.on("websocket", lambda w: None if OWN.match(w.url) else self.left_machine.append(w.url))
        window.on("dialog", lambda dialog: dialog.accept())
        window.goto(f"{self.url}/{path}?token={self.token}", wait_until="domcontentloaded")
        return window


# axe-core looks at what lessons put on the page; code editors and the frame around them are JupyterLab's own.
OURS = {"include": [[".jp-RenderedMarkdown"], [".jp-OutputArea-output"]]}
# So are the boxes around pictures, Markdown and widgets, which scroll on a phone: Chromium since 130 and Firefox let
# the keyboard scroll them without a tabindex, and axe-core does not know it.
THEIRS = ("scrollable-region-focusable", "lm-Widget")
TRACK = """handle => { const r = handle.closest('.noUi-target').getBoundingClientRect(); return [r.left, r.width]; }"""


@dataclass
class Drag:
    """One drag of a slider while training ran."""

    slider: str
    shown: float  # what the slider said in the end
    before: str  # what the panel said a step used
    after: str
    delay: float | None  # milliseconds
    status: str


class Page:
    """One notebook in one browser window; `window` is playwright's own page."""

    def __init__(self, window):
        self.window = window
        self.js = window.evaluate

    # --- the notebook as a whole ---

    def wait_until_ready(self, timeout=90):
        self.window.wait_for_function(READY, timeout=timeout * 1000)
        self.window.wait_for_selector(".jp-Notebook .jp-Cell", timeout=timeout * 1000)
        self.js("() => lab.listen()")

    def command(self, name, **args):
        self.js("([name, args]) => window.jupyterapp.commands.execute(name, args)", [name, args])

    def run_all(self):
        """Press Run All; `wait_until_done` waits for its end."""
        self.js("""() => { window.mmDone = false;
            window.jupyterapp.commands.execute('notebook:run-all-cells').finally(() => { window.mmDone = true; }); }""")

    def wait_until_done(self, timeout=1200):
        self.window.wait_for_function("() => window.mmDone", timeout=timeout * 1000)
        self.window.wait_for_function(READY, timeout=timeout * 1000)
        self.window.wait_for_timeout(500)

    def save(self):
        """Save; if the page asks whether to overwrite what its own autosave has just written, say yes."""
        overwrite = self.window.locator(".jp-Dialog button", has_text="Overwrite")
        for patience in (20_000, 60_000):
            if overwrite.count():
                overwrite.click()
            self.js("""() => { window.mmSaved = false;
                window.jupyterapp.commands.execute('docmanager:save').finally(() => { window.mmSaved = true; }); }""")
            with suppress(TimeoutError):
                self.window.wait_for_function("() => window.mmSaved", timeout=patience)
                return
        raise TimeoutError("the notebook could not be saved")

    def end_kernel(self):
        """The kernel ends, as it does overnight, and nothing is run again."""
        self.save()
        self.settle(1)
        self.js("() => window.jupyterapp.shell.currentWidget.context.sessionContext.shutdown()")
        self.settle(1)

    def save_and_reload(self):
        self.save()
        self.window.reload(wait_until="domcontentloaded")
        self.wait_until_ready()
        self.window.wait_for_timeout(1500)  # widgets and diagrams come after the cells

    def settle(self, seconds=0.3):
        self.window.wait_for_timeout(seconds * 1000)

    # --- what is on the page ---

    def errors(self):
        """Errors and stderr, in a cell, in a widget or unseen, but for cells that are meant to raise."""
        return self.js("() => lab.errors()")

    def count(self, selector):
        return self.js("s => document.querySelectorAll(`.jp-Notebook :is(${s})`).length", selector)

    def text(self):
        return self.js("() => document.querySelector('.jp-Notebook').innerText")

    def pictures(self):
        """The sources of all pictures that the notebook shows."""
        return self.js("() => [...document.querySelectorAll('.jp-Notebook img')].map(img => img.src)")

    def visible(self, language):
        """What can be seen of the elements marked as in this language, the language switch apart."""
        return self.js("language => lab.visible(language)", language)

    def choose_language(self, value):
        """Press `zh`, `en` or `both` in the language switch."""
        self.window.locator(f".mm-switch label:has(input[value={value}])").first.click()
        self.settle()

    def choose_theme(self, name):
        """Change the theme and load the page anew: JupyterLab does not redraw diagrams in the colours of another."""
        if self.js("() => document.body.dataset.jpThemeName") != name:
            self.command("apputils:change-theme", theme=name)
            self.window.wait_for_function(f"() => document.body.dataset.jpThemeName === '{name}'")
            self.settle(1)
            self.save_and_reload()

    def screenshot(self, path):
        """The whole notebook: the window grows until nothing needs scrolling."""
        size = self.window.viewport_size
        height = self.js("() => lab.height()")
        self.window.set_viewport_size({"width": size["width"], "height": min(max(height, 300), 16000)})
        self.settle(0.6)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self.window.screenshot(path=str(path))
        self.window.set_viewport_size(size)

    def barriers(self):
        """What axe-core calls a serious or critical barrier to readers with a disability, in what is ours."""
        found = Axe().run(self.window, context=OURS, options={"resultTypes": ["violations"]}).response["violations"]
        return [f"{barrier['id']}: {node['html'][:200]}" for barrier in found
                if barrier["impact"] in {"serious", "critical"} for node in barrier["nodes"]
                if not (barrier["id"] == THEIRS[0] and THEIRS[1] in node["html"].partition(">")[0])]

    @contextmanager
    def size(self, width, height):
        """The window so large, for the length of a `with`."""
        before = self.window.viewport_size
        self.window.set_viewport_size({"width": width, "height": height})
        self.settle(1)
        yield
        self.window.set_viewport_size(before)
        self.settle()

    def sticking_out(self):
        """Widgets beyond the right edge, and prose that cannot even be scrolled to."""
        return self.js("() => lab.stickingOut()")

    def hidden_at_the_side(self):
        """What is wider than its place, and cut off or scrolling with no sign of it."""
        return self.js("() => lab.hiddenAtTheSide()")

    def letters_of_diagrams(self):
        """The height of the letters of each diagram, in pixels of the screen."""
        return self.js("() => lab.lettersOfDiagrams()")

    # --- controls ---

    def running_panel(self, timeout=300):
        """The panel whose step number rises, once one does."""
        found = self.window.wait_for_function("() => lab.runningPanel()", timeout=timeout * 1000,
                                              polling=100).as_element()
        if found.evaluate("e => e === document"):
            raise LookupError("Run All ended, and no .mm-status beside a slider had ever shown a rising step number")
        return found

    def drag_while_training(self):
        """Drag the first slider of the running panel, see when training used its value, and drag it back.

        It goes back because the lesson goes on to assert what its own values lead to.
        """
        panel = self.running_panel()
        handle = panel.query_selector("[role=slider]")
        panel.evaluate("panel => lab.watch(panel)")
        mouse, rest = self.window.mouse, self.value(handle)
        for _ in range(3):  # what is above may grow just then, and the slider is no longer under the mouse
            handle.scroll_into_view_if_needed()
            (left, width), box = handle.evaluate(TRACK), handle.bounding_box()
            x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
            target = left + width * (0.75 if x < left + width / 2 else 0.25)
            mouse.move(x, y)
            mouse.down()
            for k in range(1, 9):
                mouse.move(x + (target - x) * k / 8, y)
                self.settle(0.03)
            shown = self.value(handle)
            if shown != rest:
                break
            mouse.up()
        with suppress(TimeoutError):  # a value that never arrives is told by delay = None
            self.window.wait_for_function("value => lab.delay(value) !== null", arg=shown, timeout=5000)
        delay, (before, after) = self.js("value => lab.delay(value)", shown), self.js("() => lab.usedValues()")
        status = panel.query_selector(".mm-status").text_content()
        mouse.move(x, y, steps=4)
        mouse.up()
        return Drag(handle.get_attribute("aria-label") or "", shown, before, after, delay, status)

    def sliders(self):
        """The handles of all sliders."""
        return self.window.locator(".jp-Notebook .noUi-handle").all()

    def move_everything(self):
        """How many controls were moved, as lab.js says, and the names of those that did not move or took long."""
        moved = self.js("() => lab.moveEverything()")
        self.settle(1)
        self.window.wait_for_function(READY, timeout=120_000)
        self.settle()
        return moved

    def value(self, handle):
        """What is written beside a slider."""
        return handle.evaluate("handle => lab.readout(handle)")
