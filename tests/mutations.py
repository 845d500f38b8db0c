"""变异：把代码弄坏一处，看测试会不会失败 / Mutations: break the code in one place and see whether a test fails.

    python tests/mutations.py              # all of them, prints the score
    python tests/mutations.py tau early    # those whose name contains one of these

每个变异把一行换成一个疲惫的人会写错的样子，放进 mmcore 的一份副本里，再运行守着它的测试。测试失败，变异就被抓住了；
全部通过，说明有一句话没有测试守着。`tests/test_mutations.py` 每次运行其中轮到的几个。

Each mutation writes one line as a tired contributor might, into a copy of mmcore, and runs the tests that guard it. If
they fail, it was caught; if they pass, some line is guarded by nothing. `tests/test_mutations.py` runs a few of them
each time, in turn.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Mutation:
    """`old` → `new` 在 `file` 里，应当让 `tests` 失败 / in `file`, should make `tests` fail.

    `fault`：最初设计里的第几个错 / which fault of the first design it is.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str
    fault: int | None = None


ALIGNMENT, FUSION, TRAINING = "alignment.py", "fusion.py", "training.py"
MODEL, TRAINER, GENERATION = "vision_language.py", "vision_language_training.py", "generation.py"
ENCODERS, RANKING, LESSON = "encoders.py", "ranking.py", "lesson.py"
RETRIEVAL, NAMING = "applications/retrieval.py", "applications/naming.py"
CAPTIONING, CAPTIONS = "applications/captioning.py", "data/scenes/captions.py"
ALIGNING, RECOGNITION = "applications/alignment.py", "applications/digit_recognition.py"

