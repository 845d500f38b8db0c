"""mmlessons.live：不用浏览器就能查的一切 / Everything that can be checked without a browser."""

import asyncio
import base64
import io
import math
import os
import re
import subprocess
import sys
import threading
import time
import warnings
import wave
from types import SimpleNamespace

import ipywidgets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmcore.training import optimize
from mmlessons import live
from mmlessons.intervals import Interval
from mmlessons.live import kernel, panel
from mmlessons.live.axes import COLOURS, legend_columns
from mmlessons.live.run import LATEST
from mmlessons.live.weights import apportion

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
    LATEST.clear()


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
    assert run.run.done
    assert run.i == len(model.seen) == 40
    assert run.curves.history["loss"][0] == list(range(1, 41))
    assert run.curves.history["distance"][0] == [0, 15, 30, 40]
    assert run.curves.history["distance"][1][-1] < 0.2 < 2 < run.curves.history["distance"][1][0]


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

    assert asyncio.run(watch()).curves.history == quiet.curves.history


def test_headless_buttons_destroy_nothing_and_reset_takes_hold_at_the_next_finish():
    model = Model()
    run = training(model)
    run.start()
    learned = model.w.clone()
    run.panel._start_button.click()
    run.panel._reset_button.click()
    assert "从头训练" in run.panel._message.value
    assert "from the beginning" in run.panel._message.value
    asyncio.run(asyncio.wait_for(run.wait(), 1))
    assert torch.equal(model.w, learned)
    assert run.run.done
    assert model.built == 1
    run.finish()
    assert model.built == 2
    assert torch.equal(model.w, learned)


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


def test_a_run_is_undisturbed_only_if_it_made_every_step_with_its_sliders_where_they_were():
    def step(rate):
        if run.i == 2:
            slider.value = move
        return {"loss": rate}

    slider, move = live.slider("速率", "rate", 0.5, 0.0, 1.0), 0.5
    run = live.Training(step, 4, [live.Plot("损失", "loss", {"loss": ("损失", "loss")})], {"rate": slider})
    assert not run.undisturbed
    run.finish()
    assert run.undisturbed
    move = 0.75
    run.start()
    assert not run.undisturbed
    slider.value = move = 0.5
    run.start()
    assert run.undisturbed


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
        run.run.close()

    asyncio.run(watch())


@pytest.mark.parametrize("value", [0.07, 0.01, 1.0, 0.5])
def test_a_logarithmic_slider_holds_its_value_exactly_on_its_grid_and_whole_numbers_give_whole_steps(value):
    counts = live.slider("邻居", "neighbours", 3, 1, 9)
    assert (type(counts.value), counts.step) == (int, 1)
    control = live.slider("温度 τ", "temperature", value, 0.01, 1.0, log=True)
    notch = (np.log10(value) - control.min) / control.step
    assert control.value == value
    assert notch == pytest.approx(round(notch), abs=1e-9)
    assert control.min == pytest.approx(-2, abs=control.step / 2)
    assert control.max == pytest.approx(0, abs=control.step / 2)
    assert control.description == "温度 τ · temperature"


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
        run.panel._start_button.click()  # pause
        await until(lambda: run.run.state == "paused")
        stopped = run.i
        await asyncio.sleep(0.05)
        assert run.i == stopped
        run.panel._start_button.click()  # resume
        await until(lambda: run.i > stopped)
        run.panel._reset_button.click()  # goes on, from the beginning
        await until(lambda: model.built == 2 and 0 < run.i < stopped + 10_000)
        assert run.curves.history["loss"][0][0] == 1
        run.panel._start_button.click()
        await until(lambda: run.run.state == "paused")
        run.panel._reset_button.click()  # a paused run stays paused
        await until(lambda: model.built == 3)
        await asyncio.sleep(0.05)
        assert run.i == 0
        assert run.curves.history == {}
        run.run.close()

    asyncio.run(watch())


def test_a_finished_run_can_be_reset_and_started_again(watched):
    async def watch():
        run = training(Model())
        run.start()
        await run.wait()
        first = dict(run.curves.history)
        await until(lambda: run.run.state == "finished")
        run.panel._reset_button.click()
        await until(lambda: run.i == 0)
        run.panel._start_button.click()
        await until(lambda: run.run.state == "finished")
        assert run.curves.history == first

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
        await until(lambda: run.run.state == "paused")
        kept, at = model.w.clone(), run.i
        await asyncio.sleep(0.05)
        assert run.i == at
        assert torch.equal(model.w, kept)
        run.panel._start_button.click()
        await until(lambda: run.i > at)
        run.run.close()

    asyncio.run(watch())
    assert "The wait was stopped" in capsys.readouterr().out


def test_waiting_for_a_paused_run_says_what_to_do(watched):
    async def watch():
        run = training(Model(), steps=2000)
        run.start()
        cell = asyncio.create_task(run.wait())
        await until(lambda: run.i > 5)
        run.panel._start_button.click()
        await until(lambda: "下一格在等训练结束" in run.panel._message.value)
        assert "The next cell waits" in run.panel._message.value
        assert not cell.done()
        run.panel._start_button.click()
        await cell
        assert run.run.done
        assert run.panel._message.value == ""

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
        assert second.run.done
        assert "replaced" in first.panel._progress.value
        assert first.panel._start_button.disabled

    asyncio.run(watch())


def test_watched_curves_are_widgets_that_move_one_for_each_plot_and_a_page_loaded_again_shows_them(watched):
    async def watch():
        run = training(Model(), steps=4000)
        run.start()
        curves = run.panel.widget.children[-1].children
        before = [curve.value for curve in curves]
        await run.wait()
        assert len(curves) == 2
        for png, curve in zip(before, curves, strict=True):
            assert Image.open(io.BytesIO(curve.value)).size == (560, 380)
            assert curve.value != png

    asyncio.run(watch())


def test_unwatched_curves_are_a_picture_and_no_widget():
    run = training(Model())
    run.start()
    assert not [child for child in run.panel.widget.children if "mm-curves" in child._dom_classes]


def test_show_shows_every_training_again_and_starts_none(watched, monkeypatch):
    async def watch():
        run = training(Model(), steps=100_000)
        run.start()
        await until(lambda: run.i > 5)
        shown, at = [], run.i
        monkeypatch.setattr(panel, "display", lambda x, **_: shown.append(x))
        live.show()
        assert run.panel.widget in shown
        assert run.i == at
        run.run.close()

    asyncio.run(watch())


