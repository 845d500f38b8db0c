"""一个班，一台服务器 / A class on one server: docs/class.md says how it is used.

Every student is an account of the machine, in the group `students`, and works with one shared environment, in notebooks
of their own. What trainings in the background would compute is read from a folder that the teacher has filled.

每个学生是这台机器上的一个账号，在 `students` 组里。大家共用一个环境，笔记本各有一份。
后台训练的结果从老师备好的文件夹里读。
"""

import asyncio
import os
import pwd
import sys
from pathlib import Path

from mmlessons.machine import memory_here

c = get_config()  # noqa: F821 (JupyterHub brings it)
ROOT = Path(__file__).parents[1]
RESULTS = Path(os.environ.get("MM_RESULTS") or ROOT / "results").resolve()
if not RESULTS.is_dir():
    sys.exit(f"还没有先算好的结果，先运行 / no results yet, first run: python -m makers.results {RESULTS}")

os.umask(0o077)  # what the hub writes is for root, and what a student writes is for that student

# Who may come: accounts of this machine in this group, with their passwords (JupyterHub's own PAMAuthenticator).
c.LocalAuthenticator.allowed_groups = {"students"}

# What each gets: the environment this hub runs in, one thread, no process in the background.
c.Spawner.cmd = [str(Path(sys.executable).with_name("jupyterhub-singleuser"))]
c.Spawner.environment = {"MM_RESULTS": str(RESULTS), "MM_WORKERS": os.environ.get("MM_WORKERS", "0"),
                         "OMP_NUM_THREADS": "1"}
c.Spawner.default_url = "/lab/tree/lessons/00_start_here.ipynb"
c.Spawner.args = [f"--config={ROOT / 'jupyter_lab_config.py'}",  # panels and pictures are saved with a notebook
                  "--MappingKernelManager.cull_idle_timeout=1800", "--MappingKernelManager.cull_interval=60",
                  "--MappingKernelManager.cull_connected=True",  # a tab left open keeps no kernel
                  "--ServerApp.shutdown_no_activity_timeout=3600"]
c.Spawner.start_timeout = c.Spawner.http_timeout = 120  # a class begins all at once
c.JupyterHub.active_server_limit = max(1, int((memory_here() - 2) / 1.2))  # GB: one lesson a student, 2 for the rest


async def copy_the_lessons(spawner):
    """What the student does not have yet; it is the student who copies, so that nothing of root's can be reached."""
    student = pwd.getpwnam(spawner.user.name)
    copying = await asyncio.create_subprocess_exec(
        "cp", "-rn", "--no-preserve=mode", f"{ROOT / 'notebooks'}/.", f"{student.pw_dir}/lessons",
        cwd="/", user=student.pw_uid, group=student.pw_gid, extra_groups=[])
    await copying.wait()


c.Spawner.pre_spawn_hook = copy_the_lessons
