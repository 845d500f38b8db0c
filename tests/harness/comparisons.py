"""正文里的比较，由谁守着 / What the prose compares, and what guards it.

A sentence that compares (“more than”, “no better”) states what might turn out otherwise. Either it stands beside a code
cell that asserts, just before it or just after it, or `APART` says by which assert of another cell it is held, or why
it states no result of this lesson. Questions state nothing; what an adjacent assert really says, people read in
docs/claims.md, where the sentences stand above it. Decimals have a check of their own (harness/stored.py).
"""

import ast
import re

from tests.harness import stored

WORDS = {
    "en": re.compile(
        r"(?<!rather )(?<!other )\b(?:than|better|worse|best|worst|beats?|wins?|loses|faster|slower|nearly all|"
        r"almost all|hardly|barely|as (?:good|well|high|low) as|a match for|no gain|gains?|helps?|hurts?|improves?)\b",
        re.I),
    "zh": re.compile(
        r"比[^较如方例，。；、]{1,30}?[高低多少好坏差快慢大小强弱准宽窄]|更[高低多少好坏差快慢强弱准]"
        r"|最[好差高低准强](?!到|的几|的就)|不如|胜|赢|[强高低多少]于|几乎[全都不没]|大半|不相上下|一样[好高准]"
        r"|(?:没有?|有)(?:好处|坏处|帮助)|[好差多少]得多|帮[得不]上|提高"),
}
LINK = re.compile(r"!?\[(?P<words>[^]]*)\]\([^)]*\)")
TABLE = re.compile(r"(?m)^\|.*$")
REASONS = {
    "how": ("说的是怎样做、怎样数、怎样看", "says how something is made, counted or read"),
    "proof": ("在正文里推出来的", "derived in the text"),
    "data": ("数据的性质，由数据的测试守着", "a property of the data, held by the tests of the data"),
    "cited": ("别处的结果，注明了出处", "a result from elsewhere, with its source"),
    "said": ("不是结果：引子、比喻、练习里的故事、猜测", "no result: an opening, a figure of speech, a story, a guess"),
    "machine": ("时间，在我们的机器上量的", "a time, measured on our machine"),
}
# lesson: [(words of the Chinese sentence or "", words of the English one or "", a reason, or the code of an assert)]
APART = {
    "00_start_here": [("写出最低和最高", "", "how")],
    "01_vision_language_model": [
        ("", "A translation is no better", "data"),
        ("哪一条若从更高处开始", "", "said"),
        ("三个损失的单位都一样", "", "how"),
        ("", "writing has the help of the hint", "how"),
        ("", "the louder vote wins", "said"),
        ("", "less than two thirds of the one above", "how"),
        ("提示还帮得上类别，帮不上名字", "the hint still helps with the kind and not with the name",
         'new["both"]["subgroup"] > new["picture"]["subgroup"] + 0.06'),
        ("", "why tasks learned together can help each other", "cited"),
    ],
    "02_cross_modal_alignment": [
        ("三个种子里的最低到最高", "", "how"),
        ("", "mend it (sometimes more than one line)", "how"),
        ("", "A sum gains here and loses there", 'both["artist"] < contrast["artist"]'),
        ("", "easier to align than two encoders in the world", "said"),
    ],
    "03_multimodal_fusion": [
        ("胜不胜得过一条什么也不学的规则", "whether they beat a rule that learns nothing", "said"),
        ("语音比嘈杂声高 5 分贝", "", "data"),
        ("", "nearly all of its writers never occur in training", "data"),
        ("", "the test is easier than a blind one", "said"),
        ("三个也一样，只是线更多", "", "said"),
        ("最好的单独一样作参照", "with the best single modality to compare with", "how"),
        ("表中是三个种子的最低到最高", "", "how"),
        ("乘起来与最好的融合不相上下", "are a match for the best fusion", 'max((top[c] - each("warned", c)).max()'),
        ("", "the worst number of three seeds", "how"),
        ("交叉熵最低也就是", "the cross-entropy is at best", "proof"),
        ("", "its accuracy is hardly better than guessing", "said"),
        ("就与最好的融合不相上下", "were a match for the best fusion", 'max((top[c] - each("warned", c)).max()'),
        ("各在什么假设下最好", "under which assumptions each is best", "cited"),
    ],
    "04_visual_question_answering": [("", "the better it fits what is asked, the higher", "how")],
    "05_image_captioning": [
        ("", "less than one of them in front of you", "machine"),
        ("", "More than one training is to be reported", "how"),
        ("所以整句几乎不可能蒙对", "a whole one is hardly ever hit by luck", "data"),
        ("两样的也大半出现过", "", "data"),
        ("同时留四句，取最好的", "keeps four texts and takes the best", "how"),
        ("900 步与那 1300 步用的处理器时间差不多", "", "machine"),
        ("提示帮不上名字", "the hint did not help with the name", "cited"),
        ("分两段（第一段给出每格的答案）比一段学得好得多", "learn far more than one",
         "mean(two) > mean(one) + 0.25"),
        ("", "without a picture more than two tokens in three are right",
         'min(of("blind", "test", "token")) > 2 / 3'),
    ],
    "06_cross_modal_retrieval": [
        ("若比它还高，是因为没学过的模型", "", "said"),
        ("模型却几乎没变", "the model has hardly changed", "proof"),
        ("名次最差的八幅考试图画", "the eight test pictures with the worst ranks", "how"),
    ],
    "07_multimodal_sentiment": [
        ("哪一种更好，好在哪里", "Which is better, and where", "said"),
        ("读过第 3 课更好", "Better with lesson 3 behind you", "said"),
        ("", "they show something else than what is meant", "data"),
        ("它自己几乎不分褒贬", "which by itself hardly tells praise from blame", "data"),
        ("我们猜它把 272 句话背熟了大半", "", "said"),
        ("没有一种比“永远答贬”高出 0.05", "", 's["reversed"][m] < s["reversed"]["majority"] + 0.05'),
        ("", "more than twenty thousand video clips", "cited"),
    ],
    "08_video_understanding": [
        ("先读第 3 课更好", "Better with lesson 3 behind you", "said"),
        ("", "No amount of looking helps", "proof"),
        ("", "clips of little more than a second", "data"),
        ("只比看一帧的好一点点", "only a little better than one that sees a single frame", "cited"),
        ("一帧几乎帮不上忙", "one frame is of almost no help", 'known["frame"] < 0.25'),
    ],
}