MUTATIONS = [
    # -- the seventeen faults of the first design, each put back -------------------------------------------------------
    Mutation("projections made anew at each call", FUSION,
             "for project, f_i in zip(self.projections, features, strict=True)]",
             "for project, f_i in zip([nn.Linear(d, self.output_dim) for d in self.feature_dims], features, "
             "strict=True)]", "test_fusion", 1),
    Mutation("attention over a single token", ALIGNMENT, 'return _scaled_products(a, b).softmax(1)',
             "return _scaled_products(a, b).unsqueeze(-1).softmax(-1).squeeze(-1)", "test_alignment", 2),
    Mutation("semantic alignment is a negative mean cosine", ALIGNMENT,
             "return -(y.to(logits) * logits.log_softmax(1)).sum() / len(logits)",
             "return -F.cosine_similarity(a, b[:len(a)]).mean()", "test_alignment", 3),
    Mutation("no single sum in (1.3): text passes its own activation", MODEL,
             "return sigma(torch.addmm(F.linear(f_v, W_v, b), f_t, W_t.T))",
             "return sigma(F.linear(f_v, W_v, b)) + sigma(f_t @ W_t.T)", "test_vision_language", 4),
    Mutation("generation has no share in (1.4)", MODEL,
             "return alpha * L_cls + beta * L_retrieval + gamma * L_generation",
             "return alpha * L_cls + beta * L_retrieval", "test_vision_language", 5),
    Mutation("retrieval loss without a temperature", TRAINER,
             'contrastive_loss(out["retrieval_v"], out["retrieval_t"], self.tau, positives)',
             'contrastive_loss(out["retrieval_v"], out["retrieval_t"], 1.0, positives)', "test_vision_language", 6),
    Mutation("attention weights replaced by a mean", FUSION, "return torch.stack(scores, -1).softmax(-1)",
             "return torch.full_like(torch.stack(scores, -1), 1 / len(scores))", "test_fusion", 7),
    Mutation("a fourth modality is dropped in silence", FUSION,
             "scores = [f_i @ W_i for f_i, W_i in zip(features, W_g.unbind(), strict=True)]",
             "scores = [f_i @ W_i for f_i, W_i in zip(features[:3], W_g.unbind(), strict=False)]", "test_fusion", 8),
    Mutation("a mean over the width for a sum", ALIGNMENT, "return (a - b).square().sum() / len(a)",
             "return (a - b).square().mean()", "test_alignment", 9),
    Mutation("the score counts ties as hits", RANKING, "return 1 + ((best <= S) & ~positives).sum(1)",
             "return 1 + ((best < S) & ~positives).sum(1)", "test_ranking", 10),
    Mutation("pictures of noise", RETRIEVAL,
             'return torch.stack([data.pictures[artist] for artist in data.by_role("train")])',
             'return torch.randint_like(torch.stack([data.pictures[artist] for artist in data.by_role("train")]), 256)',
             "test_retrieval", 11),
    Mutation("no loss for each fusion of its own", TRAINING,
             "total = final + sum(own.values()) / len(own) + self.pull * pull", "total = final + self.pull * pull",
             "test_fusion", 12),
    Mutation("padding counts in the mean", ENCODERS,
             "return self.normalise(self.project((states * real).sum(1) / real.sum(1)))",
             "return self.normalise(self.project(states.mean(1)))", "test_encoders", 13),
    Mutation("inputs are never moved to the device", TRAINING,
             "return [f_i.to(self.device) for f_i in features], targets.to(self.device)",
             "return list(features), targets", "test_fusion", 14),
    Mutation("early fusion has nothing between its layers", FUSION,
             "return self.outer(F.gelu(self.inner(torch.cat(list(features), -1))))",
             "return self.outer(self.inner(torch.cat(list(features), -1)))", "test_fusion", 15),
    Mutation("(2.2) falls by shrinking", ALIGNMENT, "feature = feature_alignment_loss(a, b, self.normalize)",
             "feature = feature_alignment_loss(a, b, False)", "test_alignment test_aligner", 16),
    Mutation("a repeated caption is a negative", ALIGNMENT,
             "contrastive = contrastive_loss(a, b, self.temperature, positives)",
             "contrastive = contrastive_loss(a, b, self.temperature)", "test_alignment test_aligner", 17),
    # -- what a tired contributor would make ---------------------------------------------------------------------------
    Mutation("tau is multiplied", ALIGNMENT, '(b / (_lengths(b, "b") * tau)).T', '(b / _lengths(b, "b") * tau).T',
             "test_alignment"),
    Mutation("the positive is left out of the denominator", ALIGNMENT,
             "return (F.softplus(rows - positive) + F.softplus(columns - positive)).mean() / 2",
             "return ((rows - positive) + (columns - positive)).mean() / 2", "test_alignment"),
    Mutation("one direction of (2.1) alone", ALIGNMENT,
             "return (_several(S, positives) + _several(S.T, positives.T)) / 2", "return _several(S, positives)",
             "test_alignment"),
    Mutation("a missing square root", ALIGNMENT, "return (a / math.sqrt(a.shape[1])) @ b.T",
             "return (a / a.shape[1]) @ b.T", "test_alignment"),
    Mutation("softmax over the wrong axis", ALIGNMENT, "logits.log_softmax(1)).sum()", "logits.log_softmax(0)).sum()",
             "test_alignment"),
    Mutation("a sign in the sigmoid loss", ALIGNMENT, "torch.where(positives, -logits, logits)",
             "torch.where(positives, logits, -logits)", "test_alignment"),
    Mutation("the gap of features with their lengths", ALIGNMENT,
             'return ((a / _lengths(a, "a")).mean(0) - (b / _lengths(b, "b")).mean(0)).norm()',
             "return (a.mean(0) - b.mean(0)).norm()", "test_alignment"),
    Mutation("beta and gamma change places", ALIGNMENT,
             "self.alpha * contrastive + self.beta * feature + self.gamma * semantic",
             "self.alpha * contrastive + self.gamma * feature + self.beta * semantic", "test_alignment test_aligner"),
    Mutation("both projections are one", ALIGNMENT,
             "return self.projection_A(features_A), self.projection_B(features_B)",
             "return self.projection_A(features_A), self.projection_B(features_B).detach()",
             "test_alignment test_aligner"),
    Mutation("right answers count as kin", ALIGNING, "return (group[first] == group)[wrong].double()",
             "return (group[first] == group).double()", "test_aligner"),
    Mutation("gates compete", FUSION, "return torch.sigmoid(torch.stack(scores, -1) + b_g)",
             "return torch.softmax(torch.stack(scores, -1) + b_g, -1)", "test_fusion"),
    Mutation("a dropped bias", FUSION, "scores = [torch.tanh(F.linear(f_i, W_f, b_f)) @ W_a + b_a for f_i in features]",
             "scores = [torch.tanh(F.linear(f_i, W_f)) @ W_a + b_a for f_i in features]", "test_fusion"),
    Mutation("late weights need not sum to one", FUSION,
             "return self.logits.softmax(0).expand(len(features[0]), -1)",
             "return self.logits.sigmoid().expand(len(features[0]), -1)", "test_fusion"),
    Mutation("the first modality is counted twice", FUSION,
             "for w_i, f_i in zip(others, features[1:], strict=True):",
             "for w_i, f_i in zip(others, features[:-1], strict=True):", "test_fusion"),
    Mutation("the selector changes what it judges", FUSION,
             "adaptive_fusion_weights([f_k.detach() for f_k in candidates], self.W_s, self.b_s)",
             "adaptive_fusion_weights(candidates, self.W_s, self.b_s)", "test_fusion"),
    Mutation("strategies in another order", FUSION,
             'CANDIDATES = ("f_early", "f_attention", "f_gated", "f_late")',
             'CANDIDATES = ("f_late", "f_attention", "f_gated", "f_early")', "test_fusion"),
    Mutation("features of different length are weighed", FUSION,
             "projected = [F.layer_norm(project(f_i), (self.output_dim,))", "projected = [project(f_i)",
             "test_fusion"),
    Mutation("the pull pushes", TRAINING, 'pull = -(len(CANDIDATES) * outputs["pi"].clamp_min(tiny)).log().mean()',
             'pull = (len(CANDIDATES) * outputs["pi"].clamp_min(tiny)).log().mean()', "test_fusion"),
    Mutation("train mode in evaluation", TRAINING, "    model.eval()\n    try:", "    model.train()\n    try:",
             "test_training test_fusion test_retrieval"),
    Mutation("a step that fails leaves its statistics behind", TRAINING, "                buffer.copy_(old)",
             "                pass", "test_training"),
    Mutation("gradients add up from step to step", TRAINING,
             "    optimizer.zero_grad()\n    try:\n        loss = forward()", "    try:\n        loss = forward()",
             "test_training test_fusion"),
    Mutation("infinite losses are walked along", TRAINING, '        checks.finite(loss.detach(), "损失 loss")\n', "",
             "test_training test_fusion test_aligner"),
    Mutation("one direction of retrieval alone", RANKING,
             "return {key: (there[key] + back[key]) / 2 for key in there}", "return there", "test_ranking"),
    Mutation("a wrong chance level", RANKING, '"chance": right / S.shape[1]}', '"chance": right / (S.shape[1] - 1)}',
             "test_ranking"),
    Mutation("the worst of several right answers counts", RANKING,
             "best = S.masked_fill(~positives, -torch.inf).amax(1, keepdim=True)",
             "best = S.masked_fill(~positives, torch.inf).amin(1, keepdim=True)", "test_ranking"),
    Mutation("the decoder sees what it is to write", GENERATION, "seen = F.scaled_dot_product_attention(q, k, v, "
             "is_causal=True)", "seen = F.scaled_dot_product_attention(q, k, v)", "test_generation"),
    Mutation("padding counts as a word to write", GENERATION, "real = wanted != pad",
             "real = torch.ones_like(wanted, dtype=torch.bool)", "test_generation"),
    Mutation("the temperature is multiplied", GENERATION, "_draw(logits / temperature, generator)",
             "_draw(logits * temperature, generator)", "test_generation"),
    Mutation("retrieval by the fused feature", MODEL,
             'out["retrieval_v"] = self.retrieval_head_v(out["f_v"])',
             'out["retrieval_v"] = self.retrieval_head_v(self.fusion(out["f_v"], None)[:, :out["f_v"].shape[1]])',
             "test_vision_language"),
    Mutation("detached features", MODEL, 'out["f_t"] = self.text_encoder(input_ids, attention_mask)',
             'out["f_t"] = self.text_encoder(input_ids, attention_mask).detach()', "test_vision_language"),
    Mutation("a swapped label", NAMING, '"labels": self.task.label[concept],',
             '"labels": self.task.label[concept.flip(0)],', "test_naming"),
    Mutation("what was not given is seen all the same", MODEL, "return f if given is None else",
             "return f if True else", "test_vision_language"),
    Mutation("the name leaks into fusion", NAMING, '"text_given": ~named}', '"text_given": ~named | named}',
             "test_naming"),
    Mutation("a leak from test into train", RETRIEVAL,
             'return torch.stack([data.pictures[artist] for artist in data.by_role("train")])',
             'return torch.stack([data.pictures[artist] for artist in data.by_role("train") + data.by_role("test")])',
             "test_retrieval"),
    Mutation("pictures keep their brightness", ENCODERS,
             "self.standardise: nn.Module = nn.GroupNorm(1, 3, affine=False)", "self.standardise: nn.Module = "
             "nn.Identity()", "test_encoders"),
    Mutation("attention is shared among attentions and not among frames", "temporal.py", "W, b)), w).softmax(1)",
             "W, b)), w).softmax(2)", "test_temporal"),
    Mutation("a reversal keeps its answer", "data/clips/__init__.py", '"motion": facts["motion"] ^ 1,',
             '"motion": facts["motion"],', "test_clips"),
    Mutation("train and test share their paths", "data/clips/__init__.py",
             "len(ROLES) * seed + ROLES.index(self.role)", "len(ROLES) * seed", "test_clips"),
    Mutation("frames are shuffled and their sound is not", "applications/video.py",
             '"sound": _heard_in(seen["sound"], order),', '"sound": seen["sound"],', "test_video"),
    Mutation("asked what it is, the models learn what it does", "applications/video.py",
             'F.cross_entropy(out[f"z_{name}"], seen[self.asks])', 'F.cross_entropy(out[f"z_{name}"], seen["motion"])',
             "test_video"),
    Mutation("an arrow too few is no fault of a diagram", LESSON, "                arrows.add((name_of[source], name))",
             "                arrows.add((name_of[source], name)) if source.moment % 2 else None", "test_lesson"),
    Mutation("an exercise passes half right", LESSON, "    wrong = (~torch.isclose(x, wanted, rtol=1e-4, atol=1e-7))"
             ".nonzero()", "    wrong = (~torch.isclose(x, wanted, rtol=1e-4, atol=1e-7))[:1].nonzero()",
             "test_lesson"),
    # -- captions ---------------------------------------------------------------------------------------------------
    Mutation("the features of a prefix have no places", GENERATION, "x = x + self.place.weight[:x.shape[1]]",
             "x[:, self.prefix:] += self.place.weight[self.prefix:x.shape[1]]", "test_generation"),
    Mutation("beam search forgets the sum so far", GENERATION,
             "new_total = total.to(log_p).unsqueeze(2) + torch.where(done.unsqueeze(2), stay, log_p)",
             "new_total = torch.where(done.unsqueeze(2), stay, log_p)", "test_generation"),
    Mutation("a finished text goes on growing longer", GENERATION, "new_length = length + ~done",
             "new_length = length + 1", "test_generation"),
    Mutation("the second stage goes on changing the encoder", CAPTIONING,
             "found = train_on(self.model if learns_to_see else self.model.decoder, self.say_optimizer, losses, "
             '"L_caption")', 'found = train_on(self.model, self.say_optimizer, losses, "L_caption"); '
             "self.see_optimizer.step()", "test_captioning"),
    Mutation("in a single stage the eyes do not learn", CAPTIONING,
             "if self.naming_steps == 0:  # a single stage", "if self.naming_steps < 0:  # a single stage",
             "test_captioning"),
    Mutation("right sentences of mistaken scenes count among those all named", CAPTIONING,
             "int((exact & whole).sum())", "int(exact.sum())", "test_captioning"),
    Mutation("a sentence right but for its end counts as exact", CAPTIONING,
             "return (hit | ~real).all(1), hit[real]", "return (hit | ~real | (wanted == 3)).all(1), hit[real]",
             "test_captioning"),
    Mutation("left and right of the thing named first are exchanged", CAPTIONS,
             "return RELATIONS.get((cell // 2 - first // 2, cell % 2 - first % 2), (\"\", \"\"))",
             "return RELATIONS.get((cell // 2 - first // 2, first % 2 - cell % 2), (\"\", \"\"))", "test_scenes"),
]


