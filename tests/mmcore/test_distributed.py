"""多个进程算整批的损失 / Several processes compute the loss of the whole batch, over a real group (gloo)."""

import copy
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks import scale
from mmcore import alignment, distributed

N, SOON = 13, 20.0  # pairs in all: no number of processes divides them; seconds


def begin(run: Callable, rank: int, size: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    try:
        said = run(rank, size)
    except Exception:
        said = traceback.format_exc()
    Path(folder, str(rank)).write_text(said or "", "utf-8")


def over(size: int, run: Callable, folder: Path) -> list[str]:
    """What `run(rank, size)` says in every process; a process that ends without a word has said "gone"."""
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(["torch.distributed", "mmcore.distributed"])  # imported once
    processes = [context.Process(target=begin, args=(run, rank, size, str(folder))) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
        if process.is_alive():
            process.kill()
            pytest.fail("a process hangs")
    said = [folder / str(rank) for rank in range(size)]
    return [path.read_text("utf-8") if path.exists() else "gone" for path in said]


class Towers(nn.Module):
    """Two projections, a temperature and a bias, all of them learned."""

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(8, 5, dtype=dtype), nn.Linear(7, 5, dtype=dtype)
        self.tau, self.bias = (nn.Parameter(torch.tensor(x, dtype=dtype)) for x in (0.2, -2.0))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.a(x), self.b(y), self.tau, self.bias


def gradients(model: nn.Module, loss: Tensor) -> Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([torch.zeros(1) if p.grad is None else p.grad.flatten() for p in model.parameters()])


def softmax_of(module: object, small: bool) -> Callable[..., Tensor]:
    return lambda a, b, tau, bias: module.contrastive_loss(a, b, tau / 20 if small else tau) + 0 * bias


def sigmoid_of(module: object) -> Callable[..., Tensor]:
    return lambda a, b, tau, bias: module.sigmoid_loss(a, b, tau, bias)


def equals_one_process(rank: int, size: int) -> str:
    """The mean that DistributedDataParallel takes is the gradient of one process with all the rows."""
    cut = [r * N // size + (0 < r < size) for r in range(size + 1)]
    mine, worst = slice(cut[rank], cut[rank + 1]), []
    for dtype, close in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
        generator = torch.Generator().manual_seed(0)
        x, y = (torch.randn(N, width, generator=generator, dtype=dtype) for width in (8, 7))
        for one, many in ((softmax_of(alignment, False), softmax_of(distributed, False)),
                          (softmax_of(alignment, True), softmax_of(distributed, True)),
                          (sigmoid_of(alignment), sigmoid_of(distributed))):
            model = Towers(dtype)
            loss = one(*model(x, y))
            wanted = gradients(model, loss)
            parallel = DistributedDataParallel(model)
            value = many(*parallel(x[mine], y[mine]))
            got = gradients(model, value)
            with torch.no_grad():
                watched = many(*model(x[mine], y[mine]))
            assert abs(value.item() - loss.item()) <= close * abs(loss.item())
            assert watched.item() == value.item()
            worst.append(((got - wanted).norm() / wanted.norm()).item() / close)
    return "" if max(worst) <= 1 else str(worst)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_averaged_gradient_is_that_of_one_process_with_the_whole_batch(size: int, tmp_path: Path) -> None:
    assert over(size, equals_one_process, tmp_path) == [""] * size


def normalises_as_one(rank: int, size: int) -> str:
    """Values, gradients and what is kept for later, of a batch that no number of processes divides."""
    cut = [r * N // size + (0 < r < size) for r in range(size + 1)]
    mine, worst = slice(cut[rank], cut[rank + 1]), []
    for layer, shape in ((nn.BatchNorm1d(3), ()), (nn.BatchNorm2d(3, momentum=None), (2, 5)),
                         (nn.BatchNorm2d(3, affine=False, track_running_stats=False), (2, 5))):
        generator = torch.Generator().manual_seed(0)
        x, later = (5 + 2 * torch.randn(N, 3, *shape, generator=generator, dtype=torch.float64) for _ in range(2))
        factor = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        one = nn.Sequential(layer).double()
        many = distributed.batch_norm_over_all(copy.deepcopy(one))
        assert list(many.state_dict()) == list(one.state_dict())
        outs = []
        for model, rows in ((one, slice(None)), (many, mine)):
            part = x[rows].clone().requires_grad_()
            y = model(part)
            (y * factor[rows]).sum().backward()
            own = [p.grad for p in model.parameters()]
            if model is many:
                for gradient in own:
                    dist.all_reduce(gradient)
            kept = [b.double() for b in model.buffers()]
            model.train(layer.running_mean is None)  # where nothing is kept, evaluation asks the batch again
            after = model(later[rows])
            outs.append([y.detach(), part.grad, after.detach(), *own, *kept])
        wanted = [t[mine] if len(t.shape) and len(t) == N else t for t in outs[0]]
        worst += [(a - b).abs().max().item() for a, b in zip(wanted, outs[1], strict=True)]
    return "" if max(worst) < 1e-12 else str(worst)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_batch_normalisation_over_all_is_that_of_one_process_with_the_whole_batch(size: int, tmp_path: Path) -> None:
    assert over(size, normalises_as_one, tmp_path) == [""] * size


def test_batch_normalisation_over_all_needs_a_group_and_a_model() -> None:
    with pytest.raises(RuntimeError, match="there is no process group"):
        distributed.batch_norm_over_all(nn.BatchNorm1d(3))
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, got list"):
        distributed.batch_norm_over_all([])


def refusals(rank: int, size: int) -> str:
    """Whatever one process gives wrongly, every process refuses, and the next batch is computed as if nothing was."""
    a = torch.ones(2, 4) + torch.eye(2, 4)
    wrong = {
        "width": (torch.ones(2, 5), torch.ones(2, 5), 0.1), "type": (a.double(), a.double(), 0.1),
        "tau": (a, a, 0.2), "negative tau": (a, a, -1.0), "zeros": (a, 0 * a, 0.1), "no rows": (a[:0], a[:0], 0.1),
        "pairs": (a, a[:1], 0.1), "no tensor": ([1.0], a, 0.1), "a gradient": (a.clone().requires_grad_(), a, 0.1)}
    said = []
    for given in wrong.values():
        try:
            distributed.contrastive_loss(*(given if rank == size - 1 else (a, a, 0.1)), timeout=SOON)
        except (TypeError, ValueError) as error:
            said.append(str(error))
        else:
            said.append("let through")
    whole = distributed.contrastive_loss(a, a, 0.1, timeout=SOON)
    return "\n".join(said) + ("" if torch.isfinite(whole) else "spoilt")


def test_what_one_process_gives_wrongly_is_refused_by_all_and_nobody_hangs(tmp_path: Path) -> None:
    first, last = (text.splitlines() for text in over(2, refusals, tmp_path))
    hints = ["width of the features must be the same in every process, got [4.0, 5.0]", "bits of a feature",
             "tau must be", *["the input of process [1] is wrong"] * 5, "whether a gradient is wanted"]
    assert len(first) == len(hints) == len(last)
    for line, hint in zip(first, hints, strict=True):
        assert hint in line
        assert " / " in line
    own = ["width", "bits", "tau", "tau must be positive", "b has a row of zeros", "at least 1", "shape", "tensor",
           "gradient"]
    for line, hint in zip(last, own, strict=True):
        assert hint in line
        assert " / " in line


def one_ends(rank: int, size: int) -> str:
    if rank == 1:
        return "ended"
    start = time.monotonic()
    a = torch.randn(2, 4)
    try:
        distributed.contrastive_loss(a, a + 1, 0.1, timeout=SOON)
    except RuntimeError as error:
        return f"{time.monotonic() - start:.0f} {error}"
    return "let through"


def one_is_late(rank: int, size: int) -> str:
    if rank == 1:
        time.sleep(6)
        return "late"
    start = time.monotonic()
    try:
        distributed.contrastive_loss(torch.randn(2, 4), torch.randn(2, 4), 0.1, timeout=2.0)
    except RuntimeError as error:
        return f"{time.monotonic() - start:.0f} {error}"
    return "let through"


@pytest.mark.parametrize(("run", "within"), [(one_ends, SOON + 5), (one_is_late, 5)])
def test_a_process_that_ends_or_does_not_answer_is_an_error_elsewhere_within_the_time_stated(
        run: Callable, within: float, tmp_path: Path) -> None:
    for text in [said for rank, said in enumerate(over(3, run, tmp_path)) if rank != 1]:
        seconds, _, error = text.partition(" ")
        assert float(seconds) <= within
        assert "a process has ended or has not answered" in error
        assert "有一个进程" in error


def traffic(rank: int, size: int) -> str:
    """How many numbers and messages this process hands on, with (2.1) and with (2.4)."""
    counted: list[int] = []
    send = dist.batch_isend_irecv

    def counting(operations: list[dist.P2POp]) -> list[dist.Work]:
        counted.extend(one.tensor.numel() for one in operations if one.op is dist.isend)
        return send(operations)

    dist.batch_isend_irecv = counting
    a = torch.randn(3, 5, generator=torch.Generator().manual_seed(rank), requires_grad=True)
    said = []
    losses = (lambda: distributed.contrastive_loss(a, 2 * a, 0.2), lambda: distributed.sigmoid_loss(a, 2 * a, 0.2, 0.0))
    for loss in losses:
        counted.clear()
        loss()
        said += [sum(counted), len(counted)]
    return str(said)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_process_sends_as_much_as_docs_scale_says(size: int, tmp_path: Path) -> None:
    costs = [scale.ring(3 * size, 5, size, softmax) for softmax in (True, False)]
    wanted = [int(x) for cost in costs for x in (cost.sent, cost.messages)]
    assert over(size, traffic, tmp_path) == [str(wanted)] * size


def test_the_table_of_docs_scale_is_the_one_that_is_computed() -> None:
    page = (Path(__file__).parents[2] / "docs/scale.md").read_text("utf-8")
    assert "\n".join(scale.lines()) in page


def test_without_a_process_group_the_error_says_how_to_make_one() -> None:
    a = torch.ones(2, 3)
    for call in (lambda: distributed.contrastive_loss(a, a, 0.1), lambda: distributed.sigmoid_loss(a, a, 0.1, 0.0)):
        with pytest.raises(RuntimeError, match=r"还没有进程组.*init_process_group"):
            call()
