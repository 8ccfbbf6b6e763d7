"""Commands on evaluations that need more than a line. Imports what they run when they run it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from rich.console import Console

from agent_rl.errors import ConfigError
from agent_rl.options import OptionStyle, parse_options


def suite_command(argv: Sequence[str]) -> None:
    """Score a policy on several environments, which a file names, and average."""
    from agent_rl.evaluate.suite import SuiteConfig, run, to_table
    from agent_rl.progress import counting_progress

    if not argv:
        raise ConfigError("Name the file of the suite: agent-rl suite FILE.toml --model MODEL.")
    options = [*argv] if argv[0].startswith("-") else ["--config", *argv]
    style = OptionStyle(short={"concurrency": "-c"}, in_file=("entries",))
    config = parse_options(SuiteConfig, options, prog="agent-rl suite", style=style)
    done = itertools.count(1)
    with counting_progress(Console(stderr=True), "tasks", sum(entry.tasks for entry in config.entries)) as show:
        report = run(config, on_group=lambda group: show(next(done), ""))
    Console().print(to_table(report, title=config.model or config.agent))


def impact_command(argv: Sequence[str]) -> None:
    """Keep the tasks of a finished run whose success rose with the mean of all, in a file to train on."""
    from agent_rl.evaluate.impact import ImpactConfig, select_by_impact

    config = parse_options(ImpactConfig, argv, prog="agent-rl env impact", style=OptionStyle(positional="run"))
    kept, less, unmeasured = select_by_impact(config)
    Console(soft_wrap=True, highlight=False).print(
        f"{kept} tasks are in {config.output}: {less} align less than {config.min_impact:g}, {unmeasured} were not "
        "measured."
    )