def test_show_says_that_there_is_no_training(capsys):
    live.show()
    assert "There is no training in this kernel yet" in capsys.readouterr().out


def test_a_plot_whose_line_nobody_fills_is_named_after_one_step():
    model = Model()
    run = training(model, steps=5, evaluate=lambda: {"distanse": 1.0})
    with pytest.raises(ValueError, match=r"neither step nor evaluate returns \['distance'\]"):
        run.start()


def test_trainings_of_different_steps_do_not_replace_each_other(watched):
    async def watch():
        model = Model()
        runs = [training(Model()), training(model, step=lambda **values: model.step(**values))]
        for run in runs:
            run.start()
        for run in runs:
            await run.wait()
            assert run.run.done

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
    assert len(run.curves.history["loss"][0]) == 7
    assert model.w.abs().sum() > 0
    assert "停在第 7 步" in run.panel._message.value
    assert "stopped at step 7" in run.panel._message.value
    assert "&lt;b&gt;mismatch" in run.panel._message.value
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
        await until(lambda: run.run.state == "failed")
        run.panel._start_button.click()
        await until(lambda: run.run.error is None)
        await run.wait()
        assert run.curves.history["loss"][0] == list(range(1, 41))
        assert run.panel._message.value == ""

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
        run.panel._reset_button.click()
        await until(lambda: "no memory" in run.panel._message.value)
        run.panel._reset_button.click()
        run.panel._start_button.click()
        await until(lambda: run.i > 5)
        run.run.close()

    asyncio.run(watch())


def test_a_run_whose_model_could_not_be_built_has_not_started():
    def reset():
        raise RuntimeError("no memory")

    run = training(Model(), reset=reset)
    with pytest.raises(RuntimeError, match="no memory"):
        run.start()
    with pytest.raises(ValueError, match=r"请先调用 start\(\) / call start\(\) first"):
        asyncio.run(run.wait())


class Exploding:
    """真的模型和优化器，步长太大就爆炸 / A true model and optimiser that explode where the step size is too large."""

    def __init__(self):
        self.reset()

    def reset(self):
        torch.manual_seed(0)
        self.model = torch.nn.Linear(3, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)

    def step(self, lr=0.05):
        self.optimizer.param_groups[0]["lr"] = lr
        x = torch.randn(8, 3)
        return {"loss": optimize(self.model, self.optimizer, lambda: ((self.model(x) - x[:, :1]) ** 2).mean())}

    def weights(self):
        return torch.cat([p.detach().flatten() for p in self.model.parameters()])

    def training(self, lr):
        return live.Training(self.step, 100_000, [LOSS], {"lr": lr}, every=20, reset=self.reset,
                             keeps=lambda: (self.model, self.optimizer))


def exploding():
    thing, lr = Exploding(), live.slider("步长", "step size", 0.05, 0.01, 1e9, log=True)
    run = thing.training(lr)
    run.start()
    return thing, lr, run


def test_a_loss_that_becomes_infinite_is_said_and_the_panel_goes_back_to_weights_that_were_good(watched):
    async def watch():
        thing, lr, run = exploding()
        await until(lambda: run.i > 45)
        assert run.panel._back_button.layout.display == "none"  # nothing to go back from while all goes well
        lr.value = 1e9
        await until(lambda: run.run.state == "failed")
        assert "FloatingPointError" in run.panel._message.value
        assert "停在第" in run.panel._message.value
        assert thing.weights().isfinite().all()
        failed_at, ruined = run.i, thing.weights()
        assert run.panel._back_button.layout.display == ""
        run.panel._back_button.click()
        await until(lambda: run.run.state == "paused")
        assert run.i == max(i for i in range(0, failed_at, 20))
        assert run.panel._message.value == ""
        assert max(run.curves.history["loss"][0]) == run.i
        assert not torch.equal(thing.weights(), ruined)
        first = run.i
        run.panel._back_button.click()  # pressed again: one copy further back
        await until(lambda: run.i < first)
        good = thing.weights()
        lr.value = 0.05
        run.panel._start_button.click()
        await until(lambda: run.run.state == "running" and run.i > first + 40)
        assert run.curves.history["loss"][1][-1] < 10
        assert not torch.equal(thing.weights(), good)
        run.run.close()

    asyncio.run(watch())


def test_copies_of_another_model_are_not_put_back(watched):
    async def watch():
        thing, _, run = exploding()
        await until(lambda: run.i > 5)
        run.panel._start_button.click()
        await until(lambda: run.run.state == "paused")
        thing.model = torch.nn.Linear(3, 2)
        before, at = thing.weights(), run.i
        run.panel._back_button.click()
        await until(lambda: "another model" in run.panel._message.value)
        assert torch.equal(thing.weights(), before)
        assert run.i == at
        await until(lambda: run.panel._back_button.layout.display == "none")
        run.run.close()

    asyncio.run(watch())


def test_a_step_that_returns_nan_or_no_dict_stops_with_a_word_in_both_languages():
    with pytest.raises(FloatingPointError, match=r"loss 不是有限数.*loss that are not finite"):
        training(Model(), step=lambda: {"loss": float("nan")}).start()
    with pytest.raises(TypeError, match="step 需要返回名字到数的字典，收到 float / step must return a dict"):
        training(Model(), step=lambda: 0.5).start()


@pytest.mark.parametrize(("arguments", "said"), [
    ({"step": 3}, "step 需要是函数"), ({"steps": 0}, "steps 需要至少为 1"), ({"every": 1.5}, "every must be a whole"),
    ({"plots": []}, "需要一个或两个图，收到 0 / one or two plots"), ({"plots": [LOSS] * 3}, "收到 3"),
    ({"sliders": {"lr": 0.1}}, "sliders..lr.. must be a Widget"), ({"view": 1}, "view must be a function"),
    ({"view_every": 0}, "view_every must be at least 1"),
])
def test_bad_arguments_of_a_training_are_refused_before_anything_happens(arguments, said):
    with pytest.raises((ValueError, TypeError), match=said):
        live.Training(**{"step": Model().step, "steps": 5, "plots": [LOSS], **arguments})


