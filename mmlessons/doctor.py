"""这台机器能不能上课 / Whether this machine can run the lessons.

`look()` looks once and gives a line for each thing: what there is, whether it will do, and if not, what to do. It
touches no network and tells no name of a machine, a user or a folder.

`look()` 看一遍，每样一行：有什么，好不好，不好时做什么。它不碰网络，也不说出机器、用户或文件夹的名字。
"""

import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from packaging.requirements import Requirement

from mmcore.training import choose_device
from mmlessons import data
from mmlessons.machine import cores_here, memory_here

TRIED = ((3, 11), (3, 14))  # the oldest and the newest Python that the lessons were tried with
MEMORY = 2.0  # GB: lesson 06 took 1.9 and lesson 03 1.7, each with its two trainings in the background
MEASURED = 2  # the cores on which the minutes of the lessons were measured
FONT = Path(__file__).parent / "live/assets/MMSansSC.ttf"
INSTALL = ("在本仓库的根目录运行 pip install -r requirements.txt，再重启内核（Kernel → Restart）",
           "in the root folder of this repository run pip install -r requirements.txt, then restart the kernel "
           "(Kernel → Restart)")
AGAIN = ("重新取一份本仓库的文件", "get the files of this repository again")
IMPORTED_AS = {"pillow": "PIL"}

Name = tuple[str, str]  # (Chinese, English)


@dataclass(frozen=True)
class Finding:
    """看到的一样：看的是什么、有什么、要做什么 / One thing: what was looked at, what there is, what to do (or None)."""

    what: Name
    found: Name
    todo: Name | None = None

    def row(self) -> list[Name | str]:
        """表格的一行 / A row of a table: what, found, ✓ or what to do."""
        todo = "✓" if self.todo is None else (f"→ {self.todo[0]}", f"→ {self.todo[1]}")
        return [text[0] if text[0] == text[1] else text for text in (self.what, self.found)] + [todo]


def look(live: bool) -> list[Finding]:
    """把机器看一遍 / Look the machine over.

    `live` says whether trainings run in front of the reader, which is `mmlessons.live.is_live()`.

    `live`：训练会不会在读者眼前进行，即 `mmlessons.live.is_live()`。
    """
    gpu = {"cuda": "CUDA", "mps": "MPS"}.get(choose_device().type)
    return [python(sys.version_info[:3]), packages(wanted_packages()), data_sets(loaders()), font(FONT),
            memory(memory_here()), cores(cores_here()), place(live, os.environ, sys.modules), nothing_more(gpu)]


def verdict(findings: Sequence[Finding]) -> Name:
    """一句话 / All of it in a sentence."""
    if todo := sum(finding.todo is not None for finding in findings):
        return (f"有 {todo} 样请看右边一栏，其余都好。",
                f"The right column says what to do about {todo}; the rest is well.")
    return "都好了，可以上课。", "All is well: the lessons will run here."


def python(version: tuple[int, ...]) -> Finding:
    """Python 的版本 / The version of Python."""
    shown, (oldest, newest) = ".".join(map(str, version)), (".".join(map(str, v)) for v in TRIED)
    todo = None
    if version[:2] < TRIED[0]:
        todo = (f"安装 Python {oldest} 到 {newest}，再照 README 重装",
                f"install Python {oldest} to {newest}, then follow the README again")
    elif version[:2] > TRIED[1]:
        todo = (f"没有在它上面试过；出了问题，就用 {oldest} 到 {newest}",
                f"not tried with this one; if anything goes wrong, use {oldest} to {newest}")
    return Finding(("Python", "Python"), (shown, shown), todo)


def wanted_packages() -> list[Requirement] | None:
    """读者需要的包；mmcore 没有安装时是 None / The packages a reader needs; None if mmcore is not installed."""
    try:
        wanted = [Requirement(line) for line in metadata.requires("mmcore") or []]
    except metadata.PackageNotFoundError:
        return None
    return [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]


def packages(wanted: Sequence[Requirement] | None, version: Callable[[str], str] = metadata.version,
             find: Callable[[str], object] = importlib.util.find_spec,
             load: Callable[[str], None] = torch.ops.load_library) -> Finding:
    """包在不在、够不够新、合不合得来 / Whether the packages are there, new enough, and fit each other.

    It does not load them, which takes seconds for some, and tries only what fails most often: whether the compiled part
    of torchvision knows this torch.
    """
    what = ("需要的包", "packages")
    if wanted is None:
        return Finding(what, ("mmcore 没有安装", "mmcore is not installed"), INSTALL)
    versions, faults = {}, []
    for each in wanted:
        name, low = each.name, ", ".join(limit.version for limit in each.specifier)
        try:
            found = versions[name] = version(name)
        except metadata.PackageNotFoundError:
            faults.append((f"缺少 {name}", f"{name} is missing"))
            continue
        if not each.specifier.contains(found, prereleases=True):
            faults.append((f"{name} {found} 太旧，需要 {low}", f"{name} {found} is too old, {low} is needed"))
        elif find(IMPORTED_AS.get(name, name)) is None:
            faults.append((f"{name} 装过，却找不到", f"{name} was installed and cannot be found"))
    if "torchvision" in versions and not _loads(find("torchvision"), load):
        faults.append((f"torchvision {versions['torchvision']} 与 torch {torch.__version__} 合不来",
                       f"torchvision {versions['torchvision']} does not fit torch {torch.__version__}"))
    listed = ", ".join(f"{name} {found}" for name, found in versions.items())
    return Finding(what, _joined(faults), INSTALL) if faults else Finding(what, (listed, listed))


