"""mmcore.live：不用浏览器就能查的一切 / Everything that can be checked without a browser."""

import asyncio
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import torch

pytest.importorskip("ipywidgets")
pytest.importorskip("matplotlib")

from mmcore import live

LOSS = live.Plot("损失", "loss", {"loss": ("损失", "loss")})


class Model:
    """一个直线拟合：真的在学，又很快 / A straight line to fit: it truly learns, and quickly."""

    def __init__(self):
        self.seen, self.built = [], 0

    def reset(self):
        torch.manual_seed(0)
        self.built += 1
        self.w = torch.zeros(3, requires_grad=True)

    def step(self, lr=0.1):
        self.seen.append(lr)
        x = torch.randn(8, 3)
        loss = ((x @ (self.w - torch.tensor([1.0, -2.0, 0.5]))) ** 2).mean()
        (grad,) = torch.autograd.grad(loss, self.w)
        with torch.no_grad():
            self.w -= lr * grad
        return {"loss": loss.item()}

    def evaluate(self):
        return {"distance": (self.w - torch.tensor([1.0, -2.0, 0.5])).norm().item()}


def training(model, steps=40, step=None, **more):
    plots = [LOSS, live.Plot("距离", "distance", {"distance": ("到答案的距离", "distance to the answer")},
                             levels={("起点", "start"): 2.29, ("零", "zero"): 0.0})]
    more = {"evaluate": model.evaluate, "every": 15, "reset": model.reset, **more}
    return live.Training(step or model.step, steps, plots, **more)


@pytest.fixture(autouse=True)
def nobody_watches(monkeypatch):
    monkeypatch.setenv("MM_LIVE", "0")
    live.Training._latest.clear()


@pytest.fixture
def watched(monkeypatch):
    monkeypatch.setenv("MM_LIVE", "1")


async def until(condition, seconds=10):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


# -- training with nobody watching -------------------------------------------------------------------------------------

def test_headless_trains_every_step_and_evaluates_at_start_every_so_often_and_end():
    model = Model()
    run = training(model)
    run.start()
    assert run.done
    assert run.i == len(model.seen) == 40
    assert run.history["loss"][0] == list(range(1, 41))
    assert run.history["distance"][0] == [0, 15, 30, 40]
    assert run.history["distance"][1][-1] < 0.2 < 2 < run.history["distance"][1][0]


def test_two_headless_runs_give_the_same_numbers_and_the_same_picture():
    runs = [training(Model()), training(Model())]
    for run in runs:
        run.start()
    assert runs[0].history == runs[1].history
    assert runs[0].curves.png() == runs[1].curves.png()


def test_headless_and_live_give_the_same_numbers(monkeypatch):
    quiet = training(Model())
    quiet.start()
    monkeypatch.setenv("MM_LIVE", "1")

    async def watch():
        run = training(Model())
        run.start()
        assert run.i == 0  # the cell returns at once
        await run.wait()
        return run

    assert asyncio.run(watch()).history == quiet.history


def test_starting_again_rebuilds_the_model():
    model = Model()
    run = training(model)
    run.start()
    first = dict(run.history)
    run.start()
    assert model.built == 2
    assert run.history == first


def test_wait_returns_at_once_when_nobody_watches():
    run = training(Model())
    run.start()
    asyncio.run(asyncio.wait_for(run.wait(), 1))


def test_headless_buttons_destroy_nothing_and_reset_takes_hold_at_the_next_finish():
    model = Model()
    run = training(model)
    run.start()
    learned = model.w.clone()
    run._start_button.click()
    run._reset_button.click()
    assert "从头训练" in run._message.value
    assert "from the beginning" in run._message.value
    asyncio.run(asyncio.wait_for(run.wait(), 1))
    assert torch.equal(model.w, learned)
    assert run.done
    assert model.built == 1
    run.finish()
    assert model.built == 2
    assert torch.equal(model.w, learned)


def test_finish_without_a_panel_trains_too():
    run = training(Model())
    run.finish()
    assert run.done


def test_wait_before_start_is_refused():
    with pytest.raises(ValueError, match=r"请先调用 start\(\) / call start\(\) first"):
        asyncio.run(training(Model()).wait())


# -- sliders -----------------------------------------------------------------------------------------------------------

def test_a_slider_acts_on_the_very_next_step():
    model, control = Model(), live.slider("学习率", "learning rate", 0.1, 0.0, 0.5, step=0.05)

    def step(lr):
        if len(model.seen) == 4:
            control.value = 0.3  # moved while step 5 is under way
        return model.step(lr)

    run = training(model, steps=8, step=step, sliders={"lr": control})
    run.start()
    assert model.seen == pytest.approx([0.1] * 5 + [0.3] * 3)
    assert run.values == {"lr": 0.3}


