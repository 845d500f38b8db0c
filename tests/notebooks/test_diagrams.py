"""图里的箭头，是真实计算里的箭头 / The arrows of the diagrams are those of the computation."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mmcore.alignment import AlignmentLoss, sigmoid_loss
from mmcore.decoder import generation_loss
from mmcore.fusion import MultimodalFusion, product_of_experts
from mmcore.training import evaluating
from mmlessons.data import clips, emoji, scenes, views
from mmlessons.data.utterances import MODALITIES
from mmlessons.processes import Processes
from mmlessons.tasks import a_reader_learns_to_see as assistant
from mmlessons.tasks import cross_modal_alignment as alignment
from mmlessons.tasks import cross_modal_retrieval as retrieval
from mmlessons.tasks import draw_me_a_seven, four_machines, word_order
from mmlessons.tasks import image_captioning as captioning
from mmlessons.tasks import multimodal_sentiment as sentiment
from mmlessons.tasks import video_understanding as video
from mmlessons.tasks import vision_language_model as naming
from mmlessons.tasks import visual_question_answering as answering
from mmlessons.tasks import your_own_pictures as own
from tests.notebooks.diagrams import computed_arrows, drawn_arrows
from tests.notebooks.stored import DOOR, LESSONS, prose_cells

Run = tuple[Callable[..., dict[str, Tensor]], dict[str, Tensor]] | set[tuple[str, str]]  # or the arrows themselves


def retrieval_diagrams() -> list[Run]:
    data = emoji.load()
    model = retrieval.learner(data, steps=1).model
    tokens = model.text_encoder.tokenize(data.names("zh")[:4])
    return [(model.forward, {"image": data.pictures["noto"][:4] / 255, **tokens, "tau": torch.tensor(0.1)})]


def vision_language_diagrams() -> list[Run]:
    learner = naming.learner(naming.load(), steps=1, batch=8, device="cpu")
    batch = learner.task.draw(learner.generator)
    shown = ("image", "input_ids", "attention_mask", "labels", "name_ids")
    return [(learner.trainer.losses, {name: batch[name] for name in shown})]


def what_it_learned_diagrams() -> list[Run]:
    learner = naming.learner(naming.load(), steps=1, batch=8, device="cpu")
    model, name_ids = learner.model.eval(), learner.task.draw(learner.generator)["name_ids"]
    torch.manual_seed(0)

    def forward(f_v: Tensor, f_t: Tensor, name_ids: Tensor) -> dict[str, Tensor]:
        h = model.fusion(f_v, f_t)
        return {"h": h, "classification_logits": model.classifier(h),
                "generation_logits": model.generation_head.logits(h, name_ids[:, :-1])}
    return [(forward, {"f_v": torch.randn(8, naming.FEATURE_DIM), "f_t": torch.randn(8, naming.FEATURE_DIM),
                       "name_ids": name_ids})]


def fusing(*names: str) -> list[Run]:
    """两个模态融合，看得见的是这些 / Fusing two modalities; what is shown."""
    torch.manual_seed(0)
    model = MultimodalFusion([3, 4], 5)
    x = {"x_1": torch.randn(2, 3), "x_2": torch.randn(2, 4)}
    theta = {"theta": torch.randn(2)}  # what late fusion learns, as an input so that its arrow is seen

    def forward(x_1: Tensor, x_2: Tensor, theta: Tensor | None = None) -> dict[str, Tensor]:
        learned = {} if theta is None else {"late_fusion.logits": theta}
        out = torch.func.functional_call(model, learned, ([x_1, x_2],))
        return {name: out[name] for name in names}

    return [(forward, x | theta if "w" in names else x)]


def fusion_diagrams() -> list[Run]:
    """加权求和的三种 / The three weighted sums."""
    return fusing("f_1", "f_2", "w", "alpha", "g", "f_late", "f_attention", "f_gated")


def selector_diagrams() -> list[Run]:
    """早期、选择器与混合 / Early fusion, the selector, the mixture."""
    return fusing("f_1", "f_2", "f_early", "f_late", "f_attention", "f_gated", "pi", "f")


def answering_diagrams() -> list[Run]:
    data, model = scenes.load("train"), answering.learner(steps=1, device="cpu").model
    drawn = data.draw(4, torch.Generator().manual_seed(0))
    image = data.pictures(drawn["cells"], drawn["artist"]) / 255
    tokens = {name: ids[scenes.question_number(drawn)] for name, ids in model.tokens.items()}
    return [(model.forward, {"image": image, **tokens})]


def captioning_diagrams() -> list[Run]:
    data, model = scenes.load("train"), captioning.learner(device="cpu").model
    drawn = data.draw_to_describe(4, torch.Generator().manual_seed(0))
    image = data.pictures(drawn["cells"], drawn["artist"]) / 255

    def forward(image: Tensor, cells: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        out = model(image, tokens[:, :-1])
        L_name = torch.nn.functional.cross_entropy(out["z"].flatten(0, 1), cells.flatten() % out["z"].shape[2])
        return {**out, "L_name": L_name, "L_caption": generation_loss(out["logits"], tokens)}

    return [(forward, {"image": image, "cells": drawn["cells"], "tokens": captioning.tokens_of(model, drawn)})]


def alignment_diagrams() -> list[Run]:
    learner = alignment.learner(views.load(), batch=8, device="cpu")
    batch = learner.task.pairs.draw(learner.generator)
    dials = {"tau": 0.2, "alpha": 1.0, "beta": 0.5, "gamma": 0.25}

    def forward(features_A: Tensor, features_B: Tensor, y: Tensor, **dials: Tensor) -> dict[str, Tensor]:
        a, b = learner.model.project(features_A, features_B)
        losses = AlignmentLoss(dials["tau"], dials["alpha"], dials["beta"], dials["gamma"])
        return {"projected_A": a, "projected_B": b, **losses(a, b, y)}

    return [(forward, {**{name: batch[name] for name in ("features_A", "features_B", "y")},
                       **{name: torch.tensor(value) for name, value in dials.items()}})]


def yes_or_no_diagrams() -> list[Run]:
    learner = alignment.learner(views.load(), batch=8, repeats=2, positives=True, sigmoid=True, device="cpu")
    batch = learner.task.pairs.draw(learner.generator)

    def forward(features_A: Tensor, features_B: Tensor, positives: Tensor, tau: Tensor,
                bias: Tensor) -> dict[str, Tensor]:
        a, b = learner.model.project(features_A, features_B)
        return {"projected_A": a, "projected_B": b, "sigmoid_loss": sigmoid_loss(a, b, tau, bias, positives)}

    return [(forward, {**{name: batch[name] for name in ("features_A", "features_B", "positives")},
                       "tau": torch.tensor(0.1), "bias": torch.tensor(-10.0)})]


def sentiment_diagrams() -> list[Run]:
    experts = sentiment.separately(steps=1, batch=4, device="cpu").model
    together = sentiment.together(experts, steps=1, batch=4, device="cpu").trainer
    seen = sentiment.modalities(4).draw(torch.Generator().manual_seed(0), 0.0)

    def forward(log_prior: Tensor, **sample: Tensor) -> dict[str, Tensor]:
        with evaluating(experts), evaluating(together.learned):
            log_p = {f"log_p_{m}": scores.log_softmax(-1) for m, scores in experts(sample).items()}
            features = [encode(sample[m]) for m, encode in zip(MODALITIES, together.encoders, strict=True)]
            f = together.model(features)["f"]
            return {**log_p, "late": product_of_experts(list(log_p.values()), log_prior), "f": f,
                    "joint": together.head(f)}
    return [(forward, {**{m: seen[m] for m in MODALITIES}, "log_prior": sentiment.log_prior()})]


def video_diagrams() -> list[Run]:
    data = clips.load("validation")
    seen = video.observe(data, data.draw(3, 0))

    def watching(frames: Tensor, moment: Tensor) -> dict[str, Tensor]:
        return video.VideoModel(video.PICTURE).eval()(frames, seen["sound"], moment)

    def listening(frames: Tensor, sound: Tensor) -> dict[str, Tensor]:
        return video.VideoModel(video.WITH_SOUND).eval()(frames, sound, seen["moment"])
    frames = {"frames": seen["frames"] / 255}
    return [(watching, {**frames, "moment": seen["moment"]}), (listening, {**frames, "sound": seen["sound"]})]


def word_order_diagrams() -> list[Run]:
    task = word_order.Comparing(word_order.eyes(0, 1, "cpu"), 8)
    batch = task.draw(torch.Generator().manual_seed(0), 1.0)
    return [(task.begin(torch.device("cpu")).model.forward,
             {**{name: batch[name] for name in ("f", "input_ids", "attention_mask")}, "tau": torch.tensor(0.1)})]


def reader_diagrams() -> list[Run]:
    torch.manual_seed(0)
    model, drawn = assistant.Assistant(), assistant.asked(scenes.load("validation"), 4)
    return [(model.forward, {"words": model.names[1, drawn["cells"] % 31], "f": torch.randn(4, 4, 128),
                             "tokens": assistant.caption_tokens(model, drawn)})]


def drawing_diagrams() -> list[Run]:
    task = draw_me_a_seven.Drawing()
    return [(task.begin(torch.device("cpu")).model.forward, task.draw(torch.Generator().manual_seed(0)))]


def your_own_diagrams() -> list[Run]:
    features = {name: torch.randn(n, 8, generator=torch.Generator().manual_seed(n))
                for name, n in (("f_v", 4), ("f_t", 4), ("f_c", 3))}
    return [(own.Heads(8).forward, {**features, "tau": torch.tensor(0.1)})]


def machines_diagrams() -> list[Run]:
    """四个真的进程互相传过的 / What four real processes sent each other."""
    learner, machines = four_machines.learner(views.load(), batch=8), Processes(4)
    batch = four_machines.batch_of(views.load(), 8)
    try:
        steps = [four_machines.step(machines, learner.model, batch, way) for way in ("gather", "ring")]
    finally:
        machines.close()
    return [{(f"m{sender}", f"m{receiver}") for sender, receiver in step.arrows()} for step in steps]


# 每一课的图依次是哪些计算 / Which computations the diagrams of each lesson show, in their order.
DIAGRAMS: dict[str, Callable[[], list[Run]]] = {
    "01_vision_language_model": vision_language_diagrams,
    "01b_what_it_has_learned": what_it_learned_diagrams,
    "02_cross_modal_alignment": alignment_diagrams,
    "02b_what_pairs_do_not_say": yes_or_no_diagrams,
    "03_multimodal_fusion": fusion_diagrams,
    "03b_what_weights_do_not_say": selector_diagrams,
    "04_visual_question_answering": answering_diagrams,
    "05_image_captioning": captioning_diagrams,
    "06_cross_modal_retrieval": retrieval_diagrams,
    "07_multimodal_sentiment": sentiment_diagrams,
    "08_video_understanding": video_diagrams,
    "09_word_order": word_order_diagrams,
    "10_a_reader_learns_to_see": reader_diagrams,
    "11_draw_me_a_seven": drawing_diagrams,
    "12_your_own_pictures": your_own_diagrams,
    "13_four_machines": machines_diagrams,
}


def test_the_start_page_has_no_diagram_since_it_shows_no_computation() -> None:
    assert "```mermaid" not in "\n".join(prose_cells(DOOR))


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_every_diagram_of_a_lesson_is_the_computation(path: Path) -> None:
    assert path.stem in DIAGRAMS, f"{path.name} needs an entry in DIAGRAMS"
    diagrams = re.findall(r"```mermaid\n(.*?)```", "\n".join(prose_cells(path)), re.DOTALL)
    runs = DIAGRAMS[path.stem]()
    assert len(diagrams) == len(runs) > 0
    for diagram, run in zip(diagrams, runs, strict=True):
        assert drawn_arrows(diagram) == (run if isinstance(run, set) else computed_arrows(*run))


W = nn.Linear(4, 3, bias=False)


def forward(image: Tensor, ids: Tensor) -> dict[str, Tensor]:
    f_v = W(image)
    f_t = torch.nn.functional.one_hot(ids, 3).float()  # no gradient flows through ids
    h = torch.empty(2, 3)
    h[:] = f_v + f_t  # in place
    L = (h * f_v.detach()).sum()
    return {"f_v": f_v, "f_t": f_t, "h": h, "L": L}


INPUTS = {"image": torch.ones(2, 4), "ids": torch.tensor([0, 2])}
TRUE = """flowchart LR
    image["图像 / image --> (B, 4)"] --> f_v("特征 / feature") --> h
    ids --> f_t
    f_t --> h --> L
    f_v --> L"""


def test_a_true_diagram_holds_through_token_ids_in_place_writes_and_detached_tensors() -> None:
    assert drawn_arrows(TRUE) == computed_arrows(forward, INPUTS)


@pytest.mark.parametrize(("old", "new"), [("    ids --> f_t\n", ""), ("f_t --> h", "f_t --> f_v"),
                                          ("f_v --> L", "ids --> L")])
def test_a_diagram_that_says_more_or_less_than_the_code_is_caught(old: str, new: str) -> None:
    assert old in TRUE
    assert drawn_arrows(TRUE.replace(old, new)) != computed_arrows(forward, INPUTS)


@pytest.mark.parametrize("line", ["A -.-> B", "A & B --> C", "A ==> B", "subgraph X", "A --> ", "A[x --> y]"])
def test_a_line_the_diagram_check_cannot_read_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="cannot read this line of the diagram"):
        drawn_arrows("flowchart LR\n" + line)


@pytest.mark.parametrize("head", ["flowchart", "flowchart XY", "flowchart LR A --> B", "flowcharts LR", "pie LR"])
def test_a_first_line_that_draws_something_unchecked_is_refused(head: str) -> None:
    with pytest.raises(ValueError, match="cannot read this line of the diagram: " + head):
        drawn_arrows(head + "\nA --> B")


@pytest.mark.parametrize("diagram", ["", "  \n", "flowchart LR\n"])
def test_an_empty_diagram_is_refused(diagram: str) -> None:
    with pytest.raises(ValueError, match="the diagram is empty"):
        drawn_arrows(diagram)


def test_a_node_that_hangs_on_no_arrow_is_refused() -> None:
    assert drawn_arrows('graph TD\nA(["a, b"])\nA --> B') == {("A", "B")}
    with pytest.raises(ValueError, match=r"the diagram has a node in no arrow: C$"):
        drawn_arrows('flowchart LR\nA["x"] --> B\nC["alone"]')


def test_a_layer_made_in_forward_is_seen_though_its_weights_are_filled_by_keyword_alone() -> None:
    """SPEC 的第一个错误 / Fault 1 of the SPEC: an untrained nn.Linear at every call."""
    def faulty(image: Tensor) -> dict[str, Tensor]:
        return {"out": nn.Linear(4, 3)(image)}
    assert computed_arrows(faulty, {"image": torch.ones(2, 4)}) == {("image", "out")}


def test_a_write_counts_for_those_who_read_after_it_alone() -> None:
    def late_write(a: Tensor, b: Tensor) -> dict[str, Tensor]:
        h = a * 2
        row, early = h[0], h + 1
        h.add_(b)
        return {"early": early, "late": h + 1, "view": row + 1}
    arrows = computed_arrows(late_write, {"a": torch.ones(2, 4), "b": torch.ones(2, 4)})
    assert arrows == {("a", "early"), ("a", "late"), ("b", "late"), ("a", "view"), ("b", "view")}


@pytest.mark.parametrize("write", [
    lambda h, x: torch.mul(x, 2, out=h), lambda h, x: h.detach().copy_(x), lambda h, x: h.__iadd__(x),
    lambda h, x: h.index_copy_(dim=0, index=torch.tensor([0]), source=x[:1]),
])
def test_every_way_to_write_in_place_is_seen(write: Callable[[Tensor, Tensor], object]) -> None:
    def forward(image: Tensor) -> dict[str, Tensor]:
        h = torch.zeros(2, 4)
        write(h, image)
        return {"h": h, "L": h.sum()}
    assert computed_arrows(forward, {"image": torch.ones(2, 4)}) == {("image", "h"), ("h", "L")}


@pytest.mark.parametrize(("forward", "error", "match"), [
    (lambda x: {"y": 2.0}, TypeError, "y must be a tensor, got float"),
    (lambda x: dict.fromkeys(("y", "z"), x * 2), ValueError, "among y, z two names are one tensor"),
    (lambda x: {"y": x}, ValueError, "an output is an input itself"),
    (lambda x: {"y": torch.ones(2) * 2}, ValueError, "y was computed from no named tensor"),
    (lambda x: {"y": torch.tensor(x.tolist())}, ValueError, "y was computed from no named tensor"),
])
def test_a_computation_whose_arrows_would_say_nothing_is_refused(forward: Callable, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        computed_arrows(forward, {"x": torch.ones(2)})


def test_an_input_that_is_no_tensor_is_refused_because_its_arrows_are_not_seen() -> None:
    with pytest.raises(TypeError, match="tau must be a tensor, got float"):
        computed_arrows(lambda x, tau: {"y": x / tau}, {"x": torch.ones(2), "tau": 0.1})


def test_a_write_through_a_view_is_seen() -> None:
    def through_view(image: Tensor) -> dict[str, Tensor]:
        out = torch.zeros(2, 4)
        out[0].copy_(image[0])
        return {"out": out}
    assert computed_arrows(through_view, {"image": torch.ones(2, 4)}) == {("image", "out")}
