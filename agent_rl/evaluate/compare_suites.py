"""Two suites side by side: each environment task by task, and the average of the differences.

Entries are matched by name, their tasks as in `compare`. Entries that only one suite has are left out, and named.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from agent_rl.config import load_config
from agent_rl.errors import UserError
from agent_rl.evaluate.compare import CompareConfig, Comparison, compare, read_values
from agent_rl.evaluate.macro import macro_average
from agent_rl.evaluate.report import to_cell
from agent_rl.evaluate.statistics import Estimate
from agent_rl.evaluate.suite import SuiteConfig
from agent_rl.store.run_folder import CONFIG_FILE


@dataclass(frozen=True, slots=True)
class SuiteComparison:
    """The comparisons by name, and the averages of A, of B and of B - A; `unmatched` are names of one suite only."""

    entries: Mapping[str, Comparison]
    weights: Mapping[str, float]
    a: Estimate
    b: Estimate
    difference: Estimate
    unmatched: tuple[str, ...]


def is_suite(folder: Path) -> bool:
    """Whether `agent-rl suite --run-dir` wrote the folder."""
    try:
        return "entries" in json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def run(config: CompareConfig) -> SuiteComparison:
    """Read, compare, and write `config.output`. Raises `UserError` when the suites have nothing in common."""
    first, second = (_weights(folder) for folder in config.runs)
    common = [name for name in first if name in second]
    if not common:
        raise UserError("The two suites have no entry of the same name: evaluate both on the same file.")
    if changed := [name for name in common if first[name] != second[name]]:
        raise UserError(f"The two suites weigh {changed[0]!r} differently: evaluate both with the same weights.")
    entries = {name: _compared(name, config) for name in common}
    weights = {name: first[name] for name in common}
    found = SuiteComparison(
        entries,
        weights,
        *(
            macro_average(estimates, list(weights.values()))
            for estimates in (
                [entry.a for entry in entries.values()],
                [entry.b for entry in entries.values()],
                [entry.paired.difference for entry in entries.values()],
            )
        ),
        unmatched=tuple(sorted(first.keys() ^ second.keys())),
    )
    if config.output is not None:
        config.output.write_text(json.dumps(asdict(found), indent=2) + "\n", encoding="utf-8")
    return found


def _weights(folder: Path) -> dict[str, float]:
    return {entry.title: entry.weight for entry in load_config(SuiteConfig, folder / CONFIG_FILE).entries}


def _compared(name: str, config: CompareConfig) -> Comparison:
    a, b = (read_values(folder / name, config) for folder in config.runs)
    try:
        return compare(a, b, share=config.score == "success")
    except UserError as error:
        raise UserError(f"Entry {name!r}: {error}") from error


def to_tables(found: SuiteComparison, config: CompareConfig) -> list[Table | Text]:
    """A row for each environment and one for the average."""
    title = Text(f"{config.score}, 95 percent intervals; A is {config.runs[0]}, B is {config.runs[1]}", "bold")
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for column in ("environment", "weight", "tasks", "A", "B", "B - A", "p"):
        table.add_column(column, justify="left" if column == "environment" else "right")
    for name, entry in found.entries.items():
        scores = [to_cell(estimate) for estimate in (entry.a, entry.b, entry.paired.difference)]
        weight, tasks = f"{found.weights[name]:g}", str(entry.paired.tasks)
        table.add_row(Text(name), weight, tasks, *scores, f"{entry.paired.p_value:.3g}")
    table.add_section()
    table.add_row(
        "macro-average", "", "", *(to_cell(estimate) for estimate in (found.a, found.b, found.difference)), ""
    )
    left_out = [Text(f"Left out, for want of a partner: {', '.join(found.unmatched)}.")] if found.unmatched else []
    return [title, table, *left_out]