def statements(cell):
    """[(language, sentence)] of what a Markdown cell states by comparing; a code cell states nothing."""
    if cell.cell_type != "markdown":
        return
    kept = []  # formulas, code and the words of links stand for themselves, and nothing in them is compared

    def keep(hit):
        kept.append(hit["words"] if "words" in hit.re.groupindex else hit[0])
        return f"\0{len(kept) - 1}\0"

    text = TABLE.sub("", stored.FENCE.sub("", stored.COMMENT.sub("", cell.source)))
    for language, content in stored.blocks(text)[0]:
        for pattern in (stored.FORMULA, stored.INLINE_CODE, LINK):
            content = pattern.sub(keep, content)
        for sentence in stored.SENTENCE.split(stored.TAG.sub(" ", content)):
            if WORDS[language].search(re.sub("\0\\d+\0", " ", sentence)) and not re.search(r"[?？]", sentence):
                whole = re.sub("\0(\\d+)\0", lambda hit: kept[int(hit[1])], sentence)
                yield language, " ".join(whole.split()).lstrip("）)*- ")


def asserts(cell):
    """Whether a code cell asserts, itself or by the `settle` of its lesson; what it only defines does not count."""
    if cell.cell_type != "code":
        return False
    tree = ast.parse(re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", cell.source))
    tree.body = [node for node in tree.body if not isinstance(node, ast.FunctionDef)]
    return any(isinstance(node, ast.Assert)
               or (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "settle") for node in ast.walk(tree))


def beside(notebook, i):
    """The asserting code cell that Markdown cell i stands beside: just before it, else just after it; or None."""
    return next((k for k in (i - 1, i + 1) if 0 <= k < len(notebook.cells) and asserts(notebook.cells[k])), None)


def sort(notebook, lesson):
    """Who guards what the prose compares.

    Returns ({code cell: [sentences]}, {sentence: reason or code}, what is wrong): wrong is a sentence that nothing
    guards, and a row of APART that no sentence needs or whose code stands in no asserting cell.
    """
    rows = {words: why for zh, en, why in APART.get(lesson, ()) for words in (zh, en) if words}
    held, apart, wrong, unused = {}, {}, [], set(rows)
    for i, cell in enumerate(notebook.cells):
        k = beside(notebook, i)
        for language, sentence in statements(cell):
            if words := next((words for words in rows if words in sentence), None):
                apart[sentence] = rows[words]
                unused.discard(words)
            elif k is not None:
                held.setdefault(k, []).append(sentence)
            else:
                wrong.append(f"cell {i} ({language}) compares, and nothing guards it: {sentence}")
    code = "\n".join(cell.source for cell in notebook.cells if asserts(cell))
    wrong += [f"{words!r} compares nothing, or no longer" for words in unused]
    wrong += [f"{why!r} is in no cell that asserts" for why in rows.values() if why not in REASONS and why not in code]
    return held, apart, wrong
