"""看一份已提交的笔记本 / What can be seen in a notebook as committed, without running it.

Each check takes the notebook and returns what is wrong, a line each; an empty list is a pass.
"""

import ast
import re
import unicodedata
from pathlib import Path

import nbformat

FOLDER = Path(__file__).parents[2] / "notebooks"
DOOR, *LESSONS = sorted(FOLDER.glob("*.ipynb"))  # the start page runs like a lesson and teaches none
WORKSHOPS = sorted(FOLDER.glob("workshops/*.ipynb"))
NOTEBOOKS = [DOOR, *LESSONS, *WORKSHOPS]
MOST_CELLS = 65  # of a lesson: one double period
CHINESE = re.compile(r"[\u3400-\u9fff]")
ENGLISH = re.compile(r"[A-Za-z]{2,}")
FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1\s*?$", re.M | re.S)
FORMULA = re.compile(r"\$\$.+?\$\$|\$[^$\n]+?\$", re.S)
HEADING = re.compile(r"^ {0,3}#{1,6} +(.+?)\s*$", re.M)
LANG_TAG = re.compile(r"<(div|span|details|summary|p)\b[^>]*\blang=[\"'](zh|en)[^>]*>", re.I)
TAG = re.compile(r"<[^>]+>")
INLINE_CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"!?\[[^]]*\]\([^)]*\)")
LOADED = re.compile(r"""(?:\bsrc=|<link\b[^>]*href=|@import|url\()\s*["']?(?:https?:)?//[^"'\s>)]+""", re.I)
COMMENT = re.compile(r"<!--.*?-->", re.S)
DRAWN = re.compile(r"data:image/(?!svg)")
IMAGE = re.compile(r"!\[(?P<alt>[^\]]*)\]\(|(?P<tag><img\b[^>]*>)", re.I)
PLACES = re.compile(
    r"/home/\w|/root/|/tmp/|/work/|/Users/\w|/private/var/|[A-Z]:\\\\?Users|site-packages|0x[0-9a-f]{7,}"
    r"|https?://(?:127\.0\.0\.1|localhost|0\.0\.0\.0)|file://"
)
NUMBER = re.compile(r"\d+(?:\.\d+)?")
WIDGET = "application/vnd.jupyter.widget-view+json"
SELF_CONTAINED = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=\s]+")


def label(path):
    """A lesson and its workshop have one file name."""
    return path.stem + "_workshop" * (path in WORKSHOPS)


def prose_cells(path):
    """The texts of the Markdown cells of the notebook at `path`."""
    return [text for _, text in markdown(nbformat.read(path, 4))]


def markdown(notebook):
    return [(i, cell.source) for i, cell in enumerate(notebook.cells) if cell.cell_type == "markdown"]


def code(notebook):
    return [(i, cell) for i, cell in enumerate(notebook.cells) if cell.cell_type == "code" and cell.source.strip()]


def blocks(text):
    """[(language, content)] of all elements with lang="zh" or "en", and the text with those elements taken out."""
    found, rest, position = [], [], 0
    while start := LANG_TAG.search(text, position):
        tags = re.compile(rf"<(/?){start[1]}\b[^>]*>", re.I)
        depth, end = 1, None
        for tag in tags.finditer(text, start.end()):
            depth += -1 if tag[1] else 1
            if depth == 0:
                end = tag
                break
        found.append((start[2].lower(), text[start.end() : end.start() if end else len(text)]))
        rest.append(text[position : start.start()])
        position = end.end() if end else len(text)
    return found, "".join([*rest, text[position:]])


def execution_order(notebook):
    """从头到尾依次运行 / Run once from top to bottom, and stored so."""
    counts = [cell.execution_count for _, cell in code(notebook)]
    return [] if counts == list(range(1, len(counts) + 1)) else [f"execution counts are {counts}, not 1, 2, 3, …"]


def clean_outputs(notebook):
    """没有错误与警告 / No error that is not a lesson, nothing on stderr."""
    wrong = []
    for i, cell in code(notebook):
        for output in cell.outputs:
            if output.output_type == "error" and "raises-exception" not in cell.metadata.get("tags", []):
                wrong.append(f"cell {i}: {output.ename}: {output.evalue}")
            if output.get("name") == "stderr":
                wrong.append(f"cell {i}: stderr: {output.text.strip()[:100]}")
    return wrong


