"""到 10⁵ 个进程，纸上算 / On paper, to 10⁵ processes: what (2.1) and (2.4) send, hold and compute in one step.

    python -m benchmarks.scale

N pairs of width D over P processes, N / P on each, forward and backward. The formulas count numbers; a test holds those
of the ring against what 1, 2 and 4 processes really send. docs/scale.md explains them and shows this table.

N 对，宽 D，分给 P 个进程，各 N / P 对，前向加反向。公式数的是有几个数；测试拿 1、2、4 个进程真正传的来核对环的公式。
docs/scale.md 解释公式，并列出这张表。
"""

from dataclasses import dataclass

from mmcore.tiles import KEPT, TILE

BYTES = 4  # of a float32
BANDWIDTH, LATENCY, SPEED = 25e9, 10e-6, 100e12  # bytes/s and s of a link, operations/s of a process: see docs/scale.md


@dataclass(frozen=True)
class Cost:
    """一个进程一步的开销 / What one step costs one process: numbers sent, messages, numbers held, operations."""

    sent: float
    messages: float
    held: float
    operations: float

    def seconds(self) -> dict[str, float]:
        """每一项各要多久 / How long each part takes by itself, if the machine is the one assumed above."""
        return {"sending": self.sent * BYTES / BANDWIDTH, "waiting": self.messages * LATENCY,
                "computing": self.operations / SPEED}


def ring(N: float, D: float, P: float, softmax: bool = True) -> Cost:
    """我们的环 / Our ring, `mmcore.distributed`: (2.1) goes round twice, (2.4) once."""
    n, tile = N / P, min(KEPT + 2 * TILE, 2 * N * N / P)
    travels = n * ((3 * P - 2) * D + 2 * P) if softmax else n * (2 * P - 1) * D
    messages = 5 * P - 2 if softmax else 2 * P - 1
    return Cost(travels * (P > 1), messages * (P > 1), 6 * n * D + tile, (8 if softmax else 6) * n * N * D)


def gather(N: float, D: float, P: float, softmax: bool = True) -> Cost:
    """收齐再算，梯度也传回 / Gather all, gradients included, then compute one's own rows (open_clip, `local_loss`)."""
    n = N / P
    return Cost(4 * (P - 1) * n * D, 4 * (P - 1), 4 * N * D + 4 * n * N, (12 if softmax else 6) * n * N * D)


CLUSTERS = {  # published: pairs, width, processes
    "CLIP ViT-L/14 (Radford et al. 2021), 256 V100": (32_768, 768, 256),
    "OpenCLIP ViT-G/14 (Wortsman 2023), 512 A100": (160_000, 1280, 512),
    "SigLIP Base (Zhai et al. 2023), 4 TPUv4": (4096, 768, 4),
    "Inf-CL ViT-L/14 (Cheng et al. 2024), 8 A800": (4_000_000, 768, 8),
    "Inf-CL ViT-L/14 (Cheng et al. 2024), 32 A800": (12_000_000, 768, 32),
    "10⁵ processes, 32 pairs each": (3_200_000, 768, 100_000),
}
WAYS = {"ring, (2.1)": (ring, True), "gather, (2.1)": (gather, True), "ring, (2.4)": (ring, False)}


def lines() -> list[str]:
    """The table, in Markdown."""
    found = ["| N, D, P | | GB sent | messages | GB held | sending, s | waiting, s | computing, s |",
             "|---|---|---|---|---|---|---|---|"]
    for name, (N, D, P) in CLUSTERS.items():
        for way, (cost_of, softmax) in WAYS.items():
            cost = cost_of(N, D, P, softmax)
            numbers = (cost.sent * BYTES / 1e9, cost.messages, cost.held * BYTES / 1e9, *cost.seconds().values())
            cells = [f"{x:,.0f}" if x >= 100 else f"{x:.2g}" for x in numbers]
            found.append(f"| {' | '.join([name, way, *cells])} |")
    return found


if __name__ == "__main__":
    print(*lines(), sep="\n")
