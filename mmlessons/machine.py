"""这台机器或容器给我们多少 / How much this machine or container gives us.

A container, a service of systemd and a job on a cluster say so in their control groups; a limit there counts as if the
machine were no larger.

容器、systemd 的服务、集群上的作业，都把限额写在控制组里；有限额时，就当机器只有那么大。
"""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil

OWN = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


def memory_here() -> float:
    """内存，GB / The memory, GB."""
    limits = [int(text) for text in _said("memory", "memory.max", "memory.limit_in_bytes") if text.isdigit()]
    return min([psutil.virtual_memory().total, *limits]) / 2**30


def cores_here() -> int:
    """处理器的核，至少一个 / The cores of the processor, at least one.

    Of a share such as 2.5 cores the whole ones count.

    限额若是 2.5 个核，只算整的。
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shares = [text.split() for text in _said("cpu", "cpu.max")]  # "max 100000" where there is no limit
    shares += zip(_said("cpu", "cpu.cfs_quota_us"), _said("cpu", "cpu.cfs_period_us"), strict=False)  # "-1" likewise
    return max(1, min([usable, *(int(time) // int(period) for time, period in shares if time.isdigit())]))


def _said(controller: str, *names: str) -> Iterator[str]:
    """What the files of these names say, in the control group of this process and in those around it.

    In version 1 each controller has a tree of groups; in version 2 there is one tree, whose line names no controller.
    """
    lines = OWN.read_text().splitlines() if OWN.exists() else []
    for _, controllers, group in (line.split(":", 2) for line in lines):
        if controllers and controller not in controllers.split(","):
            continue
        inner = Path(group.lstrip("/"))  # inside a container it may not be there, and its top is the container
        for folder in (inner, *inner.parents):
            for name in names:
                file = GROUPS / (controller if controllers else "") / folder / name
                if file.is_file():
                    yield file.read_text().strip()
