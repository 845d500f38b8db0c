"""做出话语数据 / Make the utterances data.

    python -m makers.utterances

The sentences are in mmlessons/data/utterances/assets/sentences.tsv. Change that file and run this script: it splits
them again by its seed and writes the voices, the list of faces and the manifest.

句子写在 mmlessons/data/utterances/assets/sentences.tsv 里。改动它，再运行这个脚本：它按种子重新分出训练、验证与测试，
写出嗓音、脸的名单和清单。
"""

import argparse
import dataclasses
import json
import random

from mmlessons.data import files
from mmlessons.data.utterances import ASSETS, EXPRESSIONS, ROLES, VERSION, Sentence, Voice, read_sentences

SEED = 7
SHARES = {"validation": 0.16, "test": 0.20}  # of each group of like sentences; the rest is for training
VOICES = {"train": 14, "validation": 4, "test": 6}
# 画脸的作者 / who drew the faces; EmojiOne 1 and 2 are kept on one side
ARTISTS = {"train": ["noto", "noto-v1", "fluent"], "validation": ["emojione", "emojione-v1"], "test": ["twemoji"]}
# 脸算作什么；后两列训练时没有 / what each face counts as; those of validation and test are not in training
FACES = {
    "negative": {"train": "😠🙁😢😞😣😟😤😫", "validation": "😖", "test": "😡😩"},
    "neutral": {"train": "😐😶😮🤔", "validation": "😯", "test": "😑"},
    "positive": {"train": "😀😄😁😂🙂😊😍😇", "validation": "😃", "test": "😆😋"},
    "wry": {"train": "😏😉🙃😜🙄", "validation": "😝", "test": "😛"},
}


def split(sentences: list[Sentence]) -> list[Sentence]:
    """每一组（字面、意思相同）按同样的比例分 / Every group of like words and meaning is split in the same shares."""
    draw, roles = random.Random(SEED), {}
    groups: dict[tuple[str, str], list[str]] = {}
    for sentence in sentences:
        groups.setdefault((sentence.words, sentence.meant), []).append(sentence.en)
    for group in groups.values():
        order = draw.sample(group, len(group))
        for role, share in SHARES.items():
            count = round(share * len(group))
            roles |= dict.fromkeys(order[:count], role)
            order = order[count:]
    return [dataclasses.replace(sentence, role=roles.get(sentence.en, "train")) for sentence in sentences]


def voices() -> list[dict]:
    """每个嗓音的基频、起伏、快慢与抖动 / The base, range, tempo and jitter of each voice."""
    draw, found = random.Random(SEED + 1), []
    for role in ROLES:
        for k in range(VOICES[role]):
            found.append(Voice(f"{role}-{k + 1}", role, base=round(85 * 3 ** draw.random(), 1),
                               range=round(draw.uniform(0.7, 1.4), 2), tempo=round(draw.uniform(0.85, 1.2), 2),
                               jitter=round(draw.uniform(0.2, 0.7), 2)))
    return [dataclasses.asdict(voice) for voice in found]


def main() -> None:
    table = (ASSETS / "sentences.tsv").read_text("utf-8").replace("\n-\t", "\ntrain\t")  # - : not yet in a split
    sentences = split(read_sentences(table))
    open_share = sum(s.kind == "open" for s in sentences) / len(sentences)
    assert len(sentences) >= 400
    assert open_share >= 0.25
    assert tuple(FACES) == EXPRESSIONS
    lines = ["\t".join(("role", "words", "meant", "zh", "en")), *("\t".join(dataclasses.astuple(s)) for s in sentences)]
    as_json = {"faces.json": {"artists": ARTISTS, "faces": FACES}, "voices.json": voices()}
    content = {"sentences.tsv": ("\n".join(lines) + "\n").encode()}
    for name, value in as_json.items():
        content[name] = (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()
    counts = {role: sum(s.role == role for s in sentences) for role in ROLES}
    files.write(ASSETS, {"version": VERSION, "sentences": counts, "open": round(open_share, 3)}, content)


if __name__ == "__main__":
    argparse.ArgumentParser(description="split the sentences and write the utterances data").parse_args()
    main()
