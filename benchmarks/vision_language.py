"""视觉-语言模型一步的时间 / The time of a step of the vision-language model.

    python -m benchmarks.vision_language

Timed in turn in one run at batch size 128, the median of the ratios: against the same model with contiguous memory (a
step is forward pass, gradient and update on a batch drawn before), and, where accelerate is installed, against the same
model trained by Hugging Face's Trainer (both draw their pictures, and the Trainer's own setup is left out).

同一次运行里交替计时，批大小 128，取比值的中位数。先与内存按连续格式排放的同一模型比（一步是前向、梯度和更新，那一批已经
抽好）；装了 accelerate，再与 Hugging Face 的 Trainer 训练的同一模型比（两边都连抽图画在内，Trainer 自己的准备不算）。
"""

import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from benchmarks.ratio import Ratio, in_turn, main
from mmcore.vision_language import LOSSES
from mmlessons.tasks import vision_language_model as naming
from mmlessons.tasks.learner import Learner


def make_contiguous(encoder: nn.Module) -> None:
    """内存按连续格式排放 / Lay out the encoder's memory in the contiguous format."""
    encoder.backbone.to(memory_format=torch.contiguous_format)
    encoder.backbone.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))  # a copy of 1.5 MB


class ForTrainer(nn.Module):
    """What Hugging Face's Trainer expects: it returns "loss"."""

    def __init__(self, ours: Learner):
        super().__init__()
        self.trainer, self.model = ours.trainer, ours.model

    def forward(self, num_items_in_batch: object = None, **batch: Tensor) -> dict[str, Tensor]:
        out = self.trainer._losses(**batch)
        return {"loss": out["total_loss"], **{name: out[name].detach() for name in LOSSES[1:]}}


def hugging_face(steps: int) -> float:
    """The seconds that Trainer takes for so many steps, its own setup left out."""
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    ours = naming.learner(naming.load(), steps + 1, device="cpu")

    class Batches(torch.utils.data.IterableDataset):
        def __iter__(self) -> Iterator[dict[str, Tensor]]:
            for _ in range(steps + 1):
                yield ours.task.draw(ours.generator)

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


def stepping(learner: Learner, steps: int) -> float:
    start = time.perf_counter()
    for _ in range(steps):
        learner.train_step()
    return time.perf_counter() - start


def stepping_on(learner: Learner, batch: dict[str, Tensor]) -> float:
    """One step on a batch drawn before."""
    start = time.perf_counter()
    learner.trainer.train_step(**batch)
    return time.perf_counter() - start


def ratios(quick: bool = False) -> Iterator[Ratio]:
    steps, rounds = (1, 1) if quick else (10, 5)
    concepts, total = naming.load(), 3 + rounds * steps
    ours, contiguous = (naming.learner(concepts, total, device="cpu") for _ in range(2))
    make_contiguous(contiguous.model.visual_encoder)
    for learner in (ours, contiguous):
        stepping(learner, 3)
    batch = ours.task.draw(ours.generator)
    yield Ratio("a step of the vision-language model", "the same, contiguous memory", in_turn(
        lambda: stepping_on(ours, batch), lambda: stepping_on(contiguous, batch), 2 * rounds * steps), 0.8)
    if find_spec("accelerate") is not None:
        yield Ratio("a step of the vision-language model", "the same by Hugging Face's Trainer", in_turn(
            lambda: stepping(ours, steps), lambda: hugging_face(steps), rounds), 1.0)


if __name__ == "__main__":
    main(ratios)