def test_a_slider_moved_on_another_thread_acts_and_touches_nothing_else(watched):
    model, control = Model(), live.slider("学习率", "learning rate", 0.1, 0.0, 0.5, step=0.05)

    async def watch():
        run = training(model, steps=100_000, sliders={"lr": control})
        run.start()
        await until(lambda: run.i > 3)
        mover = threading.Thread(target=setattr, args=(control, "value", 0.2))
        mover.start()
        mover.join()
        before = run.i
        await until(lambda: run.i > before)
        assert model.seen[before] == pytest.approx(0.2)
        run._close()

    asyncio.run(watch())


@pytest.mark.parametrize("value", [0.07, 0.01, 1.0, 0.5])
def test_a_logarithmic_slider_holds_its_value_exactly_on_its_grid(value):
    control = live.slider("温度 τ", "temperature", value, 0.01, 1.0, log=True)
    notch = (np.log10(value) - control.min) / control.step
    assert control.value == value
    assert notch == pytest.approx(round(notch), abs=1e-9)
    assert control.min == pytest.approx(-2, abs=control.step / 2)
    assert control.max == pytest.approx(0, abs=control.step / 2)
    assert control.description == "温度 τ · temperature"


def test_whole_numbers_give_a_slider_of_whole_numbers():
    control = live.slider("邻居", "neighbours", 3, 1, 9)
    assert isinstance(control.value, int)
    assert control.step == 1


@pytest.mark.parametrize(("arguments", "said"), [
    ({"value": 2.0, "min": 0.0, "max": 1.0}, "value 需要在 0.0 与 1.0 之间.* / value must lie between"),
    ({"value": 0.5, "min": 1.0, "max": 0.0}, "min < max"),
    ({"value": 0.33, "min": 0.0, "max": 1.0, "step": 0.1}, "格点上.* / value must lie on the grid"),
    ({"value": 0.0, "min": 0.0, "max": 1.0, "log": True}, "min 需要大于 0.* / min must be positive"),
    ({"value": 0.5, "min": 0.0, "max": 1.0, "step": -1.0}, "step 需要大于 0.* / step must be positive"),
])
def test_a_slider_that_cannot_work_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        live.slider("温度", "temperature", **arguments)


# -- training while a person watches -----------------------------------------------------------------------------------

def test_pause_resume_and_reset_while_watching(watched):
    async def watch():
        model = Model()
        run = training(model, steps=100_000)
        run.start()
        await until(lambda: run.i > 5)
        run._start_button.click()  # pause
        await until(lambda: run._state == "paused")
        stopped = run.i
        await asyncio.sleep(0.05)
        assert run.i == stopped
        run._start_button.click()  # resume
        await until(lambda: run.i > stopped)
        run._reset_button.click()  # goes on, from the beginning
        await until(lambda: model.built == 2 and 0 < run.i < stopped + 10_000)
        assert run.history["loss"][0][0] == 1
        run._start_button.click()
        await until(lambda: run._state == "paused")
        run._reset_button.click()  # a paused run stays paused
        await until(lambda: model.built == 3)
        await asyncio.sleep(0.05)
        assert run.i == 0
        assert run.history == {}
        run._close()

    asyncio.run(watch())


def test_a_finished_run_can_be_reset_and_started_again(watched):
    async def watch():
        run = training(Model())
        run.start()
        await run.wait()
        first = dict(run.history)
        await until(lambda: run._state == "finished")
        run._reset_button.click()
        await until(lambda: run.i == 0)
        run._start_button.click()
        await until(lambda: run._state == "finished")
        assert run.history == first

    asyncio.run(watch())


def test_stop_ends_the_wait_and_keeps_the_model(watched, capsys):
    async def watch():
        model = Model()
        run = training(model, steps=100_000)
        run.start()
        cell = asyncio.create_task(run.wait())
        await until(lambda: run.i > 5)
        cell.cancel()  # this is what ipykernel makes of Stop
        await cell
        assert not cell.cancelled()
        await until(lambda: run._state == "paused")
        kept, at = model.w.clone(), run.i
        await asyncio.sleep(0.05)
        assert run.i == at
        assert torch.equal(model.w, kept)
        run._start_button.click()
        await until(lambda: run.i > at)
        run._close()

    asyncio.run(watch())
    assert "The wait was stopped" in capsys.readouterr().out