def loaders() -> dict[str, Callable[[], object]]:
    """每个随包数据集的载入函数，它会核对校验和 / The loader of each shipped data set, which verifies checksums.

    What is shipped has a card. 随包的有一张说明 CARD.md。
    """
    names = [module.name for module in pkgutil.iter_modules(data.__path__)
             if Path(module.module_finder.path, module.name, "CARD.md").is_file()]
    return {name: importlib.import_module(f"{data.__name__}.{name}").load for name in names}


def data_sets(load: Mapping[str, Callable[[], object]]) -> Finding:
    """数据在不在、有没有损坏 / Whether the data are there and undamaged."""
    faults = []
    for name, loader in load.items():
        try:
            loader()
        except ValueError as error:  # ours, in both languages
            zh, _, en = str(error).partition(" / ")
            faults.append((f"{name}：{zh}", f"{name}: {en or zh}"))
        except Exception as error:
            kind = type(error).__name__
            faults.append((f"{name}：读不出来（{kind}）", f"{name}: cannot be read ({kind})"))
    fine = f"{'、'.join(load)}：每个文件都与发布时相同", f"{', '.join(load)}: every file is as it was released"
    return Finding(("数据", "data"), _joined(faults) if faults else fine, AGAIN if faults else None)


def font(file: Path) -> Finding:
    """图里的中文字 / The font for Chinese in figures."""
    good = file.is_file() and file.read_bytes()[:4] == b"\0\1\0\0"
    found = (("字体在包里", "the font comes with the package") if good else
             ("字体缺失或损坏", "the font is missing or damaged"))
    return Finding(("图里的中文", "Chinese in figures"), found, None if good else AGAIN)


def memory(gigabytes: float) -> Finding:
    """内存 / Memory."""
    found = f"{gigabytes:.0f} GB" if gigabytes >= 1 else f"{gigabytes:.1f} GB"
    little = (f"一课至多用约 {MEMORY:g} GB：一次只开一课，并关掉别的程序",
              f"a lesson takes about {MEMORY:g} GB at most: open one at a time and close other programs")
    enough = gigabytes >= MEMORY + 1  # the browser and the system need some as well
    return Finding(("内存", "memory"), (found, found), None if enough else little)


def cores(count: int) -> Finding:
    """处理器的核 / The cores of the processor."""
    found = f"{count} 个核", f"{count} core{'s' * (count != 1)}"
    slow = ("能上课，只是计算的时间约为各课所写的两倍",
            "the lessons run, but their computing takes about twice the time stated")
    return Finding(("处理器", "processor"), found, slow if count < MEASURED else None)


def place(live: bool, environment: Mapping[str, str], modules: Mapping[str, object]) -> Finding:
    """笔记本是在哪里打开的 / Where the notebook was opened.

    Colab and VS Code are recognised; behind a Jupyter server JupyterLab and Notebook look the same.
    """
    what = ("训练的面板", "panel of a training")
    elsewhere = ("Google Colab" if "google.colab" in modules or "COLAB_RELEASE_TAG" in environment else
                 "Kaggle" if "KAGGLE_KERNEL_RUN_TYPE" in environment else
                 "VS Code" if not live and any(name.startswith("VSCODE_") for name in environment) else None)
    if elsewhere:
        known = ("没有在那里试过", "not tried there") if elsewhere == "VS Code" else (
            "用 Colab 的那些版本试过三课，数字相同，但没有在网站上试过",
            "three lessons ran with the versions that Colab has, with the same numbers; the site itself was not tried")
        return Finding(what, (f"像是在 {elsewhere} 里：{known[0]}；训练可能一口气做完，语言切换可能不起作用",
                              f"this looks like {elsewhere}: {known[1]}; trainings may run to their end at once, and "
                              "the language switch may not act"),
                       ("想边看边训练，就用 README 的第一条命令，在 JupyterLab 里打开",
                        "to watch the training, open it in JupyterLab with the first command of the README"))
    if live:
        return Finding(what, ("有人在看：边训练边画，滑块从下一步起生效（图示要 JupyterLab 4.1 以上）",
                              "somebody is watching: curves grow and sliders act on the next step (diagrams need "
                              "JupyterLab 4.1 or later)"))
    return Finding(what, ("没有人在看（自动运行）：训练一口气做完，数字相同",
                          "nobody is watching (an automatic run): trainings run to their end at once, with the same "
                          "numbers"))


def nothing_more(gpu: str | None) -> Finding:
    """不需要的：显卡与网络 / What is not needed: an accelerator and the network."""
    found = (("没有，也不需要", "none, and none is needed") if gpu is None else
             (f"有 GPU（{gpu}），不需要", f"there is a GPU ({gpu}); it is not needed"))
    return Finding(("GPU 与网络", "GPU and network"),
                   (f"GPU：{found[0]}。网络：装好以后不需要", f"GPU: {found[1]}. Network: not needed once installed"))


def _loads(package: object, load: Callable[[str], None]) -> bool:
    """Whether every compiled part of this package can be loaded."""
    folders = getattr(package, "submodule_search_locations", None) or []
    try:
        for file in (file for folder in folders for file in Path(folder).glob("_C*")):
            load(str(file))
    except OSError:
        return False
    return True


def _joined(faults: Sequence[Name]) -> Name:
    return "；".join(zh for zh, _ in faults), "; ".join(en for _, en in faults)
