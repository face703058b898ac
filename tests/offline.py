"""Run a command without a network: only this computer itself can be reached."""

import functools
import shutil
import subprocess
import sys

# In a network namespace of its own, the loopback device is down at first; kernels need it.
LOOPBACK_UP = """
import fcntl, os, socket, struct, sys
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
os.execvp(sys.argv[1], sys.argv[1:])
"""


@functools.cache
def can_isolate() -> bool:
    """Return whether this system lets a program leave the network."""
    if not shutil.which("unshare"):
        return False
    return subprocess.run([*_prefix(), "true"], capture_output=True).returncode == 0


def offline(command: list[str]) -> list[str]:
    """Return the command without a network, or as it is if that is not possible here."""
    return [*_prefix(), *command] if can_isolate() else list(command)


def _prefix() -> list[str]:
    return ["unshare", "--map-root-user", "--net", sys.executable, "-c", LOOPBACK_UP]