def test_waiting_for_a_paused_run_says_what_to_do(watched):
    async def watch():
        run = training(Model(), steps=2000)
        run.start()
        cell = asyncio.create_task(run.wait())
        await until(lambda: run.i > 5)
        run._start_button.click()
        await until(lambda: "下一格在等训练结束" in run._message.value)
        assert "The next cell waits" in run._message.value
        assert not cell.done()
        run._start_button.click()
        await cell
        assert run.done
        assert run._message.value == ""

    asyncio.run(watch())


def test_running_the_cell_again_replaces_the_first_run(watched):
    async def watch():
        first = training(Model(), steps=100_000)
        first.start()
        await until(lambda: first.i > 5)
        second = training(Model())
        second.start()
        stopped = first.i
        replaced = r"被新的一次代替了.*was replaced by a newer one"
        with pytest.raises(RuntimeError, match=replaced):
            await first.wait()
        with pytest.raises(RuntimeError, match=replaced):
            first.finish()
        await second.wait()
        assert first.i == stopped
        assert second.done
        assert "replaced" in first._progress.value
        assert first._start_button.disabled

    asyncio.run(watch())


def test_a_plot_whose_line_nobody_fills_is_named_after_one_step():
    model = Model()
    run = training(model, steps=5, evaluate=lambda: {"distanse": 1.0})
    with pytest.raises(ValueError, match=r"neither step nor evaluate returns \['distance'\]"):
        run.start()


async def both_finish(one, two):
    one.start()
    two.start()
    await one.wait()
    await two.wait()
    assert one.done
    assert two.done


def test_trainings_of_different_steps_do_not_replace_each_other_without_a_key(watched):
    async def watch():
        model = Model()
        one, two = training(Model()), training(model, step=lambda **values: model.step(**values))
        await both_finish(one, two)

    asyncio.run(watch())


def test_runs_with_different_keys_live_side_by_side(watched):
    async def watch():
        one, two = training(Model(), key="one"), training(Model(), key="two")
        await both_finish(one, two)

    asyncio.run(watch())


# -- errors ------------------------------------------------------------------------------------------------------------

def failing(model, at, times=1):
    left = [times]

    def step():
        if len(model.seen) == at and left[0]:
            left[0] -= 1
            raise RuntimeError("shape <b>mismatch</b>")
        return model.step()
    return step


def test_an_error_in_a_step_is_raised_and_keeps_curve_and_model():
    model = Model()
    run = training(model, step=failing(model, 7))
    with pytest.raises(RuntimeError, match="mismatch"):
        run.start()
    assert run.i == 7
    assert len(run.history["loss"][0]) == 7
    assert model.w.abs().sum() > 0
    assert "停在第 7 步" in run._message.value
    assert "stopped at step 7" in run._message.value
    assert "&lt;b&gt;mismatch" in run._message.value
    with pytest.raises(RuntimeError, match="mismatch"):
        asyncio.run(run.wait())
    with pytest.raises(RuntimeError, match="mismatch"):
        run.finish()


def test_after_an_error_start_tries_again_from_where_it_stopped(watched):
    async def watch():
        model = Model()
        run = training(model, step=failing(model, 7))
        run.start()
        with pytest.raises(RuntimeError, match="mismatch"):
            await run.wait()
        await until(lambda: run._state == "failed")
        run._start_button.click()
        await until(lambda: run.error is None)
        await run.wait()
        assert run.history["loss"][0] == list(range(1, 41))
        assert run._message.value == ""

    asyncio.run(watch())


def test_an_error_while_rebuilding_is_shown_and_does_not_end_the_panel(watched):
    async def watch():
        model, fail = Model(), []

        def reset():
            if fail:
                raise RuntimeError(fail.pop())
            model.reset()

        run = training(model, steps=100_000, reset=reset)
        run.start()
        await until(lambda: run.i > 5)
        fail.append("no memory")
        run._reset_button.click()
        await until(lambda: "no memory" in run._message.value)
        run._reset_button.click()
        run._start_button.click()
        await until(lambda: run.i > 5)
        run._close()

    asyncio.run(watch())


def test_a_run_whose_model_could_not_be_built_has_not_started():
    def reset():
        raise RuntimeError("no memory")

    run = training(Model(), reset=reset)
    with pytest.raises(RuntimeError, match="no memory"):
        run.start()
    with pytest.raises(ValueError, match="call start"):
        asyncio.run(run.wait())


def test_a_step_that_returns_no_dict_is_refused():
    with pytest.raises(TypeError, match="step 需要返回名字到数的字典，收到 float / step must return a dict"):
        training(Model(), step=lambda: 0.5).start()


