"""特征算一次：什么时候重算，存不进、读不出时怎么办 / Features once: when again, and what if they cannot be kept."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import mmcore
from mmcore.pretrained import ClipEncoder
from mmlessons.data import features as module
from mmlessons.data.features import features, identity
from tests import tiny_models
from tests.mmlessons.test_workers import _somebody_else
from tests.support import small_disk


@pytest.fixture
def encoder() -> ClipEncoder:
    """它数着自己看过几幅 / It counts the pictures that it has seen."""
    made = counted(mmcore.from_clip(*tiny_models.clip()))
    module._say_once.cache_clear()
    return made


def counted(encoder: ClipEncoder) -> ClipEncoder:
    encode, encoder.seen = encoder.encode_pictures, 0

    def encode_pictures(pictures: list[Tensor]) -> Tensor:
        encoder.seen += len(pictures)
        return encode(pictures)

    encoder.encode_pictures = encode_pictures
    return encoder


def album(n: int = 5, seed: int = 0) -> list[tuple[str, Tensor]]:
    """大小各不相同 / Of different sizes."""
    g = torch.Generator().manual_seed(seed)
    return [(f"{i}.png", torch.randint(0, 256, (3, 20 + 7 * i, 40), generator=g, dtype=torch.uint8)) for i in range(n)]


def test_features_are_the_encoders_in_the_order_given_and_computed_once(encoder, tmp_path, capsys) -> None:
    pictures = album()
    wanted = torch.cat([encoder.encode_pictures([x]) for _, x in pictures])
    encoder.seen = 0
    for folder in (None, tmp_path / "photos-features"):
        found = features(iter(pictures), encoder, folder, batch=2)
        assert found.keys == tuple(name for name, _ in pictures)
        torch.testing.assert_close(found.values, wanted, rtol=0, atol=1e-5)
    assert encoder.seen == 10
    again = features([pictures[3], pictures[0], pictures[3]], encoder, str(tmp_path / "photos-features"))
    assert again.keys == ("3.png", "0.png", "3.png")
    assert torch.equal(again.values, found.values[[3, 0, 3]])
    assert encoder.seen == 10
    assert capsys.readouterr().out == ""
    assert [path.suffix for path in (tmp_path / "photos-features").iterdir()] == [".safetensors"]


def test_equal_pictures_are_seen_once_and_renamed_ones_never_again(encoder, tmp_path) -> None:
    (name, x), *_ = album()
    features([(name, x), ("copy", x.clone())], encoder, tmp_path, batch=8)
    features([("renamed", x)], encoder, tmp_path)
    assert encoder.seen == 1


def test_a_changed_picture_is_computed_again_and_a_new_one_joins_the_rest(encoder, tmp_path) -> None:
    pictures = album()
    before = features(pictures, encoder, tmp_path)
    pictures[2] = "2.png", 255 - pictures[2][1]
    pictures[3] = "3.png", pictures[3][1].view(3, 40, -1)  # the same bytes, another shape
    after = features([*pictures, *album(1, seed=9)], encoder, tmp_path)
    assert encoder.seen == 5 + 3
    assert (before.values - after.values[:5]).abs().amax(1).gt(1e-4).tolist() == [False, False, True, True, False]
    features([*pictures, *album()], encoder, tmp_path)
    assert encoder.seen == 8


def retrained(encoder: ClipEncoder) -> ClipEncoder:
    with torch.no_grad():
        next(encoder.model.vision_model.parameters())[0] += 0.1
    return encoder


def reconfigured(encoder: ClipEncoder) -> ClipEncoder:
    encoder.pixels.image_mean = [0.5, 0.5, 0.5]
    return encoder


def reactivated(encoder: ClipEncoder) -> ClipEncoder:
    """同样的权重，另一个激活函数 / The same weights, another activation."""
    encoder.model.vision_model.encoder.layers[0].mlp.activation_fn = torch.nn.ReLU()
    return encoder


@pytest.mark.parametrize("change", [retrained, reconfigured, reactivated, ClipEncoder.bfloat16,
                                    lambda _: mmcore.from_clip(*tiny_models.siglip())])
def test_another_model_computes_again_and_does_not_touch_the_features_of_the_first(change, encoder, tmp_path) -> None:
    before = features(album(), encoder, tmp_path)
    kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
    other = change(mmcore.from_clip(*tiny_models.clip()))
    wanted = other.encode_pictures([x for _, x in album()]).float()
    found = features(album(), other, tmp_path).values
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-2 if other.model.dtype == torch.bfloat16 else 1e-5)
    assert len(list(tmp_path.iterdir())) == 2
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert torch.equal(features(album(), encoder, tmp_path).values, before.values)
    assert encoder.seen == 5


@pytest.mark.parametrize("kind", tiny_models.KINDS)
def test_a_model_is_the_same_wherever_it_lies_in_whatever_mode(kind: str, tmp_path: Path) -> None:
    model, processor = tiny_models.KINDS[kind]()
    for name in ("here", "there"):
        model.save_pretrained(tmp_path / name)
        processor.save_pretrained(tmp_path / name)
    here, there = (mmcore.from_clip(tmp_path / name) for name in ("here", "there"))
    assert identity(here) == identity(there.train()) == identity(there.requires_grad_(False))


def test_an_encoder_in_training_is_read_in_eval_mode_and_stays_in_training(encoder, tmp_path) -> None:
    for module_ in encoder.modules():
        if hasattr(module_, "dropout") and isinstance(module_.dropout, float):
            module_.dropout = 0.5
    wanted = features(album(), encoder).values
    encoder.train()
    found = features(album(), encoder).values
    assert torch.equal(found, wanted)
    assert not found.requires_grad
    assert all(m.training for m in encoder.modules())


def only(folder: Path) -> Path:
    [path] = folder.iterdir()
    return path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 64  # a feature becomes another number
    path.write_bytes(content)


def others(path: Path) -> None:
    save_file(load_file(path), path, {"model": "another", "sha256": ""})


@pytest.mark.parametrize("damage", [cut, flip, others, lambda path: path.write_bytes(b""),
                                    lambda path: path.write_bytes(b"\xff" * 99)])
def test_a_damaged_file_is_said_once_computed_again_and_whole_afterwards(damage, encoder, tmp_path, capsys) -> None:
    wanted = features(album(), encoder, tmp_path).values
    damage(only(tmp_path))
    assert torch.equal(features(album(), encoder, tmp_path).values, wanted)
    assert encoder.seen == 10
    assert capsys.readouterr().out.count("cannot be kept or read") == 1
    features(album(), encoder, tmp_path)
    assert encoder.seen == 10


def test_a_folder_that_may_only_be_read_is_read_and_left_as_it_is(encoder, tmp_path, capsys) -> None:
    wanted = features(album(3), encoder, tmp_path)
    before = only(tmp_path).read_bytes()
    tmp_path.chmod(0o555)
    for folder in tmp_path.parents:  # pytest's own, which somebody else may not enter
        if "pytest-of-" in str(folder):
            folder.chmod(0o755)
    try:
        with _somebody_else():
            found = features(album(), encoder, tmp_path)
    finally:
        tmp_path.chmod(0o755)
    assert torch.equal(found.values[:3], wanted.values)
    assert encoder.seen == 5
    assert only(tmp_path).read_bytes() == before
    assert capsys.readouterr().out == ""


def test_a_full_disk_keeps_the_older_file_and_is_said_once(encoder, tmp_path, capsys) -> None:
    features(album(2), encoder, tmp_path)
    before = only(tmp_path).read_bytes()
    with small_disk():
        for _ in range(2):
            assert len(features(album(), encoder, tmp_path).values) == 5
    assert only(tmp_path).read_bytes() == before
    assert capsys.readouterr().out.count("cannot be kept or read") == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_interrupted_it_keeps_what_it_has(error, encoder, tmp_path) -> None:
    def until() -> Iterator[tuple[str, Tensor]]:
        yield from album()
        raise error
    with pytest.raises(error):
        features(until(), encoder, tmp_path, batch=2)
    features(album(), encoder, tmp_path)
    assert encoder.seen == 5  # four were kept, the fifth was waiting
    assert os.listdir(tmp_path) == [f"{identity(encoder)[:16]}.safetensors"]


def test_a_long_run_is_written_now_and_then(encoder, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "OFTEN", 4)
    written = []
    monkeypatch.setattr(module, "keep", lambda file, content: written.append(len(content)) or True)
    features(album(20), encoder, tmp_path, batch=2)
    assert len(written) == 4  # after 4, 8, 16 and 20
    assert written == sorted(written)


@pytest.mark.parametrize(("pictures", "why"), [
    ([], "pictures is empty"), ([("a",)], r"item 0 of pictures must be \(name, picture\)"),
    ([*album(1), (3, album(1)[0][1])], "item 1 of pictures must be"), ("ab", "item 0 of pictures must be"),
    ([("a.png", torch.rand(3, 8, 8))], r"pictures\['a.png'\] must be a uint8 tensor \(3, H, W\)"),
    ([("a.png", torch.zeros(1, 8, 8, dtype=torch.uint8))], r"pictures\['a.png'\] must be a uint8 tensor"),
    (3, "Iterable")])
def test_what_is_no_picture_is_refused_by_its_name(pictures, why: str, encoder) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"pictures.* / .*{why}"):
        features(pictures, encoder)


def test_features_that_are_nan_are_refused_and_not_kept(encoder, tmp_path) -> None:
    encode = encoder.encode_pictures
    encoder.encode_pictures = lambda pictures: encode(pictures) * torch.nan
    with pytest.raises(ValueError, match=r"'0.png' 的特征是 NaN.* / the features of '0.png' are NaN"):
        features(album(), encoder, tmp_path)
    assert not list(tmp_path.iterdir())
