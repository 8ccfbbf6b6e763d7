"""The command line: finds recipes and environments, turns options into configs, prints. Decides nothing itself.

A mistake of the user is one sentence on stderr and exit code 2; an interrupt is 130; a bug keeps its traceback. A
doctor or check that finds something wrong exits with 1, and so does what loses its reader (`| head`).
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.machinery
import importlib.util
import itertools
import json
import os
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from pydantic import Field
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent_rl.config import Config
from agent_rl.errors import ConfigError, UserError, not_found
from agent_rl.options import OptionStyle, parse_options
from agent_rl.registry import SCRIPT_MODULE

if TYPE_CHECKING:
    from agent_rl.types import Group


class TraceConfig(Config):
    """Write a run as a trace."""

    run: Path = Field(description="The run's folder.")
    output: Path | None = Field(default=None, description="Where to; trace.json in the run's folder, if not given.")
    first_group: int = Field(default=0, ge=0, description="Leave out the groups before this one.")


C = TypeVar("C", bound=Config)
HELP = ("-h", "--help")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `agent-rl`; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return _guarded(lambda: _dispatch(arguments))


def run_recipe(config_class: type[C], main: Callable[[C], object]) -> None:
    """What a recipe calls under `if __name__ == "__main__":`; the same as `agent-rl train <recipe>`. Exits."""
    sys.exit(_guarded(lambda: main(parse_options(config_class, sys.argv[1:], prog=sys.argv[0]))))


def _guarded(action: Callable[[], object]) -> int:
    """Run with the user's project importable, and turn what the user did into an exit code."""
    if (project := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, project)
    try:
        action()
        sys.stdout.flush()
    except SystemExit as error:  # tyro: 0 after --help, 2 after a malformed option
        if isinstance(error.code, str):
            raise
        return error.code or 0
    except BaseException as error:
        if _only(KeyboardInterrupt, error):
            return 130
        if _only(BrokenPipeError, error):  # nothing must try to flush at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1  # as rich does
        if user_errors := _only(UserError, error):
            message = Text.assemble(("error: ", "bold red"), str(user_errors[0]))
            Console(stderr=True).print(message, soft_wrap=True)
            return 2
        raise
    return 0


def _only(kind: type[BaseException], error: BaseException) -> list[BaseException]:
    """The leaves of an exception (task groups wrap them) if all are of one kind, else nothing."""
    leaves = [error]
    while any(isinstance(leaf, BaseExceptionGroup) for leaf in leaves):
        leaves = [part for leaf in leaves for part in (getattr(leaf, "exceptions", None) or (leaf,))]
    return leaves if all(isinstance(leaf, kind) for leaf in leaves) else []


# --- recipes --------------------------------------------------------------------------------------------------------


class Recipe(NamedTuple):
    """A script with one config and one function."""

    config: type[Config]
    main: Callable[[Any], object]


def load_recipe(name: str) -> Recipe:
    """A shipped recipe by name, or a script by path. Raises `UserError` when it is not there or not a recipe."""
    path = _recipe_path(name)
    module = _import_file(path)
    config, main = getattr(module, "Config", None), getattr(module, "main", None)
    if not (isinstance(config, type) and issubclass(config, Config) and callable(main)):
        raise UserError(f"{path} is not a recipe: it must define `Config`, an agent_rl.Config, and `main(config)`.")
    return Recipe(config, main)


def _recipe_path(name: str) -> Path:
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise UserError(f"There is no script {name}: give the path of one, or the name of a shipped recipe.")
        return Path(name).resolve()
    recipes = _shipped_recipes()
    if name not in recipes:
        raise not_found("recipe", name, recipes, hint="Or give the path of a script that ends in .py.")
    return recipes[name]


