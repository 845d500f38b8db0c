"""公式、图、练习的核对本身 / The checks of formulas, diagrams and exercises themselves."""

import ast
import importlib
import json
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import mmcore
from mmcore.decoder import generation_loss
from mmcore.fusion import MultimodalFusion, product_of_experts
from mmcore.training import evaluating
from mmlessons import exercises as lesson
from mmlessons.data import clips, emoji, scenes, views
from mmlessons.data.utterances import MODALITIES
from mmlessons.tasks import image_captioning as captioning
from mmlessons.tasks import naming, video
from mmlessons.tasks import visual_question_answering as answering
from mmlessons.tasks.cross_modal_alignment import AlignmentTrainer
from mmlessons.tasks.cross_modal_retrieval import RetrievalTrainer
from mmlessons.tasks.multimodal_sentiment import AloneTrainer, SentimentTrainer
from tests.harness import DOOR, LESSONS, NOTEBOOKS

HERE = Path(__file__).parent


def docstring_formulas() -> dict[str, list[str]]:
    """整个 mmcore 的公式，编号 → 各处的写法 / Every formula in mmcore: tag → how it is written, place by place."""
    found: dict[str, list[str]] = {}
    for module in pkgutil.walk_packages(mmcore.__path__, "mmcore."):
        if module.name.rpartition(".")[2] not in ("build", "fonts_build"):
            for thing in vars(importlib.import_module(module.name)).values():
                if getattr(thing, "__module__", None) == module.name and thing.__doc__:
                    for tag, body in lesson.formulas(thing.__doc__).items():
                        found.setdefault(tag, []).append(body)
    return found


