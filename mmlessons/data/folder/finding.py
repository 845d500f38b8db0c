"""找到图画，给每幅找到它的行 / Find the pictures, and for each its row.

Only what this finds is ever opened. 只有这里找到的文件，才会被打开。
"""

import contextlib
import json
import os
import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from mmlessons.data.folder import reading, tables
from mmlessons.data.folder.problems import Notes
from mmlessons.data.folder.splitting import NAMES

TABLES = ("metadata.csv", "metadata.jsonl")
IGNORED = {"thumbs.db", "desktop.ini", "__macosx"}  # what systems leave behind, like names that begin with a dot
Odd = dict[str, tuple[str, str]]  # name of a file → kind of problem, why


@dataclass(frozen=True)
class Row:
    """一幅图画和它的说明 / A picture and its caption.

    `row` is the line of the table, or None where the folder is the label.

    `row` 是表里的第几行，以文件夹为标签时是 None。
    """

    file: str
    text: str
    text_zh: str
    source: str
    row: int | None


class Rows(Sequence):
    """许多行，紧紧存在一起 / Many rows, packed: some 100 bytes each, and no objects until one is asked for."""

    def __init__(self) -> None:
        self._text, self._ends, self._which = bytearray(), array("q", [0]), array("q")

    def append(self, row: Row) -> None:
        """加一行 / Add a row."""
        self._which.append(len(self._ends) - 1)
        self._text += json.dumps([*vars(row).values()], ensure_ascii=False).encode(errors="backslashreplace")
        self._ends.append(len(self._text))

    def keep(self, which: Sequence[int]) -> None:
        """只留这些行，依这个次序 / Keep only these rows, in this order."""
        self._which = array("q", (self._which[i] for i in which))

    def __len__(self) -> int:
        return len(self._which)

    def __getitem__(self, i: int) -> Row:
        at = self._which[i]
        return Row(*json.loads(self._text[self._ends[at]:self._ends[at + 1]]))


def place(root: Path, name: str) -> Path:
    """这幅图画在哪里 / Where the picture of this name is. Names are in NFC, as people type them; a Mac may keep NFD.

    Raises Unreadable if it is a link that leaves the folder by now. 若它此时是离开文件夹的链接，报 Unreadable。
    """
    path = root / name
    path = path if path.exists() else root / unicodedata.normalize("NFD", name)
    if not Path(os.path.realpath(path)).is_relative_to(root):
        raise reading.Unreadable("link_out")
    return path


def walk(root: Path) -> tuple[list[str], list[str], Odd]:
    """图画、表、打不开的 / The names of all pictures, of all tables and of what we do not open, sorted."""
    names, metadata, odd, inside = [], [], {}, [""]
    while inside:
        folder = inside.pop()
        with _entries(root, folder, odd) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower() in IGNORED:
                    continue
                name, suffix = folder + entry.name, os.path.splitext(entry.name)[1].lower()
                kind = _kind(root, entry)
                if kind == "folder":
                    inside.append(f"{name}/")
                elif not kind and entry.name in TABLES:
                    metadata.append(name)
                elif not kind and suffix in reading.SUFFIXES:
                    names.append(unicodedata.normalize("NFC", name))
                elif entry.name.lower().startswith("metadata."):
                    odd[name] = kind or "other_table", ""
                elif suffix in reading.SUFFIXES or kind in ("linked_folder", "bad_name"):
                    odd[name] = kind, ""
                elif suffix in reading.OTHERS:
                    odd[name] = "other_format", suffix
    for name in [name for name in metadata if name.endswith(".jsonl") and name[:-5] + "csv" in metadata]:
        odd[name] = "second_table", ""
        metadata.remove(name)
    names.sort()
    return names, sorted(metadata), odd


def _entries(root: Path, folder: str, odd: Odd) -> contextlib.AbstractContextManager[Iterable[os.DirEntry]]:
    try:
        return os.scandir(root / folder)
    except OSError as error:
        odd[folder] = "unreadable", str(error.strerror)
        return contextlib.nullcontext(())


def _kind(root: Path, entry: os.DirEntry) -> str:
    """A folder to enter, nothing for a file that may be read, or what is wrong."""
    try:
        entry.name.encode()
        inside = not _is_link(entry) or Path(os.path.realpath(entry.path)).is_relative_to(root)
        if entry.is_dir():
            return "linked_folder" if _is_link(entry) else "folder"
        return ("" if inside else "link_out") if entry.is_file() else "not_a_file"
    except UnicodeEncodeError:
        return "bad_name"
    except OSError:  # a link that leads to itself
        return "not_a_file"


def _is_link(entry: os.DirEntry) -> bool:
    return entry.is_symlink() or getattr(entry, "is_junction", bool)()


def match(root: Path, names: list[str], metadata: list[str], odd: Odd, note: Notes) -> tuple[Rows, np.ndarray]:
    """有图画的行，和所给的划分 / The rows that have a picture, in the order of the pictures' names; and their split as
    given, -1 for none."""
    rows, given, places, lower = Rows(), array("b"), array("q"), {}
    used, told = bytearray(len(names)), set()

    def add(at: int, text: str, text_zh: str = "", source: str = "", split: int = -1, row: int | None = None) -> None:
        rows.append(Row(names[at], text, text_zh, source, row))
        given.append(split if split >= 0 else NAMES.get(names[at].partition("/")[0].lower(), -1))
        places.append(at)

    for table in metadata:
        base = table.rpartition("/")[0]
        for number, row in tables.rows(root / table, table, note):
            name, known = unicodedata.normalize("NFC", row["file_name"].replace("\\", "/")), {}
            wrong = _wrong(name)
            if not wrong:
                name = str(PurePosixPath(base, name))
                at = bisect_left(names, name)
                if at < len(names) and names[at] == name:
                    used[at] = 1
                    wrong = "" if row["text"] else "no_text"
                elif name in odd:
                    wrong, known["suffix"] = odd[name]
                    told.add(name)
                else:
                    lower = lower or {name.lower(): name for name in names}
                    known["other"] = lower.get(name.lower())
                    wrong = "other_case" if known["other"] else "no_file"
            if wrong:
                note(wrong, name or table, number, **known)
                continue
            split = NAMES.get(row["split"].lower(), -1)
            if row["split"] and split < 0:
                note("unknown_split", name, number, given=row["split"])
            add(at, row["text"], row["text_zh"], row["source"], split, number)
    for name in sorted(odd.keys() - told):
        kind, why = odd[name]
        note(kind, name.encode(errors="backslashreplace").decode(), suffix=why, why=why)
    bases = tuple(table.removesuffix(PurePosixPath(table).name) for table in metadata)
    for at in (at for at, has_row in enumerate(used) if not has_row):
        folders = names[at].split("/")[:-1]
        if folders and folders[0].lower() in NAMES:
            del folders[0]
        if folders and not names[at].startswith(bases):
            add(at, folders[-1])
        else:
            note("no_row", names[at])
    order = np.argsort(np.array(places, np.int64), kind="stable")
    rows.keep(order)
    return rows, np.array(given, np.int8)[order]


def _wrong(name: str) -> str:
    """What is wrong with the file name of a row, if anything."""
    if not name:
        return "no_name"
    if "://" in name:
        return "address"
    outside = name.startswith("/") or PureWindowsPath(name).drive or ".." in name.split("/")
    return "leaves_folder" if outside else ""
