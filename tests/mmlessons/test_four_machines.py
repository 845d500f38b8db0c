"""一批分给四台机器 / One batch over four machines: real processes, and the same within one."""

from collections.abc import Iterator

import pytest
import torch

from mmcore import contrastive_loss, gradient_error, numbers_sent
from mmcore.shares import WAYS
from mmlessons.data import views
from mmlessons.processes import Processes
from mmlessons.tasks import four_machines
from mmlessons.tasks.four_machines import enough, extrapolate, learner, some, split_loss, step, study, trained


@pytest.fixture(scope="module")
def machines() -> Iterator[Processes]:
    started = Processes(4)
    yield started
    started.close()


@pytest.fixture(scope="module")
def data() -> views.Views:
    return views.load()


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("way", WAYS)
def test_real_processes_find_what_one_process_finds_and_send_what_the_formulas_say(
        way: str, count: int, machines: Processes, data: views.Views) -> None:
    model, batch = learner(data, batch=16).model, four_machines.batch_of(data, 16)
    found, loss = step(machines, model, batch, way, count), split_loss(model, batch, way, count)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    assert found.loss() == pytest.approx(loss.item(), rel=1e-5)
    assert (found.gradients.mean(0) - gradient).norm() < 1e-5 * gradient.norm()
    assert found.numbers() == numbers_sent(16 // count, four_machines.WIDTH, count, way)
    error = gradient_error(found.gradients, four_machines.whole_gradient(model, batch))
    right = way in ("gather", "ring") or count == 1
    assert (abs(error["cosine"] - 1) < 1e-4 and abs(error["length"] - 1) < 1e-4) == right


def test_without_gradient_pull_and_push_are_halved_and_the_direction_is_not_far_off(data: views.Views) -> None:
    """这一课的发现 / The finding of the lesson."""
    model, batch = learner(data).model, four_machines.batch_of(data)
    true = four_machines.whole_gradient(model, batch)

    def error(way: str) -> dict[str, torch.Tensor]:
        g = torch.autograd.grad(split_loss(model, batch, way), list(model.parameters()))
        return gradient_error(torch.cat([x.flatten() for x in g])[None], true)

    plain, own = error("plain"), error("own")
    assert plain["cosine"] > 0.9
    assert 0.45 < plain["length"] < 0.6
    assert own["cosine"] < 0.8
    assert own["length"] > 1.2


def test_where_each_computes_the_whole_loss_own_rows_put_back_have_the_right_direction_and_a_length_of_1_over_P(
        data: views.Views) -> None:
    """open_clip 的默认 / The default of open_clip: the fault is in (13.1) with own rows put back, not in the latter."""
    model, batch = learner(data, batch=16).model, four_machines.batch_of(data, 16)
    a, b = model.project(batch["features_A"], batch["features_B"])
    gradients = []
    for k in range(4):
        own = slice(4 * k, 4 * k + 4)
        A, B = (four_machines.put_back(x.detach(), x[own], 4 * k) for x in (a, b))
        g = torch.autograd.grad(contrastive_loss(A, B, four_machines.TAU), list(model.parameters()), retain_graph=True)
        gradients.append(torch.cat([x.flatten() for x in g]))
    error = gradient_error(torch.stack(gradients), four_machines.whole_gradient(model, batch))
    assert error["cosine"].item() == pytest.approx(1, abs=1e-5)
    assert error["length"].item() == pytest.approx(1 / 4, rel=1e-4)


def test_four_processes_in_a_ring_learn_what_one_learns(machines: Processes, data: views.Views) -> None:
    together, alone = learner(data, machines, batch=16), learner(data, batch=16)
    for _ in range(3):
        losses = together.train_step(way="ring")
        assert losses["L"] == pytest.approx(alone.train_step(way="gather", count=1)["L"], rel=1e-4)
    for p, q in zip(together.model.parameters(), alone.model.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-3)


def test_fewer_concepts_are_always_among_more_and_keep_their_features() -> None:
    data = views.load("large")
    few, more = some(data, 5, 1), some(data, 50, 1)
    assert few.concepts == more.concepts[:5]
    place = data.concepts.index(few.concepts[3])
    assert torch.equal(few.pictures["noto"][3], data.pictures["noto"][place])
    assert torch.equal(few.names["zh"][3], data.names["zh"][place])
    assert few.drawn["noto"].shape == (5,)
    with pytest.raises(ValueError, match="count must be from 2 to 825, got 1"):
        some(data, 1)


def test_a_line_on_logarithmic_axes_is_extended() -> None:
    assert extrapolate([10, 100, 1000], [0.1, 0.2, 0.4], 10_000) == pytest.approx(0.8)
    for counts, scores, says in (([1], [1.0], "two at least"), ([1, 2], [1.0, 0.0], "must be positive"),
                                 ([2, 2], [1.0, 2.0], "may not all be the same")):
        with pytest.raises(ValueError, match=says):
            extrapolate(counts, scores, 4)


def test_studies_measure_what_they_say(data: views.Views) -> None:
    one = trained("local", 1, 16, 2)
    assert (one.unseen_artist.shape, one.unseen_concepts.shape, one.steps) == ((256,), (64,), 2)
    found = enough(8, 1, (1, 2))
    assert found.learned.shape == found.cca.shape == (64,)
    assert found.steps in (1, 2)
    assert found.ridge in four_machines.RIDGES
    for question, value, says in (("way", "pigeon", "value must be one of"), ("colour", 2, "question must be one of"),
                                  ("pictures", 1, "value must be at least 2")):
        with pytest.raises(ValueError, match=says):
            study(question, value, 1)


def test_what_cannot_be_shared_is_refused_before_anything_is_sent(machines: Processes, data: views.Views) -> None:
    model, batch = learner(data, batch=16).model, four_machines.batch_of(data, 16)
    def sent(*given: object) -> object:
        return step(machines, model, batch, *given)

    def split(*given: object) -> object:
        return split_loss(model, batch, *given)

    for arguments, says in ((("gather", 3), "16 pairs cannot be shared evenly by 3 machines"),
                            (("pigeon", 4), "way must be one of"), (("gather", 4, 0.0), "tau must be positive")):
        for call in (sent, split):
            with pytest.raises(ValueError, match=says):
                call(*arguments)
