"""`docker-compose.yaml` of a task: one service, whose container is the agent's, is what can be run here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from agent_rl_envs.terminal.formats.table import Table, load_yaml
from agent_rl_envs.terminal.problems import Unsupported

_FOR_SEVERAL = "it matters only with several containers"
_REFUSED = {
    "privileged": "containers are not privileged",
    "cap_add": "containers get no more capabilities",
    "devices": "containers get no devices of the host's",
    "gpus": "containers have no GPU",
    "depends_on": _FOR_SEVERAL,
    "networks": _FOR_SEVERAL,
    "healthcheck": "nothing is waited for after the start",
    "entrypoint": "nothing is started before the agent",
    "user": "the agent is root",
    "working_dir": "the working folder is that of the image",
    "env_file": "files of variables are not read",
    "extra_hosts": "names of hosts are not added",
    "tmpfs": "no other file systems are mounted",
    "shm_size": "its size is that of the disk",
    "sysctls": "the kernel's settings are the host's",
}
_IGNORED = (
    "image container_name hostname command labels restart stop_grace_period tty stdin_open init platform pull_policy "
    "network_mode ports expose deploy mem_limit cpus security_opt ulimits"
).split()


def read_compose(path: Path, service: str) -> dict[str, str]:
    """Variables of the only service. Raises `UserError`, and `Unsupported` for what goes beyond one plain container."""
    root = Table(load_yaml(path), path)
    services = cast(dict[str, Any], root.take("services", dict, {}))
    if set(services) != {service}:
        names = ", ".join(sorted(services)) or "none"
        raise Unsupported(f"{path.name}: services: only one container is run, called {service}, not {names}")
    table = Table(services[service], path, f"services.{service}")
    table.refuse(_REFUSED)
    table.ignore(_IGNORED)
    _check_build(table)
    for volume in table.take("volumes", list, []):
        if "LOGS_PATH" not in str(volume):
            raise Unsupported(f"{table.where('volumes')}: {volume} is not mounted")
    variables = _variables(table)
    table.end()
    return variables


def _check_build(table: Table) -> None:
    build = table.take("build", object, {})
    values = cast(dict[str, Any], build) if isinstance(build, dict) else {"context": build}
    for name, value in values.items():
        if (name, str(value).rstrip("/") or ".") not in (("context", "."), ("dockerfile", "Dockerfile")):
            raise Unsupported(
                f"{table.where('build')}.{name}: it is built from its own folder's Dockerfile, not {value}"
            )


def _variables(table: Table) -> dict[str, str]:
    """A mapping, or a list of NAME=VALUE. What the harness fills in (`${...}`) is not the task's."""
    given = table.take("environment", object, {})
    if isinstance(given, list):
        pairs = [str(entry).partition("=")[::2] for entry in cast(list[object], given)]
    else:
        pairs = list(table.strings("environment").items())
    return {name: value for name, value in pairs if "${" not in value}
