"""Plain processes with limits. NO SECURITY BOUNDARY: for programs that you would run yourself.

A program here is the user that we are. It can read and write what we can, use the network, see our processes and end
them, its own supervisor included. What it gets is order, not confinement: a folder of its own, a clean environment,
limits, and an end to everything it started.
"""

from __future__ import annotations

import platform

from agent_rl.sandbox import Guarantee, Guarantees, SandboxConfig
from agent_rl_sandboxes.supervised import SupervisedSandbox, find_python, wants_container


class ProcessSandbox(SupervisedSandbox):
    """Processes of ours, in a folder of their own."""

    beneath = True

    @classmethod
    def strength(cls) -> int:
        """No boundary."""
        return 0

    @classmethod
    def unavailable(cls, config: SandboxConfig) -> str | None:
        """See `Sandbox.unavailable`."""
        if problem := wants_container(config):
            return problem
        if platform.system() != "Linux":
            return "it needs Linux."
        if config.writable:
            return "it has no system of its own to write to: take bubblewrap or docker."
        if config.python and not find_python(config):
            return f"there is no Python {config.python}: install it, or name another."
        return None

    def seccomp(self) -> bytes:
        """None."""
        return b""

    def paths(self) -> dict[str, str]:
        """See `SupervisedSandbox.paths`: those of the host."""
        folders = {name: str(self._folder / name) for name in ("workspace", "home", "tmp")}
        return {"programs": str(self._launcher.root / "programs"), **folders}

    def command(self, supervisor: list[str]) -> list[str]:
        """See `SupervisedSandbox.command`."""
        return supervisor

    def rlimits(self) -> dict[str, int]:
        """See `SupervisedSandbox.rlimits`. The number of processes is the user's, so it is left to control groups."""
        limits = super().rlimits()
        del limits["RLIMIT_NPROC"]
        return limits

    @property
    def guarantees(self) -> Guarantees:
        """See `Sandbox.guarantees`."""
        config, in_groups = self._config, set(self._enforced)
        nothing = "not held back: it may do what our user may"
        return Guarantees(
            filesystem=Guarantee(False, nothing),
            network=Guarantee(False, nothing),
            processes=Guarantee(False, "it can signal ours; what it starts ends with it unless it fights back"),
            memory=Guarantee(
                False,
                f"{config.memory_mb} MB in a control group, which root could leave"
                if "memory" in in_groups
                else "each process for itself, by rlimit",
            ),
            disk=Guarantee(
                False,
                f"{config.disk_mb} MB in its own folders" if self._storage != "folder" else "each file for itself",
            ),
            cpu=Guarantee(False, "a control group, which root could leave" if "cpu" in in_groups else "not limited"),
            time=Guarantee(False, "killed at the deadline by a supervisor that it could kill first"),
            users=Guarantee(False, nothing),
            system_calls=Guarantee(False, nothing),
        )
