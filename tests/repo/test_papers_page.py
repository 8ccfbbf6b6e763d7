"""docs/papers.md is true: what it names can be asked for, and what it links is there."""

import re
import shlex
from pathlib import Path

import pytest

from agent_rl.cli import commands, load_recipe
from agent_rl.errors import UserError
from agent_rl.learner.objective import PolicyObjective
from agent_rl.options import parse_options

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/papers.md"
TEXT = PAGE.read_text("utf-8")
ROWS = [re.split(r"(?<!\\)\|", line)[1:-1] for line in TEXT.splitlines() if line.startswith("| ")]
SPANS = sorted(
    {span for row in ROWS for span in re.findall(r"`([^`]+)`", row[1]) if span.startswith(("--", "agent-rl"))}
)
LINKS = sorted(set(re.findall(r"\]\(([^)]+)\)", TEXT)))


@pytest.mark.parametrize("span", SPANS)
def test_options_and_recipes_are_there(span: str):
    """Options are parsed by the recipe's own config, which knows estimators and refuses combinations without sense."""
    words = shlex.split(span)
    if words[0] != "agent-rl":
        words = ["agent-rl", "train", "quickstart", *words]
    if words[1] != "train":
        assert any(words[1 : 1 + len(name.split())] == name.split() for name in commands())
        return
    config = parse_options(load_recipe(words[2]).config, words[3:], prog="agent-rl train")
    if hasattr(config, "learner"):
        PolicyObjective(config.learner)  # knows losses and divergences


@pytest.mark.parametrize("link", LINKS)
def test_links_lead_somewhere(link: str):
    path, _, anchor = link.partition("#")
    target = (PAGE.parent / path).resolve()
    assert target.exists()
    if anchor:
        headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_row_says_how_or_that_there_is_nothing():
    assert [row[0].strip() for row in ROWS if not row[1].strip()] == []


def test_a_wrong_name_would_be_noticed():
    for span in (
        "--estimator grop",
        "--learner.loss ppo",
        "--learner.kl-coefficient 1 --learner.kl forwards",
        "--shaping clip",
    ):
        with pytest.raises(UserError):
            test_options_and_recipes_are_there(span)