def both_languages(notebook):
    """中英文一一对应 / In every Markdown cell each Chinese block has its English one, of like extent."""
    wrong = []
    for i, text in markdown(notebook):
        found, outside = blocks(FENCE.sub("", COMMENT.sub("", text)))
        chinese = [content for language, content in found if language == "zh"]
        english = [content for language, content in found if language == "en"]
        if len(chinese) != len(english):
            wrong.append(f"cell {i}: {len(chinese)} blocks lang=zh, {len(english)} lang=en")
        for zh, en in zip(chinese, english, strict=False):
            wrong += [f"cell {i}: {reason}" for reason in unequal(zh, en)]
        if stray := prose(outside):
            wrong.append(f"cell {i}: outside of any lang block: {stray[:80]!r}")
    return wrong


def unequal(zh, en):
    """Why these two blocks cannot say the same thing."""
    n_zh, n_words = len(CHINESE.findall(zh)), len(ENGLISH.findall(FORMULA.sub("", en)))
    if not n_zh:
        yield f"no Chinese in lang=zh: {zh.strip()[:60]!r}"
    elif not n_words:
        yield f"no English in lang=en: {en.strip()[:60]!r}"
    elif len(CHINESE.findall(en)) > n_words:
        yield f"lang=en is mostly Chinese: {en.strip()[:60]!r}"
    elif max(n_zh, n_words) > 30 and not 0.25 < n_zh / n_words < 8:
        yield f"{n_zh} Chinese characters beside {n_words} English words"
    displays = [len(re.findall(r"\$\$", text)) for text in (zh, en)]
    if displays[0] != displays[1]:
        yield f"{displays[0] // 2} display formulas in lang=zh, {displays[1] // 2} in lang=en"


def prose(outside):
    """What remains of text outside the blocks when headings, diagrams, formulas, tags, code and links are gone."""
    for pattern in (HEADING, FORMULA, TAG, INLINE_CODE, LINK):
        outside = pattern.sub(" ", outside)
    words = ENGLISH.findall(outside)
    return " ".join(outside.split()) if CHINESE.search(outside) or len(words) > 2 else ""


def headings(notebook):
    """标题含两种语言 / Every heading holds both languages and stands outside the blocks, so that it is listed once."""
    wrong, count = [], 0
    for i, text in markdown(notebook):
        text = FENCE.sub("", COMMENT.sub("", text))
        for heading in HEADING.findall(text):
            count += 1
            plain = FORMULA.sub("", TAG.sub("", heading))
            if not (CHINESE.search(plain) and ENGLISH.search(plain)):
                wrong.append(f"cell {i}: heading in one language: {heading!r}")
        for _, content in blocks(text)[0]:
            wrong += [f"cell {i}: heading inside a lang block: {h!r}" for h in HEADING.findall(content)]
    return wrong if count else ["no heading at all"]


def texts(notebook):
    """(where, text) of everything readable among the outputs; base64 pictures are left out."""
    for i, cell in code(notebook):
        for output in cell.outputs:
            parts = [output.get("text", ""), *output.get("traceback", [])]
            parts += [v for k, v in output.get("data", {}).items() if isinstance(v, str) and k != "image/png"]
            for part in parts:
                yield f"cell {i}", SELF_CONTAINED.sub("", part)
    yield "metadata", str(dict(notebook.metadata))


def machine_traces(notebook):
    """不留本机痕迹 / No path, address or user of the machine it was run on."""
    for where, text in texts(notebook):
        if hit := PLACES.search(text.replace(str(Path.home()), "/home/me")):
            yield f"{where}: names the machine: {text[max(0, hit.start() - 30) : hit.end() + 40]!r}"


def loads_nothing(notebook):
    """不从网上取东西 / No output that loads a script, a style or a picture from elsewhere."""
    for where, text in texts(notebook):
        if hit := LOADED.search(text):
            yield f"{where}: loads {hit[0]!r}"


def images_described(notebook):
    """图像有文字说明 / No image with an empty or missing alt, in prose or in HTML output."""
    html = [(f"cell {i}", o["data"]["text/html"]) for i, c in code(notebook) for o in c.outputs
            if "text/html" in o.get("data", {})]  # fmt: skip
    for where, text in [*((f"cell {i}", text) for i, text in markdown(notebook)), *html]:
        for image in IMAGE.finditer(text):
            alt = re.search(r"""\balt=(["'])(.*?)\1""", image["tag"], re.I | re.S) if image["tag"] else None
            if not (alt[2] if alt else image["alt"] or "").strip():
                yield f"{where}: image without alt: {image[0][:60]!r}"


