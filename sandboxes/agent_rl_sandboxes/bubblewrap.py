"""The default sandbox: Linux namespaces by bubblewrap, a system call filter, control groups. No root, no daemon.

Untrusted programs see a read-only system, an empty network, their own processes, and a workspace, home and temporary
folder that are the only places they can write to. The first process inside is the supervisor, which they cannot
signal, trace or read.
"""

from __future__ import annotations

import os
import platform
import shutil

from agent_rl.sandbox import Guarantee, Guarantees, SandboxConfig
from agent_rl_sandboxes import seccomp
from agent_rl_sandboxes.supervised import SupervisedSandbox, find_python, user_of, wants_container

_PROGRAMS, _HOME = "/run/agent-rl", "/home/agent"
_SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_SETTINGS = (
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/fonts",
    "/etc/mime.types",
    "/etc/ssl/certs",
)
_NETWORK = ("/etc/resolv.conf", "/etc/ca-certificates", "/etc/ssl/openssl.cnf")
_OWN_SETTINGS = ("passwd", "group", "hosts", "nsswitch.conf")


class BubblewrapSandbox(SupervisedSandbox):
    """A sandbox of namespaces."""

    @classmethod
    def strength(cls) -> int:
        """A boundary by the kernel."""
        return 10

    @classmethod
    def unavailable(cls, config: SandboxConfig) -> str | None:
        """See `Sandbox.unavailable`."""
        if problem := wants_container(config):
            return problem
        if platform.system() != "Linux":
            return "bubblewrap needs Linux: use a Linux machine, or the process sandbox for code that you trust."
        if not shutil.which("bwrap"):
            return "install bubblewrap, for example with `apt install bubblewrap`."
        if not seccomp.supports(platform.machine()):
            return f"there is no system call filter for {platform.machine()}: use x86_64 or aarch64."
        if not find_python(config):
            missing = config.python or "/usr/bin/python3"
            return f"it needs a Python that every user can run, and {missing} is not there: install python3."
        return None

    @classmethod
    def user(cls, number: int) -> int | None:
        """See `SupervisedSandbox.user`."""
        return user_of(number)

    def seccomp(self) -> bytes:
        """See `SupervisedSandbox.seccomp`."""
        return seccomp.program(platform.machine())

    def paths(self) -> dict[str, str]:
        """See `SupervisedSandbox.paths`."""
        return {"programs": _PROGRAMS, "workspace": self._config.workspace, "home": _HOME, "tmp": "/tmp"}

    def command(self, supervisor: list[str]) -> list[str]:
        """See `SupervisedSandbox.command`."""
        config, folder, programs = self._config, str(self._folder), str(self._launcher.root / "programs")
        command = [shutil.which("bwrap") or "bwrap", "--unshare-user", "--unshare-all", "--die-with-parent"]
        command += ["--new-session", "--as-pid-1", "--cap-drop", "ALL", "--hostname", "sandbox"]
        command += ["--uid", "1000", "--gid", "1000", "--seccomp", "4"]
        if config.network:
            command.append("--share-net")
        command += ["--ro-bind", "/usr", "/usr"]
        for path in _SYSTEM:
            if os.path.islink(path):  # noqa: PTH114
                command += ["--symlink", os.readlink(path), path]  # noqa: PTH115
            elif os.path.isdir(path):  # noqa: PTH112
                command += ["--ro-bind", path, path]
        for name in _OWN_SETTINGS:
            command += ["--ro-bind", f"{programs}/etc/{name}", f"/etc/{name}"]
        for path in _SETTINGS + (_NETWORK if config.network else ()):
            command += ["--ro-bind-try", path, path]
        for entry in config.read_only:
            source, _, target = entry.partition(":")
            command += ["--ro-bind", source, target or source]
        command += ["--proc", "/proc", "--dev", "/dev", "--bind", f"{folder}/tmp", "/dev/shm"]
        command += ["--ro-bind", programs, _PROGRAMS, "--bind", f"{folder}/tmp", "/tmp"]
        command += ["--bind", f"{folder}/home", _HOME, "--bind", f"{folder}/workspace", config.workspace]
        command += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/", "--"]
        return command + supervisor

    @property
    def guarantees(self) -> Guarantees:
        """See `Sandbox.guarantees`."""
        config = self._config
        in_groups = set(self._enforced)
        network = (
            "the host's network is shared, as asked" if config.network else "a network namespace with nothing in it"
        )
        by_group = "control group" if "memory" in in_groups else "each process for itself, by rlimit"
        disk = (
            f"file systems in memory of {config.disk_mb} MB" if self._storage != "folder" else "only each file's size"
        )
        return Guarantees(
            filesystem=Guarantee(True, "mount namespace: read-only system, workspace, home and /tmp of its own"),
            network=Guarantee(not config.network, network),
            processes=Guarantee(True, f"process namespace, at most {config.max_processes}; all die with it"),
            memory=Guarantee("memory" in in_groups, f"{config.memory_mb} MB, {by_group}"),
            disk=Guarantee(self._storage != "folder", disk),
            cpu=Guarantee("cpu" in in_groups, f"{config.cpus:g} processors" if "cpu" in in_groups else "not limited"),
            time=Guarantee(True, "killed at the deadline by the supervisor, which nothing inside can signal"),
            users=Guarantee(True, "a user of its own without rights, no capabilities, no new privileges"),
            system_calls=Guarantee(
                True, "seccomp filter: no mounts, namespaces, tracing, keys, modules, io_uring, bpf"
            ),
        )
