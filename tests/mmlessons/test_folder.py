"""一个文件夹就是一个数据集 / A folder is a data set: more than a hundred bad ones, and right values.

Each bad folder is a good one of ten drawings with one fault, and what comes of it is said exactly: the problems, and
the pictures that are lost. All others can be read.
"""

import codecs
import json
import os
import pickle
import shutil
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmlessons.data import emoji, folder

COUNT = 10
CHINESE = range(0x3400, 0xA000)


@cache
def drawings() -> tuple[np.ndarray, list[str], list[str]]:
    data = emoji.load()
    return data.pictures["twemoji"].permute(0, 2, 3, 1).numpy(), data.names("en"), data.names("zh")


def drawing(i: int) -> Image.Image:
    return Image.fromarray(drawings()[0][i])


@dataclass
class Made:
    """A good folder, to be spoiled: 0.png to 9.png, and a table whose row i + 2 names picture i."""

    root: Path
    header: str = "file_name,text"
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root.mkdir(exist_ok=True)
        for i in range(COUNT):
            drawing(i).save(self.root / f"{i}.png")
        self.lines = [f"{i}.png,{drawings()[1][i]}" for i in range(COUNT)]
        self.table()

    def table(self, *more: str, end: str = "\n") -> None:
        text = end.join([self.header, *self.lines, *more]) + end
        (self.root / "metadata.csv").write_bytes(text.encode())

    def row(self, i: int, line: str) -> None:
        self.lines[i] = line
        self.table()

    def column(self, name: str, *values: str) -> None:
        self.header += f",{name}"
        self.lines = [f"{line},{values[i % len(values)]}" for i, line in enumerate(self.lines)]
        self.table()

    def jsonl(self, **lines: str) -> None:
        """The same as JSON, where some lines are others."""
        (self.root / "metadata.csv").unlink()
        each = [json.dumps({"file_name": f"{i}.png", "text": drawings()[2][i]}) for i in range(COUNT)]
        text = "\n".join(lines.get(f"line{i}", line) for i, line in enumerate(each, 1))
        (self.root / "metadata.jsonl").write_text(text, "utf-8")

    def labelled(self) -> None:
        """Two sub-folders in place of the table."""
        (self.root / "metadata.csv").unlink()
        for label, numbers in (("even", range(0, COUNT, 2)), ("odd", range(1, COUNT, 2))):
            (self.root / label).mkdir()
            for i in numbers:
                (self.root / f"{i}.png").rename(self.root / label / f"{i}.png")

    def put(self, name: str, content: bytes) -> None:
        (self.root / name).parent.mkdir(exist_ok=True)
        (self.root / name).write_bytes(content)

    def bytes(self, kind: str = "PNG", i: int = 0, **options) -> bytes:
        path = self.root / "made.bin"
        image = options.pop("image", drawing(i))
        image.save(path, kind, **options)
        content = path.read_bytes()
        path.unlink()
        return content


