"""一个班，一台服务器，真的 JupyterHub / A class on one server, in a real JupyterHub.

    .venv/bin/pytest -n0 -s tests/hub

needs root, jupyterhub, configurable-http-proxy, Chromium, and a Python that other accounts may run. Three students log
in with passwords, each in a browser of their own, and run lesson 06 at the same time; the tests below then look at
what they have and what it takes, in this order. Accounts, results and hub are gone in the end. MM_CLASS_RESULTS names
a folder where lesson 06 has been computed already.
"""

import grp
import importlib.util
import json
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from tests.support import need_browser

ROOT = Path(__file__).parents[2]
LESSON = "06_cross_modal_retrieval.ipynb"
STUDENTS = ["mmstudent1", "mmstudent2", "mmstudent3"]
VIEW = "application/vnd.jupyter.widget-view+json"
IDLE = 100  # seconds until an idle kernel is culled, here
SHOTS = Path(os.environ.get("MM_SHOTS") or ROOT / "tests/artifacts")
HUB = """
load_subconfig({config!r})
c.JupyterHub.bind_url, c.JupyterHub.hub_bind_url = {outside!r}, {inside!r}
c.ConfigurableHTTPProxy.api_url = {proxy!r}
c.Spawner.args = [each for each in c.Spawner.args if "cull_idle" not in each and "cull_int" not in each and
                  "no_activity" not in each]
c.Spawner.args += ["--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None",
                   "--MappingKernelManager.cull_idle_timeout={idle}", "--MappingKernelManager.cull_interval=5",
                   "--ServerApp.shutdown_no_activity_timeout=60"]
c.Spawner.environment |= {{"PYDEVD_DISABLE_FILE_VALIDATION": "1"}}  # its warning would be an error on the page
"""


def processes(name):
    """What runs in this student's name: kernels, single-user servers, anything else."""
    found = {"kernel": [], "server": [], "other": []}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.username() == name and process.status() != psutil.STATUS_ZOMBIE:
                words = " ".join(process.cmdline())
                kind = "kernel" if "ipykernel" in words else "server" if "singleuser" in words else "other"
                found[kind].append(process)
    return found


def gigabytes(found):
    return sum(process.memory_full_info().pss for process in found) / 1e9


def until(good, seconds, step=0.5):
    """Wait for it, not longer than so many seconds."""
    end = time.monotonic() + seconds
    while not good():
        assert time.monotonic() < end, f"waited for {seconds} seconds"
        time.sleep(step)


