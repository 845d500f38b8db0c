"""README 的第一条命令让 JupyterLab 读它 / The first command of the README has JupyterLab read this.

Panels and pictures are saved with a notebook, so that they are there tomorrow without running anything. A user and
root in a container type the same command.

面板和图随笔记本一起保存，明天打开时不用运行就看得见。普通用户和容器里的 root 用同一条命令。
"""

from pathlib import Path

SETTINGS = str(Path(__file__).parent / "docs/jupyterlab")
c.LabApp.app_settings_dir = SETTINGS  # noqa: F821 (JupyterLab brings c)
c.JupyterNotebookApp.app_settings_dir = SETTINGS  # noqa: F821 (the same in Jupyter Notebook 7)
c.ServerApp.allow_root = True  # noqa: F821
