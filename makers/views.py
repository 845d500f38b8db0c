"""重做冻结的特征 / Make the frozen features again.

    python -m makers.views      # about seven minutes

Two encoders are trained apart and never meet: one sees only pictures, the other reads only names and keywords. On one
thread.

两个编码器各自训练，互不相见：一个只看图画，一个只读名字与关键词。用一个线程。
"""

import argparse
import io
from collections.abc import Callable

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from mmcore import tokens as text
from mmcore.alignment import contrastive_loss
from mmcore.encoders import TextEncoder, VisualEncoder
from mmcore.training import evaluating, make_optimizer, optimize
from mmlessons.data import emoji, files
from mmlessons.data.augment import augment
from mmlessons.data.views import ARTISTS, ASSETS, LANGUAGES, VERSION, draw_artists
from mmlessons.tasks.learner import one_cycle

SEED = 0
WIDTH = 128  # of the features
HEAD = 128  # of what the encoders are trained on; thrown away afterwards
TAU = 0.1
GROUPS = {"animals-nature", "food-drink", "travel-places", "activities", "objects"}  # those of the classroom
VALIDATION = 64


class Apart(nn.Module):
    """一个编码器，特征经过 ReLU；头只在训练时用 / One encoder, its features after a ReLU; the head is for training."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(WIDTH, HEAD)

    def features(self, *inputs: Tensor) -> Tensor:
        return F.relu(self.encoder(*inputs))


def train(model: Apart, steps: int, lr: float, weight_decay: float, loss: Callable[[], Tensor]) -> None:
    optimizer = make_optimizer(model, lr, weight_decay)
    schedule = one_cycle(optimizer, steps)
    for step in range(steps):
        model.train()
        L = optimize(model, optimizer, loss)
        schedule.step()
        if step % 250 == 0 or step == steps - 1:
            print(f"{type(model.encoder).__name__} {step:5d} {L:.3f}", flush=True)


def picture_features(data: emoji.Emoji) -> dict[str, Tensor]:
    """只看图画 / Pictures alone: two artists' drawings of one concept belong together, all others do not."""
    generator = torch.Generator().manual_seed(SEED)
    artists = [name for name, role in ARTISTS.items() if role == "train"]
    drawings = torch.stack([data.pictures[artist] for artist in artists])  # (A, C, 3, 32, 32)
    drawn = torch.stack([data.drawn[artist] for artist in artists])
    torch.manual_seed(SEED)
    model = Apart(VisualEncoder(WIDTH))

    def loss() -> Tensor:
        concept = torch.randperm(drawn.shape[1], generator=generator)[:192]
        two = draw_artists(drawn[:, concept], 2, generator).flatten()
        z = model.head(model.features(augment(drawings[two, concept.repeat(2)] / 255, generator)))
        return contrastive_loss(*z.chunk(2), TAU)

    train(model, 2500, 6e-3, 0.3, loss)
    with evaluating(model):
        return {artist: torch.cat([model.features(part / 255) for part in data.pictures[artist].split(256)])
                * data.drawn[artist].unsqueeze(1) for artist in ARTISTS}


def name_features(data: emoji.Emoji) -> dict[str, Tensor]:
    """只读文字 / Texts alone: a name belongs with a name or keyword of its concept and with whoever shares it."""
    generator = torch.Generator().manual_seed(SEED)
    texts = [[c.names[language] for language in LANGUAGES] + [k for language in LANGUAGES for k in c.keywords[language]]
             for c in data.concepts]
    every = sorted({t for own in texts for t in own})
    number = {t: i for i, t in enumerate(every)}
    ids = [torch.tensor([number[t] for t in own]) for own in texts]
    has = torch.zeros(len(texts), len(every), dtype=torch.bool)
    for i, own in enumerate(ids):
        has[i, own] = True
    torch.manual_seed(SEED)
    model = Apart(TextEncoder("bert-tiny", WIDTH, text.build_tokenizer(data.texts())))
    tokens = model.encoder.tokenize(every)

    def one_of(count: Tensor) -> Tensor:
        return (torch.rand(len(count), generator=generator) * count).long()

    def loss() -> Tensor:
        concept = torch.randperm(len(ids), generator=generator)[:256].tolist()
        name = one_of(torch.full((256,), len(LANGUAGES)))  # the first two of each concept are its names
        other = one_of(torch.tensor([len(ids[i]) for i in concept]))
        rows = torch.tensor([[ids[i][k] for i, k in zip(concept, which.tolist(), strict=True)]
                             for which in (name, other)])  # (2, 256)
        positives = has[concept][:, rows[1]] | torch.eye(256, dtype=torch.bool)
        mask = tokens["attention_mask"][rows.flatten()]
        longest = int(mask.sum(1).max())
        z = model.head(model.features(tokens["input_ids"][rows.flatten(), :longest], mask[:, :longest]))
        return contrastive_loss(*z.chunk(2), TAU, positives)

    train(model, 1000, 3e-3, 0.1, loss)
    with evaluating(model):
        return {language: model.features(*model.encoder.tokenize(data.names(language)).values())
                for language in LANGUAGES}


def validation_concepts(data: emoji.Emoji) -> list[str]:
    """课堂与留出之外、同样五组、人人画过的概念里，等距取 64 个 / 64 of what is left of the groups."""
    taken = {c.char for subset in ("classroom", "held-out") for c in emoji.load(subset).concepts}
    by_all = torch.stack([data.drawn[artist] for artist, role in ARTISTS.items() if role != "validation"]).all(0)
    left = [c.char for c, there in zip(data.concepts, by_all.tolist(), strict=True)
            if there and c.group in GROUPS and c.char not in taken]
    return left[::len(left) // VALIDATION][:VALIDATION]


def page(features: Tensor, scale: float) -> bytes:
    """每行一个概念，每列一个数 / A row for each concept, a column for each number."""
    out = io.BytesIO()
    Image.fromarray((features / scale).round().clamp(0, 255).byte().numpy()).save(out, "PNG", optimize=True)
    return out.getvalue()


def main() -> None:
    torch.set_num_threads(1)
    data = emoji.load("all")
    views = {"names": name_features(data), "pictures": picture_features(data)}
    scales = {kind: max(float(x.max()) for x in found.values()) / 255 for kind, found in views.items()}
    content = {f"{name}.png": page(x, scales[kind]) for kind, found in views.items() for name, x in found.items()}
    files.write(ASSETS, {"version": VERSION, "scales": scales, "validation": validation_concepts(data)}, content)


if __name__ == "__main__":
    argparse.ArgumentParser(description="train two encoders and write their features").parse_args()
    main()