def cut(kind: str) -> Callable[[Made], None]:
    def spoil(made: Made) -> None:
        whole = made.bytes(kind)
        made.put("0.png", whole[:len(whole) * 2 // 3])
    return spoil


def saved(kind: str, convert: Callable[[Image.Image], Image.Image] = lambda image: image, **options):
    def spoil(made: Made) -> None:
        made.put("0.png", made.bytes(kind, image=convert(drawing(0)), **options))
    return spoil


def put(content: bytes, name: str = "0.png") -> Callable[[Made], None]:
    return lambda made: made.put(name, content)


def row(line: str) -> Callable[[Made], None]:
    return lambda made: made.row(0, line)


def rows(*lines: str) -> Callable[[Made], None]:
    return lambda made: made.table(*lines)


def lines(**given: str) -> Callable[[Made], None]:
    return lambda made: made.jsonl(**given)


def encoded(change: Callable[[bytes], bytes]) -> Callable[[Made], None]:
    def spoil(made: Made) -> None:
        path = made.root / "metadata.csv"
        path.write_bytes(change(path.read_bytes()))
    return spoil


def link(name: str, to: str) -> Callable[[Made], None]:
    def spoil(made: Made) -> None:
        target = made.root / to if to.startswith(".") else Path(to)
        (made.root / name).unlink(missing_ok=True)
        (made.root / name).symlink_to(target, target_is_directory=target.is_dir())
    return spoil


def header_of(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and has next to nothing of it."""
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))


def flipped(made: Made) -> None:
    content = bytearray(made.bytes())
    content[len(content) // 2] ^= 0xFF
    made.put("0.png", bytes(content))


def with_exif(orientation: int, damaged: bool = False) -> Callable[[Made], None]:
    def spoil(made: Made) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        said = exif.tobytes()
        made.put("0.png", made.bytes("JPEG", exif=said[:9] + b"\xff" * 9 if damaged else said))
    return spoil


def moving(kind: str) -> Callable[[Made], None]:
    return lambda made: made.put("0.png", made.bytes(kind, save_all=True, append_images=[drawing(1), drawing(2)]))


def copied(*names: str) -> Callable[[Made], None]:
    def spoil(made: Made) -> None:
        for name in names:
            made.put(name, made.bytes("BMP"))
        made.table(*(f"{name},again" for name in names if name not in [f"{i}.png" for i in range(COUNT)]))
    return spoil


def sixteen(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


class Bomb:
    """What runs when it is unpickled."""

    def __reduce__(self):
        return os.system, (f"touch {Bomb.path}",)


def pickled(name: str) -> Callable[[Made], None]:
    def spoil(made: Made) -> None:
        Bomb.path = made.root.parent / "ran"
        made.put(name, pickle.dumps(Bomb()))
    return spoil


def then(*steps: Callable[[Made], None]) -> Callable[[Made], None]:
    def spoil(made: Made) -> None:
        for step in steps:
            step(made)
    return spoil


def sources(*values: str, splits: tuple[str, ...] = ()) -> Callable[[Made], None]:
    def spoil(made: Made) -> None:
        made.column("source", *values)
        if splits:
            made.column("split", *splits)
    return spoil


def named_badly(made: Made) -> None:
    with open(os.fsencode(made.root) + b"/\xc4\xe3.png", "wb") as file:
        file.write(made.bytes())


def left_behind(made: Made) -> None:
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png", ".hidden.png", "__MACOSX/0.png", ".git/0.png"):
        made.put(name, b"no picture")


def few(count: int) -> Callable[[Made], None]:
    def spoil(made: Made) -> None:
        for i in range(count, COUNT):
            (made.root / f"{i}.png").unlink()
        del made.lines[count:]
        made.table()
    return spoil


def lost(kind: str, row: int | None = 2, file: str = "0.png") -> list:
    """One problem, and picture 0 is lost."""
    return [[(kind, file, row)], {0}]


def kept(*problems: tuple[str, str, int | None]) -> list:
    return [list(problems), set()]


UTF16 = "file_name\ttext\n" + "\n".join(f"{i}.png\t猫 {i}" for i in range(COUNT))
FAULTS: dict[str, list] = {  # what is wrong: how it is made so; problems (kind, file, row); pictures lost
    # a picture
    "words in place of a picture": [put(b"no picture"), *lost("not_a_picture")],
    "a web page saved as a picture": [put(b"<!doctype html><title>404"), *lost("not_a_picture")],
    "a PDF named png": [put(b"%PDF-1.7\n%abc"), *lost("not_a_picture")],
    "PostScript named png, which would start a program": [
        put(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), *lost("not_a_picture")],
    "an empty file": [put(b""), *lost("empty_file")],
    "PNG cut off": [cut("PNG"), *lost("broken")],
    "JPEG cut off": [cut("JPEG"), *lost("broken")],
    "GIF cut off": [cut("GIF"), *lost("broken")],
    "WebP cut off": [cut("WEBP"), *lost("broken")],
    "BMP cut off": [cut("BMP"), *lost("broken")],
    "TIFF cut off": [cut("TIFF"), *lost("broken")],
    "one byte of a PNG changed": [flipped, *lost("broken")],
    "only the first bytes of a PNG": [put(b"\x89PNG\r\n\x1a\n"), *lost("not_a_picture")],
    "300 megapixels": [put(header_of(20_000, 15_000)), *lost("too_large")],
    "120 megapixels": [put(header_of(12_000, 10_000)), *lost("too_large")],
    "more pixels than there are in the world": [put(header_of(2**31 - 1, 2**31 - 1)), *lost("too_large")],
    "CMYK": [saved("JPEG", lambda image: image.convert("CMYK")), *kept(("cmyk", "0.png", 2))],
    "CMYK in a TIFF": [saved("TIFF", lambda image: image.convert("CMYK")), *kept(("cmyk", "0.png", 2))],
    "a palette": [saved("PNG", lambda image: image.convert("P")), *kept(("palette", "0.png", 2))],
    "a palette with a transparent colour": [
        saved("PNG", lambda image: image.quantize(8), transparency=0), *kept(("palette", "0.png", 2))],
    "16 bits a pixel": [saved("PNG", sixteen), *kept(("sixteen_bit", "0.png", 2))],
    "16 bits a pixel in a TIFF": [saved("TIFF", sixteen), *kept(("sixteen_bit", "0.png", 2))],
    "32-bit numbers": [saved("TIFF", lambda image: image.convert("I")), *lost("not_colours")],
    "fractions": [saved("TIFF", lambda image: image.convert("F")), *lost("not_colours")],
    "lying on its side": [with_exif(6), *kept(("turned", "0.png", 2))],
    "upside down": [with_exif(3), *kept(("turned", "0.png", 2))],
    "upright, and the camera says so": [with_exif(1), *kept()],
    "damaged notes of the camera": [with_exif(6, damaged=True), *kept()],
    "a moving GIF": [moving("GIF"), *kept(("first_frame", "0.png", 2), ("palette", "0.png", 2))],
    "a moving PNG": [moving("PNG"), *kept(("first_frame", "0.png", 2))],
    "a moving WebP": [moving("WEBP"), *kept(("first_frame", "0.png", 2))],
    "a TIFF of three pages": [moving("TIFF"), *kept(("first_frame", "0.png", 2))],
    "black and white, one bit": [saved("PNG", lambda image: image.convert("1")), *kept()],
    "transparent": [saved("PNG", lambda image: image.convert("RGBA")), *kept()],
    "a picture of one pixel": [saved("PNG", lambda image: image.resize((1, 1))), *kept()],
    "an iPhone's HEIC": [then(put(b"ftypheic", "0.heic"), row("0.heic,cat")), [
        ("other_format", "0.heic", 2), ("no_row", "0.png", None)], {0}],
    "an SVG that nobody names": [put(b"<svg/>", "a.svg"), *kept(("other_format", "a.svg", None))],
    "a pickle named png": [pickled("0.png"), *lost("not_a_picture")],
    "a pickle named metadata": [pickled("metadata.pkl"), *kept(("other_table", "metadata.pkl", None))],
    "the same picture twice": [copied("0.bmp"), *kept(("copy", "0.png", 2))],
    "the same picture three times": [copied("a.bmp", "b.bmp"), *kept(("copy", "a.bmp", 12), ("copy", "b.bmp", 13))],
    # a file and its row
    "a file without a row": [put(b"x", "lonely.jpg"), *kept(("no_row", "lonely.jpg", None))],
    "a row without a file": [rows("10.png,cat"), *kept(("no_file", "10.png", 12))],
    "a folder of the name in the row": [then(lambda made: (made.root / "10.png").mkdir(), rows("10.png,cat")),
                                        *kept(("no_file", "10.png", 12))],
    "capitals in the name": [row("0.PNG,cat"), [("other_case", "0.PNG", 2), ("no_row", "0.png", None)], {0}],
    "a path up and out": [rows("../outside.png,cat"), *kept(("leaves_folder", "../outside.png", 12))],
    "a path out and in again": [rows("../folder/0.png,cat"), *kept(("leaves_folder", "../folder/0.png", 12))],
    "a path up and out from further in": [rows("a/../../b.png,cat"), *kept(("leaves_folder", "a/../../b.png", 12))],
    "an absolute path": [rows("/etc/passwd,cat"), *kept(("leaves_folder", "/etc/passwd", 12))],
    "a path on a Windows drive": [rows("C:\\me\\0.png,cat"), *kept(("leaves_folder", "C:/me/0.png", 12))],
    "a path on a Windows server": [rows("\\\\host\\me\\0.png,cat"), *kept(("leaves_folder", "//host/me/0.png", 12))],
    "up and out with backslashes": [rows("..\\b.png,cat"), *kept(("leaves_folder", "../b.png", 12))],
    "an address on the network": [rows("https://a.b/0.png,cat"), *kept(("address", "https://a.b/0.png", 12))],
    "an address of a file": [rows("file:///etc/passwd,cat"), *kept(("address", "file:///etc/passwd", 12))],
    "a NUL in the name": [rows("0\0.png,cat"), *kept(("no_file", "0\0.png", 12))],
    "a row without a name": [rows(",cat"), *kept(("no_name", "metadata.csv", 12))],
    "an empty caption": [row("0.png,"), *lost("no_text")],
    "a caption of spaces": [row("0.png,  　 "), *lost("no_text")],
    "a row that ends after the name": [row("0.png"), *lost("no_text")],
    "the same row twice": [lambda made: made.table(made.lines[3]), *kept(("same_row", "3.png", 12))],
    "a picture with two captions": [rows("0.png,cat"), *kept()],
    "a comma in a caption without quotes": [row("0.png,a cat, a dog"), [
        ("many_fields", "metadata.csv", 2), ("no_row", "0.png", None)], {0}],
    "commas at the end of each row": [lambda made: (made.column("", "")), *kept()],
    "a quote never closed": [row('0.png,"a cat'), [("quote", "metadata.csv", 2), ("no_row", "0.png", None)], {0}],
    "a quote never closed in the last row": [rows('0.png,"a cat'), *kept(("quote", "metadata.csv", 12))],
    "quotes inside quotes": [row('0.png,"a "big" cat"'), [
        ("quote", "metadata.csv", 2), ("no_row", "0.png", None)], {0}],
    "inches": [row('0.png,a 5" cat'), *kept()],
    "a caption of two lines": [lambda made: (made.row(0, '0.png,"a cat\nand a dog"')), *kept()],
    "empty rows": [rows("", ",", "  "), *kept()],
    "a name with ./ and //": [row(".//0.png,cat"), *kept()],
    # links and other things that are no files
    "a link that leaves the folder": [link("0.png", "../outside.png"), *lost("link_out")],
    "a link to a system file": [link("0.png", "/etc/passwd"), *lost("link_out")],
    "a link to a device that never ends": [link("0.png", "/dev/zero"), *lost("not_a_file")],
    "a link that leads nowhere": [link("0.png", "./nowhere.png"), *lost("not_a_file")],
    "a link that leads to itself": [link("0.png", "./0.png"), *lost("not_a_file")],
    "a link inside the folder": [link("0.png", "./1.png"), *kept(("copy", "1.png", 3))],
    "a linked folder": [link("more", "../elsewhere"), *kept(("linked_folder", "more", None))],
    "a linked folder that is its own parent": [link("more", "."), *kept(("linked_folder", "more", None))],
    "a pipe, which would wait for ever": [
        then(lambda made: (made.root / "0.png").unlink(), lambda made: os.mkfifo(made.root / "0.png")),
        *lost("not_a_file")],
    "a name that is not UTF-8": [named_badly, *kept(("bad_name", "\\udcc4\\udce3.png", None))],
    "what systems leave behind": [left_behind, *kept()],
    # encodings and line ends
    "a byte order mark": [encoded(lambda text: codecs.BOM_UTF8 + text), *kept()],
    "Windows line ends": [lambda made: made.table(end="\r\n"), *kept()],
    "line ends of an old Mac": [lambda made: made.table(end="\r"), *kept()],
    "no line end at the end": [encoded(bytes.rstrip), *kept()],
    "GB18030 in one row": [encoded(lambda text: text + "0.png,猫和狗".encode("gb18030")),
                           *kept(("gb18030", "metadata.csv", 12))],
    "neither UTF-8 nor GB18030": [encoded(lambda text: text + b"0.png,caf\xe9\xff\n"),
                                  *kept(("bad_encoding", "metadata.csv", 12))],
    "a letter cut in the middle": [encoded(lambda text: text + "0.png,猫".encode()[:-2]),
                                   *kept(("bad_encoding", "metadata.csv", 12))],
    "letters lost before": [row("0.png,a �at"), *kept(("replaced_letters", "metadata.csv", 2))],
    "UTF-16": [encoded(lambda _: UTF16.encode("utf-16")), *kept(("utf16", "metadata.csv", None))],
    "UTF-16 of the other kind": [encoded(lambda _: codecs.BOM_UTF16_BE + UTF16.encode("utf-16-be")),
                                 *kept(("utf16", "metadata.csv", None))],
    "semicolons": [encoded(lambda text: text.replace(b",", b";")), *kept()],
    "tabs": [encoded(lambda text: text.replace(b",", b"\t")), *kept()],
    "capitals and spaces in the first line": [
        encoded(lambda text: text.replace(b"file_name,text", b" File_Name, TEXT ")), *kept()],
    # JSON
    "JSON as it should be": [lines(), *kept()],
    "a line that is not JSON": [lines(line2="{'file_name': '1.png'}"), [
        ("not_json", "metadata.jsonl", 2), ("no_row", "1.png", None)], {1}],
    "a line of JSON that is a list": [lines(line2='["1.png", "cat"]'), [
        ("not_json", "metadata.jsonl", 2), ("no_row", "1.png", None)], {1}],
    "JSON without end": [lines(line2="[" * 100_000), [
        ("not_json", "metadata.jsonl", 2), ("no_row", "1.png", None)], {1}],
    "a caption that is a number": [lines(line2='{"file_name": "1.png", "text": 7}'), [
        ("not_text", "metadata.jsonl", 2), ("no_row", "1.png", None)], {1}],
    "a name that is a list": [lines(line2='{"file_name": ["1.png"], "text": "cat"}'), [
        ("not_text", "metadata.jsonl", 2), ("no_row", "1.png", None)], {1}],
    "a caption that is null": [lines(line2='{"file_name": "1.png", "text": null}'), [("no_text", "1.png", 2)], {1}],
    "no caption in a line": [lines(line2='{"file_name": "1.png"}'), [("no_text", "1.png", 2)], {1}],
    "no name in a line": [lines(line2='{"text": "cat"}'), [
        ("no_name", "metadata.jsonl", 2), ("no_row", "1.png", None)], {1}],
    "empty lines between JSON": [lines(line2='\n\n{"file_name": "1.png", "text": "cat"}\n'), *kept()],
    # tables
    "a table in both forms": [put(b"{}", "metadata.jsonl"), *kept(("second_table", "metadata.jsonl", None))],
    "a table of Excel": [put(b"PK", "metadata.xlsx"), *kept(("other_table", "metadata.xlsx", None))],
    "a table with a second ending": [put(b"", "metadata.csv.txt"), *kept(("other_table", "metadata.csv.txt", None))],
    # labels
    "a picture outside the labels": [then(lambda made: made.labelled(), lambda made: made.put("a.png", made.bytes())),
                                     *kept(("no_row", "a.png", None))],
    "a label without pictures": [
        then(lambda made: made.labelled(), lambda made: (made.root / "none").mkdir()), *kept()],
    "something else among the labels": [then(lambda made: made.labelled(), put(b"x", "even/notes.txt")), *kept()],
    # splits
    "an unknown split": [lambda made: made.column("split", "trian", "train", "validation", "test"), *kept(
        ("unknown_split", "0.png", 2), ("unknown_split", "4.png", 6), ("unknown_split", "8.png", 10))],
    "splits under other names": [lambda made: made.column("split", "Training", "val", "测试", "dev"), *kept()],
    "no split for the test": [lambda made: made.column("split", "train", "validation"),
                              *kept(("empty_split", "", None))],
    "a picture given to training and to the test": [
        then(copied("9.png"), lambda made: made.column("split", "train", "validation", *["test"] * 8)),
        *kept(("moved", "9.png", 11))],
    "a source given to training and to the test": [
        sources("me", "you", splits=("train", "train", "test", "validation", "test")), *kept(
            ("split_of_source", "", None), ("split_of_source", "", None))],
    "one source": [sources("me"), *kept(("empty_split", "", None), ("empty_split", "", None))],
    "two pictures": [few(2), [("empty_split", "", None)], set(range(2, COUNT))],
    "every source has one and the same picture": [
        then(sources("a", "b", "c", "d", "e"), lambda made: [made.put(f"{i}.png", made.bytes()) for i in range(5)]),
        *kept(*[("copy", f"{i}.png", i + 2) for i in range(1, 5)], ("empty_split", "", None),
              ("empty_split", "", None))],
}


@pytest.fixture
def made(tmp_path: Path) -> Made:
    drawing(11).save(tmp_path / "outside.png")
    (tmp_path / "elsewhere").mkdir()
    drawing(12).save(tmp_path / "elsewhere/12.png")
    return Made(tmp_path / "folder")


def both(zh: str, en: str) -> bool:
    return any(ord(letter) in CHINESE for letter in zh) and not any(ord(letter) in CHINESE for letter in en)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_named_and_the_rest_is_used(fault: str, made: Made) -> None:
    if os.name == "nt" and any(word in fault for word in ("link", "pipe", "not UTF-8")):
        pytest.skip("Windows makes none of these without being asked")
    spoil, problems, gone = FAULTS[fault]
    spoil(made)
    data = folder.load(made.root)
    assert sorted((p.kind, p.file, p.row or 0) for p in data.problems) == sorted(
        (kind, file, row or 0) for kind, file, row in problems)
    assert all(both(p.zh, p.en) and p.used == (p.kind in folder.problems.USED) for p in data.problems)
    files = {row.file.rpartition("/")[2] for row in data.rows}
    assert {f"{i}.png" for i in range(COUNT)} - files == {f"{i}.png" for i in gone}
    assert sorted(torch.cat([*data.splits.values()]).tolist()) == list(range(len(data.rows)))
    for split in data.splits:
        for item in data.pictures(split, size=32):
            assert item["picture"].shape == (3, 32, 32)
            assert item["text"]
    assert not (made.root.parent / "ran").exists()


NOTHING: dict[str, list] = {  # folders of which nothing can be used: how they are made so, and what is said
    "there is none": [shutil.rmtree, "没有 .*folder 这个文件夹.*there is no folder"],
    "a file": [lambda root: (shutil.rmtree(root), root.write_bytes(b"x")), "是文件.*is a file and no folder"],
    "an archive": [lambda root: shutil.move(shutil.make_archive(str(root), "zip", root) and root, f"{root}-") and
                   shutil.move(f"{root}.zip", root), "压缩包请先解开.*unpack it first"],
    "empty": [lambda root: (shutil.rmtree(root), root.mkdir()), "里没有图画.*there is no picture"],
    "empty folders in it": [lambda root: (shutil.rmtree(root), (root / "cat").mkdir(parents=True)),
                            "there is no picture"],
    "only what systems leave behind": [
        lambda root: (shutil.rmtree(root), root.mkdir(), (root / ".DS_Store").write_bytes(b"x")),
        "there is no picture"],
    "only words": [lambda root: (shutil.rmtree(root), root.mkdir(), (root / "a.txt").write_bytes(b"x")),
                   "there is no picture"],
    "no table and no labels": [lambda root: (root / "metadata.csv").unlink(), "0.png 没有说明.*0.png has no caption"],
    "a table without pictures": [lambda root: [p.unlink() for p in root.glob("*.png")],
                                 "0.png 没有这个文件.*0.png is not in the folder"],
    "a table without rows": [lambda root: (root / "metadata.csv").write_text("file_name,text\n"), "has no caption"],
    "an empty table": [lambda root: (root / "metadata.csv").write_bytes(b""), "has no column file_name"],
    "no column file_name": [lambda root: (root / "metadata.csv").write_text("name,text\n0.png,cat"),
                            "没有 file_name 这一列.*has no column file_name .*'name,text'"],
    "no column text": [lambda root: (root / "metadata.csv").write_text("file_name,caption\n0.png,cat"),
                       "没有 text 这一列.*has no column text .*'file_name,caption'"],
    "no first line": [lambda root: (root / "metadata.csv").write_text("0.png,cat\n1.png,dog"),
                      "has no column file_name .*'0.png,cat'"],
    "Chinese commas": [lambda root: (root / "metadata.csv").write_text("file_name，text\n0.png，cat", "utf-8"),
                       "has no column file_name .*file_name，text"],
    "a column twice": [lambda root: (root / "metadata.csv").write_text("file_name,text,text\n0.png,cat,dog"),
                       "两列都叫 text.*two columns named text"],
    "a folder in place of the table": [
        lambda root: ((root / "metadata.csv").unlink(), (root / "metadata.csv").mkdir()), "has no caption"],
    "a table outside": [lambda root: (
        shutil.move(root / "metadata.csv", root.parent / "t.csv"),
        (root / "metadata.csv").symlink_to(root.parent / "t.csv")), "metadata.csv is a link that leaves the folder"],
    "one JSON list over many lines": [lambda root: (
        (root / "metadata.csv").unlink(),
        (root / "metadata.jsonl").write_text(json.dumps([{"file_name": "0.png", "text": "cat"}], indent=1))),
        "不是 JSON：每行.*write one {…} on each line"],
    "UTF-16 without a mark": [lambda root: (root / "metadata.csv").write_bytes(UTF16.encode("utf-16-le")),
                              "has no column file_name"],
    "only damaged pictures": [lambda root: [p.write_bytes(b"x") for p in root.glob("*.png")],
                              "不是能读的图画.*is not a picture"],
}


@pytest.mark.parametrize("fault", NOTHING)
def test_a_folder_of_which_nothing_can_be_used_says_why(fault: str, made: Made) -> None:
    spoil, said = NOTHING[fault]
    spoil(made.root)
    with pytest.raises(ValueError, match=f"(?s){said}"):
        folder.load(made.root)


def test_every_kind_of_problem_occurs_in_a_test() -> None:
    named = {problem[0] for _, problems, _ in FAULTS.values() for problem in problems}
    assert set(folder.problems.SAY) - named <= {"no_column", "column_twice", "more", "unreadable", "broken_shard"}


# -- right values ------------------------------------------------------------------------------------------------------

def first(made: Made, split: str | None = None, **how) -> torch.Tensor:
    """Picture 0, wherever it is."""
    data = folder.load(made.root)
    return next(item["picture"] for split in data.splits for item in data.pictures(split, **how)
                if item["file"].startswith("0."))


def test_the_pixels_are_those_of_the_file(made: Made) -> None:
    data = folder.load(made.root)
    for split, which in data.splits.items():
        assert len(which) > 0
        for item in data.pictures(split):
            i = int(item["file"][0])
            assert np.array_equal(item["picture"].permute(1, 2, 0).numpy(), drawings()[0][i])
            assert item["text"] == drawings()[1][i] == data.rows[item["index"]].text
            assert data.rows[item["index"]].row == i + 2
    assert [row.file for row in data.rows] == [f"{i}.png" for i in range(COUNT)]
    assert data.problems == data.duplicates == ()


def test_sixteen_bits_a_palette_and_printing_colours_keep_what_is_seen(made: Made) -> None:
    grey = np.asarray(drawing(0).convert("L"))
    saved("PNG", sixteen)(made)
    assert np.array_equal(first(made).numpy(), np.stack([grey] * 3))
    few_colours = drawing(0).quantize(8)
    saved("PNG", lambda _: few_colours)(made)
    assert np.array_equal(first(made).permute(1, 2, 0).numpy(), np.asarray(few_colours.convert("RGB")))
    saved("TIFF", lambda image: image.convert("CMYK"))(made)
    assert np.array_equal(first(made).permute(1, 2, 0).numpy(), drawings()[0][0])  # Pillow's CMYK is 255 - RGB
    glass = drawing(0).convert("RGBA")
    glass.putalpha(Image.fromarray(np.tile(np.array([0, 255], np.uint8), (32, 16))))
    saved("PNG", lambda _: glass)(made)
    seen = first(made).permute(1, 2, 0).numpy()
    assert (seen[:, ::2] == 255).all()
    assert np.array_equal(seen[:, 1::2], drawings()[0][0][:, 1::2])


def test_a_photograph_is_turned_as_its_camera_noted(made: Made) -> None:
    exif = Image.Exif()
    for orientation, turn in ((6, Image.Transpose.ROTATE_270), (8, Image.Transpose.ROTATE_90),
                              (2, Image.Transpose.FLIP_LEFT_RIGHT)):
        exif[0x0112] = orientation
        made.put("0.png", made.bytes("PNG", exif=exif))
        assert np.array_equal(first(made).permute(1, 2, 0).numpy(), np.asarray(drawing(0).transpose(turn)))


def test_a_picture_is_fitted_whole_into_a_white_square(made: Made) -> None:
    made.put("0.png", made.bytes(image=drawing(0).crop((0, 0, 32, 16))))
    seen = first(made, size=32)
    assert (seen[:, :8] == 255).all()
    assert (seen[:, 24:] == 255).all()
    assert np.array_equal(seen[:, 8:24].permute(1, 2, 0).numpy(), drawings()[0][0][:16])
    assert first(made).shape == (3, 16, 32)


def test_a_transform_is_given_the_picture(made: Made) -> None:
    assert first(made, transform=lambda image: image.size) == (32, 32)


def many_sources(made: Made, count: int = 60) -> None:
    """Each of 60 sources has two drawings."""
    data = emoji.load()
    made.lines = []
    for i in range(2 * count):
        Image.fromarray(data.pictures["noto"][i].permute(1, 2, 0).numpy()).save(made.root / f"n{i:03}.png")
        made.lines.append(f"n{i:03}.png,{data.names('en')[i]},me {i // 2}")
    made.header = "file_name,text,source"
    made.table()


def by_source(data: folder.Folder) -> dict[str, set[str]]:
    return {split: {data.rows[i].source for i in which.tolist()} for split, which in data.splits.items()}


def test_no_source_is_in_two_splits_and_the_seed_decides(made: Made) -> None:
    many_sources(made)
    seen = []
    for seed in range(3):
        data = folder.load(made.root, seed=seed)
        parts = by_source(data)
        assert sum(map(len, parts.values())) == 60
        assert [len(which) > 5 for which in data.splits.values()] == [True] * 3
        assert len(data.splits["train"]) > 70
        for source, part in ((s, p) for p in parts for s in parts[p]):
            lot = folder.splitting.drawn(seed, source)
            assert part == ("train" if lot < 0.8 else "validation" if lot < 0.9 else "test")
        seen.append(parts)
    assert seen[0] != seen[1] != seen[2]
    assert by_source(folder.load(made.root, seed=1)) == seen[1]


def test_a_new_source_moves_no_other(made: Made) -> None:
    many_sources(made, 50)
    before = by_source(folder.load(made.root))
    many_sources(made, 60)
    after = by_source(folder.load(made.root))
    assert all(before[split] <= after[split] for split in before)


def test_few_sources_leave_no_split_empty(made: Made) -> None:
    made.column("source", "a", "b", "c")
    for seed in range(10):
        assert [len(sources) for sources in by_source(folder.load(made.root, seed=seed)).values()] == [1, 1, 1]


def test_duplicates_are_in_one_split_and_so_are_the_sources_that_they_join(made: Made) -> None:
    many_sources(made)
    for i in range(0, 100, 10):  # sources 0 and 1, 5 and 6, …
        shutil.copy(made.root / f"n{i:03}.png", made.root / f"n{i + 2:03}.png")
    for seed in range(5):
        data = folder.load(made.root, seed=seed)
        assert data.duplicates == tuple((f"n{i:03}.png", f"n{i + 2:03}.png") for i in range(0, 100, 10))
        parts = by_source(data)
        assert sum(map(len, parts.values())) == 60
        assert all(any({f"me {i}", f"me {i + 1}"} <= sources for sources in parts.values()) for i in range(0, 50, 5))


def test_duplicates_without_a_source_are_in_one_split_whatever_the_format(made: Made) -> None:
    for i in range(COUNT):
        made.put(f"again{i}.{('bmp', 'webp', 'tif')[i % 3]}", made.bytes(
            ("BMP", "WEBP", "TIFF")[i % 3], i, **({"lossless": True} if i % 3 == 1 else {})))
    made.table(*(f"again{i}.{('bmp', 'webp', 'tif')[i % 3]},x" for i in range(COUNT)))
    for seed in range(5):
        data = folder.load(made.root, seed=seed)
        part = {data.rows[i].file.partition(".")[0]: split for split, which in data.splits.items()
                for i in which.tolist()}
        assert all(part[f"{i}"] == part[f"again{i}"] for i in range(COUNT))
        assert len(data.duplicates) == COUNT


def test_what_is_given_to_training_and_test_goes_to_training(made: Made) -> None:
    made.put("9.png", made.bytes())
    made.column("split", "train", "validation", *["test"] * 8)
    data = folder.load(made.root)
    assert data.texts("train") == [drawings()[1][0], drawings()[1][9]]
    assert "从 test 移到 train" in data.problems[0].zh
    assert str(data.problems[0]).startswith("第 11 行：9.png 与 0.png 的像素完全相同")
    assert " / row 11: 9.png has exactly the pixels of 0.png, and was moved from test to train" in str(data.problems[0])


def test_labels_and_folders_of_splits_are_read_as_hugging_face_lays_them_out(made: Made) -> None:
    made.labelled()
    data = folder.load(made.root)
    assert [(row.file, row.text, row.row) for row in data.rows] == [
        (f"{label}/{i}.png", label, None) for label in ("even", "odd") for i in range(label == "odd", COUNT, 2)]
    for split, label in (("train", "even"), ("test", "odd"), ("val", "more")):
        (made.root / split).mkdir()
        if label == "more":
            (made.root / split / label).mkdir()
            drawing(20).save(made.root / split / label / "20.png")
        else:
            (made.root / label).rename(made.root / split / label)
    data = folder.load(made.root)
    assert {split: set(data.texts(split)) for split in data.splits} == {
        "train": {"even"}, "test": {"odd"}, "validation": {"more"}}
    assert data.problems == ()


def test_a_table_in_a_folder_names_pictures_of_that_folder(made: Made) -> None:
    (made.root / "metadata.csv").unlink()
    for split, i in (("train", 0), ("validation", 1), ("test", 2)):
        (made.root / split).mkdir()
        (made.root / f"{i}.png").rename(made.root / split / "a.png")
        made.put(f"{split}/metadata.jsonl", json.dumps({"file_name": "a.png", "text": split, "text_zh": "猫"}).encode())
    data = folder.load(made.root)
    assert [(row.file, row.text, row.text_zh) for row in data.rows] == [
        (f"{split}/a.png", split, "猫") for split in ("test", "train", "validation")]
    assert all(data.texts(split) == [split] for split in data.splits)


def test_order_and_split_do_not_depend_on_the_order_in_which_the_system_lists(
        made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    many_sources(made, 20)
    made.put("lonely.png", made.bytes())
    one, real = folder.load(made.root), os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: Listed(sorted(real(path), key=lambda e: e.name, reverse=True)))
    other = folder.load(made.root)
    assert list(one.rows) == list(other.rows) == sorted(one.rows, key=lambda row: row.file)
    assert all(torch.equal(one.splits[split], other.splits[split]) for split in one.splits)
    assert one.problems == other.problems


class Listed(list):
    def __enter__(self) -> Iterator:
        return iter(self)

    def __exit__(self, *_) -> None:
        pass


def test_the_draw_is_that_of_every_machine() -> None:
    """blake2b("0 me") begins with 6604…, as `b2sum -l 48` says as well."""
    assert folder.splitting.drawn(0, "me") == 0x660461867ab2 / 2**48


def test_names_are_matched_whether_the_accent_is_a_letter_of_its_own_or_not(made: Made) -> None:
    (made.root / "0.png").rename(made.root / "cafe\u0301.png")
    made.row(0, "caf\u00e9.png,coffee")
    data = folder.load(made.root)
    assert data.problems == ()
    assert "coffee" in [item["text"] for split in data.splits for item in data.pictures(split)]


def test_several_captions_of_a_picture_are_rows_of_one_split_and_no_duplicates(made: Made) -> None:
    made.table(*(f"{i}.png,another" for i in range(COUNT)))
    data = folder.load(made.root)
    assert len(data.rows) == 2 * COUNT
    assert data.duplicates == data.problems == ()
    for which in data.splits.values():
        files = [data.rows[i].file for i in which.tolist()]
        assert files[::2] == files[1::2]


def test_a_picture_is_decoded_once_to_load_it_and_then_when_it_is_asked_for(
        made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made.table("0.png,another")
    read, real = [], folder.reading.read
    monkeypatch.setattr(folder.reading, "read", lambda path: read.append(path.name) or real(path))
    data = folder.load(made.root)
    assert sorted(read) == [f"{i}.png" for i in range(COUNT)]
    read.clear()
    train = data.pictures("train")
    data.loader("train")
    assert len(train) == len(data.splits["train"])
    assert read == []
    assert read == [train[0]["file"]]


def test_what_is_too_large_is_not_decoded(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made.put("0.png", header_of(10_001, 10_000))
    real = folder.reading._colours
    monkeypatch.setattr(folder.reading, "_colours", lambda image: real(image) if image.width == 32 else 1 / 0)
    with pytest.warns(Image.DecompressionBombWarning):
        data = folder.load(made.root)
    assert [p.zh for p in data.problems] == ["有 100,010,000 像素，太大，没有解码，请缩小到一亿像素以内"]


def test_nothing_outside_is_opened_nothing_unpickled_and_no_program_started(made: Made) -> None:
    for fault in ("a link that leaves the folder", "an absolute path", "a pickle named metadata", "a linked folder"):
        if os.name != "nt" or "link" not in fault:
            FAULTS[fault][0](made)
    pickled("1.png")(made)
    made.put("2.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    data = folder.load(made.root)  # once before, so that all that is needed is imported
    Watch.seen = []
    folder.load(made.root)
    list(data.pictures("train"))
    seen, Watch.seen = Watch.seen, None
    opened = [str(what[0]) for event, what in seen if event in ("open", "os.scandir")]
    assert [path for path in opened if not path.startswith(str(made.root))] == []
    forbidden = {"pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "socket.connect"}
    assert {event for event, _ in seen} & forbidden == set()
    assert len(opened) > COUNT


class Watch:
    """An audit hook stays for ever, and mostly does nothing."""

    seen: list | None = None

    @staticmethod
    def hook(event: str, what: tuple) -> None:
        if Watch.seen is not None:
            Watch.seen.append((event, what))


sys.addaudithook(Watch.hook)


def test_processes_and_threads_read_the_same(made: Made) -> None:
    one = folder.load(made.root)
    other = folder.load(made.root, threads=2)
    assert list(one.rows) == list(other.rows)
    batches = [list(data.loader("train", batch=4, workers=workers, seed=3)) for data, workers in ((one, 0), (other, 2))]
    for a, b in zip(*batches, strict=True):
        assert torch.equal(a["picture"], b["picture"])
        assert a["text"] == b["text"]
        assert torch.equal(a["index"], b["index"])
    assert sorted(i for batch in batches[0] for i in batch["index"].tolist()) == one.splits["train"].tolist()


def test_the_seed_orders_the_batches_anew_in_each_pass_and_none_keeps_the_order(made: Made) -> None:
    data = folder.load(made.root)
    loader, again = data.loader("train", seed=1), data.loader("train", seed=1)
    passes = [next(iter(loader))["file"] for _ in range(3)]
    assert passes[0] != passes[1] != passes[2]
    assert [next(iter(again))["file"] for _ in range(3)] == passes
    assert next(iter(data.loader("train")))["file"] == [data.rows[i].file for i in data.splits["train"].tolist()]


def test_a_picture_that_changed_after_loading_is_named(made: Made) -> None:
    data = folder.load(made.root)
    for path in made.root.glob("*.png"):
        path.write_bytes(b"x")
    with pytest.raises(ValueError, match=r"png 在载入之后变了.*png has changed since it was loaded"):
        data.pictures("train")[0]
    for path in made.root.glob("*.png"):
        path.unlink()
    with pytest.raises(ValueError, match="png has changed since it was loaded"):
        data.pictures("train")[0]


def test_a_picture_that_became_a_link_after_loading_is_not_followed(made: Made) -> None:
    if os.name == "nt":
        pytest.skip("Windows makes no link without being asked")
    data = folder.load(made.root)
    for i in range(COUNT):
        link(f"{i}.png", "../outside.png")(made)
    with pytest.raises(ValueError, match=r"png has changed since it was loaded.*link_out"):
        data.pictures("train")[0]


def test_a_file_that_may_not_be_read_is_named(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def closed(path: Path, *how, **more):
        if path.name == "0.png":
            raise PermissionError(13, "Permission denied")
        return real(path, *how, **more)

    monkeypatch.setattr(Path, "open", closed)
    assert [(p.kind, p.row) for p in folder.load(made.root).problems] == [("unreadable", 2)]


def test_of_one_kind_of_problem_a_hundred_are_kept_and_the_others_counted(made: Made) -> None:
    made.table(*(f"none{i}.png,cat" for i in range(150)))
    data = folder.load(made.root)
    assert [p.kind for p in data.problems] == ["no_file"] * 100 + ["more"]
    assert str(data.problems[-1]) == "还有 50 处同样的问题（no_file） / 50 more of the same kind (no_file)"
    assert len(data.rows) == COUNT


@pytest.mark.parametrize(("call", "said"), [
    (lambda root: folder.load(7), "path 需要是.*path must be"),
    (lambda root: folder.load(root, seed=-1), "seed 需要至少为 0.*seed must be at least 0"),
    (lambda root: folder.load(root, threads=1.5), "threads 需要是整数.*threads must be a whole number"),
    (lambda root: folder.load(root).pictures("exam"), "split .*exam"),
    (lambda root: folder.load(root).texts("exam"), "split .*exam"),
    (lambda root: folder.load(root).pictures("train", size=0), "size 需要至少为 1.*size must be at least 1"),
    (lambda root: folder.load(root).loader("train", batch=0), "batch 需要至少为 1.*batch must be at least 1"),
    (lambda root: folder.load(root).loader("train", workers=-1), "workers 需要至少为 0"),
])
def test_wrong_arguments_get_a_clear_error(call: Callable, said: str, made: Made) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        call(made.root)


def test_a_row_takes_about_as_many_bytes_as_its_words() -> None:
    rows = folder.finding.Rows()
    for i in range(10_000):
        rows.append(folder.Row(f"{i:06}.png", "a drawing of a cat", "", "noto", i + 2))
    assert len(pickle.dumps(rows)) < 100 * 10_000
    assert rows[9_999] == folder.Row("009999.png", "a drawing of a cat", "", "noto", 10_001)
