"""重写 mmcore 的默认词表 / Write the default vocabulary of mmcore again.

一行一个词，次序就是编号；词来自全部表情的名字和关键词。

One word a line, in the order of their ids; the words are those of the names and keywords of all emoji.

    python -m makers.vocabulary
"""

from mmcore.tokens import VOCABULARY, build_tokenizer
from mmlessons.data import emoji


def listed() -> str:
    """词表文件该有的内容 / What the file of the vocabulary should hold."""
    vocabulary = build_tokenizer(emoji.load("all").texts()).get_vocab()
    return "\n".join(sorted(vocabulary, key=vocabulary.get))


if __name__ == "__main__":
    VOCABULARY.write_text(listed(), "utf-8")
