r"""跨模态检索 / Cross-modal retrieval: words find pictures, pictures find words.

两座塔互不相见：图像塔给出 f_v，文本塔给出 f_t，只在最后比较。所以图片可以事先编码、存成索引，搜索时只编码查询。

The two towers never meet: one gives f_v, the other f_t, and they are compared at the very end. That is why pictures
can be encoded once, kept as an index, and a search encodes its query alone.
"""

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmcore import checks
from mmcore import tokens as text
from mmcore.alignment import contrastive_loss, cosine_similarity
from mmcore.encoders import TextEncoder, VisualEncoder
from mmcore.ranking import mutual_scores, retrieval_scores
from mmcore.training import (
    check_steps_left,
    choose_device,
    evaluating,
    make_optimizer,
    one_cycle,
    optimize,
    seeded,
)
from mmlessons.data import emoji
from mmlessons.data.augment import augment

LANGUAGES = ("zh", "en")
WAYS = ("image→text", "text→image")
TAU = 0.0625
LEARNING_RATE = 6e-3


class RetrievalModel(nn.Module):
    """图文双塔 / Two towers, one for pictures and one for texts.

    `forward(image, input_ids, attention_mask, tau)` 返回有名字的张量：

    `forward(image, input_ids, attention_mask, tau)` returns named tensors:

    | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|
    | `f_v` | (N, D) | 视觉特征 / visual feature (1.1) |
    | `f_t` | (N, D) | 文本特征 / text feature (1.2) |
    | `S` | (N, N) | 余弦相似度，检索时用来排名 / cosine similarity, what a search ranks by |
    | `L` | | 对比损失，训练时下降的量 / contrastive loss, what training lowers (2.1) |
    """

    def __init__(self, feature_dim: int = 128, backbone: str = "resnet-tiny", model_name: str = "bert-tiny",
                 tokenizer: Tokenizer | None = None):
        super().__init__()
        self.visual_encoder = VisualEncoder(feature_dim, backbone)
        self.text_encoder = TextEncoder(model_name, feature_dim, tokenizer)

    def forward(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor, tau: float | Tensor,
                positives: Tensor | None = None) -> dict[str, Tensor]:
        f_v = self.visual_encoder(image)
        f_t = self.text_encoder(input_ids, attention_mask)
        return {"f_v": f_v, "f_t": f_t, "S": cosine_similarity(f_v, f_t),
                "L": contrastive_loss(f_v, f_t, tau, positives)}

    def encode_pictures(self, pictures: Tensor) -> Tensor:
        """图画 → 特征，不训练 / Pictures (N, 3, H, W), uint8 → features (N, D), without training."""
        checks.require(isinstance(pictures, Tensor) and pictures.dtype == torch.uint8,
                       "pictures 需要是 uint8 张量", "pictures must be a uint8 tensor", TypeError)
        with evaluating(self):
            return self.visual_encoder(pictures.to(self.device) / 255)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """文本 → 特征，不训练 / Texts → features (N, D), without training."""
        tokens = self.text_encoder.tokenize(texts)
        with evaluating(self):
            return self.text_encoder(**{name: ids.to(self.device) for name, ids in tokens.items()})

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


