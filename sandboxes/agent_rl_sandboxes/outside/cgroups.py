"""Control groups, version 1 and 2, by their files: limits on the memory, processes and processor time of a sandbox.

Where they are not writable there are none, which `Groups.enforced` says.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

_ROOT = Path("/sys/fs/cgroup")
_PERIOD_US = 100_000


class Groups:
    """The control groups of one sandbox: one folder in version 2, one for each controller in version 1."""

    def __init__(self, name: str, limits: dict[str, Any]) -> None:
        self.folders: list[Path] = []
        self.enforced: list[str] = []
        memory, pids = str(limits["memory_mb"] * 2**20), str(limits["max_processes"])
        quota = str(int(limits["cpus"] * _PERIOD_US))
        if (_ROOT / "cgroup.controllers").exists():
            settings = {
                "memory": {"memory.swap.max": "0", "memory.max": memory},
                "pids": {"pids.max": pids},
                "cpu": {"cpu.max": f"{quota} {_PERIOD_US}"},
            }
            if self._make(_ROOT / name):
                self.enforced = [kind for kind, values in settings.items() if self._set(_ROOT / name, values)]
        else:
            settings = {
                "memory": {"memory.limit_in_bytes": memory},
                "pids": {"pids.max": pids},
                "cpu": {"cpu.cfs_period_us": str(_PERIOD_US), "cpu.cfs_quota_us": quota},
            }
            for kind, values in settings.items():
                folder = _ROOT / kind / name
                if folder.parent.is_dir() and self._make(folder) and self._set(folder, values):
                    self.enforced.append(kind)

    def _make(self, folder: Path) -> bool:
        try:
            folder.mkdir()
        except OSError:
            return False
        self.folders.append(folder)
        return True

    def _set(self, folder: Path, values: dict[str, str]) -> bool:
        """Write the values; True when the last one, the limit itself, was taken."""
        taken = False
        for name, value in values.items():
            try:
                (folder / name).write_text(value)
                taken = True
            except OSError:
                taken = False
        return taken

    def enter(self) -> None:
        """Move the calling process in, which has one thread."""
        for folder in self.folders:
            threads = folder / "tasks"  # version 1: to move just oneself takes no lock on all processes, nor 20 ms
            (threads if threads.exists() else folder / "cgroup.procs").write_text("0")

    def remove(self) -> bool:
        """Remove the groups, once no process is left in them; False when one could not be."""
        deadline = time.monotonic() + 5.0
        for folder in self.folders:
            while True:
                try:
                    os.rmdir(folder)
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        return False
                    time.sleep(0.001)
        return True