# -- curves ------------------------------------------------------------------------------------------------------------

def test_curves_survive_numbers_that_are_not_finite_and_names_nobody_draws():
    curves = live.Curves([LOSS], 10)
    for i, value in enumerate([1.0, float("nan"), float("inf"), 0.0, -1.0, 5.0, 1e6], 1):
        curves.add(i, {"loss": value, "other": 1.0})
        curves.png()
        low, high = curves._drawn[0].ax.get_ylim()
        assert low <= value <= high or not np.isfinite(value)  # a growing loss stays inside the picture
    assert curves.history["other"][0] == [1, 2, 3, 4, 5, 6, 7]


def test_labels_of_levels_that_lie_close_do_not_overlap():
    levels = {(name, name): height for name, height in [("甲", 0.5), ("乙", 0.501), ("丙", 0.51)]}
    plot = live.Plot("准确率", "accuracy", {"r": ("准", "acc")}, levels=levels, ylim=(0, 1))
    heights = [label.get_position()[1] for label in live.Curves([plot], 9)._drawn[0].levels.labels]
    assert min(np.diff(heights)) > 0.15


def test_a_front_end_of_another_age__old_pictures_and_widgets_are_asked_for_nothing_they_do_not_know(monkeypatch):
    """IPython 7.34 与 ipywidgets 7.7.1 / As IPython 7.34 and ipywidgets 7.7.1 are, on Colab and Kaggle."""
    class OldImage(panel.Image):
        def __init__(self, data=None, *, width=None, height=None, metadata=None):
            super().__init__(data, width=width, height=height, metadata=metadata)

    monkeypatch.setattr(panel, "Image", OldImage)
    monkeypatch.delattr(ipywidgets.Widget, "_repr_mimebundle_")
    made, shown = training(Model(), steps=2), []
    monkeypatch.setattr(panel, "display", lambda x, **_: shown.append(x))
    made.start()
    assert made.i == 2
    picture, = [x for x in shown if isinstance(x, OldImage)]
    assert picture._repr_mimebundle_()[1]["image/png"]["alt"] == made.curves.alt
    for drawn in (live.scatter([[0, 0]], [0], ["a"]), live.claims((BETTER, 1, ">", 0), say=BETTER)):
        view = drawn._repr_mimebundle_()["application/vnd.jupyter.widget-view+json"]
        assert view.keys() == {"version_major", "version_minor", "model_id"}


def test_the_alternative_text_names_every_line_and_level_in_both_languages(capsys):
    alt = training(Model()).curves.alt
    training(Model(), steps=2).start()
    assert f"{alt}\n" in capsys.readouterr().out  # kept in the saved notebook, also where pictures lose it
    for word in ("损失", "loss", "到答案的距离", "distance to the answer", "起点", "start"):
        assert word in alt


@pytest.mark.parametrize(("arguments", "said"), [
    ({"lines": {}}, "at least one line"), ({"lines": {"a": "loss"}}, r"must be \(Chinese, English\), got str"),
    ({"lines": {"a": ("损", "l")}, "colours": {"b": "image"}}, "which is no line"),
])
def test_a_plot_that_cannot_be_drawn_is_refused(arguments, said):
    with pytest.raises((ValueError, TypeError), match=said):
        live.Plot("损失", "loss", **arguments)


# -- weights -----------------------------------------------------------------------------------------------------------

MODALITIES = {"image": ("图像", "image"), "text": ("文字", "text"), "sound": ("声音", "sound")}


def percents(control):
    return {name: slider.value for name, slider in control._sliders.items()}


def drag(control, name, to):
    """What the browser does: it sets one slider."""
    control._sliders[name].value = to


@given(start=st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda x: sum(x) > 0.01),
       acts=st.lists(st.tuples(st.sampled_from(["move", "lock"]), st.sampled_from(list(MODALITIES)),
                               st.integers(0, 100)), max_size=12))
def test_whatever_is_moved_and_locked_weights_sum_to_100_none_is_negative_and_what_is_locked_stays(start, acts):
    control = live.weights(MODALITIES, {name: x / sum(start) for name, x in zip(MODALITIES, start, strict=True)})
    for act, name, to in acts:
        if act == "lock":
            control._locks[name].value = not control._locks[name].value
            continue
        before, locked = percents(control), [n for n, lock in control._locks.items() if lock.value]
        drag(control, name, to)
        after = percents(control)
        assert sum(after.values()) == 100
        assert min(after.values()) >= 0
        assert {n: after[n] for n in locked} == {n: before[n] for n in locked}
        assert control.value == {n: x / 100 for n, x in after.items()}
        if not locked:
            assert after[name] == to


@given(st.integers(0, 1000), st.lists(st.floats(0, 1e6), min_size=1, max_size=9))
def test_whole_numbers_in_proportion_are_off_by_less_than_one_and_lose_nothing(total, parts):
    shares = apportion(total, parts)
    assert sum(shares) == total
    if sum(parts) > 1e-6:
        assert all(abs(n - total * part / sum(parts)) < 1 + 1e-6 for n, part in zip(shares, parts, strict=True))


def test_the_rest_is_shared_in_proportion_and_equally_where_there_was_nothing():
    control = live.weights(MODALITIES, {"image": 0.4, "text": 0.4, "sound": 0.2})
    drag(control, "image", 70)
    assert percents(control) == {"image": 70, "text": 20, "sound": 10}
    drag(control, "image", 100)
    drag(control, "image", 50)
    assert percents(control) == {"image": 50, "text": 25, "sound": 25}


def test_a_lock_holds_its_weight_and_leaves_the_others_what_is_left():
    control = live.weights(MODALITIES, {"image": 0.5, "text": 0.3, "sound": 0.2})
    control._locks["text"].value = True
    assert control._sliders["text"].disabled
    drag(control, "image", 90)
    assert percents(control) == {"image": 70, "text": 30, "sound": 0}
    control._locks["text"].value = False
    assert not control._sliders["text"].disabled
    for name in ("text", "sound"):
        control._locks[name].value = True
    told = []
    control.observe(told.append, "value")
    drag(control, "image", 90)  # springs back where all others are locked, and nobody is told
    assert percents(control) == {"image": 70, "text": 30, "sound": 0}
    assert told == []


