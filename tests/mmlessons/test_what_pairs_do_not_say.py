"""不训练的规则，换一种办法再算一遍 / The rules without training, each computed again in another way."""

import pytest
import scipy.linalg
import torch
from torch import Tensor

from mmcore.alignment import cosine_similarity
from mmlessons.data import views
from mmlessons.tasks import cross_modal_alignment as alignment
from mmlessons.tasks import what_pairs_do_not_say as pairs

ARTISTS = ["noto", "noto-v1", "fluent", "emojione"]  # those that teach the pairs


@pytest.fixture(scope="module")
def data() -> views.Views:
    return views.load()


@pytest.fixture(scope="module")
def new() -> tuple[Tensor, Tensor]:
    """没配过的概念：一位作者的图画，中文名字 / Concepts never paired: pictures by one artist, Chinese names."""
    fresh = views.load("held-out")
    return fresh.pictures["twemoji"], fresh.names["zh"]


def centred(data: views.Views) -> tuple[Tensor, Tensor]:
    A = torch.cat([data.pictures[artist] for artist in ARTISTS for _ in range(2)]).double()
    B = torch.cat([data.names[language] for _ in ARTISTS for language in ("zh", "en")]).double()
    return A - A.mean(0), B - B.mean(0)


def test_cca_finds_the_directions_of_the_generalised_eigenvalue_problem(data: views.Views, new: tuple) -> None:
    """C_AB C_BB^(−1) C_BA w = ρ² C_AA w, by scipy; and v follows from w."""
    ridge = 0.1
    A, B = centred(data)
    C_AA, C_BB, C_AB = (x.T @ y / len(A) for x, y in ((A, A), (B, B), (A, B)))
    C_AA, C_BB = (C + ridge * C.trace() / 128 * torch.eye(128) for C in (C_AA, C_BB))
    back = torch.linalg.solve(C_BB, C_AB.T)  # C_BB^(−1) C_BA
    squares, W = scipy.linalg.eigh((C_AB @ back).numpy(), C_AA.numpy())
    W = torch.from_numpy(W[:, ::-1].copy())[:, :alignment.WIDTH]
    rho = torch.from_numpy(squares[::-1].copy())[:alignment.WIDTH].sqrt()
    V = back @ W / rho  # of unit variance as W is, each in the direction of its partner
    means = (torch.cat([data.pictures[artist] for artist in ARTISTS]).double().mean(0),
             torch.cat([data.names[language] for language in ("zh", "en")]).double().mean(0))
    wanted = cosine_similarity((new[0] - means[0]) @ W * rho, (new[1] - means[1]) @ V * rho)
    assert torch.allclose(cosine_similarity(*pairs.cca(data, ridge).represent(*new)), wanted, atol=1e-6)


def test_more_ridge_trades_known_concepts_for_new_ones(data: views.Views) -> None:
    little, much = (alignment.recall(pairs.cca(data, ridge)) for ridge in (0.001, 1.0))
    assert little.unseen_artist.mean() > much.unseen_artist.mean() + 0.1
    assert little.unseen_concepts.mean() < much.unseen_concepts.mean() - 0.05
    with pytest.raises(ValueError, match="ridge must be positive"):
        pairs.cca(data, 0.0)


def test_procrustes_is_the_rotation_of_scipy_and_can_be_turned_back(data: views.Views, new: tuple) -> None:
    A, B = centred(data)
    R, _ = scipy.linalg.orthogonal_procrustes(A.numpy(), B.numpy())
    a, _ = pairs.procrustes(data).represent(*new)
    mean = torch.cat([data.pictures[artist] for artist in ARTISTS]).double().mean(0)
    assert torch.allclose(a, (new[0].double() - mean) @ torch.from_numpy(R), atol=1e-8)
    assert torch.allclose(a @ torch.from_numpy(R).T, new[0].double() - mean, atol=1e-8)  # turned back, it is as it was


def test_a_relative_representation_is_made_of_cosines_with_known_concepts_concept_by_concept(
        data: views.Views, new: tuple) -> None:
    a, b = pairs.relative(data, power=3.0).represent(*new)
    assert a.shape == b.shape == (64, 256)
    for k in (0, 100, 255):
        picture = sum(data.pictures[artist][k] for artist in ARTISTS) / 4
        name = (data.names["zh"][k] + data.names["en"][k]) / 2
        for made, own, known in ((a, new[0][5], picture), (b, new[1][5], name)):
            cosine = (own @ known / (own.norm() * known.norm())).item()
            assert made[5, k].item() == pytest.approx(cosine ** 3, abs=1e-6)
    with pytest.raises(ValueError, match="power must be positive"):
        pairs.relative(data, 0.0)


def test_what_learns_nothing_is_ahead_of_a_short_training_on_both_tests(data: views.Views) -> None:
    """这就是那一课的发现 / That is the finding of the lesson."""
    learned = alignment.learner(data, device="cpu", batch=256)
    for _ in range(150):
        learned.train_step()
    trained, rule = alignment.recall(learned), alignment.recall(pairs.relative(data))
    assert rule.unseen_artist.mean() > trained.unseen_artist.mean() + 0.05
    assert rule.unseen_concepts.mean() > trained.unseen_concepts.mean() + 0.05
