"""图文检索的训练循环，可以拿走 / Image-text retrieval: a training loop to take away.

    python examples/retrieval.py --out runs/retrieval

What lesson 06 trains, as a plain loop. Stop it when you like: the same command goes on from the last checkpoint and
ends with the same weights. Put your own pictures and texts in place of `DrawnAndNamed`.

第 06 课训练的东西，写成一个普通的循环。随时可以停：再运行同一条命令，就从上一个检查点继续，最后的权重一样。把
`DrawnAndNamed` 换成你自己的图和文字即可。
"""

from collections.abc import Iterator

import torch
from common import Options, Resumable, draws, positive
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mmcore import contrastive_loss
from mmcore.training import make_optimizer
from mmlessons.data import emoji
from mmlessons.data.augment import augment
from mmlessons.intervals import interval
from mmlessons.tasks.cross_modal_retrieval import Retrieval, RetrievalModel, evaluate, found
from mmlessons.tasks.learner import one_cycle, seeded


class DrawnAndNamed(Dataset):
    """第 k 项：一幅随机变化过的图画，和它的名字 / Item k: a drawing, changed at random, and its name."""

    def __init__(self, data: emoji.Emoji, seed: int):
        self.pictures, self.names, self.seed = data.training_pictures(), [data.names(x) for x in ("zh", "en")], seed

    def __getitem__(self, k: int) -> tuple[Tensor, str]:
        random = draws(self.seed, k)
        artist, language = (torch.randint(n, (), generator=random) for n in (len(self.pictures), 2))
        concept = k % self.pictures.shape[1]
        picture = self.pictures[artist, concept] / 255
        return augment(picture.unsqueeze(0), random)[0], self.names[language][concept]


class Batches(Sampler):
    """第 start 到第 end 批；一批里的概念各不相同 / Batches start to end; the concepts in a batch are all different."""

    def __init__(self, size: int, batch: int, seed: int, start: int, end: int):
        self.size, self.batch, self.seed, self.start, self.end = size, batch, seed, start, end

    def __len__(self) -> int:
        return self.end - self.start

    def __iter__(self) -> Iterator[list[int]]:
        for number in range(self.start, self.end):
            epoch, place = divmod(number, self.size // self.batch)
            order = torch.randperm(self.size, generator=draws(self.seed, epoch))
            yield (epoch * self.size + order[place * self.batch:][:self.batch]).tolist()


def main() -> None:
    data = emoji.load()
    size = len(data.concepts)
    options = Options(__doc__, steps=600, batch=128, rate=6e-3, most=size)
    options.add_argument("--tau", type=positive, default=0.0625, help="损失的温度 / temperature of the loss")
    args = options.parse_args()

    with seeded(args.seed):
        model = RetrievalModel(Retrieval(data).tokenizer).to(args.device)
    optimizer = make_optimizer(model, args.rate, weight_decay=0.3)  # AdamW
    schedule = one_cycle(optimizer, args.steps)
    run = Resumable(args, model=model, optimizer=optimizer, schedule=schedule)
    order = Batches(size, args.batch, args.seed, run.step * args.accumulate, args.steps * args.accumulate)
    batches = iter(DataLoader(DrawnAndNamed(data, args.seed), batch_sampler=order, num_workers=args.workers))

    model.train()
    for step in run.steps():
        total = 0.0
        for _ in range(args.accumulate):  # each batch has negatives of its own: more batches, not a larger one
            image, names = next(batches)
            tokens = model.text_encoder.tokenize(list(names))
            with torch.autocast(args.device.type, torch.bfloat16, enabled=args.bf16):
                f_v = model.visual_encoder(image.to(args.device))
                f_t = model.text_encoder(*(tokens[x].to(args.device) for x in ("input_ids", "attention_mask")))
                loss = contrastive_loss(f_v, f_t, args.tau) / args.accumulate
            loss.backward()
            total += loss.item()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        run.done(step, total)

    for role in ("test", "shift"):
        for artist in data.by_role(role):
            print(f"R@1 {artist}: {interval(found(evaluate(model, data, artist)))}")


if __name__ == "__main__":
    main()
