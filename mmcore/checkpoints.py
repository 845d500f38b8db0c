"""把学到的留下来，以后接着用 / Keep what was learned and come back to it.

The file is safetensors: numbers and text only, and reading it runs no code. It takes its name only when complete.

文件是 safetensors：只有数和文字，读它不会运行任何代码。写完了才换上去。
"""

import contextlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from mmcore import checks
from mmcore.checks import refuse, typed

FORMAT, VERSION = "mmcore checkpoint", 1


@typed
def save(model: nn.Module, path: str | Path, about: Mapping[str, object] | None = None) -> Path:
    """存下模型学到的一切 / Save all that a model has learned; returns the path.

    Parameters and buffers are saved, the optimiser is not: one comes back to use the model, not to go on in mid-stride.
    `about` is whatever is worth noting (steps, scores …), and `load` gives it back; it must fit into JSON. A model that
    holds NaN or infinity is refused. OSError: it cannot be written. Whatever is wrong, an older file stays as it was.

    存参数和缓冲，不存优化器：回来是为了用，不是为了续走半步。`about` 是随手记的话（步数、成绩……），`load` 会还给你；它
    要能写成 JSON。含有 NaN 或无穷的模型不存。写不进去时报 OSError。不论因为什么报错，旧文件都不变。

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = save(nn.Linear(2, 1), Path(folder) / "line.safetensors", {"steps": 300})
    ...     load(nn.Linear(2, 1), path)
    {'steps': 300}
    """
    state = model.state_dict()
    if not state:
        refuse("这个模型没有参数，没有可存的", "this model has no parameters, nothing to save")
    for name, x in state.items():
        if not bool(x.isfinite().all()):
            refuse(f"{name} 里有 NaN 或无穷，没有保存；请先重置或载入好的",
                   f"{name} holds NaN or infinity and was not saved; reset the model or load a good one first")
    try:
        noted = json.dumps(dict(about or {}), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise type(error)(f"about 需要能写成 JSON：{error} / about must fit into JSON: {error}") from None
    header = {"format": FORMAT, "version": str(VERSION), "model": type(model).__name__, "about": noted}
    content = to_bytes({name: x.detach().cpu().clone().contiguous() for name, x in state.items()}, header)
    path = Path(path)
    aside = path.parent / f".{secrets.token_hex(8)}"  # not by tempfile, whose files nobody else may read
    try:
        with open(aside, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        why = error.strerror or error
        refuse(f"写不进 {path.name}（{why}），没有改变任何东西；请换一个文件夹或腾出空间",
               f"cannot write {path.name} ({why}), nothing has changed; choose another folder or make room", OSError)
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()
    return path


@typed
def load(model: nn.Module, path: str | Path) -> dict[str, object]:
    """把存下的放回同样的模型 / Put what was saved back into a model of the same build; returns the `about` of `save`.

    The model is touched only after names, shapes and types have all been found to fit. ValueError says that the file
    was not saved here, is damaged, of another version, or of another model.

    名字、形状、类型都对上了才动模型。不是这里存的、损坏了、版本不同，或是另一种模型时报 ValueError。

    >>> load(nn.Linear(2, 1), "gone")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    FileNotFoundError: 没有 gone 这个文件；请先 save，或检查文件夹 / there is no file gone; save first, ...
    """
    own, path = model.state_dict(), Path(path)
    kind, about, saved = _read(path)
    if kind != type(model).__name__:
        refuse(f"{path.name} 存的是 {kind}，这里是 {type(model).__name__}",
               f"{path.name} holds a {kind}, this is a {type(model).__name__}")
    wanted, came = ({name: f"{checks.shape_of(x)} {x.dtype}" for name, x in state.items()} for state in (own, saved))
    for name in (*sorted(own.keys() ^ saved.keys()), *own):
        if (here := wanted.get(name)) != (there := came.get(name)):
            refuse(f"{name} 在模型里{here or '没有'}，在文件里{there or '没有'}；请按当时的参数建模型",
                   f"{name} is {here or 'not'} in the model and {there or 'not'} in the file; build it as it was then")
    model.load_state_dict(saved)
    return about


def _read(path: Path) -> tuple[str, dict[str, object], dict[str, Tensor]]:
    if not path.is_file():
        refuse(f"没有 {path.name} 这个文件；请先 save，或检查文件夹",
               f"there is no file {path.name}; save first, or check the folder", FileNotFoundError)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no dict)
        good = header["format"] == FORMAT and all(x.isfinite().all() for x in saved.values())
        version, kind, about = header["version"], header["model"], json.loads(header["about"])
    except OSError as error:
        refuse(f"读不了 {path.name}（{error}）", f"cannot read {path.name} ({error})", OSError)
    except (SafetensorError, KeyError, ValueError):
        good = False
    if not good:
        refuse(f"{path.name} 不是 mmcore 存下的文件，或已损坏；没有载入任何东西",
               f"{path.name} was not saved by mmcore or is damaged; nothing has been loaded")
    if version != str(VERSION):
        refuse(f"{path.name} 需要是版本 {VERSION}，收到 {version}",
               f"{path.name} must be version {VERSION}, got {version}")
    return kind, about, saved
