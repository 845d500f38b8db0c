"""看图说话的训练循环，可以拿走 / Image captioning: a training loop to take away.

    python examples/captioning.py --out runs/captioning

Lesson 05 in one stage: encoder and decoder learn together, told what is in each cell. Stop it when you like: the same
command goes on from the last checkpoint and ends with the same weights. Put your own pictures and sentences in place of
`Described`.

第 05 课的一个阶段：编码器和解码器一起学，告诉它每格是什么。随时可以停：再运行同一条命令，就从上一个检查点继续，最后的权
重一样。把 `Described` 换成你自己的图和句子即可。
"""

import torch
from common import Options, Resumable, draws
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmcore.decoder import generation_loss
from mmcore.training import make_optimizer
from mmlessons.data import scenes
from mmlessons.intervals import interval
from mmlessons.tasks.image_captioning import (
    BETAS,
    DECAY,
    RATES,
    CaptioningModel,
    draw_tiles,
    naming_loss,
    scores,
    tokens_of,
    training_set,
)
from mmlessons.tasks.learner import one_cycle, seeded

DRAWINGS = 2  # of every thing in one batch: scenes are put together from their features


class Described(Dataset):
    """第 k 项：第 k 批，图块、每格是哪一块、怎样说 / Item k: batch k, tiles, which one is in a cell, what to say."""

    def __init__(self, batch: int, seed: int):
        self.batch, self.seed = batch, seed

    def __getitem__(self, k: int) -> dict[str, Tensor]:
        random = draws(self.seed, k)
        drawn = training_set().draw_to_describe(self.batch, random)
        which = torch.randint(DRAWINGS, drawn["cells"].shape, generator=random)
        tiles, thing = draw_tiles(DRAWINGS, random, torch.device("cpu"))
        kinds = len(scenes.THINGS) + 1  # the last is the empty cell, −1 in `cells`
        return {**drawn, "tile": drawn["cells"] % kinds + kinds * which, "tiles": tiles, "thing": thing}


def main() -> None:
    args = Options(__doc__, steps=800, batch=24, rate=RATES[1]).parse_args()
    with seeded(args.seed):
        model = CaptioningModel().to(args.device)
    optimizer = make_optimizer(model.decoder, args.rate, DECAY[1])  # AdamW
    for group in optimizer.param_groups:
        group["betas"] = BETAS
    for part in (model.visual_encoder, model.namer):  # the encoder learns faster and decays more
        for group in make_optimizer(part, args.rate * RATES[0] / RATES[1], DECAY[0]).param_groups:
            optimizer.add_param_group({name: group[name] for name in ("params", "lr", "weight_decay", "betas")})
    schedule = one_cycle(optimizer, args.steps)
    run = Resumable(args, model=model, optimizer=optimizer, schedule=schedule)
    left = range(run.step * args.accumulate, args.steps * args.accumulate)
    batches = iter(DataLoader(Described(args.batch, args.seed), None, sampler=left, num_workers=args.workers))

    model.train()
    for step in run.steps():
        total = 0.0
        for _ in range(args.accumulate):
            drawn = next(batches)
            tokens = tokens_of(model, drawn).to(args.device)  # start, words, end
            with torch.autocast(args.device.type, torch.bfloat16, enabled=args.bf16):
                seen = model.visual_encoder(drawn["tiles"].to(args.device))
                f_v = seen[drawn["tile"].to(args.device)]  # (B, 4, D), the prefix
                L_caption = generation_loss(model.decoder(f_v, tokens[:, :-1]), tokens)
                L_name = naming_loss(model.namer(seen), drawn["thing"].to(args.device))
            loss = (L_caption + L_name) / args.accumulate
            loss.backward()
            total += loss.item()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        run.done(step, total)

    for role in ("test", "shift"):
        data = scenes.load(role)
        print(f"exact match {data.artists[0]}: {interval(scores(model, data, compared=0).exact)}")


if __name__ == "__main__":
    main()