@pytest.mark.parametrize(("arguments", "said"), [
    ({"step": 3}, "step 需要是函数"), ({"steps": 0}, "steps 需要至少为 1"), ({"every": 1.5}, "every must be a whole"),
    ({"plots": []}, "需要一个或两个图，收到 0 / one or two plots"), ({"plots": [LOSS] * 3}, "收到 3"),
    ({"sliders": {"lr": 0.1}}, "slider 'lr' must be a widget"), ({"tick": 0}, "tick must be positive"),
    ({"evaluate": 1}, "evaluate must be a function"), ({"reset": "no"}, "reset must be a function"),
])
def test_bad_arguments_of_a_training_are_refused_before_anything_happens(arguments, said):
    with pytest.raises((ValueError, TypeError), match=said):
        live.Training(**{"step": Model().step, "steps": 5, "plots": [LOSS], **arguments})


# -- curves ------------------------------------------------------------------------------------------------------------

def test_chinese_in_a_figure_has_all_its_glyphs():
    plot = live.Plot("检索 R@1（左→右）", "retrieval, τ ≤ 0.5", {"r": ("准确率 α·β ≥ 0", "accuracy")},
                     levels={("像素近邻", "pixel neighbour"): 0.57, ("随机", "chance"): 0.004}, ylim=(-1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curves = live.Curves([plot], 100)
        curves.add(3, {"r": 0.5})
        assert curves.png().startswith(b"\x89PNG")


def test_curves_survive_numbers_that_are_not_finite_and_names_nobody_draws():
    for log in (False, True):
        curves = live.Curves([live.Plot("损失", "loss", {"loss": ("损失", "loss")}, log=log)], 10)
        for i, value in enumerate([1.0, float("nan"), float("inf"), 0.0, -1.0, 1e6], 1):
            curves.add(i, {"loss": value, "other": 1.0})
            curves.png()
        assert curves.history["other"][0] == [1, 2, 3, 4, 5, 6]


def test_a_growing_loss_stays_inside_the_picture():
    curves = live.Curves([LOSS], 10)
    for i, value in enumerate([0.1, 5.0, 400.0], 1):
        curves.add(i, {"loss": value})
        curves.png()
        low, high = curves._drawn[0].ax.get_ylim()
        assert low <= value <= high


def test_labels_of_levels_that_lie_close_do_not_overlap():
    levels = {(name, name): height for name, height in [("甲", 0.5), ("乙", 0.501), ("丙", 0.51)]}
    plot = live.Plot("准确率", "accuracy", {"r": ("准", "acc")}, levels=levels, ylim=(0, 1))
    heights = [label.get_position()[1] for label in live.Curves([plot], 9)._drawn[0].labels]
    assert min(np.diff(heights)) > 0.15


def test_the_alternative_text_names_every_line_and_level_in_both_languages(capsys):
    alt = training(Model()).curves.alt
    training(Model(), steps=2).start()
    assert f"{alt}\n" in capsys.readouterr().out  # kept in the saved notebook, also where pictures lose it
    for word in ("损失", "loss", "到答案的距离", "distance to the answer", "起点", "start"):
        assert word in alt


@pytest.mark.parametrize(("arguments", "said"), [
    ({"lines": {}}, "at least one line"), ({"lines": {"a": "loss"}}, r"a name must be \(Chinese, English\)"),
    ({"lines": {"a": ("损", "l")}, "colours": {"b": "image"}}, "which is no line"),
    ({"lines": {"a": ("损", "l")}, "levels": {("零", "zero"): 0.0}, "log": True}, "logarithmic axis needs positive"),
])
def test_a_plot_that_cannot_be_drawn_is_refused(arguments, said):
    with pytest.raises((ValueError, TypeError), match=said):
        live.Plot("损失", "loss", **arguments)


# -- cards, search, tables ---------------------------------------------------------------------------------------------

RED = np.full((3, 8, 8), 200, np.uint8)


def test_a_gallery_shows_captions_marks_and_alternative_texts_in_both_languages():
    cards = [live.Card(torch.from_numpy(RED), ("猫 <b>", "cat & dog"), True), live.Card(RED, ("狗", "dog"), False)]
    shown = live.gallery(cards, title=("最近的", "nearest")).value
    assert '<span lang="zh">猫 &lt;b&gt;</span><span lang="en">cat &amp; dog</span>' in shown
    assert 'alt="猫 &lt;b&gt; / cat &amp; dog"' in shown
    assert "✓" in shown
    assert "错误 / wrong" in shown
    assert '<span lang="en">nearest</span>' in shown


def test_the_text_form_of_every_widget_is_the_same_from_run_to_run():
    assert repr(live.gallery([live.Card(RED)])) == repr(live.gallery([live.Card(255 - RED)]))
    assert repr(training(Model()).panel) == repr(training(Model(), steps=7).panel)


@pytest.mark.parametrize(("picture", "said"), [
    (np.zeros((3, 8, 8)), "a picture must be uint8, got float64"), (np.zeros((2, 8, 8), np.uint8), r"got \(2, 8, 8\)"),
    (np.zeros((0, 8), np.uint8), r"got \(0, 8\)"), (None, "a picture or a caption"),
])
def test_what_is_no_picture_is_refused(picture, said):
    with pytest.raises((ValueError, TypeError), match=said):
        live.Card(picture)


@pytest.mark.parametrize("shape", [(3, 8, 9), (8, 9, 3), (8, 9)])
def test_pictures_of_each_layout_are_shown(shape):
    assert "data:image/png" in live.gallery([live.Card(np.zeros(shape, np.uint8))]).value


def test_a_search_answers_each_text_and_an_error_keeps_the_last_answer():
    def search(text):
        if text == "?":
            raise ValueError("没有 <这个> 词 / unknown word")
        if text == "!":
            raise KeyError("broken")
        return [live.Card(caption=text)]

    box = live.search_box("搜索", "search", search, ["猫", "狗"])
    assert "猫" in box.cards.value
    box.box.value = "鸟"
    assert "鸟" in box.cards.value
    box.box.value = "?"
    assert "没有 &lt;这个&gt; 词" in box.message.value
    assert "mm-error" not in box.message.value
    assert "鸟" in box.cards.value
    box.box.value = "!"
    assert "mm-error" in box.message.value
    assert "KeyError" in box.message.value
    box.children[1].children[1].click()
    assert box.box.value == "狗"
    assert "狗" in box.cards.value
    assert box.message.value == ""


def test_live_search_runs_on_the_loop_and_answers_the_last_text_only(watched):
    async def watch():
        asked = []
        box = live.search_box("搜索", "search", lambda text: asked.append((text, threading.get_ident())) or [])
        typist = threading.Thread(target=lambda: [setattr(box.box, "value", text) for text in ("a", "ab", "abc")])
        typist.start()
        typist.join()
        await asyncio.sleep(live.cards.PAUSE + 0.1)
        assert asked == [("abc", threading.get_ident())]

    asyncio.run(watch())


def test_a_table_and_a_note_escape_and_speak_both_languages():
    table = live.table([("方法", "method"), "R@1"], [[("像素 <b>", "pixel"), 0.5], ["x & y", 1]])
    assert "<b>" not in table._repr_html_()
    assert "x &amp; y" in table._repr_html_()
    assert '<th class="mm-number">R@1</th>' in table._repr_html_()
    assert repr(table) == "方法 / method      R@1\n像素 <b> / pixel  0.50\nx & y                1"
    note = live.note("损失 < 1", "loss < 1")
    assert repr(note) == "损失 < 1 / loss < 1"
    assert '<div lang="zh">损失 &lt; 1</div><div lang="en">loss &lt; 1</div>' in note._repr_html_()


def test_a_table_with_a_short_row_is_refused():
    with pytest.raises(ValueError, match="每行需要 2 格，收到 1 / each row needs 2 cells, got 1"):
        live.table(["a", "b"], [["x"]])


# -- the page ---------------------------------------------------------------------------------------------------------

def test_the_page_is_the_same_every_time(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr("mmcore.live.language.display", lambda output: shown.append(output.data))
    live.page()
    live.page()
    assert shown[0] == shown[1]
    assert [f'value="{choice}"' in shown[0] for choice in ("zh", "en", "both")] == [True] * 3
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("chosen", "expected"), [("0", False), ("1", True)])
def test_the_environment_decides_whether_a_person_watches(monkeypatch, chosen, expected):
    monkeypatch.setenv("MM_LIVE", chosen)
    monkeypatch.setenv("JPY_SESSION_NAME", "x")
    assert live.is_live() is expected


def test_outside_a_kernel_nobody_watches(monkeypatch):
    monkeypatch.delenv("MM_LIVE")
    monkeypatch.setenv("JPY_SESSION_NAME", "x")
    assert live.is_live() is False


def test_importing_mmcore_does_not_import_live():
    code = "import sys, mmcore; print([m for m in ('mmcore.live', 'ipywidgets', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
