"""The default sandbox: Linux namespaces by bubblewrap, a system call filter, control groups. No root, no daemon.

Untrusted programs see a read-only system, an empty network, their own processes, and a workspace, home and temporary
folder that are the only places they can write to. The first process inside is the supervisor, which they cannot
signal, trace or read.
"""

from __future__ import annotations

import glob
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
_LOADED = ("ld.so.preload", "ld.so.cache")  # below /etc: the loader obeys them in every program, the supervisor too
_ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


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
        if config.writable and any(entry.rpartition(":")[2].count("/") != 1 for entry in config.read_only):
            return "what is shown read-only in a writable system must be right below its root folder: PATH:/NAME."
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
        home = "/root" if self._config.writable else _HOME
        return {"programs": _PROGRAMS, "workspace": self._config.workspace, "home": home, "tmp": "/tmp"}

    def environment(self) -> dict[str, str]:
        """See `SupervisedSandbox.environment`."""
        return {"PATH": _ROOT_PATH, "USER": "root"} if self._config.writable else {}

    def folders(self) -> tuple[str, ...]:
        """See `SupervisedSandbox.folders`."""
        return ("etc", "run") if self._config.writable else ()

    def command(self, supervisor: list[str]) -> list[str]:
        """See `SupervisedSandbox.command`."""
        config, folder, programs = self._config, str(self._folder), str(self._launcher.root / "programs")
        user = "0" if config.writable else "1000"
        command = [shutil.which("bwrap") or "bwrap", "--unshare-user", "--unshare-all", "--die-with-parent"]
        command += ["--new-session", "--as-pid-1", "--cap-drop", "ALL", "--hostname", "sandbox"]
        command += ["--uid", user, "--gid", user, "--seccomp", "4"]
        if config.network:
            command.append("--share-net")
        if config.writable:
            command += ["--bind", f"{folder}/workspace", "/"]
            # As mounts of their own they cannot be moved: what is mounted below is found there in a fork too.
            for name in self.folders():
                command += ["--bind", f"{folder}/workspace/{name}", f"/{name}"]
        command += [*self._system(programs), "--proc", "/proc", "--dev", "/dev", "--bind", f"{folder}/tmp", "/dev/shm"]
        command += ["--ro-bind", programs, _PROGRAMS]
        if not config.writable:
            command += ["--bind", f"{folder}/tmp", "/tmp", "--bind", f"{folder}/home", _HOME]
            command += ["--bind", f"{folder}/workspace", config.workspace, "--remount-ro", "/"]
        return [*command, "--remount-ro", "/dev", "--chdir", "/", "--", *supervisor]

    def _system(self, programs: str) -> list[str]:
        """Options that show what is the host's. Nothing of it may be a link in a root folder that can be written to."""
        config = self._config
        options = ["--ro-bind", "/usr", "/usr"]
        for path in _SYSTEM:
            if os.path.islink(path) and not config.writable:  # noqa: PTH114
                options += ["--symlink", os.readlink(path), path]  # noqa: PTH115
            elif os.path.isdir(path):  # noqa: PTH112
                options += ["--ro-bind", path, path]
        for name in _OWN_SETTINGS:
            options += ["--ro-bind", f"{programs}/etc/{name}", f"/etc/{name}"]
        if config.writable:
            for name in _LOADED:
                options += ["--ro-bind", f"{programs}/etc/empty", f"/etc/{name}"]
            for path in glob.glob("/etc/python3*"):  # noqa: PTH207  # have the sitecustomize of every Python of Debian's
                options += ["--ro-bind", path, path]
        settings = ("/etc/ssl", *_SETTINGS[:-1]) if config.writable else _SETTINGS
        for path in settings + (_NETWORK if config.network else ()):
            options += ["--ro-bind-try", path, path]
        for entry in config.read_only:
            source, _, target = entry.partition(":")
            options += ["--ro-bind", source, target or source]
        return options

    @property
    def guarantees(self) -> Guarantees:
        """See `Sandbox.guarantees`."""
        config = self._config
        in_groups = set(self._enforced)
        network = (
            "the host's network is shared, as asked" if config.network else "a network namespace with nothing in it"
        )
        own = "a root folder" if config.writable else "workspace, home and /tmp"
        by_group = "control group" if "memory" in in_groups else "each process for itself, by rlimit"
        disk = (
            f"file systems in memory of {config.disk_mb} MB" if self._storage != "folder" else "only each file's size"
        )
        return Guarantees(
            filesystem=Guarantee(True, f"mount namespace: read-only system, {own} of its own"),
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
