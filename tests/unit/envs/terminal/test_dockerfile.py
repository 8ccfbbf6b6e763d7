"""Dockerfiles as what they do."""

import pytest

from agent_rl.errors import UserError
from agent_rl_envs.terminal.problems import Unsupported
from agent_rl_envs.terminal.worlds.dockerfile import Copy, Run, read_dockerfile


def read(tmp_path, text):
    (tmp_path / "Dockerfile").write_text(text)
    return read_dockerfile(tmp_path / "Dockerfile")


def test_what_it_does(tmp_path):
    found = read(
        tmp_path,
        "# a comment\n"
        "ARG TAG=3.12\n"
        "FROM --platform=linux/amd64 python:${TAG}\n"
        'ENV A=1 B="two words" C=${A}${MISSING:-x}\n'
        "ENV OLD an old one\n"
        "WORKDIR /app\n"
        "WORKDIR sub\n"
        "RUN echo one \\\n"
        "    # in between\n"
        "    && echo two\n"
        'RUN ["echo", "$A"]\n'
        'SHELL ["/bin/bash", "-c"]\n'
        "RUN echo ${A}\n"
        "COPY --chmod=600 a.txt b.txt ./\n"
        "COPY --chown=root:root dir /data\n"
        "ADD x $B\n"
        'CMD ["bash"]\n'
        'ENTRYPOINT ["/bin/bash"]\n',
    )
    assert (found.base, found.folder) == ("python:3.12", "/app/sub")
    assert found.environment == {"A": "1", "B": "two words", "C": "x", "OLD": "an old one"}
    made, made_below, *runs = [step for step in found.steps if isinstance(step, Run)]
    assert (made.command, made_below.command) == (("mkdir", "-p", "/app"), ("mkdir", "-p", "/app/sub"))
    said = [(run.command, run.shell, run.folder, run.line) for run in runs]
    assert said == [
        ("echo one     && echo two", ("/bin/sh", "-c"), "/app/sub", 8),
        (("echo", "$A"), ("/bin/sh", "-c"), "/app/sub", 11),
        ("echo ${A}", ("/bin/bash", "-c"), "/app/sub", 13),
    ]
    assert runs[0].environment["A"] == "1"
    copies = [step for step in found.steps if isinstance(step, Copy)]
    assert [(copy.sources, copy.target, copy.mode) for copy in copies[:2]] == [
        (("a.txt", "b.txt"), "/app/sub/", "600"),
        (("dir",), "/data", ""),
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("FROM a\nFROM b\n", "line 2: several stages"),
        ("FROM a\nCOPY --from=b /x /y\n", "line 2: COPY --from=b"),
        ("FROM a\nCOPY --chown=dev x y\n", "line 2: COPY --chown=dev"),
        ("FROM a\nRUN --mount=type=cache x\n", "line 2: RUN --mount=type=cache"),
        ("FROM a\nRUN <<EOF\necho\nEOF\n", "line 2: documents within"),
        ("FROM a\nUSER dev\n", "line 2: USER dev: the only user is root"),
        ('FROM a\nENTRYPOINT ["/server"]\n', "line 2: ENTRYPOINT"),
        ("FROM a\nADD https://x.org/y /y\n", "line 2: ADD of an address"),
        ("FROM a\nONBUILD RUN x\n", "line 2: ONBUILD is not known"),
    ],
)
def test_what_needs_an_image_builder(tmp_path, text, reason):
    with pytest.raises(Unsupported, match=reason):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "there is no FROM"),
        ("FROM a\nCOPY x\n", "line 2: COPY cannot be read .*needs a source and a target"),
        ("FROM a\nRUN x \\\n", "nothing follows it"),
        ('FROM a\nENV A="x\n', "line 2: ENV cannot be read"),
    ],
)
def test_what_is_no_dockerfile(tmp_path, text, sentence):
    with pytest.raises(UserError, match=sentence):
        read(tmp_path, text)