def caught(mutation: Mutation) -> bool:
    """弄坏一份副本，运行它的测试；失败就是抓住了 / Break a copy, run its tests; caught if they fail.

    Raises: RuntimeError 测试没能运行 / if the tests could not be run at all.
    """
    with tempfile.TemporaryDirectory(prefix="mm-mutation-") as folder:
        copy = Path(folder)
        shutil.copytree(ROOT / "mmcore", copy / "mmcore", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "tests", copy / "tests", ignore=shutil.ignore_patterns("__pycache__", "artifacts"))
        shutil.copytree(ROOT / "notebooks", copy / "notebooks", ignore=shutil.ignore_patterns(".*"))
        for name in ("conftest.py", "pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, copy / name)
        file = copy / "mmcore" / mutation.file
        file.write_text(mutate(file.read_text("utf-8"), mutation), "utf-8")
        tests = [f"tests/{name}.py" for name in mutation.tests.split()]
        run = subprocess.run([sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", *tests],
                             cwd=copy, env={**os.environ, "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"},
                             capture_output=True, text=True)
    if run.returncode not in (0, 1):
        said = run.stdout[-2000:] + run.stderr[-2000:]
        raise RuntimeError(f"{mutation.name}: pytest ended with {run.returncode}\n{said}")
    return run.returncode == 1


def mutate(source: str, mutation: Mutation) -> str:
    """一处，不多不少 / In one place, neither more nor fewer.

    Raises: ValueError 那一行不在了，或不止一处 / if the line is gone, or is there more than once.
    """
    found = source.count(mutation.old)
    if found != 1:
        raise ValueError(f"{mutation.name}: {mutation.file} holds {found} of {mutation.old!r}, expected 1")
    return source.replace(mutation.old, mutation.new)


def main() -> None:
    chosen = [m for m in MUTATIONS if not sys.argv[1:] or any(word in m.name for word in sys.argv[1:])]
    survivors = []
    for mutation in chosen:
        ok = caught(mutation)
        print("caught  " if ok else "SURVIVED", mutation.name, flush=True)
        survivors += [] if ok else [mutation.name]
    print(f"{len(chosen) - len(survivors)} / {len(chosen)}")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