class RetrievalTrainer:
    """用表情数据训练双塔 / Trains the two towers on the emoji data.

    每一步：N 个不同的概念，各取一位训练作者的图画和一种语言的名字，图画再随机变化。概念互不相同，所以一批里没有
    假的负例。

    Each step takes N different concepts, for each the drawing of one training artist and the name in one language, and
    changes the drawings at random. The concepts differ, so that no negative in a batch is false.

    `tau` 每一步都可以换。同一个 `seed` 给出同一个模型。`reset` 丢掉学到的，从头再来。

    `tau` may change from step to step. The same `seed` gives the same model. `reset` drops what was learned and starts
    anew.
    """

    def __init__(self, data: emoji.Emoji, steps: int = 600, seed: int = 0, batch: int = 128,
                 device: str | torch.device | None = None):
        for value, name, least in ((steps, "steps", 1), (batch, "batch", 2), (seed, "seed", 0)):
            checks.whole(value, name, least)
        checks.require(batch <= len(data.concepts),
                       f"batch 最多 {len(data.concepts)}（每个概念一次），收到 {batch}",
                       f"batch may be at most {len(data.concepts)}, each concept once, got {batch}")
        self.data, self.steps, self.seed, self.batch = data, steps, seed, batch
        self.device = choose_device(device)
        self.names = [name for language in LANGUAGES for name in data.names(language)]
        self.tokenizer = text.build_tokenizer(self.names)
        self.pictures = training_pictures(data)
        self.reset()

    def reset(self) -> None:
        """新的模型，新的优化器，同样的随机数 / A new model, a new optimiser, the same random numbers."""
        with seeded(self.seed):
            self.model = RetrievalModel(tokenizer=self.tokenizer).to(self.device)
        self.generator = torch.Generator().manual_seed(self.seed)
        self.optimizer = make_optimizer(self.model, lr=LEARNING_RATE, weight_decay=0.3)
        self.schedule = one_cycle(self.optimizer, self.steps)
        self.tokens = self.model.text_encoder.tokenize(self.names)  # row language · C + concept

    def train_step(self, tau: float = TAU) -> dict[str, float]:
        """走一步，返回 {"L": 损失} / Take one step, return {"L": loss}.

        Raises: ValueError τ 不是正数 / if τ is not positive; FloatingPointError 损失不是有限数 / if the loss is not
        finite. In both cases the model stays as it was.
        """
        checks.positive(tau, "tau")
        check_steps_left(self.schedule)
        artists, count = self.pictures.shape[:2]
        concept = torch.randperm(count, generator=self.generator)[:self.batch]
        artist = torch.randint(artists, concept.shape, generator=self.generator)
        language = torch.randint(len(LANGUAGES), concept.shape, generator=self.generator)
        image = augment(self.pictures[artist, concept] / 255, self.generator).to(self.device)
        tokens = {name: ids[language * count + concept].to(self.device) for name, ids in self.tokens.items()}
        self.model.train()
        L = optimize(self.model, self.optimizer, lambda: self.model(image, **tokens, tau=tau)["L"])
        self.schedule.step()
        return {"L": L}


def training_pictures(data: emoji.Emoji) -> Tensor:
    """训练作者的图画 / The pictures of the artists to train on: (A, C, 3, H, W)."""
    for artist in data.by_role("train"):
        _check_drawn(data, artist)
    return torch.stack([data.pictures[artist] for artist in data.by_role("train")])


def _check_drawn(data: emoji.Emoji, artist: str) -> None:
    checks.one_of(artist, "artist", tuple(data.pictures))
    missing = int((~data.drawn[artist]).sum())
    checks.require(missing == 0, f"{artist} 没有画过其中 {missing} 个概念；请用 classroom 或 held-out 子集",
                   f"{artist} did not draw {missing} of these concepts; use the subset classroom or held-out")


def evaluate(model: RetrievalModel, data: emoji.Emoji, artist: str) -> dict[tuple[str, str], dict[str, float]]:
    """一位作者的成绩：两个方向 × 两种语言 / One artist's scores: both directions × both languages.

    键是 (方向, 语言)，方向为 "image→text" 或 "text→image"；值见 `retrieval_scores`。

    The keys are (direction, language), the direction "image→text" or "text→image"; for the values see
    `retrieval_scores`.
    """
    _check_drawn(data, artist)
    f_v = model.encode_pictures(data.pictures[artist])
    table = {}
    for language in LANGUAGES:
        S = cosine_similarity(f_v, model.encode_texts(data.names(language)))
        table |= {(way, language): scores for way, scores in _both_ways(S).items()}
    return table


def _both_ways(S: Tensor) -> dict[str, dict[str, float]]:
    """按行找，再按列找 / Along the rows, then along the columns."""
    return {way: retrieval_scores(scores) for way, scores in zip(WAYS, (S, S.T), strict=True)}


def mean_recall(table: dict[tuple[str, str], dict[str, float]]) -> float:
    """四个 r@1 的平均 / The mean of the four r@1."""
    return sum(scores["r@1"] for scores in table.values()) / len(table)