def _shipped_recipes() -> dict[str, Path]:
    """Recipes by name: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parent
    installed, checkout = package / "_recipes", package.parent / "recipes"
    folder = installed if installed.is_dir() else checkout
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def _import_file(path: Path) -> ModuleType:
    """Import a script as `python path` would: its folder is importable."""
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    name = f"{SCRIPT_MODULE}{path.stem}"
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    module = importlib.util.module_from_spec(cast(importlib.machinery.ModuleSpec, spec))
    sys.modules[name] = module  # type annotations of its Config are resolved there
    loader.exec_module(module)
    return module


# --- commands -------------------------------------------------------------------------------------------------------


def train(argv: Sequence[str]) -> None:
    """Train a policy with a recipe."""
    if not argv or argv[0] in HELP:
        rows = [(name, _summary(_docstring(path))) for name, path in _shipped_recipes().items()]
        return _print_table("Recipes; `agent-rl train RECIPE --help` shows the options of one:", (), rows)
    recipe = load_recipe(argv[0])
    recipe.main(parse_options(recipe.config, argv[1:], prog=f"agent-rl train {argv[0]}"))


EPISODES = OptionStyle(positional="environment", short={"tasks": "-n", "samples": "-r", "concurrency": "-c"})
TRANSCRIPTS = replace(EPISODES, defaults={"tasks": 3})


def evaluate(argv: Sequence[str]) -> None:
    """Score a policy, the oracle or a random agent on held-out tasks."""
    from agent_rl.evaluate.eval_config import EvalConfig
    from agent_rl.evaluate.harness import run
    from agent_rl.evaluate.report import to_table

    config = parse_options(EvalConfig, argv, prog="agent-rl eval", style=EPISODES)
    with _counting(config.tasks) as on_group:
        report = run(config, on_group=on_group)
    name = config.model or config.agent
    Console().print(to_table({name: report}, title=f"{config.environment}, {config.split} tasks"))


@contextmanager
def _counting(tasks: int) -> Generator[Callable[[Group], None], None, None]:
    """A bar of finished tasks. It is shown with the first one, so that a mistake stays one sentence."""
    from agent_rl.progress import counting_progress

    done = itertools.count(1)
    with ExitStack() as shown:

        @functools.cache
        def bar() -> Callable[[int, str], None]:
            return shown.enter_context(counting_progress(Console(stderr=True), "tasks", tasks))

        yield lambda group: bar()(next(done), "")


def compare_runs(argv: Sequence[str]) -> None:
    """Compare two evaluations, or suites, of the same tasks: paired difference, interval, tasks that flipped."""
    from agent_rl.evaluate import compare, compare_suites

    config = parse_options(compare.CompareConfig, argv, prog="agent-rl compare", style=OptionStyle(positional="runs"))
    suites = all(map(compare_suites.is_suite, config.runs))
    tables = (
        compare_suites.to_tables(compare_suites.run(config), config)
        if suites
        else compare.to_tables(compare.run(config), config)
    )
    Console(highlight=False).print(*tables)


def rollout(argv: Sequence[str]) -> None:
    """Play a few episodes and print them turn by turn."""
    from agent_rl.evaluate.eval_config import EvalConfig
    from agent_rl.evaluate.harness import run
    from agent_rl.evaluate.transcript import transcript

    console = Console(highlight=False, markup=False, soft_wrap=True)

    def show(group: Group) -> None:
        for episode in group.trajectories:
            console.print(transcript(episode))

    run(parse_options(EvalConfig, argv, prog="agent-rl rollout", style=TRANSCRIPTS), on_group=show)


def doctor_tokens(argv: Sequence[str]) -> None:
    """Prove that a model's sampled tokens, masks and log-probs reach the trainer unchanged."""
    from agent_rl.doctor.tokens import TokensConfig, run, to_table

    config = parse_options(TokensConfig, argv, prog="agent-rl doctor tokens")
    checks = run(config)
    Console(highlight=False).print(to_table(checks, title=config.model))
    if any(check.verdict == "failed" for check in checks):
        sys.exit(1)