def test_one_move_is_told_once_when_all_sliders_already_stand_where_they_should():
    control, told = live.weights(MODALITIES), []
    control.observe(lambda change: told.append((change["new"], percents(control))), "value")
    drag(control, "sound", 80)
    drag(control, "sound", 80)  # an echo
    assert told == [({"image": 0.1, "text": 0.1, "sound": 0.8}, {"image": 10, "text": 10, "sound": 80})]


def test_weights_set_from_code_move_the_sliders_and_the_bar_and_lie_on_the_grid():
    control = live.weights(MODALITIES)
    assert sorted(percents(control).values()) == [33, 33, 34]
    control.value = {"image": 0.5041, "text": 0.4959, "sound": 0.0}
    assert control.value == {"image": 0.5, "text": 0.5, "sound": 0.0}
    assert percents(control) == {"image": 50, "text": 50, "sound": 0}
    assert "图像 / image 50 %" in control._bar.value
    assert COLOURS["image"].lower() in control._bar.value


@pytest.mark.parametrize(("value", "said"), [
    ({"image": 0.5, "text": 0.5}, "权重需要是名字为.* / weights must be a dict with the names"),
    (0.5, "(weights|value) must be a dict"),
    ({"image": 0.5, "text": 0.5, "sound": 0.5}, "权重之和需要为 1，收到 1.5 / weights must sum to 1, got 1.5"),
    ({"image": 1.5, "text": -0.5, "sound": 0.0}, "must not be negative"),
    ({"image": float("nan"), "text": 0.5, "sound": 0.5}, "must (not be negative|be finite)"),
])
def test_wrong_weights_are_refused_and_change_nothing(value, said):
    control = live.weights(MODALITIES, {"image": 0.5, "text": 0.3, "sound": 0.2})
    with pytest.raises(ValueError, match=said):
        control.value = value
    assert control.value == {"image": 0.5, "text": 0.3, "sound": 0.2}
    assert percents(control) == {"image": 50, "text": 30, "sound": 20}
    with pytest.raises((TypeError, ValueError), match=said):
        live.weights(MODALITIES, value)


def test_a_preset_jumps_to_its_weights_whatever_is_locked():
    learned = {"image": 0.012, "text": 0.446, "sound": 0.542}
    control = live.weights(MODALITIES, presets={("学到的", "learned"): learned})
    control._locks["image"].value = True
    control.children[-1].children[0].click()
    assert percents(control) == {"image": 1, "text": 45, "sound": 54}
    with pytest.raises(ValueError, match=r"至少需要两个权重.* / at least two weights"):
        live.weights({"image": ("图像", "image")})


def test_explore_shows_a_new_picture_for_each_move_of_a_weight():
    control, seen = live.weights(MODALITIES), []

    def view(w, links, how):
        seen.append((w["image"], links, how))
        picture = live.scatter([[w["image"], 0], [0, 1]], [0, 1], ["a", "b"], limits=((0, 1), (0, 1)))
        return live.beside(picture, live.note("准", "accurate"))

    links = live.switch("连线", "links")
    how = live.menu("方法", "method", {"late": ("后期", "late"), "gate": ("门控", "gated")})
    panel = live.explore({"w": control, "links": links, "how": how}, view)
    first = panel.children[-1].value
    drag(control, "image", 90)
    links.value = True
    how.value = "gate"
    assert seen[1:] == [(0.9, False, "late"), (0.9, True, "late"), (0.9, True, "gate")]
    assert panel.children[-1].value != first


# -- switches and menus ------------------------------------------------------------------------------------------------

def test_a_switch_and_a_menu_speak_both_languages_and_start_where_told():
    assert live.switch("归一化", "normalise", True).value is True
    assert live.switch("归一化", "normalise").description == "归一化 · normalise"
    menu = live.menu("层", "layers", {1: ("一层", "one"), 2: ("两层", "two")}, value=2)
    assert menu.value == 2
    assert menu.options == (("一层 · one", 1), ("两层 · two", 2))
    with pytest.raises(TypeError, match="value must be True or False, got int"):
        live.switch("开", "on", 1)
    with pytest.raises(ValueError, match=r"value 需要是 .* 之一，收到 3 / value must be one of"):
        live.menu("层", "layers", {1: ("一层", "one")}, value=3)
    with pytest.raises(ValueError, match="at least one entry"):
        live.menu("层", "layers", {})
    assert live.menu("层", "layers", {1: ("一层", "one"), 2: ("两层", "two")}).value == 1


def test_a_row_of_buttons_is_a_menu_to_click_on():
    row = live.buttons("层", "layers", {1: ("一层", "one"), 2: ("两层", "two")}, value=2)
    assert (row.value, row.description) == (2, "层 · layers")
    assert row.options == (("一层 · one", 1), ("两层 · two", 2))
    with pytest.raises(ValueError, match=r"value 需要是 .* 之一，收到 3 / value must be one of"):
        live.buttons("层", "layers", {1: ("一层", "one")}, value=3)


def test_a_field_speaks_both_languages_and_answers_when_enter_is_pressed():
    field = live.field("问题", "question")
    assert (field.value, field.description, field.continuous_update) == ("", "问题 · question", False)
    panel = live.explore({"said": field}, lambda said: live.note(said, said))
    field.value = "有猫吗？"
    assert "有猫吗？" in panel.children[-1].value


def test_what_a_view_refuses_is_an_error_after_a_slider_and_a_word_to_the_reader_after_typing():
    def view(**values):
        raise ValueError("没学过 / never learned")

    for control, is_error in ((live.slider("速率", "rate", 0.5, 0.0, 1.0), True),
                              (live.field("问题", "question"), False)):
        shown = live.explore({"x": control}, view).children[-1].value
        assert "never learned" in shown
        assert ("mm-error" in shown) is is_error


def test_a_training_takes_switches_menus_and_weights_and_says_what_a_step_used():
    seen = []

    def step(norm, how, w):
        seen.append((norm, how, w))
        return {"loss": 1.0}

    sliders = {"norm": live.switch("归一化", "normalise", True), "how": live.menu("法", "way", {"<a>": ("甲", "a")}),
               "w": live.weights({"image": ("图像", "image"), "text": ("文字", "text")}, {"image": 0.7, "text": 0.3})}
    run = live.Training(step, 2, [LOSS], sliders=sliders)
    run.start()
    assert seen == [(True, "<a>", {"image": 0.7, "text": 0.3})] * 2
    assert "norm=True how=&lt;a&gt; w=(image=0.7 text=0.3)</b>" in run.panel._used.value


