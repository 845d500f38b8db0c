"""一个学习者：每一课都用这一个循环 / One learner: the loop that every lesson uses.

A task says what is learned: it begins something that learns and takes one step with it. The learner brings the seed,
the schedule of the step size and the counting of steps. A task is any object with

    begin(device)                       → a trainer: it has `.model` and `.optimizer`
    step(trainer, generator, **dials)   → the losses of one step, as numbers; dials are what sliders say

任务说明学什么：它造出会学习的东西，并用它走一步。学习者管种子、步长表和步数。
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mmcore import checks
from mmcore.checks import refuse, typed
from mmcore.training import choose_device, make_optimizer, train_on

Losses = dict[str, float]


@typed
def one_cycle(optimizer: torch.optim.Optimizer, steps: int, rise: float = 10,
              fall: float = 1000) -> torch.optim.lr_scheduler.OneCycleLR:
    """步长先升后降 / The step size rises from 1/`rise` of itself for 15 % of the steps, then falls.

    Paper: Smith and Topin 2018, Super-Convergence.
    """
    steps, rise, fall = checks.whole(steps, "steps"), checks.positive(rise, "rise"), checks.positive(fall, "fall")
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in optimizer.param_groups], total_steps=steps + 1, pct_start=0.15,
        div_factor=rise, final_div_factor=fall, cycle_momentum=False)


@typed
def check_steps_left(schedule: torch.optim.lr_scheduler.OneCycleLR) -> None:
    """`one_cycle` 的步数走完了就报错 / An error once all steps of `one_cycle` are done."""
    steps = schedule.total_steps - 1
    if schedule.last_epoch >= steps:
        refuse(f"这次训练只有 {steps} 步，已经走完；reset() 可以从头再来",
               f"this training has {steps} steps and all are done; reset() starts again")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """期间的随机数由种子定，全局的照旧 / Random numbers inside are the seed's; the global ones stay as they were."""
    with torch.random.fork_rng(devices=[]):  # models are built on the CPU and then moved
        torch.default_generator.manual_seed(checks.whole(seed, "seed", 0))
        yield


class Task(Protocol):
    """要学的事 / What is to be learned."""

    def begin(self, device: torch.device) -> Any: ...

    def step(self, trainer: Any, generator: torch.Generator, **dials: Any) -> Losses: ...


