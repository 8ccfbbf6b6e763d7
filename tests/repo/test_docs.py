"""The documentation is true: its Python runs, its commands, recipes, options and files exist."""

import re
import shlex
from pathlib import Path

import mktestdocs
import pytest

from agent_rl.cli import TraceConfig, load_recipe
from agent_rl.cli import commands as agent_rl_commands
from agent_rl.config import field_paths
from agent_rl.doctor.sandbox import SandboxDoctorConfig
from agent_rl.doctor.tokens import TokensConfig
from agent_rl.evaluate.compare import CompareConfig
from agent_rl.evaluate.eval_config import EvalConfig
from agent_rl.evaluate.impact import ImpactConfig
from agent_rl.evaluate.selection import SelectConfig
from agent_rl.evaluate.suite import SuiteConfig
from agent_rl.exchange.command import ExportConfig, ImportConfig
from agent_rl.replay.command import ReplayConfig
from agent_rl.serve.command import ServeConfig
from agent_rl.testing.environment_check.command import EnvCheckConfig
from agent_rl.view.command import ViewConfig
from agent_rl_envs.swe import command as swe
from agent_rl_envs.terminal import command as terminal
from agent_rl_tools.retrieval.command import IndexConfig, RetrieverConfig

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
CONFIGS = {
    "compare": CompareConfig,
    "doctor sandbox": SandboxDoctorConfig,
    "doctor tokens": TokensConfig,
    "env check": EnvCheckConfig,
    "env impact": ImpactConfig,
    "env select": SelectConfig,
    "eval": EvalConfig,
    "export": ExportConfig,
    "import": ImportConfig,
    "index": IndexConfig,
    "replay": ReplayConfig,
    "rollout": EvalConfig,
    "serve": ServeConfig,
    "serve retriever": RetrieverConfig,
    "suite": SuiteConfig,
    "swe make": swe.MakeConfig,
    "swe prepare": swe.PrepareConfig,
    "terminal make": terminal.MakeConfig,
    "terminal prepare": terminal.PrepareConfig,
    "trace": TraceConfig,
    "view": ViewConfig,
}
TARGETS = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def blocks(page: Path, language: str) -> list[str]:
    return mktestdocs.__main__.grab_code_blocks(page.read_text("utf-8"), lang=language)


def commands() -> list[str]:
    """Every command line in the `bash` blocks of all pages, continuation lines joined."""
    text = "\n".join(block for page in PAGES for block in blocks(page, "bash")).replace("\\\n", " ")
    return sorted({line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    mktestdocs.check_md_file(page, memory=True)


def test_examples_in_the_readme_are_short():
    assert [block for block in blocks(PAGES[0], "python") if len(block.strip().splitlines()) >= 30] == []


@pytest.mark.parametrize("line", commands())
def test_commands_exist(line: str):
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        assert {word for word in words[1:] if "=" not in word} <= TARGETS
    elif words[0] == "agent-rl":
        check_agent_rl(words[1:])
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file()
    else:
        assert words[0] in {"git", "cd", "pip", "tensorboard"}, "a command that no test knows"


def check_agent_rl(words: list[str]) -> None:
    named = [name for name in agent_rl_commands() if words[: len(name.split())] == name.split()]
    command = max(named, key=len, default=None)
    assert command, f"there is no such command: agent-rl {' '.join(words)}"
    given = {word.partition("=")[0].lstrip("-").replace("-", "_") for word in words if word.startswith("--")}
    if command == "train" and len(words) > 1:
        assert given <= {"config", "help", *field_paths(load_recipe(words[1]).config)}
    elif command in CONFIGS:
        assert given <= {"config", "help", *field_paths(CONFIGS[command])}
    else:
        assert given <= {"help"}