# -- the view of a training --------------------------------------------------------------------------------------------

def viewed(view, **more):
    model = Model()
    return training(model, view=lambda: view(model), **more)


def test_a_view_is_drawn_at_the_start_at_every_evaluation_and_at_the_end(monkeypatch):
    def run_it():
        at = []
        run = viewed(lambda model: at.append(len(model.seen)) or live.note("看", f"seen {at}"))
        run.start()
        return run, at

    run, at = run_it()
    assert at == [0, 15, 30, 40]
    assert run.panel.widget.children[-1].value.count("seen [0, 15, 30, 40]") == 1
    monkeypatch.setenv("MM_LIVE", "1")

    async def watch():
        run, at = run_it()
        await run.wait()
        return at

    assert asyncio.run(watch()) == at


def test_a_view_needs_no_evaluation_and_with_nobody_watching_nothing_in_between(monkeypatch):
    monkeypatch.setattr("mmlessons.live.run.LOOK_PAUSE", 0)
    at, model = [], Model()
    live.Training(model.step, 7, [LOSS], every=5, reset=model.reset, view_every=1,
                  view=lambda: at.append(len(model.seen)) or live.note("看", "look")).start()
    assert at == [0, 5, 7]


def test_between_evaluations_a_view_is_drawn_now_and_then_and_not_at_every_step(watched, monkeypatch):
    monkeypatch.setattr("mmlessons.live.run.LOOK_PAUSE", 0.1)

    async def watch():
        at = []

        def view(model):
            at.append(time.perf_counter())
            return live.note("看", "look")

        model = Model()
        run = live.Training(lambda: time.sleep(0.002) or model.step(), 300, [LOSS], every=300, reset=model.reset,
                            view=lambda: view(model), view_every=2)
        run.start()
        await run.wait()
        return at

    at = asyncio.run(watch())
    assert 4 <= len(at) <= 60
    assert min(np.diff(at[:-1])) > 0.1  # the last one belongs to the end


def test_an_error_in_a_view_stops_the_training_and_says_so():
    def view(model):
        if len(model.seen) == 15:
            raise RuntimeError("no such layer")
        return live.note("看", "look")

    run = viewed(view)
    with pytest.raises(RuntimeError, match="no such layer"):
        run.start()
    assert run.i == 15
    assert "停在第 15 步" in run.panel._message.value
    with pytest.raises(TypeError, match=r"需要 table、note.*，收到 int"):
        viewed(lambda model: 3).start()


# -- pictures ----------------------------------------------------------------------------------------------------------

def pixels(drawn):
    return np.asarray(Image.open(io.BytesIO(drawn.png)).convert("RGB")).astype(int)


def near(image, colour, distance=60):  # marks let a little of the paper through
    """Where a picture has this colour: the mean column and row, as parts of its width and height."""
    wanted = [int(colour[k:k + 2], 16) for k in (1, 3, 5)]
    rows, columns = np.nonzero(np.abs(image - wanted).sum(-1) < distance)
    return columns.mean() / image.shape[1], rows.mean() / image.shape[0]


def test_points_stand_where_they_belong_in_the_colour_of_their_class():
    names = [MODALITIES["image"], MODALITIES["text"]]
    drawn = live.scatter([[0.1, 0.9], [0.9, 0.2]], [0, 1], names, colours=["image", "text"], limits=((0, 1), (0, 1)))
    assert near(pixels(drawn), COLOURS["image"]) == pytest.approx((0.13, 0.13), abs=0.03)
    assert near(pixels(drawn), COLOURS["text"]) == pytest.approx((0.87, 0.77), abs=0.03)


def test_links_are_drawn_and_marks_differ_in_shape_and_not_in_colour_alone():
    points, names = [[0, 0], [1, 1]], [("甲", "a"), ("乙", "b")]
    bare = live.scatter(points, [0, 1], names)
    assert live.scatter(points, [0, 1], names, links=[(0, 1)]).png != bare.png
    digits, words = ([live.scatter(points, [0, 1], names) for names in (["7", "八"], ["seven", "eight"])])
    assert ("mm-key" in digits.html, "mm-key" in words.html) == (False, True)  # single characters are the marks
    grey = [live.scatter([[0, 0]], [k], names, colours=["#333", "#333"]).png for k in (0, 1)]
    assert grey[0] != grey[1]


def test_a_picture_says_in_both_languages_what_it_shows_and_its_text_is_its_title():
    drawn = live.scatter([[0, 0]] * 3, [0, 1, 0], [("猫", "cat <b>"), ("狗", "dog")], title=("嵌入", "embeddings"))
    alt = re.search(r'<img class="mm-figure" alt="([^"]*)"', drawn.html)[1]
    assert alt == "嵌入：3 个点，2 类（猫, 狗） / embeddings: 3 points of 2 classes (cat &lt;b&gt;, dog)"
    assert repr(drawn) == "嵌入 / embeddings"
    assert repr(live.scatter([[0, 0]], [0], ["a"])) == "散点图 / scatter plot"


def test_a_picture_is_a_widget_to_a_cell_so_that_no_pixel_is_compared_as_text():
    assert live.stack(live.gallery([live.Card(RED)]), live.table(["a"], [[1.0]]))._repr_html_ is None
    for drawn in (live.scatter([[0, 0]], [0], ["a"]), live.picture([[0.0, 1.0]], ("矩阵", "matrix")),
                  live.beside(live.picture([[0.0]]), live.note("看", "look"))):
        shown = drawn._repr_mimebundle_()
        assert set(shown) == {"application/vnd.jupyter.widget-view+json", "text/plain", "image/png"}
        assert shown["text/plain"] == drawn.text
        assert base64.b64encode(shown["image/png"]).decode() in drawn.html


@pytest.mark.parametrize(("arguments", "said"), [
    ({"points": [[0, 0, 0]]}, r"points 需要形状 \(N, 2\)，收到 \(1, 3\)"),
    ({"labels": [0, 1]}, "1 points need 1 labels between 0 and 1, got .0, 1."), ({"labels": [2]}, "got .2."),
    ({"points": [[0, np.nan]]}, "holds NaN or infinity"), ({"colours": ["red"]}, "2 classes need 2 colours"),
])
def test_what_cannot_be_scattered_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        live.scatter(**{"points": [[0, 0]], "labels": [0], "names": ["a", "b"], **arguments})


