r"""看图回答问题 / Answering questions about a picture.

图画切成四格，每格一个视觉特征 (1.1)；问题是一个文本特征 (1.2)。问题决定看哪几格 (4.2) 或 (4.1)，看到的与问题融合
(1.3)，再由一个线性层在所有答案里选一个。

The picture is cut into four cells with a visual feature each (1.1); the question is one text feature (1.2). The
question decides which cells to look at, (4.2) or (4.1); what was seen is fused with the question (1.3), and a linear
layer chooses among all answers.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmcore import checks
from mmcore import tokens as text
from mmcore.alignment import contrastive_loss
from mmcore.attention import CellAttention
from mmcore.encoders import TextEncoder, VisualEncoder
from mmcore.fusion import weighted_sum
from mmcore.training import check_steps_left, choose_device, evaluating, make_optimizer, one_cycle, seeded, train_on
from mmcore.vision_language import CrossModalFusion
from mmlessons.data import scenes
from mmlessons.data.augment import augment

SEES = ("both", "question", "picture")
FEATURE_DIM, HIDDEN_DIM = 128, 256
TAU = 0.1  # of the naming loss
LEARNING_RATE = 6e-3
STEPS = 250
DRAWINGS = 4  # of every thing in one step, from which its scenes are put together
BIAS = 0.97
VARIANTS = {  # what a training of the lesson differs in
    "gates": {}, "attention": {"look": "attention"},
    "question": {"sees": "question", "steps": 100}, "picture": {"sees": "picture", "steps": 80},
    "biased": {"bias": BIAS, "kinds": ("whether",), "steps": 80},
    "biased question": {"bias": BIAS, "kinds": ("whether",), "steps": 80, "sees": "question"},
    "fair": {"kinds": ("whether",), "steps": 80},
}
EXAMS = {"gates": ("known", "validation", "test", "new", "shift"), "biased": ("biased", "test", "turned"),
         "biased question": ("biased", "test", "turned")}


class AnsweringModel(nn.Module):
    """看图回答的模型 / The model that answers.

    `forward(image, input_ids, attention_mask)` 返回有名字的张量 / returns named tensors:

    | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|
    | `f_v` | (B, 4, D) | 每格的视觉特征 / visual feature of every cell (1.1) |
    | `f_t` | (B, D) | 问题的特征 / feature of the question (1.2) |
    | `x` | (B, 4, D) | 每格有什么、在哪里 / what is in every cell, and where that is |
    | `w` | (B, 4) | 每格的权重 / weight of every cell, (4.2) or (4.1) |
    | `c` | (B, D) | 看到的 / what was seen |
    | `h` | (B, H) | 与问题融合后 / fused with the question (1.3) |
    | `z` | (B, K) | 每个答案的得分 / score of every answer, see `scenes.ANSWERS` |

    `sees`："question" 看不见图，"picture" 听不见问题：那一边的特征是 0，一个什么证据也没有的基线。

    `sees`: with "question" it does not see the picture, with "picture" it does not hear the question: the feature of
    that side is 0, a baseline without any evidence from there.
    """

    def __init__(self, feature_dim: int = FEATURE_DIM, hidden_dim: int = HIDDEN_DIM, look: str = "gates",
                 sees: str = "both", tokenizer: Tokenizer | None = None):
        super().__init__()
        checks.one_of(sees, "sees", SEES)
        self.sees = sees
        self.visual_encoder = VisualEncoder(feature_dim)
        self.text_encoder = TextEncoder("bert-tiny", feature_dim, tokenizer or make_tokenizer())
        self.look = CellAttention(feature_dim, scenes.CELLS, look)
        self.fuse = CrossModalFusion(feature_dim, hidden_dim)
        self.head = nn.Linear(hidden_dim, len(scenes.ANSWERS))

    def forward(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        cells = scenes.split(image).flatten(0, 1)
        f_v = self.visual_encoder(cells).view(len(image), scenes.CELLS, -1)
        return self.answer(f_v, self.text_encoder(input_ids, attention_mask))

    def answer(self, f_v: Tensor, f_t: Tensor) -> dict[str, Tensor]:
        """从特征到得分 / From features to scores."""
        if self.sees == "picture":
            f_t = torch.zeros_like(f_t)
        x = self.look.with_positions(f_v)
        w = self.look.weights(f_t, x)
        c = weighted_sum(w, x.unbind(1))
        if self.sees == "question":
            c = torch.zeros_like(c)
        h = self.fuse(c, f_t)
        return {"f_v": f_v, "f_t": f_t, "x": x, "w": w, "c": c, "h": h, "z": self.head(h)}

    def ask(self, picture: Tensor, question: str) -> tuple[Tensor, Tensor]:
        """一幅图画，一个问题 / One picture (3, 64, 64) uint8, one question → probabilities (K,), weights of cells (4,).

        Raises: ValueError 问题为空，或有没学过的词 / if the question is empty or holds a word never learned; TypeError
        图画不是 uint8 / if the picture is not uint8.
        """
        checks.require(isinstance(picture, Tensor) and picture.dtype == torch.uint8, "picture 需要是 uint8 张量",
                       "picture must be a uint8 tensor", TypeError)
        text.check_known(self.text_encoder.tokenizer, question)
        tokens = self.text_encoder.tokenize([question])
        device = next(self.parameters()).device
        with evaluating(self):
            out = self(picture[None].to(device) / 255, **{name: ids.to(device) for name, ids in tokens.items()})
        return out["z"][0].softmax(0).cpu(), out["w"][0].cpu()


def make_tokenizer() -> Tokenizer:
    """认得所有问题和名字的分词器 / A tokenizer that knows all questions and names."""
    return text.build_tokenizer([*scenes.questions(), *_names()])


def _names() -> list[str]:
    return [thing.title[k] for k in range(len(scenes.LANGUAGES)) for thing in scenes.THINGS]


class AnsweringTrainer:
    """用场景数据训练 / Trains on the scenes.

    每一步：每样东西取 `DRAWINGS` 幅随机变化过的图画（空格也是），编码一次；再用这些格拼出 `batch` 个场景，每个回答一个
    问题。格与格互不相干地编码，所以这与编码整幅图画是一回事，只是省得多。

    Each step takes `DRAWINGS` drawings of every thing, changed at random (empty cells too), encodes them once, and puts
    `batch` scenes together from these cells, each with a question to answer. As cells are encoded one by one, this is
    the same as encoding whole pictures, and far cheaper.

    损失 L = L_answer + β L_name。L_answer 是答案的交叉熵；L_name 是格与名字之间的 (2.1)：图和字先要对得上，问题才找得到
    该看的格。

    The loss is L = L_answer + β L_name. L_answer is the cross-entropy of the answers; L_name is (2.1) between cells and
    names: only once pictures and words agree can a question find the cell to look at.

    `kinds`、`bias` 见 `Scenes.draw`；`look`、`sees` 见 `AnsweringModel`。

    For `kinds` and `bias` see `Scenes.draw`, for `look` and `sees` `AnsweringModel`.

    Raises: TypeError / ValueError 个数或选项不对 / for a wrong number or option.
    """

    def __init__(self, steps: int = STEPS, seed: int = 0, batch: int = 256, look: str = "gates", sees: str = "both",
                 bias: float | None = None, kinds: Sequence[str] = scenes.KINDS,
                 device: str | torch.device | None = None):
        for value, name, least in ((steps, "steps", 1), (batch, "batch", 2), (seed, "seed", 0)):
            checks.whole(value, name, least)
        self.steps, self.seed, self.batch = steps, seed, batch
        self.look, self.sees, self.bias, self.kinds = look, sees, bias, tuple(kinds)
        self.device = choose_device(device)
        self.data = scenes.load("train")
        self.tiles = self.data.with_empty
        self.tokenizer = make_tokenizer()
        self.reset()

    def reset(self) -> None:
        """新的模型，新的优化器，同样的随机数 / A new model, a new optimiser, the same random numbers."""
        with seeded(self.seed):
            self.model = AnsweringModel(look=self.look, sees=self.sees, tokenizer=self.tokenizer).to(self.device)
        self.generator = torch.Generator().manual_seed(self.seed)
        self.optimizer = make_optimizer(self.model, LEARNING_RATE, weight_decay=0.1)
        self.schedule = one_cycle(self.optimizer, self.steps)
        self.questions, self.names = (self.model.text_encoder.tokenize(texts)
                                      for texts in (scenes.questions(), _names()))

    def train_step(self, beta: float = 1.0) -> dict[str, float]:
        """走一步 / Take one step: {"L", "L_answer", "L_name"}.

        Raises: ValueError β 小于 0，或步数走完了 / if β is below 0 or all steps are done; FloatingPointError 损失不是
        有限数 / if the loss is not finite. The model stays as it was.
        """
        checks.not_negative(beta, "beta")
        check_steps_left(self.schedule)
        drawn = self.data.draw(self.batch, self.generator, self.kinds, bias=self.bias)
        thing = torch.arange(self.tiles.shape[1]).repeat(DRAWINGS)
        artist = torch.randint(len(self.tiles), thing.shape, generator=self.generator)
        which = torch.randint(DRAWINGS, drawn["cells"].shape, generator=self.generator)
        language = torch.randint(len(scenes.LANGUAGES), thing.shape, generator=self.generator)
        tiles = augment(self.tiles[artist, thing] / 255, self.generator).to(self.device)
        cells = (drawn["cells"] % self.tiles.shape[1] + self.tiles.shape[1] * which).to(self.device)

        def losses() -> dict[str, Tensor]:
            if self.sees == "question":  # nothing to see, and nothing to name
                f = torch.zeros(len(tiles), FEATURE_DIM, device=self.device)
            else:
                f = self.model.visual_encoder(tiles)
            z = self.model.answer(f[cells], self._encode(self.questions, scenes.question_number(drawn)))["z"]
            L_answer = F.cross_entropy(z, drawn["answer"].to(self.device))
            L_name = f.sum() if self.sees == "question" else self._naming_loss(f, thing, language)
            return {"L": L_answer + beta * L_name, "L_answer": L_answer, "L_name": L_name}

        found = train_on(self.model, self.optimizer, losses, "L")
        self.schedule.step()
        return found

    def _naming_loss(self, f: Tensor, thing: Tensor, language: Tensor) -> Tensor:
        real = thing < len(scenes.THINGS)
        row = thing[real] + len(scenes.THINGS) * language[real]
        named = self._encode(self.names, torch.arange(2 * len(scenes.THINGS)))[row.to(self.device)]
        positives = (thing[real][:, None] == thing[real]).to(self.device)
        return contrastive_loss(f[real.to(self.device)], named, TAU, positives)

    def _encode(self, tokens: dict[str, Tensor], rows: Tensor) -> Tensor:
        return self.model.text_encoder(**{name: ids[rows].to(self.device) for name, ids in tokens.items()})

    def examine(self, data: scenes.Scenes, count: int = 1000, seed: int = 12345, **draw: object) -> dict[str, float]:
        """在 `count` 个新场景上的正确率 / The accuracy on `count` new scenes: {"all", "what", "how many", …}.

        同样的 `seed` 是同样的考卷；`draw` 见 `Scenes.draw`。

        The same `seed` is the same paper of questions; for `draw` see `Scenes.draw`.
        """
        drawn = data.draw(count, torch.Generator().manual_seed(seed), **draw)
        return by_kind(self.predict(data, drawn), drawn)

    def predict(self, data: scenes.Scenes, drawn: dict[str, Tensor]) -> Tensor:
        """每个问题的答案 / The answer to every question: (N,)."""
        number = scenes.question_number(drawn)
        answers = []
        with evaluating(self.model):
            for rows in torch.arange(len(number)).split(500):
                image = data.pictures(drawn["cells"][rows], drawn["artist"][rows]).to(self.device) / 255
                tokens = {name: ids[number[rows]].to(self.device) for name, ids in self.questions.items()}
                answers.append(self.model(image, **tokens)["z"].argmax(1).cpu())
        return torch.cat(answers)


def spotlight(picture: Tensor, w: Tensor) -> Tensor:
    """看得越少的格越暗 / The less a cell is looked at, the darker: (3, 64, 64) uint8, (4,) → (3, 64, 64) uint8."""
    cells = scenes.split(picture[None].float())
    light = 0.15 + 0.85 * w.clamp(0, 1).view(1, -1, 1, 1, 1)
    return scenes.join(cells * light)[0].round().to(torch.uint8)


def by_kind(answers: Tensor, drawn: dict[str, Tensor]) -> dict[str, float]:
    """全部与每种问题的正确率 / The accuracy over all, and on every kind of question that occurs."""
    right = (answers == drawn["answer"]).double()
    kinds = {name: right[drawn["kind"] == k] for k, name in enumerate(scenes.KINDS)}
    return {"all": right.mean().item(), **{name: part.mean().item() for name, part in kinds.items() if len(part)}}


def majority(count: int = 1000, seed: int = 12345, examples: int = 20_000) -> dict[str, float]:
    """什么也不看，每种问题总答训练里最常见的 / Looking at nothing: to each kind the answer commonest in training."""
    train = scenes.load("train")
    known = train.draw(examples, torch.Generator().manual_seed(seed + 1))
    commonest = torch.stack([torch.bincount(known["answer"][known["kind"] == k]).argmax()
                             for k in range(len(scenes.KINDS))])
    drawn = train.draw(count, torch.Generator().manual_seed(seed))
    return by_kind(commonest[drawn["kind"]], drawn)


def train_and_test(variant: str, seed: int, steps: int | None = None) -> dict[str, dict[str, float]]:
    """训练一次，考几场 / Train once and sit the exams: {exam: accuracies as in `examine`}.

    | 考试 exam | 考什么 what is tested |
    |---|---|
    | `known` | 学过的作者，新场景 / artists it learned from, new scenes |
    | `validation`, `test`, `shift` | 没见过的作者，最后一位画风迥异 / artists it never saw, the last of another style |
    | `new` | 测试作者，从不碰头的两样 / the test artist, with two things that never met in training |
    | `biased`, `turned` | 测试作者，偏法与训练相同、相反 / the test artist, biased as in training, turned round |

    每个变体考 `EXAMS` 里的几场，没列出的只考 `test`。

    Each variant sits the exams in `EXAMS`, those not listed the `test` alone.

    `variant` 是 `VARIANTS` 里的一个；步数不给就用它的。

    `variant` is one of `VARIANTS`, with its own number of steps unless another is given.

    Raises: ValueError 变体未知 / for an unknown variant.
    """
    checks.one_of(variant, "variant", tuple(VARIANTS))
    options = {"steps": STEPS, **VARIANTS[variant], **({} if steps is None else {"steps": steps})}
    trainer = AnsweringTrainer(seed=seed, device="cpu", **options)
    for _ in range(trainer.steps):
        trainer.train_step()
    papers = {name: (role, {}) for name, role in (("known", "train"), *((r, r) for r in scenes.ROLES))}
    papers["new"] = "test", {"pairs": "new"}
    if trainer.bias is not None:
        papers |= {name: ("test", {"bias": trainer.bias, "turned": name == "turned"}) for name in ("biased", "turned")}
    return {name: trainer.examine(scenes.load(papers[name][0]), kinds=trainer.kinds, **papers[name][1])
            for name in EXAMS.get(variant, ("test",))}
