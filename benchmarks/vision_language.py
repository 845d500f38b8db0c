"""视觉-语言模型：成绩，以及一步的时间 / The vision-language model: its results, and the time of a step.

    python -m benchmarks.vision_language results [seeds ...]   # 0 1 2 by default
    python -m benchmarks.vision_language pairs [seeds ...]     # the four pairs of encoders
    python -m benchmarks.vision_language time                  # against Trainer where accelerate is installed

results：没见过的作者上，只看图、只听提示、两样都有；旁边是多数类和只看文字的极限。pairs：四种编码器组合。time：同一次
运行里交替计时，批大小 128，取比值的中位数：与内存按连续格式排放的同一模型比（目标至多 0.8；一步是前向、梯度和更新，抽
一批图画不算在内），与 Hugging Face 的 Trainer 训练的同一模型比（目标至多 1.0；两边都连抽图画在内）。

results: on the unseen artist, from the picture alone, the hint alone and both, beside the majority and the limit of
text alone. pairs: the four pairs of encoders. time: timed in turn in one run at batch size 128, the median of
the ratios: against the same model with contiguous memory (at most 0.8; a step is forward pass, gradient and update, and
drawing a batch of pictures is no part of it), and against the same model trained by Hugging Face's Trainer (at most
1.0; both draw their pictures).
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from benchmarks.ratio import Ratio, in_turn
from benchmarks.ratio import show as show_ratios
from mmcore.encoders import BACKBONES, TEXT_MODELS
from mmcore.vision_language import LOSSES
from mmlessons.tasks import vision_language_model as naming


def show(name: str, runs: list[dict]) -> None:
    def spread(values: list[float]) -> str:
        return f"{statistics.mean(values):.3f} ({min(values):.3f} - {max(values):.3f})"

    seconds = [run["seconds"] for run in runs]
    print(f"{name}: {runs[0]['parameters']} parameters, {min(seconds):.0f} - {max(seconds):.0f} s of CPU")
    for given in naming.INPUTS:
        print(f"    {given:10}", *(f"{kind} {spread([run[given][kind] for run in runs])}  "
                                   for kind in ("subgroup", "name")))
    print(f"    retrieval  r@1 {spread([run['retrieval'] for run in runs])}", flush=True)


def results(seeds: list[int], role: str = "test") -> None:
    task = naming.load_task()
    print(f"{len(task.label)} concepts, {len(task.hints)} hints; majority {naming.majority(task)}; "
          f"limit of text alone {naming.text_limit(task)}; chance of retrieval {1 / len(task.label):.4f}")
    show("resnet-tiny + bert-tiny", [naming.train_and_test(seed, role=role) for seed in seeds])


def pairs(seeds: list[int]) -> None:
    for backbone in BACKBONES:
        for model_name in TEXT_MODELS:
            show(f"{backbone} + {model_name}", [
                naming.train_and_test(seed, backbone=backbone, model_name=model_name) for seed in seeds])


class Contiguous(nn.Module):
    """图像编码器，内存按连续格式排放 / The visual encoder with its memory in the contiguous format."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder.to(memory_format=torch.contiguous_format)

    def forward(self, image: Tensor) -> Tensor:
        encoder, image = self.encoder, image.contiguous()
        return encoder.normalise(encoder.project(encoder.backbone(encoder.standardise(image))))


class ForTrainer(nn.Module):
    """Hugging Face 的 Trainer 要的样子：返回 "loss" / What Hugging Face's Trainer expects: it returns "loss"."""

    def __init__(self, naming_trainer: naming.NamingTrainer):
        super().__init__()
        self.trainer, self.model = naming_trainer.trainer, naming_trainer.model

    def forward(self, num_items_in_batch: object = None, **batch: Tensor) -> dict[str, Tensor]:
        out = self.trainer._losses(**batch)
        return {"loss": out["total_loss"], **{name: out[name].detach() for name in LOSSES[1:]}}


def hugging_face(steps: int) -> float:
    """Trainer 走这么多步的秒数 / The seconds that Trainer takes for so many steps, its own setup left out."""
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    ours = naming.NamingTrainer(naming.load_task(), steps + 1, device="cpu")

    class Batches(torch.utils.data.IterableDataset):
        def __iter__(self) -> Iterator[dict[str, Tensor]]:
            for _ in range(steps + 1):
                yield ours.draw()

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.moments: list[float] = []

        def on_step_end(self, *_: object, **__: object) -> None:
            self.moments.append(time.perf_counter())

    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=steps + 1, per_device_train_batch_size=1,  # each “sample” is a whole batch of 128 already
            use_cpu=True, save_strategy="no", report_to=[], disable_tqdm=True, logging_strategy="no",
            remove_unused_columns=False, dataloader_pin_memory=False)
        theirs = Trainer(ForTrainer(ours), arguments, train_dataset=Batches(), data_collator=lambda rows: rows[0],
                         optimizers=(ours.trainer.optimizer, ours.schedule), callbacks=[clock])
        theirs.remove_callback(PrinterCallback)
        theirs.train()
    return clock.moments[-1] - clock.moments[0]


def stepping(trainer: naming.NamingTrainer, steps: int) -> float:
    start = time.perf_counter()
    for _ in range(steps):
        trainer.train_step()
    return time.perf_counter() - start


def stepping_on(trainer: naming.NamingTrainer, batch: dict[str, Tensor]) -> float:
    """一步，这一批已经抽好 / One step on a batch drawn before."""
    start = time.perf_counter()
    trainer.trainer.train_step(**batch)
    return time.perf_counter() - start


def ratios(steps: int = 10, rounds: int = 5) -> Iterator[Ratio]:
    task, total = naming.load_task(), 3 + rounds * steps
    ours, contiguous = (naming.NamingTrainer(task, total, device="cpu") for _ in range(2))
    contiguous.model.visual_encoder = Contiguous(contiguous.model.visual_encoder)
    for trainer in (ours, contiguous):
        stepping(trainer, 3)
    batch = ours.draw()
    yield Ratio("a step of the vision-language model", "the same, contiguous memory", in_turn(
        lambda: stepping_on(ours, batch), lambda: stepping_on(contiguous, batch), 2 * rounds * steps), 0.8)
    if find_spec("accelerate") is not None:
        yield Ratio("a step of the vision-language model", "the same by Hugging Face's Trainer", in_turn(
            lambda: stepping(ours, steps), lambda: hugging_face(steps), rounds), 1.0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, *rest = sys.argv[1:] or ["results"]
    if what == "time":
        show_ratios(ratios())
    else:
        {"results": results, "pairs": pairs}[what]([int(seed) for seed in rest] or [0, 1, 2])
