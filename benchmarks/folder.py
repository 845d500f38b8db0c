"""三十幅和三十万幅，同样的代码、同样的内存 / 30 and 300,000 pictures: the same code and the same memory.

    python -m benchmarks.folder            # 30, 3,000 and 300,000 pictures: about a quarter of an hour
    python -m benchmarks.folder --quick    # does it run? 30 and 300 pictures
    python -m benchmarks.folder 30 3000    # these numbers of pictures

The pictures are drawings of the emoji data in 32 × 32, every tenth a JPEG, each with its number in black and white
dots. `load` decodes each once, then one pass of the loader reads the training part again. Each size runs in a process
of its own, whose memory is its highest resident size beyond that before `load`, as Linux says it. "A reader" is what
one of the processes that read for the loader holds for itself. Seen for 30, 3,000 and 300,000: 0.4, 0.11 and 0.12 ms of
CPU a picture to load, 6, 7 and 82 MiB in all. A photograph of 12 megapixels takes about 0.1 s.

图画是 32 × 32 的表情，每第十幅是 JPEG，左上角用黑白小格写着自己的编号。`load` 把每幅解码一次，再用 loader 把训练的部分
读一遍。每种大小在单独的进程里运行，内存是比 `load` 之前多出的最高驻留量（Linux 说的）。“a reader”是替 loader 读图的一个
进程自己占的。三十、三千、三十万幅时见到的：载入每幅用 CPU 0.4、0.11、0.12 毫秒，总共占 6、7、82 MiB。一千二百万像素的
照片每张约 0.1 秒。
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.growth import status
from benchmarks.ratio import QUICK
from mmlessons.data import emoji, folder

SIZES = (30, 3_000, 300_000)


def write(root: Path, count: int) -> None:
    """A folder of so many pictures, by eight artists."""
    data = emoji.load()
    artists = [(name, data.pictures[name].permute(0, 2, 3, 1).numpy()) for name in data.artists]
    names = data.names("en")
    with (root / "metadata.csv").open("w", encoding="utf-8") as table:
        table.write("file_name,text,source\n")
        for i in range(count):
            artist, pictures = artists[i % len(artists)]
            concept = i // len(artists) % len(names)
            pixels = pictures[concept].copy()
            bits = np.unpackbits(np.frombuffer(i.to_bytes(3, "big"), np.uint8)).reshape(2, 12)
            pixels[:4, :24] = 255 * bits.repeat(2, 0).repeat(2, 1)[:, :, None]
            name = f"{i:06}.{'jpg' if i % 10 == 0 else 'png'}"
            Image.fromarray(pixels).save(root / name, **({"quality": 95} if i % 10 == 0 else {"compress_level": 1}))
            table.write(f'{name},"{names[concept]}, number {i}",{artist} {i // 100}\n')


def children() -> float:
    """The most that any process which reads holds for itself (not shared with us), MiB."""
    most = 0.0
    for tasks in Path("/proc/self/task").iterdir():
        for pid in (tasks / "children").read_text("utf-8").split():
            fields = Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8").splitlines()
            own = sum(int(line.split()[1]) for line in fields if line.startswith("Private"))
            most = max(most, own / 1024)
    return most


def measure(root: Path, workers: int) -> dict[str, float]:
    """What one folder takes."""
    torch.set_num_threads(1)
    before = status("VmRSS")
    start, used = time.perf_counter(), time.process_time()
    data = folder.load(root)
    found = {"load, s": time.perf_counter() - start, "its CPU, s": time.process_time() - used,
             "load, MiB": status("VmHWM") - before, "kept, MiB": status("VmRSS") - before}
    start, count, most = time.perf_counter(), 0, 0.0
    loader = data.loader("train", batch=64, workers=workers, seed=0)
    every = max(1, len(loader) // 10)
    for number, batch in enumerate(loader):
        count += len(batch["picture"])
        if workers and number % every == every - 1:
            most = max(most, children())
    assert count == len(data.splits["train"])
    assert not data.problems, data.problems[0]
    return found | {"pass, s": time.perf_counter() - start, "all, MiB": status("VmHWM") - before,
                    "a reader, MiB": most}


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.folder")
    parser.add_argument("sizes", nargs="*", type=int, help="numbers of pictures")
    parser.add_argument("--quick", action="store_true", help=QUICK)
    parser.add_argument("--measure", type=Path, help="only this folder")
    parser.add_argument("--workers", type=int, default=2, help="processes that read")
    chosen = parser.parse_args()
    if chosen.measure:
        print(json.dumps(measure(chosen.measure, chosen.workers)))
        return
    header = None
    for count in chosen.sizes or ((30, 300) if chosen.quick else SIZES):
        with tempfile.TemporaryDirectory() as place:
            write(Path(place), count)
            command = [sys.executable, "-m", "benchmarks.folder", "--measure", place, "--workers", str(chosen.workers)]
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
            if header is None:
                header = [name.rjust(13) for name in ("ms a picture", *found)]
                print("pictures", *header)
            each = 1000 * found["its CPU, s"] / count
            print(f"{count:8,}", *(f"{value:13.3g}" for value in (each, *found.values())), flush=True)


if __name__ == "__main__":
    main()
