"""文字：写法、错字、UTF-8 字节 / Writing: forms, typos, bytes in UTF-8.

一个词是一行字符编号，0 是空。错字整批地打：每个字符以给定的概率被换掉、漏掉、前面多打一个，或与下一个对调。

A word is a row of character numbers, 0 is none. Typos are made for the whole batch at once: each character is hit
with the given probability and then replaced, left out, preceded by another, or swapped with the next.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcore import checks

BYTES = 16  # of every text


@dataclass(frozen=True)
class Form:
    """一个数字的一种写法 / One way of writing a digit."""

    text: str
    kind: str  # "english", "chinese", "roman" ...


@dataclass(frozen=True, eq=False)
class Alphabet:
    """所有字符，以及各自可能错成什么 / Every character, and what it may be mistaken for.

    | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|
    | `forms` | (10, F, L) int64 | 每种写法的字符编号 / the character numbers of every form |
    | `utf8` | (A, 3) int64 | 每个字符的字节，末尾补 0 / the bytes of each character, then zeros |
    | `first`, `size` | (A,) int64 | 同种文字的字符从哪里起、几个 / where the characters of one script start, how many |
    """

    forms: Tensor
    utf8: Tensor
    first: Tensor
    size: Tensor

    @staticmethod
    def of(forms: tuple[tuple[Form, ...], ...], pools: list[str]) -> "Alphabet":
        number, first, size = {}, [0], [1]
        for pool in pools:
            start = len(number) + 1
            number.update({char: start + i for i, char in enumerate(pool)})
            first += [start] * len(pool)
            size += [len(pool)] * len(pool)
        longest = max(len(form.text) for row in forms for form in row)
        table = torch.tensor([[[number[c] for c in form.text] + [0] * (longest - len(form.text)) for form in row]
                              for row in forms])
        utf8 = torch.tensor([[0, 0, 0]] + [[*c.encode(), 0, 0][:3] for c in number])
        return Alphabet(table, utf8, torch.tensor(first), torch.tensor(size))


def with_typos(letters: Tensor, rate: Tensor, alphabet: Alphabet, generator: torch.Generator) -> Tensor:
    """打错字 / Make typos: (B, L) → (B, 2L), with gaps.

    The four mistakes are equally likely, except that the first letter is never left out and the last never swapped
    (they are replaced), so that no word vanishes. New characters come from the same script.
    """
    count, length = letters.shape
    hit = torch.rand(letters.shape, generator=generator) < rate[:, None]
    kind = torch.randint(4, letters.shape, generator=generator)
    draw = torch.rand(letters.shape, generator=generator)
    following = torch.cat([letters[:, 1:], letters.new_zeros(count, 1)], dim=1)
    hit &= letters > 0
    swap = hit & (kind == 3) & (following > 0)
    swap[:, 1:] &= ~swap[:, :-1].clone()  # of three in a row that would swap, the first does
    dropped = hit & (kind == 1)
    dropped[:, 0] = False
    inserted = hit & (kind == 2)
    replaced = hit & ~(swap | dropped | inserted)

    place = torch.arange(length).expand(count, length) + swap.long()
    place[:, 1:] -= swap[:, :-1].long()
    letters = letters.gather(1, place)
    stranger = _another(letters, draw, alphabet)
    kept = torch.where(replaced, stranger, letters).masked_fill(dropped, 0)
    before = stranger.masked_fill(~inserted, 0)
    return torch.stack([before, kept], dim=2).flatten(1)


def scribble(letters: Tensor, alphabet: Alphabet, generator: torch.Generator) -> Tensor:
    """与标签无关的乱写：别的词的形状，随意的字符 / The shape of any word, with any characters of its script."""
    digit = torch.randint(10, (len(letters),), generator=generator)
    form = torch.randint(alphabet.forms.shape[1], (len(letters),), generator=generator)
    shape = alphabet.forms[digit, form]
    drawn = alphabet.first[shape] + (torch.rand(shape.shape, generator=generator) * alphabet.size[shape]).long()
    return torch.cat([drawn.masked_fill(shape == 0, 0), shape.new_zeros(shape.shape)], dim=1)[:, :letters.shape[1]]


def encode(letters: Tensor, alphabet: Alphabet) -> Tensor:
    """字符编号 → 16 个 UTF-8 字节，末尾补 0 / Character numbers → 16 bytes in UTF-8, then zeros: (B, 16).

    A character that does not fit is left out whole.
    """
    data = alphabet.utf8[letters]  # (B, 2L, 3)
    fits = (data > 0).sum(2).cumsum(1) <= BYTES
    data = (data * fits[:, :, None]).flatten(1)
    order = (data == 0).to(torch.uint8).argsort(dim=1, stable=True)
    return data.gather(1, order)[:, :BYTES]


def decode(text: Tensor) -> list[str]:
    """16 个字节 → 文字 / 16 bytes → text, for every row of (B, 16)."""
    checks.require(isinstance(text, Tensor) and text.ndim == 2 and text.dtype == torch.int64
                   and bool(((text >= 0) & (text < 256)).all()),
                   "text 需要是二维 int64 张量，每个数是一个字节", "text must be an int64 matrix of bytes", TypeError)
    return [bytes(row).rstrip(b"\0").decode(errors="replace") for row in text.tolist()]


def _another(letters: Tensor, draw: Tensor, alphabet: Alphabet) -> Tensor:
    """Another character of the same script."""
    first, size = alphabet.first[letters], alphabet.size[letters]
    step = 1 + (draw * (size - 1)).long()  # 1 to size - 1: never the same one
    return (first + (letters - first + step) % size).masked_fill(letters == 0, 0)
