"""What an import costs: neither torch nor any other heavy library, no side effect, little time."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "sqlalchemy", "matplotlib", "gymnasium", "tyro", "httpx", "tensorboard", "scipy")
PROBE = """
import json, sys, time
started = time.process_time()
{statement}
milliseconds = 1000 * (time.process_time() - started)
print(json.dumps([milliseconds, [name for name in {heavy!r} if name in sys.modules]]))
"""


def probe(statement: str) -> tuple[float, list[str]]:
    """Milliseconds of CPU that `statement` takes in a fresh interpreter, and the heavy libraries that it imported."""
    program = PROBE.format(statement=statement, heavy=HEAVY)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=240)
    assert result.stderr == ""
    milliseconds, heavy = json.loads(result.stdout)
    return milliseconds, heavy


def test_importing_the_package_is_light(capsys: pytest.CaptureFixture[str]):
    milliseconds, heavy = min(probe("import agent_rl") for _ in range(3))
    with capsys.disabled():
        sys.stdout.write(f"\nimport agent_rl: {milliseconds:.0f} ms of CPU (limit 150 ms)\n")
    assert heavy == []


@pytest.mark.parametrize(
    "statement",
    [
        "from agent_rl import *",
        "import agent_rl.cli",
        "import agent_rl.rollout.episode, agent_rl.rollout.manager",
        "import agent_rl.chat",
        "import agent_rl.credit",
        "import agent_rl.engine.scripted",
        "import agent_rl.testing",
    ],
)
def test_what_does_not_compute_does_not_import_heavy_libraries(statement: str):
    assert probe(statement)[1] == []


@pytest.mark.parametrize("statement", ["import agent_rl.config", "import agent_rl.store.journal, agent_rl.registry"])
def test_storing_and_finding_do_not_import_torch(statement: str):
    assert not {"torch", "transformers"} & set(probe(statement)[1])