class School:
    """Accounts, results, a hub and three browsers, all gone when the `with` ends."""

    def __init__(self, lab):
        self.lab, self.pages, self.most, self.hub = lab, {}, {}, None

    def __enter__(self):
        self.ends = ExitStack()
        self.ends.callback(self.stop)
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="mm-class-"))
            self.ends.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self.folder.chmod(0o755)
            self.enrol()
            self.compute()
            self.start()
            from playwright.sync_api import sync_playwright

            self.playwright = self.ends.enter_context(sync_playwright())
            for name in STUDENTS:
                self.pages[name] = self.log_in(name)
        except BaseException:
            self.ends.close()
            raise
        return self

    def __exit__(self, *_):
        self.ends.close()

    def enrol(self):
        self.password = secrets.token_hex(8)
        try:
            grp.getgrnam("students")
        except KeyError:
            subprocess.run(["groupadd", "students"], check=True)
            self.ends.callback(subprocess.run, ["groupdel", "students"])
        for name in STUDENTS:
            subprocess.run(["useradd", "-m", "-G", "students", name], check=True)
            self.ends.callback(subprocess.run, ["userdel", "-r", name], stderr=subprocess.DEVNULL)
            subprocess.run(["chpasswd"], input=f"{name}:{self.password}", text=True, check=True)
        try:
            subprocess.run([sys.executable, "-c", "import mmlessons.workers"], cwd=ROOT, check=True, user=STUDENTS[0])
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("别的账号不能运行这个 Python / other accounts may not run this Python")

    def compute(self):
        self.results = self.folder / "results"
        if earlier := os.environ.get("MM_CLASS_RESULTS"):
            shutil.copytree(earlier, self.results)
        else:
            before = {path: path.read_bytes() for path in (ROOT / "notebooks").iterdir() if path.is_file()}
            subprocess.run([sys.executable, "-m", "makers.results", str(self.results), "06"], cwd=ROOT, check=True,
                           umask=0o022)
            assert {path: path.read_bytes() for path in (ROOT / "notebooks").iterdir() if path.is_file()} == before

    def start(self):
        outside, inside, proxy = (f"http://127.0.0.1:{self.lab.free_port()}" for _ in range(3))
        state = self.folder / "hub"
        state.mkdir(mode=0o700)
        config = HUB.format(config=str(ROOT / "docs/jupyterhub_config.py"), outside=outside, inside=inside,
                            proxy=proxy, idle=IDLE)
        (state / "config.py").write_text(config)
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "HOME") if name in os.environ}
        with (state / "log").open("w") as log:
            self.hub = psutil.Popen([sys.executable, "-m", "jupyterhub", "--config=config.py"], cwd=state, stdout=log,
                                    stderr=subprocess.STDOUT, env=kept | {"MM_RESULTS": str(self.results)})
        self.url, self.log = outside, state / "log"

        def answers():
            assert self.hub.poll() is None, self.log.read_text()[-3000:]
            with suppress(OSError):
                opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
                return opener.open(f"{outside}/hub/health", timeout=5).status == 200

        until(answers, 90)
        self.family = [self.hub, *self.hub.children(recursive=True)]

    def stop(self):
        """As a teacher does, with Ctrl-C."""
        if self.hub and self.hub.poll() is None:
            self.hub.send_signal(signal.SIGINT)
            with suppress(psutil.TimeoutExpired):
                self.hub.wait(60)
        if self.hub and self.hub.is_running():
            self.hub.kill()

    def log_in(self, name):
        """A browser of the student's own, with lesson 06 open in it."""
        settings = Path(pwd.getpwnam(name).pw_dir) / ".jupyter/lab/user-settings/@jupyterlab"
        for plugin, values in self.lab.SETTINGS.items():  # how the tests look at a notebook
            file = settings / f"{plugin}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(values))
        subprocess.run(["chown", "-R", f"{name}:", str(settings.parents[2])], check=True)
        browser = self.playwright.chromium.launch(executable_path=self.lab.find_chromium(), args=self.lab.CHROMIUM)
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.add_init_script(path=self.lab.SCRIPT)
        window = context.new_page()
        window.on("dialog", lambda dialog: dialog.accept())
        window.goto(f"{self.url}/hub/login")
        window.fill("#username_input", name)
        window.fill("#password_input", self.password)
        window.click("#login_submit")
        window.wait_for_url(f"**/user/{name}/lab/**", timeout=180_000)
        window.goto(f"{self.url}/user/{name}/doc/tree/lessons/{LESSON}", wait_until="domcontentloaded")
        page = self.lab.Page(window)
        page.wait_until_ready(180)
        return page

    def run(self, names):
        """Run All in these students' browsers at the same time; note the most that each took."""
        done = threading.Event()

        def watch():
            while not done.wait(1):
                for name in names:
                    with suppress(psutil.Error):
                        found = processes(name)
                        now = (gigabytes(found["kernel"]), len(found["kernel"]), len(found["other"]))
                        before = self.most.get(name, (0, 0, 0))
                        self.most[name] = tuple(map(max, before, now))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            began = time.monotonic()
            for name in names:
                self.pages[name].run_all()
            for name in names:
                self.pages[name].wait_until_done()
            return time.monotonic() - began
        finally:
            done.set()
            watcher.join()


@pytest.fixture(scope="module")
def school():
    lacking = ([] if hasattr(os, "geteuid") and os.geteuid() == 0 else ["root"]) + [
        name for name in ("useradd", "chpasswd", "configurable-http-proxy") if not shutil.which(name)]
    if importlib.util.find_spec("jupyterhub") is None:
        lacking.append("jupyterhub")
    if lacking:
        pytest.skip(f"这里没有 / not here: {', '.join(lacking)}")
    with School(need_browser()) as here:
        here.seconds = here.run(STUDENTS)
        yield here


