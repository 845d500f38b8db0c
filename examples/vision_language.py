"""视觉-语言模型的训练循环，可以拿走 / A vision-language model: a training loop to take away.

    python examples/vision_language.py --out runs/vision_language

Lesson 01's three tasks at once, classes, retrieval and names, as a plain loop. Stop it when you like: the same command
goes on from the last checkpoint and ends with the same weights. Put your own pictures, hints and names in place of
`Hinted`.

第 01 课的三个任务一起学：类别、检索、名字，写成一个普通的循环。随时可以停：再运行同一条命令，就从上一个检查点继续，最后
的权重一样。把 `Hinted` 换成你自己的图、提示和名字即可。
"""

import torch
import torch.nn.functional as F
from common import Options, Resumable, draws, positive
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmcore import contrastive_loss, multitask_loss
from mmcore.decoder import generation_loss
from mmcore.training import make_optimizer
from mmlessons.intervals import interval
from mmlessons.tasks.learner import one_cycle, seeded
from mmlessons.tasks.vision_language_model import Naming, evaluate, load

INPUTS = ("image", "input_ids", "attention_mask", "name_ids", "image_given", "text_given")


class Hinted(Dataset):
    """第 k 项：第 k 批，图画、提示、类别、名字 / Item k: the k-th batch, drawings, hints, classes and names."""

    def __init__(self, task: Naming, seed: int):
        self.task, self.seed = task, seed

    def __getitem__(self, k: int) -> dict[str, Tensor]:
        return self.task.draw(draws(self.seed, k))


def main() -> None:
    concepts = load()
    options = Options(__doc__, steps=240, batch=128, rate=6e-3, most=len(concepts.label))
    options.add_argument("--tau", type=positive, default=0.0625, help="检索的温度 / temperature of retrieval")
    args = options.parse_args()

    task = Naming(concepts, args.batch)
    with seeded(args.seed):
        model = task.begin(args.device).model  # which makes the tokens of hints and names as well
    optimizer = make_optimizer(model, args.rate, weight_decay=0.3)  # AdamW
    schedule = one_cycle(optimizer, args.steps)
    run = Resumable(args, model=model, optimizer=optimizer, schedule=schedule)
    left = range(run.step * args.accumulate, args.steps * args.accumulate)
    batches = iter(DataLoader(Hinted(task, args.seed), None, sampler=left, num_workers=args.workers))

    model.train()
    for step in run.steps():
        total = 0.0
        for _ in range(args.accumulate):  # each batch has negatives of its own: more batches, not a larger one
            batch = {name: x.to(args.device) for name, x in next(batches).items()}
            with torch.autocast(args.device.type, torch.bfloat16, enabled=args.bf16):
                out = model(**{name: batch[name] for name in INPUTS})
                L_cls = F.cross_entropy(out["classification_logits"], batch["labels"])
                L_retrieval = contrastive_loss(out["retrieval_v"], out["retrieval_t"], args.tau, batch["positives"])
                L_generation = generation_loss(out["generation_logits"], batch["name_ids"])
            loss = multitask_loss(L_cls, L_retrieval, L_generation) / args.accumulate
            loss.backward()
            total += loss.item()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        run.done(step, total)

    for role in ("test", "shift"):
        artist = concepts.data.by_role(role)[0]
        both = evaluate(model, concepts, artist).both
        print(f"{artist}, picture and hint: class {interval(both.kind)}, exact name {interval(both.name)}")


if __name__ == "__main__":
    main()
