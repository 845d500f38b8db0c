"""切断网络 / Cuts the network of any Python process that finds this file first on its path.

An audit hook sees each call before it happens, from whatever module, and cannot be removed. Every attempt to leave the
machine is written to the file that MM_NETWORK_LOG names, then refused, so that code which swallows the error is caught
all the same. Compiled code with sockets of its own (curl) is not seen.
"""

import errno
import os
import socket
import sys

LOG = os.environ.get("MM_NETWORK_LOG")
HERE = {None, "", "localhost", "::1", "::", "0.0.0.0", socket.gethostname()}


def stays(host):
    host = host.decode() if isinstance(host, bytes) else host
    return host in HERE or str(host).startswith("127.") or str(host).startswith("::ffff:127.")


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


if LOG:
    sys.addaudithook(guard)