def doctor_sandbox(argv: Sequence[str]) -> None:
    """Try to break out of the sandboxes of this machine, and tell which guarantees hold."""
    from agent_rl.doctor.sandbox import SandboxDoctorConfig, broken_promises, run, to_table

    reports = run(parse_options(SandboxDoctorConfig, argv, prog="agent-rl doctor sandbox"))
    Console(highlight=False).print(to_table(reports))
    if broken := broken_promises(reports):
        Console(stderr=True).print(Text(broken, "bold red"), soft_wrap=True)
        sys.exit(1)


def control(argv: Sequence[str]) -> None:
    """Hold, drain, resize or stop a run that goes on, or cancel one of its episodes."""
    import anyio

    from agent_rl.control import CONTROL_COMMANDS, send_command

    if not argv or argv[0] in HELP:
        return _print_table("agent-rl ctl RUN COMMAND:", (), list(CONTROL_COMMANDS.items()))
    status = dict(anyio.run(send_command, Path(argv[0]), argv[1:] or ["status"]))
    running: list[dict[str, Any]] = status.pop("running")
    shown = ", ".join(f"{name} {value}" for name, value in status.items())
    rows = [[str(value) for value in episode.values()] for episode in running]
    _print_table(f"{len(rows)} episodes run; {shown}", ("group", "member", "task", "seconds"), rows)


def trace(argv: Sequence[str]) -> None:
    """Write a run as a trace for Perfetto (ui.perfetto.dev) or chrome://tracing."""
    from agent_rl.store.metrics import read_metrics
    from agent_rl.store.opening import open_journal
    from agent_rl.trace import chrome_trace

    config = parse_options(TraceConfig, argv, prog="agent-rl trace", style=OptionStyle(positional="run"))
    with open_journal(config.run) as journal:
        events = chrome_trace(journal.load_groups(config.first_group).values(), read_metrics(config.run))
    output = config.output or config.run / "trace.json"
    output.write_text(json.dumps(events), encoding="utf-8")
    Console().print(f"{len(events['traceEvents'])} events in {output}: open it at https://ui.perfetto.dev.")


def serve(argv: Sequence[str]) -> None:
    """Serve tools in a process of their own, or tools and an environment as an MCP server."""
    from agent_rl.serve.command import ServeConfig, run

    config = parse_options(ServeConfig, argv, prog="agent-rl serve", style=OptionStyle(positional="targets"))
    run(config, Console(stderr=True, highlight=False, soft_wrap=True).print)


def serve_weights(argv: Sequence[str]) -> None:
    """Receive weights beside an inference server on another machine: only what changed is sent."""
    from agent_rl.serve.weights import WeightsConfig, run

    config = parse_options(WeightsConfig, argv, prog="agent-rl serve weights")
    run(config, Console(stderr=True, highlight=False, soft_wrap=True).print)


def select_tasks(argv: Sequence[str]) -> None:
    """Keep the tasks of an environment that a policy solves sometimes, in a file to train on."""
    from agent_rl.evaluate.selection import SelectConfig, select, to_table

    config = parse_options(SelectConfig, argv, prog="agent-rl env select", style=EPISODES)
    with _counting(config.tasks) as on_group:
        counts = select(config, on_group=on_group)
    Console().print(to_table(counts, config), f"{counts['kept']} tasks are in {config.output}.")


def list_environments(argv: Sequence[str]) -> None:
    """List the environments that are registered or installed."""
    from agent_rl import registry

    _list(argv, "Environments", registry.environments(), lambda id: registry.get_environment(id).__doc__)


