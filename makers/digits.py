"""重做数字数据 / Make the digits data again.

The handwriting is scikit-learn's, the sound is spoken by espeak-ng 1.51.

手写数字来自 scikit-learn，声音由 espeak-ng 1.51 说出。

    apt-get install espeak-ng
    pip install scikit-learn==1.9.1
    python -m makers.digits
"""

import argparse
import io
import itertools
import json
import re
import subprocess
import tempfile
import wave

import numpy as np
import sklearn
import torch
from PIL import Image
from sklearn.datasets import load_digits

from mmlessons.data import files
from mmlessons.data.digits import ASSETS, ROLES, VERSION
from mmlessons.data.digits.writing import BYTES
from mmlessons.data.sound import BABBLE_WINDOW, FRAMES, MELS, RATE, mel_power

# Every writer filled in the same form: one sequence of digits returns 14 times, and the blocks end where a form ends.
# 13 people wrote these pictures (UCI), so that one of them must have filled in two forms.
PICTURES = {"train": (0, 1157), "validation": (1157, 1415), "test": (1415, 1797)}
FORMS = {"train": 9, "validation": 2, "test": 3}

VOICES = {  # role: espeak-ng's variants; no two that sound alike (f4 and aunty, klatt and caleb ...) in two roles
    "train": ("m1", "m2", "m4", "f1", "f2", "f3", "Annie", "belinda", "Denis", "Gene", "iven", "klatt", "Michael",
              "quincy", "travis"),
    "validation": ("m8", "linda", "edward"),
    "test": ("Andrea", "Andy", "f5", "pablo", "boris", "norbert"),
}
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-029")
MANDARIN = "cmn-latn-pinyin"  # in 1.51 the voice "cmn" reads 七 as an English "kiwun"
TAKES = ((0, 0), (25, 15), (10, -12))  # added to speed and pitch
CLIP_VOICES = ("m2", "f3", "linda", "Andy", "f5")
WORDS = {"en": ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
         "zh": list("零一二三四五六七八九")}
BABBLE_SECONDS = {"train": 30, "validation": 10, "test": 20}
TALKERS = 6  # at once, half of them in each language