@pytest.fixture(params=STUDENTS)
def student(request):
    return request.param


def home(student):
    return Path(pwd.getpwnam(student).pw_dir)


def test_three_students_run_the_lesson_at_once_without_an_error(school, student):
    page = school.pages[student]
    assert page.errors() == []
    assert page.count(".mm-panel") > 0
    page.choose_language("en")
    page.screenshot(SHOTS / f"class-{student}.png")


def test_each_has_one_kernel_of_less_than_0_9_gigabytes_and_nothing_in_the_background(school, student):
    found = processes(student)
    most, kernels, others = school.most[student]
    own = sum(process.memory_full_info().uss for process in found["kernel"]) / 1e9
    print(f"\n{student}: kernel {gigabytes(found['kernel']):.2f} GB, {own:.2f} its own, at most {most:.2f}; server "
          f"{gigabytes(found['server']):.2f} GB; three lessons at once in {school.seconds:.0f} s")
    assert [len(found["kernel"]), len(found["server"]), len(found["other"])] == [1, 1, 0]
    assert (kernels, others) == (1, 0)
    assert most <= 0.9


def test_a_notebook_is_the_students_own_and_is_saved_with_its_panels(school, student):
    school.pages[student].save()
    file = home(student) / "lessons" / LESSON
    until(lambda: file.read_bytes() != (ROOT / "notebooks" / LESSON).read_bytes(), 20)
    school.pages[student].settle(2)
    assert file.owner() == student
    saved = json.loads(file.read_text("utf-8"))
    states = saved["metadata"]["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    outputs = [output.get("data", {}) for cell in saved["cells"] for output in cell.get("outputs", [])]
    shown = {data[VIEW]["model_id"] for data in outputs if VIEW in data}
    assert shown
    assert shown <= set(states)


def test_a_student_cannot_spoil_the_results(school):
    results = sorted(school.results.glob("*.pt"))
    before = {path: path.read_bytes() for path in results}
    assert before
    for wrong in (f"open({str(results[0])!r}, 'ab')", f"os.remove({str(results[0])!r})",
                  f"open({str(school.results / 'new.pt')!r}, 'w')", f"os.rename({str(school.results)!r}, 'gone')"):
        done = subprocess.run([sys.executable, "-c", f"import os; {wrong}"], user=STUDENTS[0], cwd=home(STUDENTS[0]),
                              extra_groups=[grp.getgrnam("students").gr_gid], capture_output=True, text=True)
        assert "PermissionError" in done.stderr, wrong
    assert {path: path.read_bytes() for path in sorted(school.results.glob("*.pt"))} == before


def test_a_damaged_result_is_computed_in_the_kernel_and_the_lesson_runs_as_usual(school):
    name, damaged = STUDENTS[0], sorted(school.results.glob("*.pt"))[0]
    damaged.write_bytes(b"damaged")
    page = school.pages[name]
    page.js("() => window.jupyterapp.shell.currentWidget.context.sessionContext.restartKernel()")
    page.wait_until_ready()
    school.run([name])
    assert page.errors() == []
    assert page.text().count("some results cannot be kept or read; training as usual") == 1
    assert school.most[name][1:] == (1, 0)
    assert damaged.read_bytes() == b"damaged"


def test_a_kernel_that_is_idle_ends_though_the_page_is_still_open(school, student):
    until(lambda: not processes(student)["kernel"], IDLE + 60)
    assert not school.pages[student].window.is_closed()


def test_a_server_that_nobody_looks_at_ends(school):
    school.pages[STUDENTS[2]].window.context.browser.close()
    until(lambda: not any(processes(STUDENTS[2]).values()), 180)


def test_when_the_hub_stops_nothing_is_left_running(school):
    family = {*school.family, *school.hub.children(recursive=True)}
    assert any(processes(STUDENTS[0]).values())
    school.stop()
    assert school.hub.poll() == 0, school.log.read_text()[-2000:]
    assert psutil.wait_procs(family, timeout=10)[1] == []
    assert not any(kind for name in STUDENTS for kind in processes(name).values())