def plain_kernel(notebook):
    """普通的 python3 内核 / The plain kernel every installation has."""
    kernel = notebook.metadata.get("kernelspec", {})
    if (kernel.get("name"), kernel.get("language", "python")) != ("python3", "python"):
        yield f"kernel is {dict(kernel)}"
    if not str(kernel.get("display_name", "")).startswith("Python 3"):
        yield f"kernel is called {kernel.get('display_name')!r}"


def same_numbers(notebook):
    """两种语言说同样的数 / Both languages give the same numbers; small whole ones may be words in one of them."""
    pairs = []
    for i, text in markdown(notebook):
        found = blocks(FENCE.sub("", COMMENT.sub("", text)))[0]
        pairs.append((i, *(" ".join(content for tongue, content in found if tongue == language)
                           for language in ("zh", "en"))))
    for i, cell in code(notebook):
        for call in ast.walk(ast.parse(re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", cell.source))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "note" \
                    and all(isinstance(argument, ast.Constant) for argument in call.args[:2]):
                pairs.append((i, *(argument.value for argument in call.args[:2])))
    for i, zh, en in pairs:
        zh, en = (numbers(text) for text in (zh, en))
        if zh != en:
            yield f"cell {i}: only in lang=zh {zh - en}, only in lang=en {en - zh}"


def numbers(text):
    for pattern in (FORMULA, INLINE_CODE, re.compile(r"\]\([^)]*\)")):
        text = pattern.sub(" ", text)
    return {n for n in NUMBER.findall(text.replace(",", "")) if "." in n or int(n) > 12}


def no_drawn_pictures_in_html(notebook):
    """图不能逐字比较 / nbval compares text/html letter by letter, and a drawn picture differs in a pixel elsewhere."""
    for i, cell in code(notebook):
        for output in cell.outputs:
            if DRAWN.search(output.get("data", {}).get("text/html", "")):
                yield f"cell {i}: a picture in text/html; live shows it as a widget with a PNG beside it"


def widgets_alone(notebook):
    """(cell, number of the output, has it controls?) of the outputs that are a widget and nothing else to look at."""
    for i, cell in code(notebook):
        for number, output in enumerate(cell.outputs):
            data = output.get("data", {})
            if WIDGET in data and not {"text/html", "image/png"} & set(data):
                yield i, number, data["text/plain"] != "<mmlessons.live>"


def nothing_is_a_widget_alone(notebook):
    """控件旁边都有静止的画面 / Where no widget can be shown there is a picture (python -m tests.notebooks.stills)."""
    return [f"cell {i}, output {number}" for i, number, _ in widgets_alone(notebook)]


def one_thread(notebook):
    """只用一个线程，机器有几个都一样 / One thread: sums are made in one order, however many a machine has."""
    first = next((cell.source for _, cell in code(notebook) if "import torch" in cell.source), None)
    if first and "torch.set_num_threads(1)" not in first:
        yield "the cell that first imports torch does not call torch.set_num_threads(1)"


def bold_is_bold(notebook):
    """`**先猜：**看` 不会变粗：冒号要在星号外面 / Bold that Markdown leaves as it was typed."""
    for i, text in markdown(notebook):
        for pattern in (FENCE, FORMULA, INLINE_CODE):
            text = pattern.sub("x", text)
        for k, stars in enumerate(re.finditer(r"\*\*", text)):
            inner, outer = text[stars.end():stars.end() + 1], text[max(0, stars.start() - 1):stars.start()]
            if k % 2:
                inner, outer = outer, inner
            if not inner.strip() or (punctuates(inner) and outer.strip() and not punctuates(outer)):
                yield f"cell {i}: not bold: {text[max(0, stars.start() - 15):stars.end() + 15]!r}"


def punctuates(character):
    return unicodedata.category(character)[0] in "PS"


def folded_cells_say_what_they_are(notebook):
    """折着的格，第一行用两种语言说它是什么 / Of a folded cell one sees the first line: a comment in both languages."""
    folded = ((i, cell.source.split("\n")[0]) for i, cell in code(notebook)
              if cell.metadata.get("jupyter", {}).get("source_hidden"))
    return [f"cell {i}: {line}" for i, line in folded
            if not (line.startswith("#") and CHINESE.search(line) and ENGLISH.search(line))]


CHECKS = [execution_order, clean_outputs, both_languages, headings, machine_traces, loads_nothing, images_described,
          no_drawn_pictures_in_html, nothing_is_a_widget_alone, plain_kernel, same_numbers, one_thread, bold_is_bold,
          folded_cells_say_what_they_are]
