"""图文检索的训练循环，可以整个拿走 / Image-text retrieval: a training loop to take away.

    python examples/retrieval.py --out runs/retrieval

What lesson 06 trains, as a plain loop. Stop it when you like: the same command goes on from the last checkpoint and
ends with the same weights. Put your own pictures and texts in place of `Pairs`.

第 06 课训练的东西，写成一个普通的循环。随时可以停：再运行同一条命令，就从上一个检查点继续，最后的权重一样。把 `Pairs`
换成你自己的图和文字即可。
"""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from mmcore import contrastive_loss, cosine_similarity, ranks
from mmcore.training import choose_device, make_optimizer
from mmlessons.data import emoji
from mmlessons.data.augment import augment
from mmlessons.tasks.cross_modal_retrieval import Retrieval, RetrievalModel
from mmlessons.tasks.learner import one_cycle, seeded


class Pairs(Dataset):
    """第 k 项：一幅随机变化过的图画，和它的名字 / Item k: a drawing, changed at random, and its name."""

    def __init__(self, data: emoji.Emoji, seed: int):
        self.pictures, self.names, self.seed = data.training_pictures(), [data.names(x) for x in ("zh", "en")], seed

    def __getitem__(self, k: int) -> tuple[Tensor, str]:
        random = torch.Generator().manual_seed(self.seed * 2**32 + k)  # by number: the same whenever it is asked for
        artist, language = (torch.randint(n, (), generator=random) for n in (len(self.pictures), 2))
        concept = k % self.pictures.shape[1]
        picture = self.pictures[artist, concept] / 255
        return augment(picture.unsqueeze(0), random)[0], self.names[language][concept]


class Epochs(Sampler):
    """一轮一轮地打乱，从 `start` 项开始 / One shuffled epoch after another, from item `start` to item `end`."""

    def __init__(self, size: int, seed: int, start: int, end: int):
        self.size, self.seed, self.start, self.end = size, seed, start, end

    def __iter__(self) -> Iterator[int]:
        for k in range(self.start, self.end):
            epoch, place = divmod(k, self.size)
            if place == 0 or k == self.start:
                order = torch.randperm(self.size, generator=torch.Generator().manual_seed(self.seed + epoch))
            yield epoch * self.size + int(order[place])


def found(model: RetrievalModel, data: emoji.Emoji, artist: str) -> float:
    """找对的比例，两个方向、两种语言平均 / R@1, the mean of both directions and both languages."""
    f_v = model.encode_pictures(data.pictures_by(artist))
    similarities = [cosine_similarity(f_v, model.encode_texts(data.names(language))) for language in ("zh", "en")]
    return sum((ranks(S) == 1).float().mean().item() for s in similarities for S in (s, s.T)) / 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint and of the events")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=128, help="different concepts in a batch, so at most 256")
    parser.add_argument("--accumulate", type=int, default=1, help="batches for one step of the optimiser")
    parser.add_argument("--rate", type=float, default=6e-3)
    parser.add_argument("--tau", type=float, default=0.0625)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare batches")
    parser.add_argument("--device", help="cpu, cuda, mps; the best there is by default")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--save-every", type=int, default=100)
    parser.add_argument("--tensorboard", action="store_true", help="write events (needs tensorboard)")
    args = parser.parse_args()

    data, device, checkpoint = emoji.load(), choose_device(args.device), args.out / "checkpoint.pt"
    with seeded(args.seed):
        model = RetrievalModel(Retrieval(data).tokenizer).to(device)
    optimizer = make_optimizer(model, args.rate, weight_decay=0.3)
    schedule, step = one_cycle(optimizer, args.steps), 0
    if checkpoint.exists():
        kept = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        schedule.load_state_dict(kept["schedule"])
        step = kept["step"]
    writer = None
    if args.tensorboard:
        from torch.utils.tensorboard import SummaryWriter
        writer = SummaryWriter(args.out)
    args.out.mkdir(parents=True, exist_ok=True)
    items = args.batch * args.accumulate  # of one step
    order = Epochs(data.training_pictures().shape[1], args.seed, step * items, args.steps * items)
    batches = iter(DataLoader(Pairs(data, args.seed), args.batch, sampler=order, num_workers=args.workers))
    model.train()
    for done in tqdm(range(step + 1, args.steps + 1), initial=step, total=args.steps, disable=None):
        total = 0.0
        for _ in range(args.accumulate):  # each batch has negatives of its own: more batches, not a larger one
            image, names = next(batches)
            tokens = model.text_encoder.tokenize(list(names))
            with torch.autocast(device.type, torch.bfloat16, enabled=args.bf16):
                f_v = model.visual_encoder(image.to(device))
                f_t = model.text_encoder(tokens["input_ids"].to(device), tokens["attention_mask"].to(device))
            loss = contrastive_loss(f_v, f_t, args.tau) / args.accumulate
            loss.backward()
            total += loss.item()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if writer:
            writer.add_scalar("loss", total, done)
        if done % args.save_every == 0 or done == args.steps:  # written aside, so that what is there is whole
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(),
                        "schedule": schedule.state_dict(), "step": done}, args.out / "aside")
            os.replace(args.out / "aside", checkpoint)
    for artist in data.by_role("test"):
        print(f"R@1 {artist}: {found(model, data, artist):.3f}")


if __name__ == "__main__":
    main()