def markdown(path: Path) -> list[str]:
    return ["".join(c["source"]) for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == "markdown"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_every_formula_of_a_notebook_is_the_one_in_the_docstring(path: Path) -> None:
    written = docstring_formulas()
    shown = {tag: body for text in markdown(path) for tag, body in lesson.formulas(text).items()}
    assert bool(shown) == (path != DOOR), "a lesson shows at least one tagged formula, and the start page none"
    for tag, body in shown.items():
        assert written.get(tag) == [body], f"({tag}) in {path.name} differs from the docstring"


def test_every_formula_has_one_home_and_a_test_by_explicit_loops() -> None:
    marked = set()
    for path in HERE.glob("test_*.py"):
        marked |= set(re.findall(r'@pytest\.mark\.formula\("([\d.]+)"\)', path.read_text("utf-8")))
    written = docstring_formulas()
    assert [tag for tag, places in written.items() if len(places) != 1] == []
    assert set(written) == marked


@pytest.mark.parametrize("text", [r"$$a \tag{2.1a}$$", r"$$a \tag*{2.1}$$", r"$a \tag{2.1}$", r"$$a \tag{2.1} b$$",
                                  r"$$a \tag{2.1}$$ $$b \tag {2.2}$$"])
def test_a_number_the_formula_check_cannot_read_is_no_formula_unchecked(text: str) -> None:
    with pytest.raises(ValueError, match=r"could be read; write \$\$formula \\tag\{2.1\}\$\$"):
        lesson.formulas(text)


def test_one_number_for_two_formulas_is_refused_and_the_same_formula_twice_is_not() -> None:
    assert lesson.formulas("$$a  +b \\tag{2.1}$$ and again $$a\n+b \\tag{2.1}$$") == {"2.1": "a +b"}
    with pytest.raises(ValueError, match=r"the number 2.1 stands for two formulas: a and b"):
        lesson.formulas(r"$$a \tag{2.1}$$ $$b \tag{2.1}$$")


# -- diagrams ---------------------------------------------------------------------------------------------------------

Run = tuple[Callable[..., dict[str, Tensor]], dict[str, Tensor]]


def retrieval_diagrams() -> list[Run]:
    data = emoji.load()
    model = RetrievalTrainer(data, steps=1).model
    tokens = model.text_encoder.tokenize(data.names("zh")[:4])
    return [(model.forward, {"image": data.pictures["noto"][:4] / 255, **tokens, "tau": torch.tensor(0.1)})]


def vision_language_diagrams() -> list[Run]:
    naming_trainer = naming.NamingTrainer(naming.load_task(), steps=1, batch=8, device="cpu")
    batch = naming_trainer.draw()
    shown = ("image", "input_ids", "attention_mask", "labels", "name_ids")
    return [(naming_trainer.trainer.losses, {name: batch[name] for name in shown})]


def fusion_diagrams() -> list[Run]:
    """两个模态：加权求和的三种；早期、选择器与混合 / Two modalities: the weighted sums; early, selector, mixture."""
    torch.manual_seed(0)
    model = MultimodalFusion([3, 4], 5)
    x = {"x_1": torch.randn(2, 3), "x_2": torch.randn(2, 4)}
    theta = {"theta": torch.randn(2)}  # what late fusion learns, as an input so that its arrow is seen

    def naming(*names: str) -> Callable[..., dict[str, Tensor]]:
        def forward(x_1: Tensor, x_2: Tensor, theta: Tensor | None = None) -> dict[str, Tensor]:
            learned = {} if theta is None else {"late_fusion.logits": theta}
            out = torch.func.functional_call(model, learned, ([x_1, x_2],))
            return {name: out[name] for name in names}
        return forward

    return [(naming("f_1", "f_2", "w", "alpha", "g", "f_late", "f_attention", "f_gated"), x | theta),
            (naming("f_1", "f_2", "f_early", "f_late", "f_attention", "f_gated", "pi", "f"), x)]


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
    trainer = AlignmentTrainer(views.load(), batch=8, device="cpu")
    batch = trainer.draw()
    dials = {"tau": 0.2, "alpha": 1.0, "beta": 0.5, "gamma": 0.25}
    return [(trainer.forward, {**{name: batch[name] for name in ("features_A", "features_B", "y")},
                               **{name: torch.tensor(value) for name, value in dials.items()}})]


def sentiment_diagrams() -> list[Run]:
    alone = AloneTrainer(steps=1, batch=4, device="cpu")
    together = SentimentTrainer(alone, steps=1, batch=4, device="cpu")
    seen = alone.draw(0.0)

    def forward(log_prior: Tensor, **sample: Tensor) -> dict[str, Tensor]:
        with evaluating(alone.models), evaluating(together.trainer.learned):
            log_p = {f"log_p_{m}": alone.models[m](sample[m]).log_softmax(-1) for m in MODALITIES}
            f = together.trainer.model([encode(sample[m]) for m, encode in zip(
                MODALITIES, together.trainer.encoders, strict=True)])["f"]
            return {**log_p, "late": product_of_experts(list(log_p.values()), log_prior), "f": f,
                    "joint": together.trainer.head(f)}
    return [(forward, {**{m: seen[m] for m in MODALITIES}, "log_prior": alone.log_prior})]


def video_diagrams() -> list[Run]:
    data = clips.load("validation")
    seen = video.observe(data, data.draw(3, 0))

    def watching(frames: Tensor, moment: Tensor) -> dict[str, Tensor]:
        return video.VideoModel(video.PICTURE).eval()(frames, seen["sound"], moment)

    def listening(frames: Tensor, sound: Tensor) -> dict[str, Tensor]:
        return video.VideoModel(video.WITH_SOUND).eval()(frames, sound, seen["moment"])
    frames = {"frames": seen["frames"] / 255}
    return [(watching, {**frames, "moment": seen["moment"]}), (listening, {**frames, "sound": seen["sound"]})]


# 每一课的图依次是哪些计算 / Which computations the diagrams of each lesson show, in their order.
DIAGRAMS: dict[str, Callable[[], list[Run]]] = {
    "01_vision_language_model": vision_language_diagrams,
    "02_cross_modal_alignment": alignment_diagrams,
    "03_multimodal_fusion": fusion_diagrams,
    "04_visual_question_answering": answering_diagrams,
    "05_image_captioning": captioning_diagrams,
    "06_cross_modal_retrieval": retrieval_diagrams,
    "07_multimodal_sentiment": sentiment_diagrams,
    "08_video_understanding": video_diagrams,
}


def test_the_start_page_has_no_diagram_since_it_shows_no_computation() -> None:
    assert "```mermaid" not in "\n".join(markdown(DOOR))


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.stem)
def test_every_diagram_of_a_lesson_is_the_computation(path: Path) -> None:
    assert path.stem in DIAGRAMS, f"{path.name} needs an entry in DIAGRAMS"
    diagrams = re.findall(r"```mermaid\n(.*?)```", "\n".join(markdown(path)), re.DOTALL)
    runs = DIAGRAMS[path.stem]()
    assert len(diagrams) == len(runs) > 0
    for diagram, (forward, inputs) in zip(diagrams, runs, strict=True):
        assert lesson.drawn_arrows(diagram) == lesson.computed_arrows(forward, inputs)


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
    assert lesson.drawn_arrows(TRUE) == lesson.computed_arrows(forward, INPUTS)