def test_four_hundred_points_are_drawn_fast_enough_to_follow_a_slider():
    rng = np.random.default_rng(0)
    points, labels = rng.normal(size=(400, 2)), rng.integers(0, 10, 400)
    took = []
    for _ in range(8):
        began = time.perf_counter()
        live.scatter(points, labels, list("0123456789"))
        took.append(time.perf_counter() - began)
    assert min(took) < 0.1  # 16 ms where it was measured; a busy machine may take longer


def test_a_matrix_is_darker_where_it_is_larger_and_cells_keep_their_edges():
    image = pixels(live.picture([[0.0, 0.25], [0.5, 1.0]], size=40)).sum(-1)
    assert [len(np.unique(image[rows, columns])) for rows in (slice(20), slice(20, 40))
            for columns in (slice(20), slice(20, 40))] == [1] * 4
    assert image[0, 0] > image[0, -1] > image[-1, 0] > image[-1, -1]


def test_fixed_ends_make_two_matrices_comparable():
    one, other = (pixels(live.picture([[value, 0.5]], low=0, high=1))[0, -1] for value in (0.0, 1.0))
    assert (one == other).all()
    assert len(np.unique(pixels(live.picture(torch.full((1, 2), 3.0, requires_grad=True))))) > 0  # one value, no range
    with pytest.raises(ValueError, match="low ≤ high wanted"):
        live.picture(np.eye(2), low=1, high=0)
    with pytest.raises(ValueError, match=r"two dimensions, got shape \(3,\)"):
        live.picture([1.0, 2.0, 3.0])


# -- charts ------------------------------------------------------------------------------------------------------------

def chart(**more):
    return live.chart(**{"title": ("准确率", "accuracy"), "x": ("噪声", "noise"), "at": [0, 1, 2],
                         "lines": {("图像", "image"): [1, 0.5, 0.2], ("文字", "text"): [0.9, 0.9, 0.9]}, **more})


def test_a_chart_names_everything_in_both_languages_and_has_all_its_glyphs():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = chart(levels={("随机", "chance"): 0.1})
    assert 'alt="准确率：噪声; 图像, 文字, 随机 / accuracy: noise; image, text, chance"' in drawn.html
    assert repr(drawn) == "准确率 / accuracy"


def test_each_part_of_a_chart_can_be_seen():
    plain = chart().png
    line = {("图像", "image"): ([0.8, 0.4, 0.1], [1, 0.6, 0.3])}
    for more in ({"bands": line}, {"levels": {("随机", "chance"): 0.3}}, {"ylim": (0, 2)},
                 {"colours": {("图像", "image"): "sound"}}):
        assert chart(**more).png != plain
    assert chart().png == plain


def test_a_legend_of_eight_lines_makes_the_chart_higher_and_covers_none():
    lines = {(f"第 {k} 种融合的准确率", f"accuracy of fusion {k}"): [0, 0.5, 1] for k in range(8)}
    tall, low = pixels(chart(lines=lines)), pixels(chart())
    assert tall.shape[0] > low.shape[0] + 60
    assert legend_columns(list(lines), 1600) == 3
    assert legend_columns(list(lines), 300) == 1


@pytest.mark.parametrize(("arguments", "said"), [
    ({"lines": {}}, "需要 1 到 8 条线，收到 0 / 1 to 8 lines"), ({"at": [0, 1]}, "image needs 2 values, got 3"),
    ({"bands": {("声", "sound"): ([], [])}}, "needs 3 values, got 0"),
    ({"title": "accuracy"}, "title must be .Chinese, English"),
    ({"colours": {("声", "sound"): "red"}}, "声 / sound.* 不是任何一条线"),
])
def test_a_chart_that_cannot_be_drawn_is_refused(arguments, said):
    with pytest.raises((ValueError, TypeError), match=said):
        chart(**arguments)


# -- shares, rows of results, sounds -----------------------------------------------------------------------------------

PARTS = [(name, which) for which, name in MODALITIES.items()]


def test_bars_have_one_colour_or_each_its_own():
    rows = [(("看", "seen"), 0.5), (("合", "together"), 1.0)]
    assert re.findall(r"width:([\d.]+)%;background:(#\w+)", live.bars(rows, colour=["image", "#5B4FA2"]).html) == [
        ("50.0", COLOURS["image"].lower()), ("100.0", "#5b4fa2")]
    assert re.findall(r"background:(#\w+)", live.bars(rows, colour="#123456").html) == ["#123456"] * 2
    with pytest.raises(ValueError, match="2 bars need 2 colours, got 1"):
        live.bars(rows, colour=["image"])


def test_shares_fill_their_part_of_the_width_and_say_their_numbers():
    shown = live.shares([(("干净", "clean"), [0.5, 0.25, 0])], PARTS, title=("权重", "weights"), total=2)
    assert re.findall(r"width:([\d.]+)%", shown.html) == ["25.00", "12.50"]  # nothing is drawn for nothing
    assert repr(shown) == "权重 / weights\n干净 / clean: 图像 / image 0.50, 文字 / text 0.25, 声音 / sound 0.00"
    assert f"background:{COLOURS['text'].lower()};color:#000" in shown.html  # ink that stands out on every modality
    assert f"background:{COLOURS['image'].lower()};color:#fff" in shown.html


def test_neighbours_too_narrow_for_their_numbers_do_not_write_over_each_other():
    html = live.shares([("a", [0.01, 0.02, 0.03])], PARTS).html
    assert re.findall(r'class="mm-share( [^"]*|)"', html) == ["", " mm-below", " mm-crowded"]


@pytest.mark.parametrize(("values", "said"), [
    ([0.5, 0.5], "needs 3 numbers, got 2"), ([0.5, 0.5, 0.5], "和不超过 1"), ([-0.1, 0.5, 0.5], "not negative"),
])
def test_shares_that_do_not_fit_are_refused(values, said):
    with pytest.raises(ValueError, match=said):
        live.shares([("a", values)], PARTS)


