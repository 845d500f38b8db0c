"""四个脚本共用的：选项，检查点，进度 / What the four scripts share: options, checkpoint, progress.

Take this file away together with a script. The training itself is in the script.

拿走一个脚本，要连这个文件一起拿。训练本身在脚本里。
"""

import argparse
import math
import os
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
import torch.distributed as dist
from tqdm import tqdm

from mmcore.training import choose_device

FREE = ("out", "workers", "device", "save_every", "tensorboard")  # may change when a run goes on


def stop(zh: str, en: str) -> NoReturn:
    """说明原因，停下 / Say why, and stop."""
    sys.exit(f"{zh} / {en}")


def draws(seed: int, k: int) -> torch.Generator:
    """第 k 项的随机数，什么时候要都一样 / The random numbers of item k, the same whenever it is asked for.

    A generator of torch on the CPU reads the last 32 bits of its seed, so seed and number are mixed first.

    torch 在 CPU 上的随机数发生器只读种子的末 32 位，所以先把种子和编号搅在一起。
    """
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, k]).generate_state(1)[0]))


def whole(least: int, most: int = 2**31 - 1) -> Callable[[str], int]:
    """命令行上的整数 / A whole number on the command line."""
    def read(text: str) -> int:
        if not (text.isdecimal() and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"需要 {least} 到 {most} 的整数，收到 {text} / "
                                             f"must be a whole number from {least} to {most}, got {text}")
        return int(text)
    return read