def pixel_similarity(pictures: Tensor, known: Tensor) -> Tensor:
    """像素近邻：不用学习的基线 / Pixel nearest neighbour, the baseline that learns nothing.

    (N, 3, H, W), (A, C, 3, H, W) → (N, C)

    每幅图画减去均值后，与每个概念的 A 幅已知图画比余弦，取最像的一幅。

    Each picture less its mean is compared with the A known drawings of each concept by cosine; the closest one counts.
    """
    def flat(x: Tensor) -> Tensor:
        x = x.flatten(-3).float()
        return x - x.mean(-1, keepdim=True)
    return torch.stack([cosine_similarity(flat(pictures), flat(drawings)) for drawings in known]).amax(0)


class Index:
    """可以搜索的图片 / Pictures that can be searched: encoded once, compared with every query."""

    def __init__(self, model: RetrievalModel, pictures: Tensor):
        self.model = model
        self.features = model.encode_pictures(pictures)

    def search(self, query: str, k: int = 8) -> list[tuple[int, float]]:
        """最像的 k 幅 / The k pictures most like the query: [(index, cosine), …], the best first.

        Raises: ValueError 查询为空，或有没学过的词 / if the query is empty or holds a word that was never learned.
        """
        checks.whole(k, "k")
        text.check_known(self.model.text_encoder.tokenizer, query)
        S = cosine_similarity(self.model.encode_texts([query]), self.features)[0]
        best = S.topk(min(k, len(S)))
        return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))


def pixel_baseline(data: emoji.Emoji, artist: str) -> dict[tuple[str, str], dict[str, float]]:
    """像素近邻的成绩，形式同 `evaluate` / The scores of the pixel nearest neighbour, in the form of `evaluate`.

    它不认字，所以两种语言相同：找到了概念，就知道它的名字。

    It reads nothing, so that both languages are the same: who finds the concept knows its name.
    """
    _check_drawn(data, artist)
    found = _both_ways(pixel_similarity(data.pictures[artist], training_pictures(data)))
    return {(way, language): scores for language in LANGUAGES for way, scores in found.items()}


def train_and_test(seed: int, tau: float, steps: int) -> dict[str, float]:
    """训练一次，返回各项考试的平均 r@1 / Train once, return the mean r@1 of each test: the keys of `take_exams`.

    另加 `untrained`：训练之前的 `pictures`。

    And `untrained`: the `pictures` from before the training.
    """
    data = emoji.load()
    trainer = RetrievalTrainer(data, steps, seed, device="cpu")
    untrained = take_exams(trainer.model, data)["pictures"]
    for _ in range(steps):
        trainer.train_step(tau)
    return {**take_exams(trainer.model, data), "untrained": untrained}


def take_exams(model: RetrievalModel, data: emoji.Emoji) -> dict[str, float]:
    """各项考试的平均 r@1 / The mean r@1 of each test.

    | 键 key | 考什么 what is tested |
    |---|---|
    | `known` | 训练用过的图画 / the very pictures of one training artist |
    | `test` | 学过的概念，没见过的作者 / concepts it learned, by an artist it never saw |
    | `shift` | 学过的概念，画风很不一样的作者 / concepts it learned, by an artist of another style |
    | `zh`, `en` | 没见过的概念，学过的作者，分语言 / concepts it never saw, by a training artist, in each language |
    | `pictures` | 没见过的概念，看图找图 / concepts it never saw, found by picture instead of by name |
    | `languages` | 中文名字找英文名字，反之亦然 / Chinese names find English ones, and the other way round |
    """
    (known, *_), (unseen_artist,), (other_style,) = (data.by_role(role) for role in ("train", "test", "shift"))
    new = emoji.load("held-out")
    new_names = evaluate(model, new, known)
    f_test, f_known = (model.encode_pictures(new.pictures[artist]) for artist in (unseen_artist, known))
    S = cosine_similarity(*(model.encode_texts(data.names(language)) for language in LANGUAGES))
    return {"known": mean_recall(evaluate(model, data, known)),
            "test": mean_recall(evaluate(model, data, unseen_artist)),
            "shift": mean_recall(evaluate(model, data, other_style)),
            **{tongue: sum(new_names[way, tongue]["r@1"] for way in WAYS) / len(WAYS) for tongue in LANGUAGES},
            "pictures": retrieval_scores(cosine_similarity(f_test, f_known))["r@1"],
            "languages": mutual_scores(S)["r@1"]}
