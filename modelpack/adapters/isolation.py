"""Take the network from a worker before it loads what may run code."""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
import sys

# By machine: its number in audit records, and the numbers of the calls that make sockets
# (<linux/audit.h>, <asm/unistd.h>).
_MACHINES = {
    "x86_64": (0xC000003E, (41, 425)),  # socket, io_uring_setup
    "aarch64": (0xC00000B7, (198, 425)),
}
_SOCKET_FIRST = 16  # offset of the first argument in struct seccomp_data
_AF_UNIX = 1

# <linux/prctl.h>, <linux/seccomp.h>, <linux/bpf_common.h>
_SET_SECCOMP, _MODE_FILTER, _SET_NO_NEW_PRIVS = 22, 2, 38
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06


class _Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def is_worker() -> bool:
    """Whether this process is a worker, which may give up what it does not need."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec is not None and spec.name == "modelpack.worker"


def give_up_network() -> bool:
    """Let this thread, and all threads and processes that it starts, make no network sockets.

    It lasts until the process ends. Sockets of this machine alone (``AF_UNIX``) can be made.

    Returns:
        whether it could be done: on Linux it can, without any right.
    """
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    content = _filter(*_MACHINES[platform.machine()])
    program = _Program(len(content) // 8, content)
    if libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return False
    return not libc.prctl(_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0)


def _filter(machine: int, calls: tuple[int, int]) -> bytes:
    """The rules, as instructions of the Berkeley packet filter."""
    socket, ring = calls
    rules = (
        (_LOAD, 0, 0, 4),  # the machine
        (_JUMP_EQUAL, 0, 5, machine),
        (_LOAD, 0, 0, 0),  # the number of the call
        (_JUMP_EQUAL, 4, 0, ring),
        (_JUMP_EQUAL, 0, 2, socket),
        (_LOAD, 0, 0, _SOCKET_FIRST),
        (_JUMP_EQUAL, 0, 1, _AF_UNIX),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _FAIL | errno.EACCES),
    )
    return b"".join(struct.pack("HBBI", *rule) for rule in rules)
