"""没见过的作者上的成绩，以及每步的时间 / R@1 on the unseen artist, and the time of a step.

    python -m benchmarks.retrieval [steps ...]        # 750 1400 by default: about 30 s and 60 s of one thread

每个步数训练三个种子，印出 CPU 秒数、平均 r@1 与区间，旁边是像素近邻和随机水平。

Trains three seeds for each number of steps and prints the CPU seconds, the mean r@1 and the interval, beside the pixel
neighbour and chance.
"""

import sys
import time

import torch

from mmlessons.data import emoji
from mmlessons.tasks import cross_modal_retrieval as retrieval


def main(lengths: list[int]) -> None:
    torch.set_num_threads(1)
    data = emoji.load()
    artists = [data.by_role(role)[0] for role in ("validation", "test", "shift")]
    baseline = {artist: retrieval.mean_recall(retrieval.pixel_baseline(data, artist)) for artist in artists}
    print(f"chance {1 / len(data.concepts):.4f}, pixel neighbour", {a: round(r, 3) for a, r in baseline.items()})
    for steps in lengths:
        seconds, recalls = [], {artist: [] for artist in artists}
        for seed in (0, 1, 2):
            trainer = retrieval.RetrievalTrainer(data, steps, seed, device="cpu")
            start = time.process_time()
            for _ in range(steps):
                trainer.train_step()
            seconds.append(time.process_time() - start)
            for artist in artists:
                recalls[artist].append(retrieval.mean_recall(retrieval.evaluate(trainer.model, data, artist)))
        print(f"{steps} steps, {min(seconds):.0f} - {max(seconds):.0f} s of CPU")
        for artist, r in recalls.items():
            print(f"    {artist:10} r@1 {sum(r) / 3:.3f}   seeds {min(r):.3f} - {max(r):.3f}")


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [750, 1400])
