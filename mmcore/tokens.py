"""双语分词 / Bilingual tokens.

English is split into words, Chinese into characters; the vocabulary is made from the texts to be learned.

英文按词切分，中文按字切分；词表由要学的文本造出。
"""

import difflib
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from mmcore.checks import instance, refuse, typed

PAD, UNK, CLS, SEP = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
VOCABULARY = Path(__file__).with_name("vocabulary.txt")  # one word a line, in the order of their ids


def build_tokenizer(texts: Sequence[str]) -> Tokenizer:
    """用这些文本造一个分词器 / Make a tokenizer from these texts.

    Every word and every Chinese character enters the vocabulary; the id of [PAD] is 0. [CLS] and [SEP] frame each text.

    每个词和每个汉字都进词表；[PAD] 的编号是 0；每句前加 [CLS]，后加 [SEP]。

    >>> build_tokenizer(["red apple", "红苹果"]).encode("Red 苹果").tokens
    ['[CLS]', 'red', '苹', '果', '[SEP]']
    """
    check_texts(texts)
    tokenizer = _splitter(models.WordLevel(unk_token=UNK))
    trainer = trainers.WordLevelTrainer(vocab_size=1_000_000, special_tokens=[PAD, UNK, CLS, SEP], show_progress=False)
    tokenizer.train_from_iterator(sorted(set(texts)), trainer)
    return _framed(tokenizer)


def default_tokenizer() -> Tokenizer:
    """词表随包附带的分词器 / The tokenizer whose vocabulary comes with the package, `vocabulary.txt`.

    >>> default_tokenizer().encode("水果").tokens
    ['[CLS]', '水', '果', '[SEP]']
    """
    vocabulary = {word: i for i, word in enumerate(VOCABULARY.read_text("utf-8").split("\n"))}
    tokenizer = _splitter(models.WordLevel(vocabulary, unk_token=UNK))
    tokenizer.add_special_tokens([PAD, UNK, CLS, SEP])
    return _framed(tokenizer)


@typed
def words(tokenizer: Tokenizer, text: str) -> list[str]:
    """文本切成的词和字 / The words and characters that a text is split into.

    >>> words(build_tokenizer(["tree"]), "Red apple 红苹果!")
    ['red', 'apple', '红', '苹', '果', '!']
    """
    normal = tokenizer.normalizer.normalize_str(text)
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal)]


@typed
def is_word(word: str) -> bool:
    """不全是标点；表情也算 / Not punctuation only; an emoji is a word, too."""
    return any(unicodedata.category(c)[0] != "P" for c in word)


def unknown_words(tokenizer: Tokenizer, text: str) -> list[str]:
    """没学过的词和字，标点不算 / The words and characters not in the vocabulary, punctuation apart.

    >>> unknown_words(build_tokenizer(["red apple"]), "red pear!")
    ['pear']
    """
    return [word for word in words(tokenizer, text) if is_word(word) and tokenizer.token_to_id(word) is None]


def check_known(tokenizer: Tokenizer, text: str) -> None:
    """text 的每个词都必须在词表里 / Every word of the text must be in the vocabulary.

    >>> check_known(build_tokenizer(["red apple"]), "red appel")
    Traceback (most recent call last):
    ValueError: 没有学过：appel；是不是 apple？ / never learned: appel; did you mean apple?
    """
    if not any(map(is_word, words(tokenizer, text))):
        refuse("请写点什么，例如“红苹果”", "type something, such as “red apple”")
    if unknown := unknown_words(tokenizer, text):
        near = [match for word in unknown for match in difflib.get_close_matches(word, tokenizer.get_vocab(), 2, 0.7)]
        hint = (f"；是不是 {'、'.join(near)}？", f"; did you mean {' or '.join(near)}?") if near else ("", "")
        refuse(f"没有学过：{'、'.join(unknown)}{hint[0]}", f"never learned: {', '.join(unknown)}{hint[1]}")


def check_texts(texts: Sequence[str], name: str = "texts") -> None:
    """texts 必须是非空的字符串列表，每句都有内容 / texts must be a list of strings, none of them empty.

    >>> check_texts("red apple")
    Traceback (most recent call last):
    TypeError: texts 需要是字符串列表，收到 str / texts must be a list of strings, got str
    """
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        refuse(f"{name} 需要是字符串列表，收到 {type(texts).__name__}",
               f"{name} must be a list of strings, got {type(texts).__name__}", TypeError)
    if not texts:
        refuse(f"{name} 是空的，需要至少一句", f"{name} is empty, expected at least one text")
    for i, text in enumerate(texts):
        instance(text, f"{name}[{i}]", str)
        if not text.strip():
            refuse(f"{name}[{i}] 是空的，请写点什么", f"{name}[{i}] is empty, write something")


def _splitter(model: models.Model) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(strip_accents=True, lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _framed(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $0 {SEP}", special_tokens=[(token, tokenizer.token_to_id(token)) for token in (CLS, SEP)])
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(PAD), pad_token=PAD)
    return tokenizer
