"""五种融合的训练循环，可以拿走 / Five kinds of fusion: a training loop to take away.

    python examples/fusion.py --out runs/fusion

The digits of lesson 03, seen, heard and read, and its five fusions, as a plain loop. In the lesson each encoder first
learns by itself. Here all learn at once, and a head of its own keeps each encoder good by itself. Stop it when you
like: the same command goes on from the last checkpoint and ends with the same weights. Put your own modalities in place
of `NoisyDigits` and `make_encoders`.

第 03 课的数字（看、听、读）和它的五种融合，写成一个普通的循环。课里的编码器先各学各的，这里一开始就一起学，每个编码器另
有自己的分类头，让它单独也认得准。随时可以停：再运行同一条命令，就从上一个检查点继续，最后的权重一样。把 `NoisyDigits`
和 `make_encoders` 换成你自己的模态即可。
"""

import torch
import torch.nn.functional as F
from common import Options, Resumable, draws
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mmcore import MultimodalFusion
from mmcore.fusion import CANDIDATES
from mmcore.training import evaluating, make_optimizer
from mmlessons.data import digits
from mmlessons.intervals import interval
from mmlessons.tasks.learner import one_cycle, seeded
from mmlessons.tasks.multimodal_fusion import (
    CLASSES,
    DROPOUT,
    FUSED,
    MODALITIES,
    WIDTHS,
    draw,
    make_encoders,
    observe_under,
)


class NoisyDigits(Dataset):
    """第 k 项：第 k 批，有噪声，有时缺一个模态 / Item k: the k-th batch, with noise, at times without a modality."""

    def __init__(self, batch: int, seed: int):
        self.data, self.batch, self.seed = digits.load("train"), batch, seed

    def __getitem__(self, k: int) -> dict[str, Tensor]:
        return draw(self.data, self.batch, draws(self.seed, k), DROPOUT)


class Recogniser(nn.Module):
    """编码器各有一个头，五种融合共用一个 / A head for each encoder, and one that the five fusions share."""

    def __init__(self):
        super().__init__()
        self.encoders = nn.ModuleDict(make_encoders())
        self.fusion = MultimodalFusion([WIDTHS[m] for m in MODALITIES], FUSED)
        self.heads = nn.ModuleDict({m: nn.Linear(WIDTHS[m], CLASSES) for m in MODALITIES})
        self.head = nn.Linear(FUSED, CLASSES)

    def forward(self, seen: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        features = {m: self.encoders[m](seen[m].to(self.head.weight.device)) for m in MODALITIES}
        out = self.fusion(list(features.values()))
        alone = {m: self.heads[m](x) for m, x in features.items()}
        return alone | {name: self.head(out[name]) for name in (*CANDIDATES, "f")}, out["pi"]


def main() -> None:
    args = Options(__doc__, steps=500, batch=256, rate=4e-3).parse_args()
    with seeded(args.seed):
        model = Recogniser().to(args.device)
    optimizer = make_optimizer(model, args.rate, weight_decay=0.01)  # AdamW
    schedule = one_cycle(optimizer, args.steps)
    run = Resumable(args, model=model, optimizer=optimizer, schedule=schedule)
    left = range(run.step * args.accumulate, args.steps * args.accumulate)
    batches = iter(DataLoader(NoisyDigits(args.batch, args.seed), None, sampler=left, num_workers=args.workers))

    model.train()
    for step in run.steps():
        total = 0.0
        for _ in range(args.accumulate):
            seen = next(batches)
            label = seen["label"].to(args.device)
            with torch.autocast(args.device.type, torch.bfloat16, enabled=args.bf16):
                answers, pi = model(seen)
                losses = {name: F.cross_entropy(scores, label) for name, scores in answers.items()}
            pull = -(len(CANDIDATES) * pi.float()).log().mean()  # keeps the choice from collapsing onto one fusion
            fused = losses["f"] + sum(losses[name] for name in CANDIDATES) / len(CANDIDATES) + 0.02 * pull
            loss = (fused + sum(losses[m] for m in MODALITIES)) / args.accumulate
            loss.backward()
            total += loss.item()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        run.done(step, total)

    test = digits.load("test")
    for condition in ("clean", "noise_only sound"):
        seen = observe_under(test, condition, 4)  # every picture four times, in one row after another
        with evaluating(model):
            answers, _ = model(seen)
        for name, scores in answers.items():
            right = (scores.argmax(1).cpu() == seen["label"]).double().view(4, -1)
            print(f"{condition}: {name} {interval(right)}")


if __name__ == "__main__":
    main()