WRITTEN = {kind: words.split() for kind, words in {
    "english": " ".join(WORDS["en"]),
    "title": " ".join(WORDS["en"]).title(),
    "capitals": " ".join(WORDS["en"]).upper(),
    "chinese": "〇 一 二 三 四 五 六 七 八 九",
    "financial": "零 壹 贰 叁 肆 伍 陆 柒 捌 玖",
    "pinyin": "líng yī èr sān sì wǔ liù qī bā jiǔ",
    "toneless": "ling yi er san si wu liu qi ba jiu",
    "roman": "N I II III IV V VI VII VIII IX",  # N, nulla, is Bede's zero
    "arabic digit": "٠ ١ ٢ ٣ ٤ ٥ ٦ ٧ ٨ ٩",
    "devanagari digit": "० १ २ ३ ४ ५ ६ ७ ८ ९",
    "arabic": "صفر واحد اثنان ثلاثة أربعة خمسة ستة سبعة ثمانية تسعة",
    "hindi": "शून्य एक दो तीन चार पांच छह सात आठ नौ",
    "russian": "ноль один два три четыре пять шесть семь восемь девять",
    "greek": "μηδέν ένα δύο τρία τέσσερα πέντε έξι επτά οκτώ εννέα",
    "japanese": "ゼロ いち に さん よん ご ろく なな はち きゅう",
    "korean": "영 하나 둘 셋 넷 다섯 여섯 일곱 여덟 아홉",
    "german": "null eins zwei drei vier fünf sechs sieben acht neun",
    "french": "zéro un deux trois quatre cinq six sept huit neuf",
    "spanish": "cero uno dos tres cuatro cinco seis siete ocho nueve",
}.items()}
SCRIPTS = {  # script: (which characters, what may be typed by mistake besides those of the forms)
    "latin": ("a-zà-ɏ", "abcdefghijklmnopqrstuvwxyz"),
    "capitals": ("A-Z", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    "han": ("〇\u4e00-\u9fff", "的是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着"),
    "arabic": ("\u0600-\u06ff", "ابتثجحخدذرزسشصضطظعغفقكلمنهوي"),
    "devanagari": ("\u0900-\u097f", "कखगघचछजझटठडढणतथदधनपफबभमयरलवशषसह"),
    "cyrillic": ("а-я", "абвгдежзиклмнопрстуфхцчшщыьэюя"),
    "greek": ("ά-ώ", "αβγδεζηθικλμνξοπρσςτυφχψω"),
    "kana": ("ぁ-ヿ", "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわをん"),
    "hangul": ("가-힣", "가나다라마바사아자차카타파하고노도로모보소오조구누두루무부수우주기니디리미비시이지"),
}
SENTENCES = {  # of the babble, with no digit in them
    "train": {
        "en": ("The kettle is boiling on the stove.", "My brother plays the violin very well.",
               "Please close the window before it rains.", "They walked along the river all morning.",
               "Fresh bread smells wonderful.", "A small dog ran across the garden.",
               "The teacher drew a map on the board.", "Could you help me carry this box?"),
        "zh": ("今天天气真好。", "请把窗户关上。", "妹妹在院子里唱歌。", "晚饭以后我们去散步。", "桌上放着新鲜的水果。",
               "老师在黑板上画图。", "小狗跑过花园。", "他喜欢听音乐。")},
    "validation": {
        "en": ("The library closes early on Sunday.", "Her coat hangs behind the door.", "We lost the key again.",
               "Clouds are moving over the lake."),
        "zh": ("图书馆周末关门早。", "她的外套挂在门后。", "湖面上飘着云。", "他又忘了带雨伞。")},
    "test": {
        "en": ("The train arrived late because of snow.", "Grandmother makes soup with mushrooms.",
               "Where did you park the car?", "Birds were singing outside my room.",
               "This painting hangs in a museum.", "Nobody knew the name of that street."),
        "zh": ("火车因为下雪晚点了。", "奶奶做的蘑菇汤很香。", "你把车停在哪里？", "窗外的鸟在叫。",
               "这幅画挂在博物馆。", "没人知道那条街的名字。")},
}


def pictures() -> tuple[str, bytes]:
    """全部标签与一页图 / All labels, and one page of pictures: 16 is full ink."""
    source = load_digits()
    labels = "".join(map(str, source.target))
    for role, (start, stop) in PICTURES.items():
        block = labels[start:stop]
        assert block.startswith("0123456789" * 3 + "0955650989841773"), f"no form begins where {role} does"
        assert block.count("0955650989841773") == FORMS[role]
    return labels, page(source.images.astype(np.uint8), 50)


def page(tiles: np.ndarray, columns: int) -> bytes:
    """小块拼成一页 PNG / Tiles on one page, as PNG."""
    count, height, width = tiles.shape
    tiles = np.pad(tiles, ((0, -count % columns), (0, 0), (0, 0)))
    out = io.BytesIO()
    Image.fromarray(tiles.reshape(-1, columns, height, width).transpose(0, 2, 1, 3).reshape(-1, columns * width)
                    ).save(out, "PNG", optimize=True)
    return out.getvalue()


def espeak(*options: str) -> str:
    return subprocess.run(["espeak-ng", *options], check=True, capture_output=True, text=True).stdout


def say(voice: dict, language: str, text: str, take: int) -> np.ndarray:
    """说一句，降到 8 000 Hz，去掉首尾的静音 / Say it, at 8 000 Hz, without the silence before and after."""
    speaker = f"{voice['accent'] if language == 'en' else MANDARIN}+{voice['variant']}"
    speed, pitch = (str(voice[key] + more) for key, more in zip(("speed", "pitch"), TAKES[take], strict=True))
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/said.wav"
        espeak("-v", speaker, "-s", speed, "-p", pitch, "-w", path, text)
        with wave.open(path) as file:
            rate, sound = file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
    count = round(len(sound) * RATE / rate)
    spectrum = np.fft.rfft(sound)[:count // 2 + 1]  # what lies above 4 000 Hz is cut off
    sound = np.fft.irfft(spectrum, count)
    loudness = np.sqrt(np.convolve(sound ** 2, np.ones(80) / 80, "same"))
    loud = np.flatnonzero(loudness > 0.02 * loudness.max())
    return sound[loud[0]:loud[-1] + 1]


def voices() -> list[dict]:
    """24 个嗓音，各有自己的语速、音高和英语口音 / 24 voices, each with a speed, a pitch and an accent of its own."""
    found, draw = [], np.random.default_rng(0)
    for role in ROLES:
        for place, variant in enumerate(VOICES[role]):
            found.append({"name": variant.lower(), "variant": variant, "accent": ACCENTS[place % len(ACCENTS)],
                          "role": role, "speed": int(draw.integers(135, 160)), "pitch": int(draw.integers(30, 65))})
    return found


def recordings(people: list[dict]) -> np.ndarray:
    """每个数字、嗓音、语言、遍数一段波形 / A waveform for every digit, voice, language and take: (960, 6600)."""
    draw, found = np.random.default_rng(1), []
    for digit, voice, language, take in itertools.product(range(10), people, WORDS, range(len(TAKES))):
        word = say(voice, language, WORDS[language][digit], take)
        slack = BABBLE_WINDOW - len(word)
        assert slack >= 0, f"{voice['name']} is too slow: {len(word) / RATE:.2f} s"
        start = int(slack * draw.uniform(0.45, 0.55))  # near the middle
        found.append(np.pad(word, (start, slack - start)))
    return np.stack(found)


def babble(people: list[dict], role: str) -> np.ndarray:
    """六个人同时说话，都说这个划分的句子 / Six people of one role talk at once, in sentences of that role only."""
    draw, mine = np.random.default_rng(2 + ROLES.index(role)), [voice for voice in people if voice["role"] == role]
    length, mix = BABBLE_SECONDS[role] * RATE, 0
    for talker in range(TALKERS):
        language, said = ("en", "zh")[talker % 2], []
        while sum(map(len, said)) < length + RATE:
            sentence = say(draw.choice(mine), language, draw.choice(SENTENCES[role][language]), int(draw.integers(2)))
            said.append(sentence / np.sqrt(np.mean(sentence ** 2)))
        mix = mix + np.concatenate(said)[RATE // 2:][:length]  # none starts with the beginning of a sentence
    return mix


def wav(sound: np.ndarray) -> bytes:
    """8 位 WAV，峰值 0.95 / 8 bits a sample, with a peak of 0.95."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(RATE)
        file.writeframes((sound / np.abs(sound).max(-1, keepdims=True) * 0.95 * 128 + 128).round().astype(np.uint8)
                         .tobytes())
    return out.getvalue()


def mel_bytes(sound: np.ndarray) -> np.ndarray:
    """梅尔功率，平均为 1，每字节三分之一分贝 / Mel power with a mean of 1, a third of a decibel to a byte."""
    power = mel_power(torch.from_numpy(sound).float()).numpy()
    decibel = 10 * np.log10(power / power.mean() + 1e-6)
    return ((decibel + 55) * 3).round().clip(0, 255).astype(np.uint8)[::-1]  # low pitch at the foot of the page


def written_forms() -> dict:
    rows = [{kind: row[digit] for kind, row in WRITTEN.items()} for digit in range(10)]
    taken = {}
    for digit, row in enumerate(rows):
        for text in row.values():
            assert taken.setdefault(text, digit) == digit, f"{text} is written for {taken[text]} and {digit}"
            assert len(text.encode()) <= BYTES, text
    used = "".join(sorted({c for text in taken for c in text}))
    pools = ["".join(sorted({*more, *re.findall(f"[{which}]", used)})) for which, more in SCRIPTS.values()]
    assert all(sum(c in pool for pool in pools) == 1 for c in used), "a character belongs to no script, or to two"
    return {"forms": rows, "pools": pools}


def main() -> None:
    assert "(en)" not in espeak("-v", MANDARIN, "-q", "-x", "".join(WORDS["zh"])), "this espeak-ng spells out Mandarin"
    labels, drawn = pictures()
    people = voices()
    spoken = recordings(people)
    at = list(itertools.product(range(10), people, WORDS, range(len(TAKES))))
    heard = [i for i, (_, voice, _, take) in enumerate(at) if voice["variant"] in CLIP_VOICES and take == 0]
    content = {
        "pictures.png": drawn,
        "recordings.png": page(np.stack([mel_bytes(sound) for sound in spoken]), 2 * len(people)),
        "clips.wav": wav(spoken[heard]),
        **{f"babble-{role}.wav": wav(babble(people, role)) for role in ROLES},
        "forms.json": (json.dumps(written_forms(), ensure_ascii=False, indent=1) + "\n").encode(),
    }
    assert mel_bytes(spoken[0]).shape == (MELS, FRAMES)
    manifest = {
        "version": VERSION,
        "made_with": {"scikit-learn": sklearn.__version__, "espeak-ng": espeak("--version").split()[3]},
        "pictures": PICTURES, "labels": labels,
        "voices": [{key: voice[key] for key in ("name", "variant", "accent", "role")} for voice in people],
        "clips": [{"digit": digit, "language": language, "voice": voice["name"],
                   "recording": len(TAKES) * list(WORDS).index(language) + take}
                  for digit, voice, language, take in (at[i] for i in heard)],
    }
    files.write(ASSETS, manifest, content)


if __name__ == "__main__":
    argparse.ArgumentParser(description="make the digits data again").parse_args()
    main()
