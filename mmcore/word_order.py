r"""词序的公式 / The formulas of word order: (9.1) to (9.4).

Letters: N pairs of scenes, M exchanged captions, D feature width. What does not fit is refused with TypeError or
ValueError. Two pictures and two captions of the same words: who does not read the order cannot tell which is whose.

字母：N 组，M 句换过的说明，D 特征宽度。不符时报 TypeError 或 ValueError。两幅图、两句用词完全相同的说明：不读词序，就
分不清哪一句说的是哪一幅。
"""

import re

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcore import checks
from mmcore.alignment import cosine_similarity
from mmcore.checks import require, shapes, typed


@shapes(S="N 2 2", least={"N": 1})
def winoground_scores(S: Tensor) -> dict[str, Tensor]:
    r"""Winoground 的三项成绩 / The three scores of Winoground: (N, 2, 2) → {"text", "image", "group"}, each (N,) bool.

    $$\mathrm{text} = [S_{00} > S_{01}]\,[S_{11} > S_{10}] \tag{9.1}$$

    $$\mathrm{image} = [S_{00} > S_{10}]\,[S_{11} > S_{01}] \tag{9.2}$$

    $$\mathrm{group} = \mathrm{text} \cdot \mathrm{image} \tag{9.3}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $S_{ij}$ | `S` | (N, 2, 2) | how well picture i fits caption j; i = j is right | 图 i 与句 j 有多配，i = j 对 |
    | $[\,\cdot\,]$ | | | 1 if true, else 0 | 成立为 1，否则为 0 |

    Text: each picture prefers its own caption. Image: each caption prefers its own picture. Group: both. Ties are
    misses, as in `ranks`. Where each order of the four numbers is equally likely, the chances are 1/4, 1/4 and 1/6.

    文字分：每幅图都更喜欢自己的那一句。图像分：每一句都更喜欢自己的那一幅。组分：两样都对。并列算错，同 `ranks`。四个数
    的大小次序全凭碰巧时，分别是 1/4、1/4、1/6。

    Paper: Thrush et al. 2022, Winoground.

    >>> winoground_scores(torch.tensor([[[0.9, 0.8], [0.3, 0.4]]]))  # both captions prefer picture 0
    {'text': tensor([True]), 'image': tensor([False]), 'group': tensor([False])}
    """
    checks.ranked(S, "S")
    own, caption, picture = S.diagonal(dim1=1, dim2=2), S[:, [0, 1], [1, 0]], S[:, [1, 0], [0, 1]]  # (N, 2) each
    text, image = (own > caption).all(1), (own > picture).all(1)
    return {"text": text, "image": image, "group": text & image}


@shapes(a="N D", b="N D", c="M D", least={"N": 2, "D": 1}, precise="a b c")
def exchanged_loss(a: Tensor, b: Tensor, c: Tensor, tau: float | Tensor) -> Tensor:
    r"""对比损失，负例里添上换过的说明 / Contrastive loss with exchanged captions among the negatives: → ().

    $$L = -\frac{1}{2N} \sum_{i=1}^{N} \left[ \log \frac{e^{\mathrm{sim}(a_i, b_i)/\tau}}
    {\sum_{j=1}^{N} e^{\mathrm{sim}(a_i, b_j)/\tau} + \sum_{m=1}^{M} e^{\mathrm{sim}(a_i, c_m)/\tau}} +
    \log \frac{e^{\mathrm{sim}(b_i, a_i)/\tau}}{\sum_{j=1}^{N} e^{\mathrm{sim}(b_i, a_j)/\tau}} \right] \tag{9.4}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $a$, $b$ | `a`, `b` | (N, D), (N, D) | features of pictures and their captions | 图画和它们的说明的特征 |
    | $c$ | `c` | (M, D) | features of captions with two words exchanged | 换过两个词的说明的特征 |
    | $\tau$ | `tau` | | temperature, above 0 | 温度，大于 0 |

    (2.1), and more for a picture to choose from: besides the captions of the others, some of the batch with two words
    exchanged. Nobody's caption, they are wrong for every picture. The share of exchanged captions is M / N; with M = 0
    this is (2.1).

    就是 (2.1)，只是每幅图要选的句子多了：除了别人的说明，还有这一批里换过两个词的几句，对哪一幅都不对。换过的占 M / N；
    M = 0 时就是 (2.1)。

    Paper: Yuksekgonul et al. 2023, When and Why Vision-Language Models Behave like Bags-of-Words (NegCLIP).

    >>> exchanged_loss(torch.eye(2), torch.eye(2), torch.eye(2)[:1], tau=1.0)
    tensor(0.5100)
    """
    checks.positive(tau, "tau")
    S = cosine_similarity(a, torch.cat([b, c])) / tau  # (N, N + M)
    own = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(S, own) + F.cross_entropy(S[:, :len(a)].T, own)) / 2


@typed
def exchange(text: str, one: str, other: str) -> str:
    """一句话里两个词对调 / A text with two of its words exchanged. ValueError if one is missing or nothing changes.

    >>> exchange("The dog is left of the cat.", "dog", "cat"), exchange("狗在猫的左边。", "狗", "猫")
    ('The cat is left of the dog.', '猫在狗的左边。')
    """
    def pattern(word: str) -> str:  # English has gaps between its words
        return rf"\b{re.escape(word)}\b" if word.isascii() else re.escape(word)

    for word, name in ((one, "one"), (other, "other")):
        require(bool(word) and re.search(pattern(word), text) is not None, f"text 里没有 {name}：{word!r}，无从对调",
                f"text does not hold {name}, {word!r}, so nothing can be exchanged")
    require(one != other, f"one 和 other 都是 {one!r}：对调了也是同一句，会把对的说明当作负例",
            f"one and other are both {one!r}: the text stays as it is, and a right caption would become a negative")
    return re.sub(f"{pattern(one)}|{pattern(other)}", lambda found: other if found[0] == one else one, text)
