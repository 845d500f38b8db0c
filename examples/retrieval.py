"""图文检索的训练循环，可以拿走 / Image-text retrieval: a training loop to take away.

    python examples/retrieval.py --out runs/retrieval

What lesson 06 trains, as a plain loop. Stop it when you like: the same command goes on from the last checkpoint and
ends with the same weights. Put your own pictures and texts in place of `DrawnAndNamed`.

第 06 课训练的东西，写成一个普通的循环。随时可以停：再运行同一条命令，就从上一个检查点继续，最后的权重一样。把
`DrawnAndNamed` 换成你自己的图和文字即可。

    torchrun --nproc-per-node 2 examples/retrieval.py --out runs/retrieval

Two processes take half of each batch. Every picture still meets every name of the whole batch, so they learn what one
process learns, and one may go on where two have stopped.

两个进程各拿每批的一半。每幅图遇到的仍是整批的名字，所以学到的与一个进程相同；两个停下的地方，一个也能接着走。
"""

from collections.abc import Iterator

import torch
from common import Options, Resumable, draws, positive, processes
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, Sampler

from mmcore import contrastive_loss, distributed
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
    """第 start 到第 end 批；一批里的概念各不相同 / Batches start to end; the concepts in a batch are all different.

    `share` 是这个进程取一批里的哪些 / Which of a batch this process takes.
    """

    def __init__(self, size: int, batch: int, seed: int, start: int, end: int, share: slice = slice(None)):
        self.size, self.batch, self.seed, self.start, self.end, self.share = size, batch, seed, start, end, share

    def __len__(self) -> int:
        return self.end - self.start

    def __iter__(self) -> Iterator[list[int]]:
        for number in range(self.start, self.end):
            epoch, place = divmod(number, self.size // self.batch)
            order = torch.randperm(self.size, generator=draws(self.seed, epoch))
            yield (epoch * self.size + order[place * self.batch:][:self.batch][self.share]).tolist()


class BothTowers(nn.Module):
    """两座塔的特征 / The features of both towers, all that a loss over several processes needs of each."""

    def __init__(self, model: RetrievalModel):
        super().__init__()
        self.visual_encoder, self.text_encoder = model.visual_encoder, model.text_encoder

    def forward(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.visual_encoder(image), self.text_encoder(input_ids, attention_mask)


def main() -> None:
    data = emoji.load()
    size = len(data.concepts)
    options = Options(__doc__, steps=600, batch=128, rate=6e-3, most=size, torchrun=True)
    options.add_argument("--tau", type=positive, default=0.0625, help="损失的温度 / temperature of the loss")
    args = options.parse_args()
    rank, many = processes(args)

    with seeded(args.seed):
        model = RetrievalModel(Retrieval(data).tokenizer).to(args.device)
    optimizer = make_optimizer(model, args.rate, weight_decay=0.3)  # AdamW
    schedule = one_cycle(optimizer, args.steps)
    run = Resumable(args, rank, model=model, optimizer=optimizer, schedule=schedule)
    features, loss_of = BothTowers(model), contrastive_loss
    if many > 1:  # the mean of the gradients is then that of one process with the whole batch
        features = DistributedDataParallel(distributed.batch_norm_over_all(features))
        loss_of = distributed.contrastive_loss
    order = Batches(size, args.batch, args.seed, run.step * args.accumulate, args.steps * args.accumulate,
                    share=slice(rank, None, many))
    batches = iter(DataLoader(DrawnAndNamed(data, args.seed), batch_sampler=order, num_workers=args.workers))

    model.train()
    for step in run.steps():
        total = 0.0
        for _ in range(args.accumulate):  # each batch has negatives of its own: more batches, not a larger one
            image, names = next(batches)
            tokens = model.text_encoder.tokenize(list(names))
            with torch.autocast(args.device.type, torch.bfloat16, enabled=args.bf16):
                f_v, f_t = features(image.to(args.device),
                                    *(tokens[x].to(args.device) for x in ("input_ids", "attention_mask")))
                loss = loss_of(f_v, f_t, args.tau) / args.accumulate
            loss.backward()
            total += loss.item()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        run.done(step, total)

    if rank > 0:
        return
    print(f"L {run.loss:.4f}")
    for role in ("test", "shift"):
        for artist in data.by_role(role):
            print(f"R@1 {artist}: {interval(found(evaluate(model, data, artist)))}")


if __name__ == "__main__":
    main()