@dataclass
class Descent:
    """一个模型、它的优化器和损失 / A model, its optimiser, and its losses.

    `losses(model, batch, **dials)` gives named losses; what goes down is the one named `total`.

    `losses(model, batch, **dials)` 给出有名字的损失；下降的是名叫 `total` 的那一个。
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    losses: Callable[..., dict[str, Tensor]]
    total: str = "total_loss"

    @classmethod
    def of(cls, model: nn.Module, losses: Callable[..., dict[str, Tensor]], rate: float, weight_decay: float,
           total: str = "total_loss") -> "Descent":
        """用 AdamW / With AdamW."""
        return cls(model, make_optimizer(model, rate, weight_decay), losses, total)

    def train_step(self, batch: Mapping[str, Tensor], **dials: Any) -> Losses:
        """走一步，要么完整，要么什么也不变 / One step, which happens as a whole or changes nothing."""
        return train_on(self.model, self.optimizer, lambda: self.losses(self.model, batch, **dials), self.total)


class Learner:
    """学一件事：从种子开始，一步一步，走完为止 / Learns a task: from a seed, step by step, to the last step.

    The same `seed` gives the same model. `draws` is the seed of the batches where it is to be another one, or a
    generator that several learners share. Without `steps` there is no end and no schedule. `reset` drops what was
    learned and starts again with the same numbers. Raises TypeError or ValueError for a wrong number of steps or seed.

    同样的 `seed` 给出同样的模型。批的种子若要另取，用 `draws`，它也可以是几个学习者共用的随机数发生器。不给 `steps`，
    就没有尽头，也没有步长表。`reset` 丢掉学到的，用同样的随机数从头再来。步数或种子不对时报 TypeError 或 ValueError。
    """

    def __init__(self, task: Task, steps: int | None, seed: int = 0, device: str | torch.device | None = None,
                 draws: int | torch.Generator | None = None, **schedule: float):
        checks.require(all(callable(getattr(task, name, None)) for name in ("begin", "step")),
                       f"task 需要有 begin 和 step，收到 {type(task).__name__}",
                       f"task must have begin and step, got {type(task).__name__}", TypeError)
        self.task = task
        self.steps = None if steps is None else checks.whole(steps, "steps")
        self.seed = checks.whole(seed, "seed", 0)
        self.draws = self.seed if draws is None else draws
        self.device, self._schedule = choose_device(device), schedule
        self.reset()

    def reset(self) -> None:
        """从头再来，同样的随机数 / Start again with the same random numbers."""
        shared = isinstance(self.draws, torch.Generator)
        self.generator = self.draws if shared else torch.Generator().manual_seed(self.draws)
        with seeded(self.seed):
            self.trainer = self.task.begin(self.device)
        self.schedule = self.steps and one_cycle(self.trainer.optimizer, self.steps, **self._schedule)

    @property
    def model(self) -> nn.Module:
        """正在学的模型 / The model that is learning."""
        return self.trainer.model

    def train_step(self, **dials: Any) -> Losses:
        """走一步，返回各项损失 / Take one step, return its losses.

        Raises ValueError once all steps are done or for a wrong dial, FloatingPointError if a loss is not finite; in
        each case the model stays as it was.

        步数走完了或滑块的值不对时报 ValueError，损失不是有限数时报 FloatingPointError；模型都保持原样。
        """
        if self.schedule:
            check_steps_left(self.schedule)
        losses = self.task.step(self.trainer, self.generator, **dials)
        if self.schedule:
            self.schedule.step()
        return losses

    def finish(self, **dials: Any) -> "Learner":
        """走完所有的步 / Take all steps; returns itself."""
        for _ in range(self.steps):
            self.train_step(**dials)
        return self

    def keeps(self) -> list[Any]:
        """学到的一切，可以存下再放回 / All that is learned, to be kept and put back."""
        learned = getattr(self.trainer, "learned", self.model)  # head and encoders besides the model, say
        return [part for part in (learned, self.trainer.optimizer, self.schedule) if part]


class Stages:
    """分几段学：一段走完，接着下一段 / Learns in stages: when one has taken all its steps, the next goes on.

    `begin()` makes the model and a learner for each stage. They are used like one learner; `reset` begins them again.

    `begin()` 造出模型和每一段的学习者。合起来用，就像一个学习者；`reset` 让它们从头再来。
    """

    def __init__(self, begin: Callable[[], tuple[nn.Module, list[Learner]]]):
        self._begin = begin
        self.reset()

    def reset(self) -> None:
        """从头再来，同样的随机数 / Start again with the same random numbers."""
        self.model, self.learners = self._begin()

    @property
    def steps(self) -> int:
        """各段一共几步 / The steps of all stages."""
        return sum(learner.steps for learner in self.learners)

    @property
    def stage(self) -> int:
        """走到第几段，从 0 数起 / Which stage it has come to, counted from 0."""
        return sum(learner.schedule.last_epoch == learner.steps for learner in self.learners[:-1])

    def train_step(self, **dials: Any) -> Losses:
        """走一步，同 `Learner.train_step` / Take one step, as `Learner.train_step` does."""
        return self.learners[self.stage].train_step(**dials)

    def finish(self, **dials: Any) -> "Stages":
        """走完所有的步 / Take all steps; returns itself."""
        for _ in range(self.steps):
            self.train_step(**dials)
        return self

    def keeps(self) -> list[Any]:
        """学到的一切，可以存下再放回 / All that is learned, to be kept and put back."""
        return [part for learner in self.learners for part in learner.keeps()]
