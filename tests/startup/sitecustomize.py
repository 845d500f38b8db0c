"""测试的每个 Python 进程最先做的事：切断网络；要求时扰动算术 / What every Python process of the tests does first.

`conftest.py` puts this folder at the head of PYTHONPATH, so that Python itself imports this file: in the workers of
xdist, in kernels, in JupyterLab and in whatever these start.

MM_NETWORK_LOG  the network is cut: each attempt to leave the machine is written to this file, then refused, so that
                code which swallows the error is caught all the same. (An audit hook sees each call before it happens,
                from whatever module, and cannot be removed. Compiled code with sockets of its own is not seen.)
MM_DISTURB      every weight handed to an optimiser is moved by up to this much: no test may hang on a last digit.
MM_ONEDNN=0     PyTorch does without oneDNN.
"""

import errno
import os
import socket
import sys

LOG = os.environ.get("MM_NETWORK_LOG")
HERE = {None, "", "localhost", "::1", "::", "0.0.0.0", socket.gethostname()}


def stays(host):
    host = host.decode() if isinstance(host, bytes) else host
    return host in HERE or str(host).startswith(("127.", "::ffff:127."))


def guard(event, args):
    if event in {"socket.connect", "socket.sendto", "socket.sendmsg"}:
        address = args[1]
        host = address[0] if isinstance(address, tuple) else None  # a str or bytes is a socket file, None is connected
    elif event in {"socket.getaddrinfo", "socket.gethostbyname"}:
        host = args[0]
    else:
        return
    if not stays(host):
        with open(LOG, "a", encoding="utf-8") as log:
            log.write(f"{event.removeprefix('socket.')} {host}\n")
        raise OSError(errno.ENETUNREACH, f"the network is cut in tests: {host}")


def disturb(size):
    """Move each weight by a fixed random amount when an optimiser is made."""
    import torch

    make = torch.optim.Optimizer.__init__

    def disturbed(self, params, *args, **kwargs):
        make(self, params, *args, **kwargs)
        generator = torch.Generator().manual_seed(0)
        for weight in (weight for group in self.param_groups for weight in group["params"]):
            move = torch.rand(weight.shape, generator=generator, dtype=torch.float64) * 2 - 1
            weight.data += (size * move).to(weight)

    torch.optim.Optimizer.__init__ = disturbed


if LOG:
    sys.addaudithook(guard)
if size := float(os.environ.get("MM_DISTURB", "0")):
    disturb(size)
if os.environ.get("MM_ONEDNN") == "0":
    import torch

    torch.backends.mkldnn.set_flags(False)
