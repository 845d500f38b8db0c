"""JupyterLab 从这个文件夹启动时读它 / JupyterLab reads this where it is started in this folder.

Panels and pictures are saved with a notebook, so that they are there tomorrow without running anything.

面板和图随笔记本一起保存，明天打开时不用运行就看得见。
"""

from pathlib import Path

c.LabApp.app_settings_dir = str(Path(__file__).parent / "docs/jupyterlab")  # noqa: F821 (JupyterLab brings c)