def check_environments(argv: Sequence[str]) -> None:
    """Probe environments with no-op, random, oracle and cheating agents, for leaks, determinism and isolation."""
    from agent_rl.testing.environment_check.command import EnvCheckConfig, run
    from agent_rl.testing.environment_check.report import to_summary, to_table

    style = OptionStyle(positional="environments", short={"tasks": "-n"})
    config = parse_options(EnvCheckConfig, argv, prog="agent-rl env check", style=style)
    console = Console(highlight=False)
    reports = run(config, on_report=lambda report: console.print(to_table(report), Text()))
    if len(reports) > 1:
        console.print(to_summary(reports))
    if any(report.failed for report in reports):
        sys.exit(1)


def list_tools(argv: Sequence[str]) -> None:
    """List the tools that are registered or installed."""
    from agent_rl import registry

    _list(argv, "Tools", registry.tools(), lambda id: registry.get_tool(id).description)


def _list(argv: Sequence[str], title: str, targets: Mapping[str, str], describe: Callable[[str], str | None]) -> None:
    if argv and argv[0] not in HELP:
        raise ConfigError(f"Unexpected argument {argv[0]!r}: listing takes none.")
    rows: list[tuple[str, str, str]] = []
    for id, target in targets.items():
        try:
            rows.append((id, target, _summary(describe(id))))
        except UserError as error:
            rows.append((id, target, str(error)))
    _print_table(title, ("id", "defined in", ""), rows)


def _docstring(path: Path) -> str | None:
    """The docstring of a script, without running it."""
    return ast.get_docstring(ast.parse(path.read_text("utf-8")))


def _summary(docstring: str | None) -> str:
    return (docstring or "").strip().partition("\n")[0]


def _print_table(title: str, columns: Iterable[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(*columns, box=None, pad_edge=False, show_header=bool(columns))
    for row in rows:
        table.add_row(*[Text(cell) for cell in row])
    Console(highlight=False).print(Text(title, "bold"), table)


COMMANDS: dict[str, str | Callable[[Sequence[str]], None]] = {
    "train": train,
    "eval": evaluate,
    "suite": "agent_rl.evaluate.command:suite_command",
    "compare": compare_runs,
    "replay": "agent_rl.replay.command:replay_command",
    "rollout": rollout,
    "doctor tokens": doctor_tokens,
    "doctor sandbox": doctor_sandbox,
    "ctl": control,
    "trace": trace,
    "export": "agent_rl.exchange.command:export_command",
    "import": "agent_rl.exchange.command:import_command",
    "view": "agent_rl.view.command:view_command",
    "serve": serve,
    "serve weights": serve_weights,
    "env list": list_environments,
    "env check": check_environments,
    "env select": select_tasks,
    "env impact": "agent_rl.evaluate.command:impact_command",
    "tool list": list_tools,
}


def commands() -> dict[str, str | Callable[[Sequence[str]], None]]:
    """All commands by their words: the core's, and as "package.module:name" those of packages built on it."""
    from agent_rl import registry

    return {**COMMANDS, **{id.replace(".", " "): target for id, target in registry.commands().items()}}


def _dispatch(argv: Sequence[str]) -> None:
    known = commands()
    if not argv or argv[0] in HELP:
        rows = [(f"agent-rl {name}", _described(command)) for name, command in known.items()]
        return _print_table("Train and evaluate LLM agents that act over many turns with real tools.", (), rows)
    named = [name for name in known if list(argv[: len(name.split())]) == name.split()]
    if named:  # `serve retriever` is not `serve` with a target
        longest = max(named, key=len)
        return _command(known[longest])(argv[len(longest.split()) :])
    group = [name for name in known if name.startswith(f"{argv[0]} ")]
    raise not_found("command", " ".join(argv[: 2 if group else 1]), group or known)


def _command(command: str | Callable[[Sequence[str]], None]) -> Callable[[Sequence[str]], None]:
    from agent_rl import registry

    return registry.get_command(command) if isinstance(command, str) else command


def _described(command: str | Callable[[Sequence[str]], None]) -> str:
    try:
        return _summary(_command(command).__doc__)
    except UserError as error:
        return str(error)


if __name__ == "__main__":
    sys.exit(main())
