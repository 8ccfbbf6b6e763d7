"""The filter, run by a small interpreter of classic BPF: what it lets through, on both architectures."""

import errno
import struct

import pytest

from agent_rl_sandboxes import seccomp

X86_64, AARCH64 = 0xC000003E, 0xC00000B7
ALLOW, KILL = 0x7FFF0000, 0x80000000


def verdict(machine: str, architecture: int, number: int, *arguments: int) -> int:
    """What the kernel would return for a call."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *(*arguments, *[0] * 6)[:6])
    instructions = list(struct.iter_unpack("=HBBI", seccomp.program(machine)))
    accumulator, at = 0, 0
    while True:
        code, yes, no, k = instructions[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, k)
        elif code == 0x06:
            return k
        else:
            holds = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}[code]
            at += yes if holds else no


def refused(error: int) -> int:
    return 0x00050000 | error


@pytest.mark.parametrize(
    ("machine", "architecture", "read", "mount", "clone", "socket", "ioctl"),
    [("x86_64", X86_64, 0, 165, 56, 41, 16), ("aarch64", AARCH64, 63, 40, 220, 198, 29)],
)
def test_verdicts(machine, architecture, read, mount, clone, socket, ioctl):
    def of(number: int, *arguments: int) -> int:
        return verdict(machine, architecture, number, *arguments)

    assert of(read) == ALLOW
    assert of(mount) == refused(errno.EPERM)
    assert [of(number) for number in (425, 428, 438)] == [refused(errno.EPERM)] * 3
    assert of(435) == refused(errno.ENOSYS), "clone3"
    assert of(clone, 0x3D0F00) == ALLOW, "threads"
    assert of(clone, 17) == ALLOW, "processes"
    assert [of(clone, 1 << bit) for bit in (17, 25, 26, 27, 28, 29, 30)] == [refused(errno.EPERM)] * 7, "namespaces"
    assert [of(socket, family) for family in (1, 2, 10, 16)] == [ALLOW] * 4
    assert [of(socket, family) for family in (17, 38, 40)] == [refused(errno.EAFNOSUPPORT)] * 3
    assert of(ioctl, 0, 0x5413) == ALLOW
    assert of(ioctl, 0, 0x5412) == refused(errno.EPERM), "typing into a terminal"
    assert of(ioctl, 0, 0xFFFF_FFFF_0000_5412) == refused(errno.EPERM), "the kernel reads the low half only"


def test_calls_of_other_architectures_are_not_mistaken():
    assert verdict("x86_64", AARCH64, 0) == KILL
    assert verdict("aarch64", X86_64, 63) == KILL
    assert verdict("x86_64", X86_64, 0x40000000 | 165) == refused(errno.EPERM), "x32"
    assert verdict("x86_64", X86_64, 0xFFFFFFFF) == refused(errno.EPERM)