def positive(text: str) -> float:
    """命令行上的正数 / A positive number on the command line."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"需要大于 0 的数，收到 {text} / must be a number above 0, got {text}")
    return number


def device(text: str) -> torch.device:
    """命令行上的设备 / A device on the command line."""
    try:
        return choose_device(None if text == "best" else text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


class Options(argparse.ArgumentParser):
    """每个脚本都有的选项；`most` 是一批最多几个 / The options of every script; a batch has `most` at the most."""

    def __init__(self, about: str, steps: int, batch: int, rate: float, most: int = 2**31 - 1, torchrun: bool = False):
        super().__init__(description=about.partition("\n")[0],
                         formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        self.set_defaults(script=self.prog)
        if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not torchrun:
            stop(f"{self.prog} 只用一个进程，请不用 torchrun 启动它",
                 f"{self.prog} is for one process; start it without torchrun")
        add = self.add_argument
        add("--out", type=Path, default=Path("runs") / Path(self.prog).stem,
            help="检查点和曲线的文件夹 / folder of checkpoint and events")
        add("--steps", type=whole(1), default=steps, help="优化器走几步 / steps of the optimiser")
        add("--batch", type=whole(2, most), default=batch, help="一批几个 / items in a batch")
        add("--accumulate", type=whole(1), default=1, help="几批走一步 / batches for one step")
        add("--rate", type=positive, default=rate, help="最高的学习率 / learning rate at its highest")
        add("--seed", type=whole(0), default=0, help="权重和数据的种子 / of weights and data")
        add("--workers", type=whole(0), default=0, help="几个进程准备数据 / processes that prepare batches")
        add("--device", type=device, default="best", help="cpu, cuda, mps；best 是最好的 / the best there is")
        add("--bf16", action="store_true", help="用 bfloat16 算 / autocast to bfloat16")
        add("--save-every", type=whole(1), default=100, help="几步存一次 / steps between checkpoints")
        add("--tensorboard", action="store_true", help="记下曲线 / write events")

    def error(self, message: str) -> NoReturn:
        """一行话，不印用法 / One line, without the usage."""
        self.exit(2, f"选项不对，--help 列出全部 / wrong option, --help lists them all: {message}\n")


def processes(args: argparse.Namespace) -> tuple[int, int]:
    """这是第几个进程，一共几个 / The number of this process, and how many torchrun started; 0 and 1 without it.

    Each takes `batch[number::how many]`. Of several GPUs each process takes its own.

    每个进程取 `batch[第几个::一共几个]`。有几块 GPU 时，各用各的一块。
    """
    if "WORLD_SIZE" not in os.environ:
        return 0, 1
    if args.device.type == "cuda":
        args.device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(args.device)
    dist.init_process_group("nccl" if args.device.type == "cuda" else "gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    if args.batch < 2 * size:
        stop(f"{size} 个进程，--batch 至少 {2 * size}，收到 {args.batch}",
             f"{size} processes need a --batch of at least {2 * size}, got {args.batch}")
    return rank, size


class Resumable:
    """一次训练，从它的检查点继续 / One training, which goes on from its checkpoint.

    `parts` are the model, the optimiser, the schedule: all that has a `state_dict`. What is wrong stops the program
    with one line before the first step. Of several processes all read the checkpoint, and the first, of `rank` 0,
    writes it, so that their number may change between two runs.

    `parts` 是模型、优化器、步长表，凡有 `state_dict` 的。有什么不对，程序在第一步之前说一行就停。有几个进程时，检查点
    大家都读，只由第一个（`rank` 为 0）来写，所以下一次可以换一个进程数。
    """

    def __init__(self, args: argparse.Namespace, rank: int = 0, **parts: Any):
        self.args, self.parts, self.path = args, parts, args.out / "checkpoint.pt"
        self.first, self.loss = rank == 0, math.nan
        self.aside = args.out / "aside"
        self.about = {name: str(value) for name, value in vars(args).items() if name not in FREE}
        try:
            args.out.mkdir(parents=True, exist_ok=True)
            if self.first:
                self.aside.write_bytes(b"")
                self.aside.unlink()
            self.step = self._resume() if self.path.exists() else 0
        except OSError as error:
            stop(f"写不进 {args.out}（{error}）", f"cannot write to {args.out} ({error})")
        self.events = self._events() if args.tensorboard and self.first else None

    def steps(self) -> Iterator[int]:
        """还没走的步 / The steps that are left."""
        self.bar = tqdm(range(self.step + 1, self.args.steps + 1), initial=self.step, total=self.args.steps,
                        disable=None if self.first else True)  # none where nobody watches, in a log for example
        for step in self.bar:
            torch.manual_seed(draws(self.args.seed, step).initial_seed())  # for a model with dropout
            yield step

    def done(self, step: int, loss: float) -> None:
        """走完一步：记下损失，到时候就存 / A step is done: note its loss, and save when it is time."""
        if not math.isfinite(loss):
            stop(f"第 {step} 步的损失不是有限的数；请降低 --rate",
                 f"the loss of step {step} is not finite; lower --rate")
        self.loss = loss
        self.bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        if self.events:
            self.events.add_scalar("loss", loss, step)
        if self.first and (step % self.args.save_every == 0 or step == self.args.steps):
            self._save(step)

    def _save(self, step: int) -> None:
        """Written aside and then renamed, so that what has the name is whole, whenever the program is killed."""
        kept = {"about": self.about, "step": step, "loss": self.loss,
                "parts": {name: part.state_dict() for name, part in self.parts.items()}}
        try:
            torch.save(kept, self.aside)
            os.replace(self.aside, self.path)
        except (OSError, RuntimeError) as error:  # torch says RuntimeError when the disk is full
            stop(f"写不了检查点 {self.path}（{error}）", f"cannot write the checkpoint {self.path} ({error})")

    def _resume(self) -> int:
        try:
            with zipfile.ZipFile(self.path) as file:
                whole = file.testzip() is None  # torch reads damaged numbers without a word
            kept = torch.load(self.path, map_location=self.args.device, weights_only=True) if whole else {}
            about, step, states = dict(kept["about"]), int(kept["step"]), dict(kept["parts"])
            self.loss = float(kept["loss"])
        except OSError as error:
            stop(f"读不了 {self.path}（{error}）", f"cannot read {self.path} ({error})")
        except Exception:  # there is no end to what damage makes torch raise
            stop(f"{self.path} 不是这些脚本存的检查点，或已损坏；删掉它就从头开始",
                 f"{self.path} is no checkpoint of these scripts or is damaged; without it the training starts afresh")
        if about != self.about:
            names = [name for name in self.about | about if about.get(name) != self.about.get(name)]
            then, now = (", ".join(f"{name} {of.get(name)}" for name in names) for of in (about, self.about))
            stop(f"{self.path} 属于另一次训练：那时 {then}，现在 {now}；请用原来的选项，或换一个 --out",
                 f"{self.path} belongs to another training, then {then}, now {now}; use its options or another --out")
        try:
            for name, part in self.parts.items():
                part.load_state_dict(states[name])
        except (KeyError, RuntimeError, ValueError):
            stop(f"{self.path} 里的模型与现在的不同；请换一个 --out",
                 f"the model in {self.path} differs from this one; use another --out")
        if self.first:
            print(f"从第 {step} 步继续 / going on from step {step}", file=sys.stderr)
        return step

    def _events(self) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            stop("--tensorboard 需要先装 tensorboard：pip install tensorboard",
                 "--tensorboard needs tensorboard: pip install tensorboard")
        return SummaryWriter(self.args.out, purge_step=self.step + 1)
