"""特征算一次，存在文件夹旁边 / Features are computed once, and kept beside the folder.

A file of safetensors for each model: `<model>.safetensors` holds `digests` (K, 32) and `features` (K, D). A feature is
found again by the content of its picture and by the model (its weights, its configuration, its processor, the versions
that compute), never by a name, so what has changed is computed again.

每个模型一个 safetensors 文件，里面是 `digests` (K, 32) 和 `features` (K, D)。找回一个特征，凭的是图像的内容和模型
（权重、配置、processor、计算用的版本），不凭名字，所以变了的会重新计算。
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache as once
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from mmcore import checks
from mmcore.training import evaluating
from mmlessons.border import check_pictures, typed
from mmlessons.workers import keep

OFTEN = 1000  # so many new features are written at the latest, or as many as there were


@dataclass(frozen=True, eq=False)
class Features:
    """一批图像的特征 / The features of pictures: `keys[i]` names row i of `values` (N, D), float32, on the CPU."""

    keys: tuple[str, ...]
    values: Tensor


@typed
def features(pictures: Iterable, encoder: nn.Module, cache: str | Path | None = None, batch: int = 32) -> Features:
    """图像的特征，算过的不再算 / Features of pictures; what has been computed before is not computed again.

    `pictures` gives pairs of a name and a uint8 picture (3, H, W), of any sizes; one batch of them is held at a time.
    `cache` is the folder of the files. One that we may only read is read and left as it is. A full disk or a damaged
    file is said once, and features are computed as usual. Interrupted, it keeps what it has got.

    `pictures` 给出一对对的名字和 uint8 图像 (3, H, W)，大小不限，内存里只留一批。`cache` 是放这些文件的文件夹；只许读的
    就只读。磁盘满了、文件坏了，会说一次，照常计算。中途停下，算好的留着。

        photos = folder.load("photos").pictures("test")
        f_v = features(((x["file"], x["picture"]) for x in photos), from_clip("a folder"), cache="photos-features")
    """
    batch = checks.whole(batch, "batch")
    model = identity(encoder)
    file = None if cache is None else Path(cache) / f"{model[:16]}.safetensors"
    store = _Store(file, model)
    keys, asked, waiting = [], [], {}

    def encode() -> None:
        rows = encoder.encode_pictures([picture for _, picture in waiting.values()]).float().cpu()
        for (key, _), row in zip(waiting.values(), rows, strict=True):
            checks.require(bool(row.isfinite().all()), f"{key!r} 的特征是 NaN 或无穷；请换一个模型",
                           f"the features of {key!r} are NaN or infinite; use another model")
        store.add(waiting, rows)
        waiting.clear()

    try:
        with evaluating(encoder):
            for i, item in enumerate(pictures):
                pair = isinstance(item, (tuple, list)) and len(item) == 2 and isinstance(item[0], str)
                checks.require(pair, f"pictures 的第 {i} 项需要是（名字，图像）", f"item {i} of pictures must be "
                               "(name, picture)", TypeError)
                check_pictures(item[1], f"pictures[{item[0]!r}]", 3, "H", "W")
                keys.append(item[0])
                asked.append(_sum(item[1]))
                if asked[-1] not in store.at:
                    waiting.setdefault(asked[-1], item)
                if len(waiting) == batch:
                    encode()
            if waiting:
                encode()
    finally:
        store.save()
    checks.require(bool(keys), "pictures 是空的，需要至少一幅", "pictures is empty, expected at least one")
    return Features(tuple(keys), torch.cat(store.values)[[store.at[digest] for digest in asked]])


@typed
def identity(encoder: nn.Module) -> str:
    """哪个模型：权重、配置、processor、版本的校验和 / Which model it is: a checksum of all that makes a feature."""
    made = repr((encoder.model, getattr(encoder.model, "config", None), encoder.pixels))
    made = re.sub(r' at 0x\w+|"_name_or_path": .*', "", made)  # where it lies, in memory or on a disk
    versions = [f"{name} {version(name)}" for name in ("torch", "torchvision", "transformers")]
    weights = [part for name, x in encoder.model.state_dict().items() for part in (f"{name} {x.dtype}", x)]
    return _sum(made, *versions, *weights).hex()


class _Store:
    """Features by the content of their picture: read from a file, added to, written again."""

    def __init__(self, file: Path | None, model: str):
        self.file, self.model = file, model
        kept = _read(file, model) if file else None
        self.digests, self.values = ([kept[0]], [kept[1]]) if kept else ([], [])
        self.at = {bytes(row): i for i, row in enumerate(kept[0].numpy())} if kept else {}
        self.saved = len(self.at)

    def add(self, digests: Iterable[bytes], values: Tensor) -> None:
        digests = list(digests)
        self.at |= {digest: len(self.at) + i for i, digest in enumerate(digests)}
        self.digests.append(torch.frombuffer(bytearray(b"".join(digests)), dtype=torch.uint8).view(-1, 32))
        self.values.append(values)
        if len(self.at) - self.saved >= max(OFTEN, self.saved):
            self.save()

    def save(self) -> None:
        if self.file is None or len(self.at) == self.saved:
            return
        kept = torch.cat(self.digests), torch.cat(self.values)
        about = {"model": self.model, "sha256": _sum(*kept).hex()}
        if not keep(self.file, to_bytes({"digests": kept[0], "features": kept[1]}, about)):
            _say_once()
        self.saved = len(self.at)


def _read(file: Path, model: str) -> tuple[Tensor, Tensor] | None:
    try:
        with safe_open(file, framework="pt") as kept:
            about = kept.metadata()
            digests, values = kept.get_tensor("digests").clone(), kept.get_tensor("features").clone()
        good = about == {"model": model, "sha256": _sum(digests, values).hex()}
    except FileNotFoundError:
        return None
    except Exception:  # whatever a damaged file brings about
        good = False
    if good:
        return digests, values
    _say_once()
    return None


def _sum(*parts: str | Tensor) -> bytes:
    """The SHA-256 of texts and of tensors, their sizes included."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(f"{tuple(part.shape)}".encode())
            part = part.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.digest()


@once
def _say_once() -> None:
    print("特征：有的存不进或读不出，照常计算 / features: some cannot be kept or read; computing as usual")