@pytest.mark.parametrize(("old", "new"), [("    ids --> f_t\n", ""), ("f_t --> h", "f_t --> f_v"),
                                          ("f_v --> L", "ids --> L")])
def test_a_diagram_that_says_more_or_less_than_the_code_is_caught(old: str, new: str) -> None:
    assert old in TRUE
    assert lesson.drawn_arrows(TRUE.replace(old, new)) != lesson.computed_arrows(forward, INPUTS)


@pytest.mark.parametrize("line", ["A -.-> B", "A & B --> C", "A ==> B", "subgraph X", "A --> ", "A[x --> y]"])
def test_a_line_the_diagram_check_cannot_read_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="cannot read this line of the diagram"):
        lesson.drawn_arrows("flowchart LR\n" + line)


@pytest.mark.parametrize("head", ["flowchart", "flowchart XY", "flowchart LR A --> B", "flowcharts LR", "pie LR"])
def test_a_first_line_that_draws_something_unchecked_is_refused(head: str) -> None:
    with pytest.raises(ValueError, match="cannot read this line of the diagram: " + head):
        lesson.drawn_arrows(head + "\nA --> B")


@pytest.mark.parametrize("diagram", ["", "  \n", "flowchart LR\n"])
def test_an_empty_diagram_is_refused(diagram: str) -> None:
    with pytest.raises(ValueError, match="图是空的 / the diagram is empty"):
        lesson.drawn_arrows(diagram)


def test_a_node_that_hangs_on_no_arrow_is_refused() -> None:
    assert lesson.drawn_arrows('graph TD\nA(["a, b"])\nA --> B') == {("A", "B")}
    with pytest.raises(ValueError, match=r"the diagram has a node in no arrow: C$"):
        lesson.drawn_arrows('flowchart LR\nA["x"] --> B\nC["alone"]')


def test_a_layer_made_in_forward_is_seen_though_its_weights_are_filled_by_keyword_alone() -> None:
    """SPEC 的第一个错误 / Fault 1 of the SPEC: an untrained nn.Linear at every call."""
    def faulty(image: Tensor) -> dict[str, Tensor]:
        return {"out": nn.Linear(4, 3)(image)}
    assert lesson.computed_arrows(faulty, {"image": torch.ones(2, 4)}) == {("image", "out")}


def test_a_write_counts_for_those_who_read_after_it_alone() -> None:
    def late_write(a: Tensor, b: Tensor) -> dict[str, Tensor]:
        h = a * 2
        row, early = h[0], h + 1
        h.add_(b)
        return {"early": early, "late": h + 1, "view": row + 1}
    arrows = lesson.computed_arrows(late_write, {"a": torch.ones(2, 4), "b": torch.ones(2, 4)})
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
    assert lesson.computed_arrows(forward, {"image": torch.ones(2, 4)}) == {("image", "h"), ("h", "L")}


