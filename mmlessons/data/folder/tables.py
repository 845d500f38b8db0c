"""读 metadata.csv 和 metadata.jsonl，一行一行地 / Read metadata.csv and metadata.jsonl, row by row.

A row that cannot be used is noted, and the others are read on. Nothing but text is made of what stands there.

用不了的一行记下来，接着读别的。读到的只当文字，不当别的。
"""

import codecs
import csv
import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from mmlessons.data.folder.problems import Notes

Line = tuple[int, str]  # its number, from 1
Row = tuple[int, dict[str, str]]
COLUMNS = ("file_name", "text", "text_zh", "source", "split")


def rows(path: Path, name: str, note: Notes) -> Iterator[Row]:
    """每一行的编号和各列 / The number of each row and its columns, of which only COLUMNS are kept, always as text."""
    read = _csv if path.suffix == ".csv" else _jsonl
    try:
        path.open("rb").close()
    except OSError as error:
        note("unreadable", name, why=error.strerror)
        return
    for number, found in read(_lines(path, name, note), name, note):
        row = {}
        for column in COLUMNS:
            value = found.get(column)
            value = "" if value is None else value
            if not isinstance(value, str):
                note("not_text", name, number, column=column)
                break
            row[column] = value.strip()
        else:
            if "�" in row["text"]:
                note("replaced_letters", name, number)
            yield number, row


def _lines(path: Path, name: str, note: Notes) -> Iterator[Line]:
    """Decoded line by line, because a table put together from two may have two encodings."""
    with path.open("rb") as file:
        start = file.read(2)
    if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        note("utf16", name)
        with path.open(encoding="utf-16", errors="replace", newline="") as file:
            yield from enumerate(file, 1)
        return
    number = 0
    with path.open("rb") as file:
        for piece in file:
            for line in piece.splitlines(keepends=True):  # a lone \r ends a line on old Macs
                number += 1
                try:
                    yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
                    continue
                except UnicodeDecodeError:
                    pass
                try:
                    text = line.decode("gb18030")
                except UnicodeDecodeError:
                    note("bad_encoding", name, number)
                    continue
                note("gb18030", name, number)
                yield number, text


def _csv(lines: Iterator[Line], name: str, note: Notes) -> Iterator[Row]:
    """After a quote that is never closed it goes on with the next line."""
    waiting: deque[Line] = deque()
    taken: list[Line] = []

    def feed() -> Iterator[str]:
        while line := waiting.popleft() if waiting else next(lines, None):
            taken.append(line)
            yield line[1]

    header, first = None, next(lines, (1, ""))
    waiting.append(first)
    delimiter = max(",;\t", key=first[1].count)
    while True:
        try:
            for fields in csv.reader(feed(), delimiter=delimiter, strict=True):
                number = taken[0][0]
                taken.clear()
                if header is None:
                    header = [field.strip().lower() for field in fields]
                    twice = next((c for c in COLUMNS if header.count(c) > 1), None)
                    if twice:
                        note("column_twice", name, column=twice)
                        return
                    lacking = next((c for c in COLUMNS[:2] if c not in header), None)
                    if lacking:
                        note("no_column", name, column=lacking, header=repr(first[1].strip()[:80]))
                        return
                elif len(fields) > len(header) and any(field.strip() for field in fields[len(header):]):
                    note("many_fields", name, number, found=len(fields), wanted=len(header))
                elif any(field.strip() for field in fields):
                    yield number, dict(zip(header, fields, strict=False))
            if header is None:
                note("no_column", name, column=COLUMNS[0], header="''")
            return
        except csv.Error:
            note("quote", name, taken[0][0])
            waiting.extendleft(reversed(taken[1:]))
            taken.clear()


def _jsonl(lines: Iterator[Line], name: str, note: Notes) -> Iterator[Row]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict):
            yield number, found
        else:
            note("not_json", name, number)
