"""拿走的循环 / The loops to take away: killed and resumed, refused, and held against their lesson.

Only `fusion.py`, the cheapest, is run in full here, since time for tests is scarce. The others were run by hand, and
their figures stand in examples/README.md.
"""

import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = ("retrieval", "vision_language", "fusion", "captioning")
SMALL = ["--steps", "5", "--batch", "8", "--save-every", "2", "--device", "cpu"]
KILLED_WHILE_IT_SAVES = """
import os, runpy, signal, sys
saves, replace = [], os.replace
def save(aside, path):
    global saves
    saves += [path] * str(path).endswith("checkpoint.pt")
    if len(saves) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(aside, path)
os.replace = save
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


LESSON_03 = {"clean": (0.94, 0.96), "noise_only sound": (0.85, 0.89)}  # intervals of adaptive fusion, seeds 1 to 3


@pytest.fixture(autouse=True)
def _found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr(sys, "argv", list(sys.argv))


def script(name: str) -> ModuleType:
    return importlib.import_module(name)


def run(name: str, out: Path, *options: str) -> dict[str, Any]:
    """What is in the checkpoint after a run with these options."""
    sys.argv = [f"{name}.py", "--out", str(out), *options]
    script(name).main()
    return torch.load(out / "checkpoint.pt", weights_only=True)


def refused(name: str, out: Path, capsys: pytest.CaptureFixture, *options: str) -> str:
    """What the script says when it stops because of these options."""
    with pytest.raises(SystemExit) as stopped:
        run(name, out, *SMALL, *options)
    code = stopped.value.code
    said = code if isinstance(code, str) else capsys.readouterr().err  # Python prints the first, with status 1
    assert code
    assert len(said.strip().splitlines()) == 1
    assert any("一" <= c <= "鿿" for c in said)
    return said


def flat(state: Any) -> list[torch.Tensor]:
    """Every tensor of a state, in order."""
    if isinstance(state, torch.Tensor):
        return [state]
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, (list, tuple)) else ()
    return [tensor for part in parts for tensor in flat(part)]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of one small run of fusion, to be copied and spoiled."""
    out = tmp_path_factory.mktemp("kept")
    subprocess.run([sys.executable, str(EXAMPLES / "fusion.py"), "--out", str(out), *SMALL], check=True)
    return out / "checkpoint.pt"


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
@pytest.mark.parametrize("name", SCRIPTS)
def test_killed_while_it_saves_and_resumed_it_ends_with_the_same_weights(name: str, tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_IT_SAVES, str(EXAMPLES / f"{name}.py"),
                             "--out", str(tmp_path), *SMALL])
    assert killed.returncode == -signal.SIGKILL
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2  # the save of step 4 never happened
    resumed = run(name, tmp_path, *SMALL, "--workers", "2")
    whole = run(name, tmp_path / "whole", *SMALL)
    assert resumed["step"] == whole["step"] == 5
    pairs = list(zip(flat(resumed["parts"]), flat(whole["parts"]), strict=True))
    assert len(pairs) > 20
    assert all(torch.equal(one, other) for one, other in pairs)
    other = run(name, tmp_path / "other", *SMALL, "--seed", "1", "--accumulate", "2", "--bf16")["parts"]["model"]
    assert all(tensor.isfinite().all() for tensor in flat(other))
    assert any(not torch.equal(one, two) for one, two in zip(flat(other), flat(whole["parts"]["model"]), strict=True))


