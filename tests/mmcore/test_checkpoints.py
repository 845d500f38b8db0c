"""把学到的留下来 / Keeping what was learned."""

import errno
import os
import pickle
import stat
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from mmcore import checkpoints
from mmcore.fusion import MultimodalFusion
from tests.support import small_disk


def make(widths=(3, 5), seed: int = 0) -> MultimodalFusion:
    torch.manual_seed(seed)
    return MultimodalFusion(list(widths), 4)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, b.state_dict()[name]) for name, x in a.state_dict().items())


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return checkpoints.save(make(), tmp_path / "fusion.safetensors", {"steps": 300, "学到": ["图", "声"]})


def test_what_was_learned_comes_back_to_the_last_bit_with_what_was_noted(kept: Path) -> None:
    model = make(seed=1)
    assert not same(model, make())
    assert checkpoints.load(model, kept) == {"steps": 300, "学到": ["图", "声"]}
    assert same(model, make())
    x = [torch.ones(2, 3), torch.ones(2, 5)]
    torch.testing.assert_close(model(x)["f"], make()(x)["f"], rtol=0, atol=0)


def test_buffers_and_tied_weights_come_back_too(tmp_path: Path) -> None:
    def net() -> nn.Module:
        model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
        model[2].weight = model[0].weight
        return model

    first, second = net(), net()
    first(torch.randn(8, 3))
    checkpoints.load(second, checkpoints.save(first, tmp_path / "net"))
    assert same(first, second)
    assert second[1].num_batches_tracked == 1
    assert second[2].weight is second[0].weight


class Spy:
    """What a pickle could do to whoever opens it."""

    def __reduce__(self):
        return os.mkdir, (os.environ["MM_SPY"],)


def damaged(path: Path, kind: str) -> None:
    data = path.read_bytes()
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Spy()))
    elif kind == "torch":
        torch.save({"spy": Spy()}, path)
    elif kind == "foreign":
        save_file(make().state_dict(), path)
    else:
        path.write_bytes({"cut": data[:len(data) // 2], "empty": b"", "text": b"not a model"}[kind])


@pytest.mark.parametrize("kind", ["cut", "empty", "text", "pickle", "torch", "foreign"])
def test_a_file_that_is_no_checkpoint_runs_no_code_and_leaves_the_model(kept, kind, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("MM_SPY", str(tmp_path / "spied"))
    damaged(kept, kind)
    model = make(seed=1)
    with pytest.raises(ValueError, match=r"不是 mmcore 存下的文件.*was not saved by mmcore or is damaged"):
        checkpoints.load(model, kept)
    assert same(model, make(seed=1))
    assert not (tmp_path / "spied").exists()


@pytest.mark.parametrize(("other", "says"), [
    (lambda: make((3, 6)), r"\(4, 6\) torch.float32 in the model and \(4, 5\) torch.float32 in the file; build it"),
    (lambda: make((3, 5, 7)), r"在文件里没有；.* torch.float32 in the model and not in the file"),
    (lambda: make((3,) * 2).double(), "torch.float64 in the model and"),
    (lambda: nn.Linear(2, 2), "holds a MultimodalFusion, this is a Linear"),
])
def test_another_model_is_refused_with_what_does_not_fit_and_stays_as_it_was(kept, other, says) -> None:
    model = other()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    with pytest.raises(ValueError, match=says):
        checkpoints.load(model, kept)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


def test_another_version_is_refused(kept, monkeypatch) -> None:
    monkeypatch.setattr(checkpoints, "VERSION", 2)
    with pytest.raises(ValueError, match="must be version 2, got 1"):
        checkpoints.load(make(), kept)


def test_a_file_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"没有 gone 这个文件.*there is no file gone"):
        checkpoints.load(make(), tmp_path / "gone")


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_a_disk_that_fills_up_leaves_the_older_file_and_no_litter(kept, where, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if where != "write":
        monkeypatch.setattr(os, where, full)
    before = kept.read_bytes()
    with small_disk() if where == "write" else nullcontext(), pytest.raises(OSError, match=(
            r"写不进 fusion.safetensors（(No space left|File too large).*nothing has changed")):
        checkpoints.save(make(seed=1), kept)
    assert kept.read_bytes() == before
    assert list(kept.parent.iterdir()) == [kept]


@pytest.mark.skipif(os.name != "posix", reason="no umask here")
@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_a_shared_file_has_the_permissions_that_the_umask_asks_for(kept, mask) -> None:
    old = os.umask(mask)
    try:
        checkpoints.save(make(), kept)
    finally:
        os.umask(old)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o666 & ~mask


def test_a_file_that_cannot_be_read_is_named_in_both_languages(kept, monkeypatch) -> None:
    def locked(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(checkpoints, "safe_open", locked)
    with pytest.raises(OSError, match=r"读不了 fusion.safetensors.* / cannot read fusion.safetensors .*Permission den"):
        checkpoints.load(make(), kept)


@pytest.mark.parametrize(("about", "spoil"), [("{", False), ("{}", True)])
def test_a_file_with_our_header_and_nonsense_in_it_is_refused_before_the_model_is_touched(kept, about, spoil) -> None:
    with safe_open(kept, "pt") as file:
        header = file.metadata()
    save_file(broken().state_dict() if spoil else make().state_dict(), kept, header | {"about": about})
    model = make(seed=1)
    with pytest.raises(ValueError, match="was not saved by mmcore or is damaged"):
        checkpoints.load(model, kept)
    assert same(model, make(seed=1))


def test_a_folder_that_cannot_be_written_is_named_in_both_languages(tmp_path) -> None:
    with pytest.raises(OSError, match=r"写不进 model.*cannot write model"):
        checkpoints.save(make(), tmp_path / "no such folder" / "model")


def broken() -> nn.Module:
    model = make()
    next(model.parameters()).data[0] = torch.nan
    return model


@pytest.mark.parametrize(("make_other", "error", "says"), [
    (dict, TypeError, "model must be a Module, got dict"),
    (nn.ReLU, ValueError, "no parameters"),
    (broken, ValueError, "holds NaN or infinity"),
])
def test_what_is_not_worth_keeping_does_not_overwrite_what_is(kept, make_other, error, says) -> None:
    before = kept.read_bytes()
    with pytest.raises(error, match=says):
        checkpoints.save(make_other(), kept)
    assert kept.read_bytes() == before


@pytest.mark.parametrize("about", [{"model": nn.ReLU()}, {"loss": float("nan")}])
def test_a_note_that_is_no_json_is_refused(kept, about) -> None:
    before = kept.read_bytes()
    with pytest.raises((TypeError, ValueError), match="about must fit into JSON"):
        checkpoints.save(make(), kept, about)
    assert kept.read_bytes() == before
