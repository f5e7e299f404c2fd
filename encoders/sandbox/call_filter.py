"""A seccomp filter: system calls that no parser needs, and that reach beyond the process, are refused.

It names what is refused, not what is allowed: libraries and the C library may find new ways to do harmless things. What
opens files is not its business (see `own_root` and `landlock`).
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator

from encoders.sandbox.kernel_calls import system_call

# <linux/audit.h>, and the number of seccomp(2).
_ARCHITECTURES = {"x86_64": (0xC000003E, 317), "aarch64": (0xC00000B7, 277)}
# Since Linux 5.1 a new call has the same number everywhere; older ones as (x86_64, aarch64), None where there is none.
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "accept": (43, 202),
    "bind": (49, 200),
    "listen": (50, 201),
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "perf_event_open": (298, 241),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "pidfd_send_signal": (424, 424),
    "io_uring_setup": (425, 425),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "mount_setattr": (442, 442),
}
_CLONE, _TGKILL, _PRLIMIT64 = (56, 220), (234, 131), (302, 261)
_CLONE3 = 435
_CLONE_THREAD = 0x00010000
_X32_CALLS = 0x40000000
# <linux/seccomp.h>, <linux/bpf_common.h>
_SET_MODE_FILTER = 1
_SPEC_ALLOW = 4  # older kernels slow down a filtered process otherwise
_ALLOW = 0x7FFF0000
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_LOAD, _EQUAL, _AT_LEAST, _HAS_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def filter_calls() -> bool:
    """Refuses the calls for good; False on an architecture or a platform that is not known here.

    Must run while the process has one thread, with no_new_privs set. Threads stay possible, processes do not.
    """
    machine = platform.machine()
    if machine not in _ARCHITECTURES or struct.calcsize("P") != 8:
        return False
    architecture, seccomp = _ARCHITECTURES[machine]
    packed = [struct.pack("HBBI", *instruction) for instruction in _instructions(machine, architecture)]
    program = _Program(len(packed), b"".join(packed))
    return system_call(seccomp, _SET_MODE_FILTER, _SPEC_ALLOW, ctypes.byref(program)) == 0


def _instructions(machine: str, architecture: int) -> Iterator[_Instruction]:
    column = list(_ARCHITECTURES).index(machine)
    yield _LOAD, 0, 0, _ARCHITECTURE_AT
    yield _EQUAL, 1, 0, architecture
    yield _answer(errno.EPERM)
    yield _LOAD, 0, 0, _NUMBER_AT
    if machine == "x86_64":
        yield _AT_LEAST, 0, 1, _X32_CALLS
        yield _answer(errno.EPERM)
    for numbers in _REFUSED.values():
        if (number := numbers[column]) is not None:
            yield _EQUAL, 0, 1, number
            yield _answer(errno.EPERM)
    # Its flags lie in memory, where no filter can look; the C library tries the older call next.
    yield _EQUAL, 0, 1, _CLONE3
    yield _answer(errno.ENOSYS)
    yield from _if_first_argument(_CLONE[column], _HAS_BIT, _CLONE_THREAD)
    yield from _if_first_argument(_TGKILL[column], _EQUAL, os.getpid())  # abort() is a signal to oneself
    yield from _if_first_argument(_PRLIMIT64[column], _EQUAL, 0)
    yield _RETURN, 0, 0, _ALLOW


def _if_first_argument(number: int, test: int, operand: int) -> Iterator[_Instruction]:
    """Allows this call only with such a first argument, of which the kernel uses 32 bits."""
    yield _EQUAL, 0, 4, number
    yield _LOAD, 0, 0, _FIRST_ARGUMENT_AT
    yield test, 1, 0, operand
    yield _answer(errno.EPERM)
    yield _RETURN, 0, 0, _ALLOW


def _answer(error: int) -> _Instruction:
    return _RETURN, 0, 0, 0x00050000 | error
