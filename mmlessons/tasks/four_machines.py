"""一批分给四台机器，什么非传不可 / One batch split over four machines: what has to travel?

Two projections learn by (2.1), as in `cross_modal_alignment`. Each machine has a share of the pairs and the same
projections, computes its loss in one of five ways and finds its gradient, and the gradients are averaged. The machines
are `mmlessons.processes`, real processes with real messages, and every message is noted. `split_loss` computes the
same in one process, for long trainings. Two more studies ask how much data is enough, and how large a batch.

两个投影按 (2.1) 学，与 `cross_modal_alignment` 一样。每台机器有一份配对和同样的投影，按五种做法之一算损失，求出自己的
梯度，再求平均。机器是 `mmlessons.processes` 里真的进程，真的传数，每一条消息都记下来。`split_loss` 在一个进程里算同样的
东西，给长的训练用。另外两个研究问，多少数据才够，一批要多大。
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from mmcore import checks, distributed
from mmcore.alignment import CrossModalAlignment, contrastive_loss
from mmcore.checks import shapes
from mmcore.shares import WAYS, share_loss
from mmlessons.border import holds, typed
from mmlessons.data import views
from mmlessons.processes import Processes
from mmlessons.tasks.cross_modal_alignment import LEARNING_RATE, TAU, WIDTH, Pairs, recall_at_1
from mmlessons.tasks.learner import Descent, Learner, Losses
from mmlessons.tasks.what_pairs_do_not_say import cca

BATCH = 128  # pairs, of all machines together
STEPS = 300
CONCEPTS = (16, 32, 64, 128, 256, 512, 825)  # to learn from
BATCHES = (16, 32, 64, 128, 256)
PICTURES = 12_800  # seen in all, whatever the batch
SAME_STEPS = 200
RIDGES = (0.01, 0.1, 1.0)


# -- what one machine does --------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Message:
    """谁给谁，几个数 / From whom, to whom, and how many numbers."""

    sender: int
    receiver: int
    numbers: int


@dataclass(frozen=True)
class MachineAnswer:
    """一台机器的回答 / What one machine answers: its loss, its gradient (K,), what it sent, and the seconds."""

    loss: float
    gradient: Tensor
    messages: tuple[Message, ...]
    seconds: float


def projections(widths: Sequence[int] = (128, 128)) -> CrossModalAlignment:
    """两个投影 / The two projections."""
    return CrossModalAlignment(list(widths), WIDTH)


def loss_of_share(way: str, a: Tensor, b: Tensor, tau: float, group: dist.ProcessGroup) -> Tensor:
    """一台机器的损失，几种做法 / The loss of one machine in one of these ways: (n, D), (n, D) → ()."""
    if way == "local" or dist.get_world_size(group) == 1:
        return contrastive_loss(a, b, tau)
    if way == "ring":
        return distributed.contrastive_loss(a, b, tau, group)
    first = dist.get_rank(group) * len(a)
    A, B = (distributed.gather(x, way == "gather", group) for x in (a, b))
    if way == "own":
        A, B = put_back(A, a, first), put_back(B, b, first)
    return share_loss(a, b, A, B, first, tau)


@typed
@shapes(A="M D", a="N D", least={"N": 1})
def put_back(A: Tensor, a: Tensor, first: int) -> Tensor:
    """收齐的行里，自己的那几行换回带梯度的 / Among the gathered rows, one's own have their gradient again.

    Raises ValueError if from `first` on there are not as many rows. 从 `first` 起没有这么多行时，报 ValueError。
    """
    most = len(A) - len(a)
    checks.require(0 <= first <= most, f"A 有 {len(A)} 行，first 需要在 0 到 {most} 之间，收到 {first}",
                   f"A has {len(A)} rows, and first must be from 0 to {most}, got {first}")
    return torch.cat([A[:first], a, A[first + len(a):]])


def one_machine(group: dist.ProcessGroup, parameters: Tensor, features_A: Tensor, features_B: Tensor, way: str,
                tau: float) -> MachineAnswer:
    """一台机器的一步 / One step of one machine, in a process of its own."""
    model = projections((features_A.shape[1], features_B.shape[1])).to(parameters.dtype)
    vector_to_parameters(parameters, model.parameters())
    begun = time.perf_counter()
    with noted(dist.get_rank(group)) as messages:
        loss = loss_of_share(way, *model.project(features_A, features_B), tau, group)
        loss.backward()
    seconds = time.perf_counter() - begun
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    return MachineAnswer(loss.item(), gradient, tuple(messages), seconds)


@contextmanager
def noted(rank: int) -> Iterator[list[Message]]:
    """记下这期间传出的特征和梯度 / Notes all features and gradients that this process hands on meanwhile.

    What processes tell each other before they begin (how many rows each has, say) and the value of the loss are a few
    numbers and are not noted.

    开始以前互报的几个数（例如各有几行）和损失的值不记。
    """
    messages, send = [], dist.batch_isend_irecv

    def noting(operations: list[dist.P2POp]) -> list[dist.Work]:
        messages.extend(Message(rank, dist.get_group_rank(one.group or dist.group.WORLD, one.peer), one.tensor.numel())
                        for one in operations if one.op is dist.isend)
        return send(operations)

    dist.batch_isend_irecv = noting
    try:
        yield messages
    finally:
        dist.batch_isend_irecv = send


# -- all machines together --------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Step:
    """P 台机器的一步 / One step of P machines."""

    losses: Tensor  # (P,)
    gradients: Tensor  # (P, K)
    messages: tuple[Message, ...]
    seconds: float

    def loss(self) -> float:
        """各台损失的平均 / The mean of their losses."""
        return self.losses.mean().item()

    def numbers(self) -> int:
        """一台机器传出几个数，最多的一台 / How many numbers a machine sent, the one that sent most."""
        sent = [0] * len(self.losses)
        for message in self.messages:
            sent[message.sender] += message.numbers
        return max(sent)

    def arrows(self) -> dict[tuple[int, int], int]:
        """谁给谁，一共几个数 / Who gave to whom, and how many numbers in all."""
        found: dict[tuple[int, int], int] = {}
        for one in self.messages:
            found[one.sender, one.receiver] = found.get((one.sender, one.receiver), 0) + one.numbers
        return found


@typed
def batch_of(data: views.Views, batch: int = BATCH, seed: int = 0) -> dict[str, Tensor]:
    """一批配对：features_A、features_B / A batch of pairs: features_A, features_B, (N, 128) each."""
    drawn = Pairs(data, batch).draw(torch.Generator().manual_seed(seed))
    return {name: drawn[name] for name in ("features_A", "features_B")}


@typed
def step(machines: Processes, model: nn.Module, batch: dict[str, Tensor], way: str, count: int = 4,
         tau: float = TAU) -> Step:
    """P 台机器各算一份 / Each of P machines computes its share, in a real process.

    Raises ValueError if the batch cannot be shared evenly, for an unknown way or a τ that is not above 0.

    一批分不均匀，没有这种做法，或 τ 不大于 0 时，报 ValueError。
    """
    checks.positive(tau, "tau")
    shares = _shares(batch, way, count)
    with torch.no_grad():
        model.project(*(x[:1] for x in shares[0]))  # what does not fit is refused here and not by four processes
    parameters = parameters_to_vector(model.parameters()).detach().clone()
    answers = machines.run(one_machine, [(parameters, *share, way, float(tau)) for share in shares])
    return Step(torch.tensor([answer.loss for answer in answers], dtype=torch.float64),
                torch.stack([answer.gradient for answer in answers]),
                tuple(message for answer in answers for message in answer.messages),
                max(answer.seconds for answer in answers))


def _shares(batch: dict[str, Tensor], way: str, count: int) -> list[tuple[Tensor, Tensor]]:
    checks.one_of(way, "way", WAYS)
    holds(batch, "batch", features_A="N D finite", features_B="N E finite")
    a, b = batch["features_A"], batch["features_B"]
    n, left = divmod(len(a), checks.whole(count, "count"))
    checks.require(left == 0 and (n > 1 or count > 1), f"{len(a)} 对不能平分给 {count} 台机器",
                   f"{len(a)} pairs cannot be shared evenly by {count} machines")
    return list(zip(a.split(n), b.split(n), strict=True))


@typed
def split_loss(model: nn.Module, batch: dict[str, Tensor], way: str, count: int = 4, tau: float = TAU) -> Tensor:
    """同样的损失，在一个进程里 / The same loss within one process: the mean of all L_p, with the gradient of that way.

    Nothing is sent. With one machine this is (2.1).

    什么也不传。只有一台机器时，就是 (2.1)。
    """
    checks.positive(tau, "tau")
    projected = [model.project(*share) for share in _shares(batch, way, count)]
    if way == "local" or count == 1:
        return torch.stack([contrastive_loss(a, b, tau) for a, b in projected]).mean()
    A, B = (torch.cat([x if way in ("gather", "ring") else x.detach() for x in side])
            for side in zip(*projected, strict=True))
    losses = []
    for k, (a, b) in enumerate(projected):
        first = k * len(a)
        rows = (put_back(A, a, first), put_back(B, b, first)) if way == "own" else (A, B)
        losses.append(share_loss(a, b, *rows, first, tau))
    return torch.stack(losses).mean()


@typed
def whole_gradient(model: nn.Module, batch: dict[str, Tensor], tau: float = TAU) -> Tensor:
    """一台机器算整批的梯度，该得到的就是它 / The gradient of one machine with the whole batch, the true one: (K,)."""
    loss = split_loss(model, batch, "local", 1, tau)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


# -- training ---------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Spread:
    """一批分给几台机器来学 (2.1) / Learns (2.1), each batch spread over the machines; None: within this process.

    The parameters are kept here and go out with the shares. In earnest every machine has its own copy, averages the
    gradients with the others and takes the same step; the copies stay equal.

    参数留在这里，随各份一起发出去。真正训练时，每台机器有自己的一份，与别的机器求梯度的平均，走同样的一步，所以各份始终
    相同。
    """

    pairs: Pairs
    machines: Processes | None = None

    def begin(self, device: torch.device) -> Descent:
        return Descent.of(projections(self.pairs.widths).to(device), self.losses, LEARNING_RATE, 0.01, "L")

    def step(self, trainer: Descent, generator: torch.Generator, way: str = "local", count: int = 4,
             tau: float = TAU) -> Losses:
        drawn = self.pairs.draw(generator)
        batch = {name: drawn[name] for name in ("features_A", "features_B")}
        return trainer.train_step(batch, way=way, count=count, tau=tau)

    def losses(self, model: nn.Module, batch: dict[str, Tensor], way: str, count: int, tau: float) -> dict[str, Tensor]:
        if self.machines is None:
            return {"L": split_loss(model, batch, way, count, tau)}
        found = step(self.machines, model, batch, way, count, tau)
        along = (parameters_to_vector(model.parameters()) * found.gradients.mean(0)).sum()
        return {"L": along - along.detach() + found.loss()}  # its value is the loss, its gradient the average (13.2)


@typed
def learner(data: views.Views, machines: Processes | None = None, seed: int = 0, batch: int = BATCH) -> Learner:
    """学两个投影，`train_step(way=…, count=…, tau=…)` / Learns the two projections, a step at a time.

    `way` and `count` say how this very step is computed, and by how many machines.

    `way` 和 `count` 说这一步怎样算，由几台机器算。
    """
    return Learner(Spread(Pairs(data, batch), machines), None, seed, "cpu")


# -- studies ----------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Found:
    """一次训练，一个概念一个 R@1 / One training, an R@1 for each concept."""

    unseen_artist: Tensor  # (256,) concepts of the classroom, by the unseen artist
    unseen_concepts: Tensor  # (64,) concepts never paired, by training artists
    steps: int  # that were made, or chosen on the validation concepts
    seconds: float  # of processor time


def _found(learned: object, steps: int, seconds: float) -> Found:
    room, new = views.load(), views.load("held-out")
    return Found(recall_at_1(learned, room, room.by_role("test")),
                 recall_at_1(learned, new, new.by_role("train")), steps, seconds)


@typed
def trained(way: str, seed: int, batch: int = BATCH, steps: int = STEPS, count: int = 4) -> Found:
    """训练一次，再测量；`way` 是 "gather" 而 `count` 是 1 时，就是一台机器 / Train once and measure."""
    checks.whole(steps, "steps")
    learned, begun = learner(views.load(), None, seed, batch), time.process_time()
    for _ in range(steps):
        learned.train_step(way=way, count=count)
    return _found(learned, steps, time.process_time() - begun)


@typed
def some(data: views.Views, count: int, seed: int = 0) -> views.Views:
    """随机取几个概念；同一个种子，少的总在多的里面 / Some concepts at random; fewer are always among more."""
    if not 2 <= count <= len(data.concepts):
        checks.refuse(f"count 需要在 2 到 {len(data.concepts)} 之间，收到 {count}",
                      f"count must be from 2 to {len(data.concepts)}, got {count}")
    order = torch.randperm(len(data.concepts), generator=torch.Generator().manual_seed(seed))[:count]
    return replace(data, concepts=tuple(data.concepts[i] for i in order.tolist()),
                   **{part: {name: x[order] for name, x in getattr(data, part).items()}
                      for part in ("pictures", "names", "drawn")})


@dataclass(frozen=True)
class Enough:
    """同样多的概念，两种学法，没配过的概念上的 R@1 / Two ways to learn, R@1 on concepts never paired: (64,) each."""

    learned: Tensor
    cca: Tensor
    steps: int  # chosen on the validation concepts, as the ridge is
    ridge: float
    seconds: float


@typed
def enough(count: int, seed: int, steps: Sequence[int] = (25, 50, 100, 200, 400)) -> Enough:
    """从 `count` 个概念学起，能认多少没配过的 / How many unpaired concepts are found after learning from `count`."""
    data, begun = some(views.load("large"), count, seed), time.process_time()
    new, validation = views.load("held-out"), views.load("validation")
    artists = new.by_role("train")

    def best(tried: Iterator[tuple[object, object]]) -> tuple[object, Tensor]:
        # the one that does best on the validation concepts, and its scores on those of the test
        scores = [(recall_at_1(rule, validation, artists).mean().item(), name, recall_at_1(rule, new, artists))
                  for name, rule in tried]
        _, name, test = max(scores, key=lambda one: one[0])
        return name, test

    def along_the_way() -> Iterator[tuple[int, Learner]]:
        learned, done = learner(data, None, seed, min(BATCH, count)), 0
        for stop in steps:
            for _ in range(stop - done):
                learned.train_step(way="gather", count=1)
            done = stop
            yield stop, learned

    stop, learned = best(along_the_way())
    ridge, known = best((ridge, cca(data, ridge)) for ridge in RIDGES)
    return Enough(learned, known, stop, ridge, time.process_time() - begun)


@typed
def study(question: str, value: str | int, seed: int) -> Found | Enough:
    """一课里的一次训练 / One training of the lesson.

    | question | value | 含义 meaning |
    |---|---|---|
    | `"way"` | `WAYS`, `"whole"` | 四台机器，共 128 对，300 步 four machines, 128 pairs in all, 300 steps |
    | `"concepts"` | 个数 how many | 没配过的概念认出几成 what is found of concepts never paired |
    | `"pictures"` | 一批几对 batch | 一台机器，共 12,800 幅图 one machine, 12,800 pictures in all |
    | `"steps"` | 一批几对 batch | 一台机器，200 步 one machine, 200 steps |
    """
    checks.one_of(question, "question", ("way", "concepts", "pictures", "steps"))
    if question == "way":
        way = checks.one_of(value, "value", (*WAYS, "whole"))
        return trained("gather", seed, count=1) if way == "whole" else trained(way, seed)
    number = checks.whole(value, "value", 2)
    if question == "concepts":
        return enough(number, seed)
    return trained("gather", seed, number, PICTURES // number if question == "pictures" else SAME_STEPS, 1)


@typed
def extrapolate(counts: Sequence[int], scores: Sequence[float], at: int) -> float:
    """双对数图上的直线，延长到 `at` / A straight line through the points, both axes logarithmic, as far as `at`.

    score = c · count^k, by least squares of the logarithms. Raises ValueError for fewer than two points or numbers that
    are not above 0.

    score = c · count^k，对数的最小二乘。不到两个点，或有不大于 0 的数时，报 ValueError。
    """
    checks.require(len(counts) == len(scores) >= 2, "需要同样多的 counts 和 scores，至少两个",
                   "there must be as many counts as scores, two at least")
    for number in (*counts, *scores, at):
        checks.positive(number, "counts, scores, at")
    x, y = (torch.as_tensor(values, dtype=torch.float64).log() for values in (counts, scores))
    checks.require(bool((x != x[0]).any()), "counts 不能全都相同", "counts may not all be the same")
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    return (y.mean() + slope * (torch.tensor(float(at)).log() - x.mean())).exp().item()
