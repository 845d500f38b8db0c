"""图画文件夹里会有什么不对，该怎么办 / What can be wrong with a folder of pictures, and what to do about it."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

MOST = 100  # of one kind are kept, and the others counted: a list of 300,000 helps nobody
USED = {  # what is said of a picture or a row that is used all the same
    "cmyk", "palette", "sixteen_bit", "turned", "first_frame", "copy", "moved", "replaced_letters", "gb18030", "utf16",
    "unknown_split", "split_of_source", "empty_split", "broken_shard"}
SAY = {  # kind → Chinese, English; in braces what is known of the case
    # a file
    "not_a_picture": ("不是能读的图画（PNG、JPEG、GIF、WebP、BMP、TIFF），请用看图软件打开，另存为 PNG 或 JPEG",
                      "is not a picture that we can read (PNG, JPEG, GIF, WebP, BMP, TIFF); open it in an image viewer "
                      "and save it as PNG or JPEG"),
    "other_format": ("我们不读 {suffix} 文件，请另存为 PNG 或 JPEG",
                     "is of a kind that we do not read, {suffix}; save it as PNG or JPEG"),
    "empty_file": ("文件是空的，请重新复制", "is an empty file; copy it again"),
    "broken": ("图画不完整或已损坏，请重新复制", "is cut off or damaged; copy it again"),
    "too_large": ("有 {pixels} 像素，太大，没有解码，请缩小到一亿像素以内",
                  "has {pixels} pixels and was not decoded; make it smaller than 100 million pixels"),
    "not_colours": ("存的是 32 位的数，不是颜色，请另存为 8 位的 PNG",
                    "holds 32-bit numbers and no colours; save it as an 8-bit PNG"),
    "unreadable": ("打不开这个文件（{why}），请检查权限", "cannot be opened ({why}); check its permissions"),
    "not_a_file": ("不是普通文件，没有打开", "is no ordinary file, so it was not opened"),
    "link_out": ("是指向文件夹外面的链接，没有打开，请把文件复制进来",
                 "is a link that leaves the folder, so it was not opened; copy the file into the folder"),
    "linked_folder": ("是链接过来的文件夹，没有进去，请把文件复制进来",
                      "is a link to another folder, which we did not enter; copy its files into this one"),
    "bad_name": ("文件名不是 UTF-8，请改名", "has a name that is not UTF-8; rename the file"),
    "no_row": ("没有说明：表里没有它的一行，也不在以标签为名的子文件夹里，请补上一行",
               "has no caption, because no row names it and no sub-folder gives it a label; add a row for it"),
    "cmyk": ("是印刷用的 CMYK 颜色，已换成 RGB", "is in the CMYK colours of printing, and was converted to RGB"),
    "palette": ("用调色板存颜色，已换成 RGB", "stores its colours in a palette, and was converted to RGB"),
    "sixteen_bit": ("每个像素 16 位，已换成 8 位", "has 16 bits a pixel, and was converted to 8"),
    "turned": ("相机记着它是转过的，已转正", "was turned upright, as its camera noted (EXIF)"),
    "first_frame": ("有 {frames} 帧，只用第一帧", "has {frames} frames, of which the first is used"),
    "copy": ("与 {other} 的像素完全相同，两份都留在 {split} 里",
             "has exactly the pixels of {other}, and both are kept in {split}"),
    "moved": ("与 {other} 的像素完全相同，所以从 {given} 移到 {split}，免得漏题",
              "has exactly the pixels of {other}, and was moved from {given} to {split} to prevent a leak"),
    # a row
    "no_file": ("没有这个文件，请检查名字", "is not in the folder; check the name"),
    "other_case": ("没有这个文件，但有 {other}，请写成一样的大小写",
                   "is not in the folder, but {other} is; write capital and small letters as there"),
    "leaves_folder": ("这个路径离开了文件夹，没有打开，请写文件夹里面的相对路径",
                      "is a path that leaves the folder, so it was not opened; write a path relative to the folder"),
    "address": ("是网址，这里不联网，请先下载到文件夹里",
                "is an address on the network, and nothing is downloaded here; put the file into the folder"),
    "no_name": ("file_name 是空的，请写上文件名", "has an empty file_name; write the name of the picture"),
    "no_text": ("text 是空的，请写上说明", "has an empty text; write a caption"),
    "not_text": ("{column} 需要是文字，请用引号括起来", "must have text in {column}; put it in quotes"),
    "same_row": ("与前面的一行完全相同，只用一次", "repeats an earlier row, and is used once"),
    "many_fields": ("有 {found} 格，表头只有 {wanted} 格；说明里有逗号的话，请用双引号括起来",
                    "has {found} fields where the first line has {wanted}; put a caption with commas in double quotes"),
    "quote": ("双引号没有成对，这一行不用，请改正", "has a double quote without its partner, and is not used"),
    "not_json": ("不是 JSON：每行要写一个 {{…}}", "is not JSON; write one {{…}} on each line"),
    "unknown_split": ("不认识 split {given!r}，按来源或内容划分；可以写 train、validation、test",
                      "has an unknown split {given!r}, and was divided by its source or content; use train, validation "
                      "or test"),
    "gb18030": ("不是 UTF-8，已按 GB18030 读，请看看对不对，再把表存为 UTF-8",
                "is not UTF-8 and was read as GB18030; see whether it is right and save the table as UTF-8"),
    "bad_encoding": ("既不是 UTF-8 也不是 GB18030，这一行不用，请把表存为 UTF-8",
                     "is neither UTF-8 nor GB18030, and is not used; save the table as UTF-8"),
    "replaced_letters": ("里有 �，有的字已经丢了，请改正", "holds �, so letters were lost before; correct them"),
    # a shard, a table, or the whole
    "broken_shard": ("不是完整的 tar 分片，只读到坏的地方，请重新复制",
                     "is no complete tar shard, and was read as far as it is good; copy it again"),
    "utf16": ("是 UTF-16，已照此读，请另存为 UTF-8", "is in UTF-16 and was read as such; save it as UTF-8"),
    "no_column": ("第一行里没有 {column} 这一列，表不能用；第一行是 {header}",
                  "has no column {column} in its first line, so it cannot be used; its first line is {header}"),
    "column_twice": ("有两列都叫 {column}，表不能用，请改名",
                     "has two columns named {column}, so it cannot be used; rename one"),
    "second_table": ("没有用：同一文件夹里已有 metadata.csv，请只留一个",
                     "is not used, because metadata.csv lies beside it; keep one of them"),
    "other_table": ("没有用：表要叫 metadata.csv 或 metadata.jsonl，请另存",
                    "is not used, because a table must be metadata.csv or metadata.jsonl; save it as one of these"),
    "split_of_source": ("来源 {source} 分到了几个部分（{splits}），成绩可能偏高，请让它只在一个部分里",
                        "the source {source} is in several splits ({splits}), so scores may be too high; keep it in "
                        "one of them"),
    "empty_split": ("{split} 里一幅也没有，因为能分开的只有 {groups} 组（来源，或没有来源的图画），"
                    "或 split 一列没有写它；请补上",
                    "there is nothing in {split}, because there are only {groups} groups (sources, or pictures without "
                    "one) to divide, or because the column split never says it; add some"),
    "more": ("还有 {count} 处同样的问题（{of}）", "{count} more of the same kind ({of})"),
}


@dataclass(frozen=True)
class Problem:
    """一处不对：在哪里，怎么办 / One thing that is wrong: where it is, and what to do.

    `row` is the line of the table, the first line being 1, or None. `used` tells whether the picture or row is used
    all the same.

    `row` 是表的第几行（第一行是 1），没有就是 None。`used` 说这幅图画或这一行是否照样用。
    """

    kind: str
    file: str
    row: int | None
    zh: str
    en: str
    used: bool

    def __str__(self) -> str:
        row_zh, row_en = ("", "") if self.row is None else (f"第 {self.row} 行：", f"row {self.row}: ")
        file = f"{self.file} " if self.file else ""
        return f"{row_zh}{file}{self.zh} / {row_en}{file}{self.en}"


class Notes:
    """记下不对的地方，每一种最多留 100 处 / What is wrong is noted here, and at most 100 of a kind are kept."""

    def __init__(self) -> None:
        self.kept: list[Problem] = []
        self.counts: Counter[str] = Counter()

    def __call__(self, kind: str, file: str = "", row: int | None = None, **known: Any) -> None:
        """记一处 / Note one."""
        self.counts[kind] += 1
        if self.counts[kind] <= MOST:
            zh, en = (text.format(**known) for text in SAY[kind])
            self.kept.append(Problem(kind, file, row, zh, en, kind in USED))

    def all(self) -> tuple[Problem, ...]:
        """全部，最后是没留下的各有多少 / All of them, and at the end how many of each kind were not kept."""
        for kind in [kind for kind, count in self.counts.items() if count > MOST]:
            zh, en = (text.format(count=self.counts[kind] - MOST, of=kind) for text in SAY["more"])
            self.kept.append(Problem("more", "", None, zh, en, kind in USED))
        return tuple(self.kept)