@pytest.mark.parametrize(("forward", "error", "match"), [
    (lambda x: {"y": 2.0}, TypeError, "y must be a tensor, got float"),
    (lambda x: dict.fromkeys(("y", "z"), x * 2), ValueError, "among y, z two names are one tensor"),
    (lambda x: {"y": x}, ValueError, "an output is an input itself"),
    (lambda x: {"y": torch.ones(2) * 2}, ValueError, "y was computed from no named tensor"),
    (lambda x: {"y": torch.tensor(x.tolist())}, ValueError, "y was computed from no named tensor"),
])
def test_a_computation_whose_arrows_would_say_nothing_is_refused(forward: Callable, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        lesson.computed_arrows(forward, {"x": torch.ones(2)})


def test_an_input_that_is_no_tensor_is_refused_because_its_arrows_are_not_seen() -> None:
    with pytest.raises(TypeError, match="tau must be a tensor, got float"):
        lesson.computed_arrows(lambda x, tau: {"y": x / tau}, {"x": torch.ones(2), "tau": 0.1})


def test_a_write_through_a_view_is_seen() -> None:
    def through_view(image: Tensor) -> dict[str, Tensor]:
        out = torch.zeros(2, 4)
        out[0].copy_(image[0])
        return {"out": out}
    assert lesson.computed_arrows(through_view, {"image": torch.ones(2, 4)}) == {("image", "out")}


# -- exercises --------------------------------------------------------------------------------------------------------

CASES = [lesson.Case((2,), 4.0, "二的平方", "two squared"), lesson.Case((3,), 9.0, "三的平方", "three squared")]
START, HINT = ("想想正方形。", "Think of a square."), ("乘以自己", "times itself")


@pytest.mark.parametrize(("answer", "ok", "says"), [
    (lambda x: x * x, True, "all 2 checks passed"),
    (lambda x: None, False, "No answer yet. Think of a square."),
    (lambda x: 2 * x, False, "three squared: expected 9, got 6. Hint: times itself"),
    (lambda x: 1 / 0, False, "your code raised ZeroDivisionError"),
    (lambda x: "four", False, "expected one number, got str"),
    (lambda x: "4", False, "expected one number, got str"),
    (lambda x: 10 ** 400, False, "expected one number, got int"),
    (lambda x: torch.ones(2), False, "expected one number, got Tensor"),
    (lambda x: float("nan"), False, "expected 4, got nan"),
])
def test_an_exercise_says_what_is_wrong_and_never_raises(answer: object, ok: bool, says: str) -> None:
    verdict = lesson.check(answer, CASES, START, HINT)
    assert verdict.ok is ok
    assert says in verdict.en
    assert verdict.zh
    assert "<script>" not in lesson.Verdict(False, "<script>", "<script>")._repr_html_()


@pytest.mark.filterwarnings("error")
def root(x: float) -> float:
    if x < 0:
        raise ValueError(f"expected a number from 0 up, got {x}")
    return x**0.5


@pytest.mark.parametrize(("answer", "ok", "says"), [
    (root, True, "all 1 checks passed"),
    (lambda x: 0.0, False, "expected a ValueError, and there was no error"),
    (lambda x: None, False, "No answer yet. Think of a square."),
    (lambda x: [][0], False, "expected a ValueError, got IndexError: list index out of range"),
    (lambda x: root(-1), False, "the ValueError should tell -4, and says: expected a number from 0 up, got -1. Hint"),
])
def test_an_exercise_that_wants_an_error_says_what_is_wrong_with_the_one_it_gets(answer, ok, says) -> None:
    refused = lesson.Case((-4,), lesson.Refusal(says=("-4",)), "负数", "a negative number")
    verdict = lesson.check(answer, [refused], START, HINT)
    assert verdict.ok is ok
    assert says in verdict.en
    assert verdict.zh


def test_a_case_may_measure_what_makes_use_of_the_answer() -> None:
    def answer(x):
        return x * x

    twice = lesson.Case((2,), 8.0, "平方的两倍", "twice the square", of=lambda x: 2 * answer(x))
    assert lesson.check(answer, [twice], START, HINT).ok
    assert "expected 9, got 8" in lesson.check(answer, [replace(twice, expected=9.0)], START, HINT).en


def test_an_answer_that_carries_a_gradient_is_compared_without_a_warning() -> None:
    x = torch.tensor(2.0, requires_grad=True)
    assert lesson.check(lambda: x * x, [lesson.Case((), 4.0, "四", "four")], START, HINT).ok


def test_an_answer_that_changes_its_input_spoils_no_later_case_and_a_case_may_have_its_own_hint() -> None:
    x = torch.ones(2)
    own = lesson.Case((x,), 3.0, "三", "three", hint=("再加一", "add one"))
    verdict = lesson.check(lambda t: t.add_(1)[0], [lesson.Case((x,), 2.0, "二", "two"), own], START, HINT)
    assert x.tolist() == [1, 1]
    assert lesson.check(lambda ts: ts[0].add_(1)[0], [lesson.Case(([x],), 2.0, "二", "two")] * 2, START, HINT).ok
    assert verdict.en == "three: expected 3, got 2. Hint: add one"


WANTED = torch.tensor([[1.0, 2.0], [3.0, 0.0]])


@pytest.mark.parametrize(("got", "ok", "says"), [
    (WANTED.double() * (1 + 1e-5), True, "all 1 checks passed"),
    (WANTED.clone().requires_grad_(), True, "all 1 checks passed"),
    (WANTED.T, False, "table: at [0, 1] expected 2, got 3. Hint: times itself"),
    (WANTED + 1e-6 * torch.eye(2), False, "at [1, 1] expected 0, got 1e-06"),
    (WANTED * torch.nan, False, "at [0, 0] expected 1, got nan"),
    (WANTED[0], False, "expected a tensor of shape (2, 2), got (2)"),
    (WANTED[:, :, None], False, "expected a tensor of shape (2, 2), got (2, 2, 1)"),
    (WANTED.tolist(), False, "expected a tensor of shape (2, 2), got list"),
    (WANTED + 0j, False, "got (2, 2) torch.complex64"),
    ("four", False, "expected a tensor of shape (2, 2), got str"),
    (None, False, "No answer yet. Think of a square."),
])
def test_an_exercise_that_asks_for_a_tensor_compares_shape_and_every_number(got: object, ok: bool, says: str) -> None:
    verdict = lesson.check(lambda: got, [lesson.Case((), WANTED, "表", "table")], START, HINT)
    assert verdict.ok is ok
    assert says in verdict.en


def code(path: Path, tag: str) -> list[str]:
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return ["".join(c["source"]) for c in cells if tag in c["metadata"].get("tags", [])]


# One process for a lesson; every program starts from what the setup cells left.
RUN_ALONE = """
import json, sys
setup, programs = json.load(sys.stdin)
start = {}
exec("\\n".join(setup), start)
verdicts = []
for program in programs:
    before = dict(start)
    exec(program, start)  # in the very names that the functions of the setup cells know
    verdict = start["verdict"]
    start.clear()
    start.update(before)
    verdicts.append(verdict.ok)
    if verdict.ok != (len(verdicts) % 2 == 1):
        print(verdict.en)
print(json.dumps(verdicts))
"""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_published_solution_of_each_exercise_passes_and_the_blank_one_gets_a_hint(path: Path) -> None:
    """标签 setup、exercise、check 的格子可以单独运行 / Cells tagged setup, exercise and check run on their own."""
    solutions = [s for text in markdown(path)
                 for s in re.findall(r"<details.*?```python\n(.*?)```.*?</details>", text, re.DOTALL)]
    exercises, checks = code(path, "exercise"), code(path, "check")
    assert len(solutions) == len(exercises) == len(checks) > 0
    programs = []
    for solution, blank, check in zip(solutions, exercises, checks, strict=True):
        *before, verdict = ast.parse(check).body  # the verdict is the last expression of the cell
        lines = "\n".join([*map(ast.unparse, before), f"verdict = {ast.unparse(verdict)}"])
        programs += [f"{answer}\n{lines}" for answer in (solution, blank)]
    run = subprocess.run([sys.executable, "-c", RUN_ALONE], input=json.dumps([code(path, "setup"), programs]),
                         capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == [True, False] * len(checks), run.stdout + run.stderr
