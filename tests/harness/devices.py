"""这台机器没有的设备 / Devices that this machine lacks."""

import torch


class OnMPS(torch.Tensor):
    """像在 MPS 上：没有 float64，先搬到 CPU 才行 / As if on MPS, which has no float64: only a move to the CPU helps."""

    def double(self) -> torch.Tensor:
        raise TypeError("MPS has no float64")

    def cpu(self) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)