def test_results_stand_side_by_side_and_keep_their_texts():
    both = live.beside(live.note("左", "left"), live.gallery([live.Card(RED)]), live.note("右", "right"))
    assert repr(both) == "左 / left\n右 / right"
    assert both.html.count("<div class=\"mm") >= 4
    below = live.stack(live.note("一", "one"), live.bars([("b", 0.5)]))
    assert below.html.index("one") < below.html.index("mm-bars")
    assert repr(below) == "一 / one\nb  0.50"
    for wrong in ((), (3,)):
        with pytest.raises((ValueError, TypeError), match=r"(wanted|must be)"):
            live.beside(*wrong)


def tone():
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(200))
    return out.getvalue()


def test_a_sound_can_be_played_and_is_named_for_those_who_do_not_see():
    shown = live.gallery([live.Card(RED, ("七", "seven"), sound=tone())]).value
    assert f'src="data:audio/wav;base64,{base64.b64encode(tone()).decode()}"' in shown
    assert '<audio controls preload="metadata" aria-label="七 / seven"' in shown
    assert "<audio controls" in live.gallery([live.Card(sound=tone())]).value


@pytest.mark.parametrize("wav", [b"RIFF", b"\xff\xfb mp3", "seven.wav"])
def test_what_is_no_sound_is_refused(wav):
    with pytest.raises(TypeError, match=r"(sound 需要是|声音需要是 WAV 文件的字节).* / .*must be"):
        live.Card(RED, sound=wav)


# -- cards, search, tables ---------------------------------------------------------------------------------------------

RED = np.full((3, 8, 8), 200, np.uint8)


def test_a_gallery_shows_captions_marks_and_alternative_texts_in_both_languages():
    cards = [live.Card(torch.from_numpy(RED), ("猫 <b>", "cat & dog"), True), live.Card(RED.T, ("狗", "dog"), False),
             live.Card(RED[0])]  # three layouts
    shown = live.gallery(cards, title=("最近的", "nearest")).value
    assert shown.count("data:image/png") == 3
    dot = '<span class="mm-dot"> · </span>'  # where no style can put it: GitHub, say
    assert f'<span lang="zh">猫 &lt;b&gt;{dot}</span><span lang="en">cat &amp; dog</span>' in shown
    assert 'alt="猫 &lt;b&gt; / cat &amp; dog"' in shown
    assert "✓" in shown
    assert "错误 / wrong" in shown
    assert '<span lang="en">nearest</span>' in shown


def test_the_text_form_of_every_widget_is_the_same_from_run_to_run():
    assert repr(live.gallery([live.Card(RED)])) == repr(live.gallery([live.Card(255 - RED)]))
    assert repr(training(Model()).panel.widget) == repr(training(Model(), steps=7).panel.widget)
    assert repr(live.weights(MODALITIES)) == repr(live.weights(MODALITIES, {"image": 1, "text": 0, "sound": 0}))


@pytest.mark.parametrize(("picture", "said"), [
    (np.zeros((3, 8, 8)), "a picture must be uint8, got float64"), (np.zeros((2, 8, 8), np.uint8), r"got \(2, 8, 8\)"),
    (np.zeros((0, 8), np.uint8), r"got \(0, 8\)"), (None, "a picture or a caption"),
])
def test_what_is_no_picture_is_refused(picture, said):
    with pytest.raises((ValueError, TypeError), match=said):
        live.Card(picture)


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


def test_a_table_shows_several_numbers_as_a_range_and_each_column_to_its_own_places():
    table = live.table(["", "a", "b"], [["x", [0.5, -0.25], torch.tensor([0.1234, 0.1234])], ["y", -0.001, 0.5]],
                       digits=(2, 2, 3))
    assert [line.split() for line in repr(table).split("\n")[1:]] == [
        ["x", "−0.25", "–", "0.50", "0.123", "–", "0.123"], ["y", "0.00", "0.500"]]
    with pytest.raises(ValueError, match="每行需要 2 格，收到 1 / each row needs 2 cells, got 1"):
        live.table(["a", "b"], [["x"]])


# -- the page ---------------------------------------------------------------------------------------------------------