def moments(kept: dict[str, Any]) -> torch.Tensor:
    """The mean gradients of AdamW in a checkpoint, one after the other."""
    state = kept["parts"]["optimizer"]["state"]
    return torch.cat([state[number]["exp_avg"].flatten() for number in sorted(state)])


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_two_processes_learn_what_one_learns_and_one_goes_on_where_two_were_killed(
        tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    killer = tmp_path / "killed.py"
    killer.write_text(KILLED_WHILE_IT_SAVES)
    kept = {}
    for size, start in ((1, [sys.executable]),
                        (2, [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"])):
        out = tmp_path / str(size)
        killed = subprocess.run([*start, killer, EXAMPLES / "retrieval.py", "--out", out, *SMALL], capture_output=True)
        assert killed.returncode
        kept[size] = torch.load(out / "checkpoint.pt", weights_only=True)
    assert kept[1]["step"] == kept[2]["step"] == 2
    assert kept[2]["loss"] == pytest.approx(kept[1]["loss"], rel=1e-5)
    one, two = map(moments, kept.values())
    assert (two - one).norm() < 1e-3 * one.norm()
    assert run("retrieval", tmp_path / "2", *SMALL)["step"] == 5
    said = capsys.readouterr()
    assert "从第 2 步继续 / going on from step 2" in said.err
    assert "R@1 openmoji: " in said.out


def test_several_processes_are_refused_where_a_script_is_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                 capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in set(SCRIPTS) - {"retrieval"}:
        assert f"{name}.py is for one process" in refused(name, tmp_path, capsys)


def test_fusion_reproduces_the_figures_of_its_lesson(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run("fusion", tmp_path, "--device", "cpu")
    said = capsys.readouterr().out
    for condition, (low, high) in LESSON_03.items():
        right = {name: float(value) for name, value in re.findall(rf"^{condition}: (\w+) (\S+) ", said, re.M)}
        assert low <= right["f"] <= high
        assert right["f"] > max(right[m] for m in ("image", "sound", "text")) + 0.1  # the best of them is no match


def test_a_finished_run_is_not_trained_again(kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(kept.read_bytes())
    before = kept.read_bytes()
    run("fusion", tmp_path, *SMALL)
    said = capsys.readouterr()
    assert "从第 5 步继续 / going on from step 5" in said.err
    assert "noise_only sound: f " in said.out
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert os.listdir(tmp_path) == ["checkpoint.pt"]


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("options", [
    ("--device", "abacus"), ("--device", "cuda:77"), ("--batch", "1"), ("--steps", "0"), ("--steps", "many"),
    ("--accumulate", "0"), ("--rate", "0"), ("--rate", "nan"), ("--rate", "fast"), ("--seed", "-1"),
    ("--seed", str(2**31)), ("--workers", "-1"), ("--save-every", "0"), ("--colour", "red")], ids=" ".join)
def test_a_wrong_option_is_refused(name: str, options: tuple[str, ...], tmp_path: Path,
                                   capsys: pytest.CaptureFixture) -> None:
    assert options[0] in refused(name, tmp_path / "out", capsys, *options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "most"), [("retrieval", 256), ("vision_language", 200)])
def test_a_batch_larger_than_the_data_is_refused(name: str, most: int, tmp_path: Path,
                                                 capsys: pytest.CaptureFixture) -> None:
    assert f"需要 2 到 {most} 的整数" in refused(name, tmp_path, capsys, "--batch", str(most + 1))


@pytest.mark.parametrize("options", [("--seed", "1"), ("--batch", "9"), ("--steps", "6"), ("--accumulate", "2"),
                                     ("--rate", "1"), ("--bf16",)], ids=" ".join)
def test_the_checkpoint_of_another_run_is_refused(options: tuple[str, ...], kept: Path, tmp_path: Path,
                                                  capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(kept.read_bytes())
    said = refused("fusion", tmp_path, capsys, *options)
    assert "属于另一次训练" in said
    assert f"{options[0].removeprefix('--')} " in said
    assert (tmp_path / "checkpoint.pt").read_bytes() == kept.read_bytes()


def test_the_checkpoint_of_another_script_is_refused(kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(kept.read_bytes())
    assert "script fusion.py" in refused("captioning", tmp_path, capsys)


def test_the_checkpoint_of_another_model_is_refused(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                    capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(kept.read_bytes())
    monkeypatch.setattr(script("fusion"), "FUSED", 96)
    assert "模型与现在的不同" in refused("fusion", tmp_path, capsys)


def spoiled(good: bytes) -> dict[str, bytes]:
    turned = bytearray(good)
    turned[len(good) // 2] ^= 1  # one bit of one weight
    return {"empty": b"", "half": good[:len(good) // 2], "one bit": bytes(turned), "text": b"step 5\n" * 100}


@pytest.mark.parametrize("damage", ["empty", "half", "one bit", "text"])
def test_a_damaged_checkpoint_is_refused(damage: str, kept: Path, tmp_path: Path,
                                         capsys: pytest.CaptureFixture) -> None:
    bad = spoiled(kept.read_bytes())[damage]
    (tmp_path / "checkpoint.pt").write_bytes(bad)
    assert "已损坏" in refused("fusion", tmp_path, capsys)
    assert (tmp_path / "checkpoint.pt").read_bytes() == bad


def test_what_is_no_checkpoint_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.save({"weights": torch.ones(2)}, tmp_path / "checkpoint.pt")
    assert "不是这些脚本存的检查点" in refused("fusion", tmp_path, capsys)
    os.remove(tmp_path / "checkpoint.pt")
    (tmp_path / "checkpoint.pt").mkdir()
    assert "读不了" in refused("fusion", tmp_path, capsys)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    assert "写不进" in refused("fusion", tmp_path / "file", capsys)
    assert "写不进" in refused("fusion", tmp_path / "file" / "below", capsys)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                capsys: pytest.CaptureFixture) -> None:
    whole, saves = torch.save, []

    def save(kept: Any, path: Path) -> None:
        saves.append(path)
        if len(saves) == 2:
            raise RuntimeError("PytorchStreamWriter failed writing file")  # what torch says
        whole(kept, path)

    monkeypatch.setattr(torch, "save", save)
    assert "写不了检查点" in refused("fusion", tmp_path, capsys)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2


def test_a_loss_that_is_not_finite_stops_before_it_is_saved(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert "--rate" in refused("fusion", tmp_path, capsys, "--rate", "1e30")
    assert not (tmp_path / "checkpoint.pt").exists()


def test_tensorboard_writes_events_or_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    if importlib.util.find_spec("tensorboard"):
        run("fusion", tmp_path, *SMALL, "--tensorboard")
        assert list(tmp_path.glob("events.out.*"))
    else:
        assert "pip install tensorboard" in refused("fusion", tmp_path, capsys, "--tensorboard")


def test_the_random_numbers_of_an_item_depend_on_the_seed_and_on_its_number() -> None:
    found = {tuple(torch.rand(4, generator=script("common").draws(seed, k)).tolist())
             for seed in (0, 1, 2**31 - 1) for k in (0, 1, 2)}
    assert len(found) == 9
    assert torch.equal(*(torch.rand(4, generator=script("common").draws(7, 5)) for _ in range(2)))


@pytest.mark.parametrize("batch", [100, 128, 256])
def test_a_batch_of_pairs_holds_no_concept_twice(batch: int) -> None:
    batches = list(script("retrieval").Batches(256, batch, seed=0, start=0, end=7))
    assert [len({k % 256 for k in items}) for items in batches] == [batch] * 7
    assert len({k for items in batches for k in items}) == 7 * batch  # no item twice
    assert list(script("retrieval").Batches(256, batch, seed=0, start=3, end=7)) == batches[3:]
