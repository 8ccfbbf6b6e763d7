"""Root folders made as Dockerfiles say, without docker."""

import pytest

from agent_rl.errors import UserError
from agent_rl_envs.terminal.formats.folders import read_task
from agent_rl_envs.terminal.worlds import prepared
from tests.unit.envs.terminal.conftest import HARBOR, Episode, write

pytestmark = pytest.mark.anyio
DOCKERFILE = """FROM python:3.12
ENV COLOR=red
WORKDIR /app/work
COPY one.txt two.txt ./
COPY one.txt /data/renamed
COPY one.txt /data
COPY --chmod=755 tree /srv/tree
COPY tree/*.sh bin/
RUN echo "$COLOR" > color && mkdir -p /var/lib/x && chmod 700 /var/lib/x && ln -s /data/renamed link
RUN ["mkdir", "/opt/listed"]
"""
FILES = {
    "environment/one.txt": "1",
    "environment/two.txt": "2",
    "environment/tree/a.sh": "a",
    "environment/tree/s/b": "b",
}


async def test_what_the_dockerfile_makes(held, config):
    write(config.source, HARBOR, **{"environment/Dockerfile": DOCKERFILE, **FILES})
    async with Episode(config) as episode:
        found = await episode.run(
            "pwd; ls; cat color link; echo; cat /data/one.txt; echo; find /srv -type f -printf '%P %m\\n' | sort;"
            "ls bin; "
            "stat -c %a /var/lib/x; ls -d /opt/listed; echo $COLOR"
        )
    assert found.splitlines() == [
        *("/app/work", "bin", "color", "link", "one.txt", "two.txt"),
        *("red", "1", "1", "tree/a.sh 755", "tree/s/b 755", "a.sh", "700", "/opt/listed", "red"),
    ]


async def test_it_is_made_once_and_never_changed(held, config, monkeypatch):
    write(config.source, HARBOR, **{"environment/Dockerfile": "FROM python:3\nWORKDIR /app\nRUN date +%N > made\n"})
    made = []
    build = prepared.build_root

    async def counted(*arguments):
        made.append(1)
        return await build(*arguments)

    monkeypatch.setattr(prepared, "build_root", counted)
    seen = []
    for _ in range(2):
        async with Episode(config) as episode:
            seen.append(await episode.run("cat made; echo over > made"))
    assert seen[0] == seen[1]
    assert len(made) == 1


@pytest.mark.parametrize(
    ("dockerfile", "sentence"),
    [
        ("FROM python:3\nRUN echo why; false\n", r"Dockerfile, line 2 failed with exit code 1: why"),
        ("FROM python:3\nCOPY nothing /x\n", r"Dockerfile copies nothing, which is not in its folder"),
        ("FROM python:3\nCOPY ../task.toml /x\n", r"which is not in its folder"),
    ],
)
async def test_what_cannot_be_made_is_said_with_the_line(held, config, dockerfile, sentence):
    write(config.source, HARBOR, **{"environment/Dockerfile": dockerfile})
    with pytest.raises(UserError, match=sentence):
        async with Episode(config):
            pass


async def test_limits_are_the_tasks_or_the_sandboxes(held, config):
    write(config.source, HARBOR)
    problem = read_task(config.source)
    root = config.cache
    own = await prepared.Worlds(root, config.sandbox, "task", 60).prepare(problem)
    assert (own.memory_mb, own.disk_mb, own.workspace, own.writable) == (256, 64, "/app", True)
    ours = await prepared.Worlds(root, config.sandbox, "sandbox", 60).prepare(problem)
    assert (ours.memory_mb, ours.disk_mb) == (config.sandbox.memory_mb, config.sandbox.disk_mb)


def test_only_confined_sandboxes_are_taken(config):
    with pytest.raises(UserError, match="bubblewrap and docker, not in process"):
        prepared.is_docker(config.sandbox.model_copy(update={"kind": "process"}))
