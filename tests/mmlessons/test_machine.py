"""机器或容器给多少 / How much a machine or container gives."""

import os

import psutil
import pytest

from mmlessons import machine

TOTAL = psutil.virtual_memory().total
LITTLE = TOTAL // 4


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """As if /proc and /sys said what a test says: the group of this process, and files with what is in them."""
    monkeypatch.setattr(machine, "OWN", tmp_path / "own")
    monkeypatch.setattr(machine, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)

    def say(own, files):
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "groups" / name).write_text(f"{text}\n")

    return say


@pytest.mark.parametrize(("own", "files", "cores"), [
    ("0::/\n", {"cpu.max": "max 100000"}, 8),
    ("0::/\n", {"cpu.max": "300000 100000"}, 3),
    ("0::/\n", {"cpu.max": "250000 100000"}, 2),
    ("0::/\n", {"cpu.max": "50000 100000"}, 1),
    ("0::/\n", {"cpu.max": "1600000 100000"}, 8),
    ("0::/\n", {}, 8),
    ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "400000 100000"}, 4),
    ("0::/a/b\n", {"a/b/cpu.max": "200000 100000", "a/cpu.max": "400000 100000"}, 2),
    ("0::/a\n", {"b/cpu.max": "100000 100000"}, 8),
    ("4:memory:/a\n3:cpu,cpuacct:/a\n0::/\n", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, 8),
    ("3:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "300000", "cpu/a/cpu.cfs_period_us": "100000"}, 3),
    ("3:cpuacct,cpu:/out/side\n", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "50000"}, 2),
    ("3:cpuset:/a\n", {"cpu/a/cpu.cfs_quota_us": "100000", "cpu/a/cpu.cfs_period_us": "100000"}, 8),
    ("", {"cpu.max": "100000 100000"}, 8),
], ids=str)
def test_the_cores_are_those_that_every_control_group_around_us_allows(groups, own, files, cores):
    groups(own, files)
    assert machine.cores_here() == cores


def test_cores_that_we_are_kept_from_do_not_count(groups, monkeypatch):
    groups("0::/\n", {"cpu.max": "400000 100000"})
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: {5}, raising=False)
    assert machine.cores_here() == 1


@pytest.mark.parametrize("count", [6, None])
def test_where_there_is_neither_affinity_nor_a_control_group_the_cores_of_the_machine_count(monkeypatch, tmp_path,
                                                                                         count):
    monkeypatch.setattr(machine, "OWN", tmp_path / "none")
    monkeypatch.delattr(machine.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(machine.os, "cpu_count", lambda: count)
    assert machine.cores_here() == (count or 1)


@pytest.mark.parametrize(("own", "files", "size"), [
    ("0::/\n", {"memory.max": "max"}, TOTAL),
    ("0::/\n", {"memory.max": LITTLE}, LITTLE),
    ("0::/a/b\n", {"a/memory.max": LITTLE, "a/b/memory.max": "max"}, LITTLE),
    ("4:memory:/a\n", {"memory/a/memory.limit_in_bytes": LITTLE}, LITTLE),
    ("4:memory:/a\n", {"memory/memory.limit_in_bytes": 9223372036854771712}, TOTAL),
    ("4:cpu:/a\n", {"memory/a/memory.limit_in_bytes": LITTLE}, TOTAL),
], ids=str)
def test_the_memory_is_what_every_control_group_around_us_allows(groups, own, files, size):
    groups(own, files)
    assert machine.memory_here() == size / 2**30


def test_this_machine_has_a_core_and_some_memory():
    assert 1 <= machine.cores_here() <= (os.cpu_count() or 1)
    assert 0.1 < machine.memory_here() <= TOTAL / 2**30
