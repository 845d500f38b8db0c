"""双语分词 / Bilingual tokens."""

import pytest

from mmcore import tokens as text

TEXTS = ["red apple", "红苹果", "Christmas tree", "DVD"]


def test_the_same_texts_in_another_order_give_the_same_ids() -> None:
    first, second = text.build_tokenizer(TEXTS), text.build_tokenizer(TEXTS[::-1])
    assert first.get_vocab() == second.get_vocab()


def test_padding_has_id_0_and_the_sentence_stands_between_cls_and_sep() -> None:
    tokenizer = text.build_tokenizer(TEXTS)
    long, short = tokenizer.encode_batch(["red apple", "DVD"])
    assert long.tokens == ["[CLS]", "red", "apple", "[SEP]"]
    assert short.tokens == ["[CLS]", "dvd", "[SEP]", "[PAD]"]
    assert short.ids[-1] == 0
    assert short.attention_mask == [1, 1, 1, 0]


def test_a_word_never_learned_is_named_and_a_similar_one_suggested() -> None:
    tokenizer = text.build_tokenizer(TEXTS)
    with pytest.raises(ValueError, match=r"没有学过：appel；是不是 apple？.*appel; did you mean apple\?"):
        text.check_known(tokenizer, "red appel")
    text.check_known(tokenizer, " RED 苹果！ ")


@pytest.mark.parametrize("query", ["", "   ", "\n"])
def test_an_empty_query_is_refused_kindly(query: str) -> None:
    with pytest.raises(ValueError, match=r"请写点什么.*type something"):
        text.check_known(text.build_tokenizer(TEXTS), query)


@pytest.mark.parametrize(("texts", "error"), [("apple", TypeError), ([], ValueError), ([" "], ValueError),
                                              ([None], TypeError), (None, TypeError)])
def test_texts_that_are_no_list_of_sentences_are_refused(texts: object, error: type) -> None:
    with pytest.raises(error, match="texts"):
        text.check_texts(texts)
