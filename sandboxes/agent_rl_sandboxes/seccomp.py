"""The system call filter of untrusted programs, as classic BPF. Pure functions; nothing is installed here.

Everything is allowed but what is of no use to them and of much use to an attacker: mounts, namespaces, tracing, keys,
kernel modules, and interfaces with a history of holes. Refused calls fail with EPERM as without privileges, so that
programs which only try go on.
"""

from __future__ import annotations

import errno
import functools
import struct
from collections.abc import Sequence

MACHINES = ("x86_64", "aarch64")
_X86_64, _AARCH64 = 0xC000003E, 0xC00000B7
_X32_BIT = 0x40000000
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NR, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_NAMESPACES = 0x7E020000  # CLONE_NEW*, all but CLONE_NEWTIME, which clone does not take
_FAMILIES = (1, 2, 10, 16)  # unix, inet, inet6, netlink; not vsock, which no network namespace holds back
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C

# name: number on x86_64, on aarch64 (0: not there)
_DENIED = {
    **{"mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51)},
    **{"open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431)},
    **{"fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "open_tree_attr": (467, 467)},
    **{"unshare": (272, 97), "setns": (308, 268)},
    **{"ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272)},
    **{"pidfd_getfd": (438, 438), "process_madvise": (440, 440), "move_pages": (279, 239)},
    **{"add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219)},
    **{"bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "fanotify_init": (300, 262)},
    **{"io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427)},
    **{"init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106)},
    **{"kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142), "acct": (163, 89)},
    **{"swapon": (167, 224), "swapoff": (168, 225), "quotactl": (179, 60), "quotactl_fd": (443, 443)},
    **{"name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "lookup_dcookie": (212, 18)},
    **{"settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171)},
    **{"syslog": (103, 116), "sethostname": (170, 161), "setdomainname": (171, 162), "vhangup": (153, 58)},
    **{"iopl": (172, 0), "ioperm": (173, 0), "modify_ldt": (154, 0), "uselib": (134, 0), "nfsservctl": (180, 42)},
}
_CLONE, _CLONE3, _SOCKET, _IOCTL = (56, 220), (435, 435), (41, 198), (16, 29)

Instruction = tuple[int, int, int, int]


def supports(machine: str) -> bool:
    """Whether there is a filter for this machine (`platform.machine()`)."""
    return machine in MACHINES


@functools.cache
def program(machine: str) -> bytes:
    """The filter for `x86_64` or `aarch64`, as the kernel and `bwrap --seccomp` read it."""
    column = MACHINES.index(machine)
    return assemble([*_head(column), *_rules(column), (_RETURN, 0, 0, _ALLOW)])


def assemble(instructions: Sequence[Instruction]) -> bytes:
    """`struct sock_filter` after `struct sock_filter`."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


def _head(column: int) -> list[Instruction]:
    """Other architectures' calls have other numbers: kill. So has the x32 variant: refuse."""
    head: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, (_X86_64, _AARCH64)[column]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NR),
    ]
    return [*head, *_refuse((_AT_LEAST, 0, 1, _X32_BIT))] if column == 0 else head


def _rules(column: int) -> list[Instruction]:
    rules: list[Instruction] = []
    for number in sorted(numbers[column] for numbers in _DENIED.values()):
        if number:
            rules += _refuse((_EQUAL, 0, 1, number))
    rules += _refuse((_EQUAL, 0, 1, _CLONE3[column]), errno.ENOSYS)  # its flags are in memory: libc then takes clone
    rules += _when(_CLONE[column], 0, _refuse((_ANY_BIT, 0, 1, _NAMESPACES)))
    rules += _when(_IOCTL[column], 1, [*_refuse((_EQUAL, 0, 1, _TIOCSTI)), *_refuse((_EQUAL, 0, 1, _TIOCLINUX))])
    families: list[Instruction] = []
    for family in _FAMILIES:
        families += [(_EQUAL, 0, 1, family), (_RETURN, 0, 0, _ALLOW)]
    return rules + _when(_SOCKET[column], 0, [*families, (_RETURN, 0, 0, _ERRNO | errno.EAFNOSUPPORT)])


def _refuse(condition: Instruction, error: int = errno.EPERM) -> list[Instruction]:
    """`condition` must skip one instruction where it does not hold."""
    return [condition, (_RETURN, 0, 0, _ERRNO | error)]


def _when(number: int, argument: int, body: Sequence[Instruction]) -> list[Instruction]:
    """For one call: `body` with the low half of an argument loaded, then the number again."""
    inside: list[Instruction] = [(_LOAD, 0, 0, _ARGUMENTS + 8 * argument), *body, (_LOAD, 0, 0, _NR)]
    return [(_EQUAL, 0, len(inside), number), *inside]