def test_the_page_is_the_same_every_time(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr("mmlessons.live.language.display", lambda output: shown.append(output.data))
    live.page()
    live.page()
    assert shown[0] == shown[1]
    assert [f'value="{choice}"' in shown[0] for choice in ("zh", "en", "both")] == [True] * 3
    assert capsys.readouterr().out == ""


def asked(monkeypatch, **request):
    """As if a front end had asked a kernel to run this cell."""
    request = {"metadata": {}, "content": {}} | request
    monkeypatch.setattr(kernel, "get_ipython", lambda: SimpleNamespace(
        kernel=SimpleNamespace(get_parent=lambda channel: request)))


@pytest.mark.parametrize("can_answer", [True, False])
def test_a_person_watches_where_the_front_end_says_that_somebody_could_answer(monkeypatch, can_answer):
    asked(monkeypatch, content={"allow_stdin": can_answer})
    monkeypatch.delenv("MM_LIVE", raising=False)
    assert live.is_live() is can_answer
    for chosen in (0, 1):
        monkeypatch.setenv("MM_LIVE", str(chosen))
        assert live.is_live() is bool(chosen)


def test_voila_shows_its_page_to_a_person_though_nobody_can_answer_and_outside_a_kernel_nobody_watches(monkeypatch):
    monkeypatch.delenv("MM_LIVE", raising=False)
    assert not live.is_live()
    monkeypatch.setenv("VOILA_REQUEST_URL", "http://127.0.0.1/voila/render/lesson.ipynb")
    assert not live.is_live()
    asked(monkeypatch, content={"allow_stdin": False})
    assert live.is_live()


def test_where_nobody_watches_the_bar_moves_and_one_sentence_says_why_it_ran_to_its_end():
    seen = []

    def step():
        time.sleep(0.002)
        return {"loss": 1.0}

    training = live.Training(step, 300, [LOSS])
    training.panel._progress.observe(lambda change: seen.append(change.new), "value")
    training.start()
    assert len({re.search(r'value="(\d+)"', bar)[1] for bar in seen}) > 3
    assert "Nobody was watching" in training.panel._message.value
    assert not training.panel._start_button.disabled  # a press says it again
    training.panel._start_button.click()
    assert "Nobody was watching" in training.panel._message.value


@pytest.mark.parametrize(("metadata", "cell"), [({"cellId": "a1"}, "a1"), ({}, "run.start()")])
def test_a_cell_that_has_no_id_is_known_by_its_code(monkeypatch, metadata, cell):
    """Two trainings of one notebook do not replace each other where a front end sends no ids."""
    asked(monkeypatch, metadata=metadata, content={"code": "run.start()"})
    assert kernel.running_cell() == cell


def test_importing_mmcore_does_not_import_live():
    code = "import sys, mmcore; print([m for m in ('mmlessons.live', 'ipywidgets', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


BARE_MACHINE = """
import warnings
import matplotlib.font_manager as fonts
real = fonts.findSystemFonts                          # below: no font but what a package brings
fonts.findSystemFonts = lambda paths=None, **more: real(paths, **more) if paths else []
fonts.fontManager = fonts.FontManager()
warnings.simplefilter("error")                        # a missing glyph is a warning of matplotlib
from mmlessons import live
from mmlessons.live import panel
title = ("损失、准确率（左→右）、注意力 α·β ≥ 0", "retrieval, τ ≤ 0.5")
drawn = live.chart(title, ("步", "step"), [0, 1, 2], {("验证集", "validation"): [0.1, 0.5, 0.9]})
played = live.Card(caption=("一声狗叫", "a bark"), sound=b"RIFF" + bytes(4) + b"WAVE")
print(len(drawn.png) > 5000, "一声狗叫 / a bark" in played.html())
"""


def test_a_machine_without_fonts_display_or_sound_draws_chinese_and_says_what_would_be_heard(tmp_path):
    env = {"PATH": os.defpath, "HOME": str(tmp_path), "MPLCONFIGDIR": str(tmp_path), "FONTCONFIG_FILE": os.devnull,
           "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUTF8": "1"}  # no DISPLAY, no player
    run = subprocess.run([sys.executable, "-c", BARE_MACHINE], env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "True True\n"


# -- claims and source -------------------------------------------------------------------------------------------------

BETTER = ("甲比乙高", "a is above b")


def test_claims_that_hold_give_a_sentence_that_is_the_same_everywhere_and_numbers_that_open():
    bundle = live.claims((BETTER, [0.61, 0.64], ">", 0.5), (BETTER, 0.3, "in", (0.1, 0.5)), say=BETTER
                         )._repr_mimebundle_()
    assert bundle["text/plain"] == "✓ 甲比乙高 / a is above b"
    assert "0.6" not in bundle["text/html"]  # nbval compares this text, and another processor has another last digit
    assert "application/vnd.jupyter.widget-view+json" in bundle


@pytest.mark.parametrize(("values", "sign", "line"), [
    ([0.6, 0.4], ">", 0.5), ([0.6, 0.4], ">", [0.5, 0.5]), ({"a": 1, "b": 3}, "<", 2), (0.5, ">", 0.5),
    (float("nan"), ">", 0), (0.5, "<", 0.5), (0.4, "≥", 0.5), (0.6, "≤", 0.5), (1, "=", 2), (1, "≠", 1),
    (0.5, "≈", 0.501), (0.5, "in", (0.5, 1)), (torch.tensor([0.6, 0.4]), ">", 0.5), (False, "=", True)])
def test_a_claim_that_fails_for_one_value_fails_and_says_which(values, sign, line):
    with pytest.raises(AssertionError, match="a is above b: does not hold"):
        live.claims((BETTER, values, sign, line))


def test_a_claim_about_an_interval_holds_for_the_whole_of_it():
    score = Interval(0.6, 0.5, 0.7)
    assert "0.60 [0.50, 0.70]" in live.claims((BETTER, score, ">", 0.45)).inside
    live.claims((BETTER, [score, score], "in", (0.4, 0.8)), (BETTER, score, "<", 0.75), say=BETTER)
    for sign, line in ((">", 0.55), ("<", 0.65), ("in", (0.55, 0.8)), ("in", (0.4, 0.65))):
        with pytest.raises(AssertionError, match="不成立"):
            live.claims((BETTER, score, sign, line))
    with pytest.raises(TypeError, match=r"不能比较.* / .*cannot be compared"):
        live.claims((BETTER, score, "≈", 0.6))


def test_tables_and_bars_show_an_interval_with_its_number():
    score = Interval(0.6, -0.5, 0.7)
    assert live.table(["a"], [[score]]).text.endswith("0.60 [−0.50, 0.70]")
    drawn = live.bars([("a", Interval(0.6, 0.5, 0.7)), ("b", 0.2)])
    assert drawn.text == "a  0.60 [0.50, 0.70]\nb  0.20"
    assert "left:50.0%;width:20.0%" in drawn.html
    with pytest.raises(ValueError, match="a 需要在 0 与 1 之间"):
        live.bars([("a", score)])


def test_claims_refuse_what_would_check_nothing_and_do_not_judge_a_training_that_was_steered():
    assert "not checked" in live.claims((BETTER, 0, ">", 1), given=False)._repr_mimebundle_()["text/plain"]
    for rows, more in (((), {}), (((BETTER, [], ">", 0),), {}), (((BETTER, [1, 2, 3], ">", [0, 0]),), {}),
                       (((BETTER, 1, "above", 0),), {}), (((BETTER, 1, ">", 0), (BETTER, 2, ">", 0)), {})):
        with pytest.raises(ValueError, match=r"[a-z]"):
            live.claims(*rows, **more)


def test_source_shows_the_lines_that_run_without_their_docstring():
    shown = repr(live.source(optimize, live.Card))
    assert "optimizer.step()" in shown
    assert "class Card" in shown
    assert '"""' not in shown
    with pytest.raises(TypeError, match="has no source"):
        live.source(len)


@pytest.mark.parametrize(("draw", "said"), [
    (lambda: live.scatter([[0.0, 0.0]], [0], [("甲", "a")], links=[(0, 1)]), "links must number points"),
    (lambda: live.scatter([[0.0, 0.0]], [0], [("甲", "a")], limits=((1, 0), (0, 1))), "limits must be"),
    (lambda: live.chart(("图", "chart"), ("横", "x"), [0, math.inf], {("甲", "a"): [0, 1]}), "must be finite"),
])
def test_what_cannot_be_drawn_is_refused(draw, said):
    with pytest.raises(ValueError, match=said):
        draw()
