"""A run on Ray is the run of one process, whatever is killed meanwhile. The processes are real, so are the kills."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import psutil
import pytest
import torch
from ray.cluster_utils import Cluster

from agent_rl.cluster.calls import Ref
from agent_rl.cluster.learner import RemoteLearner
from agent_rl.cluster.site import ClusterSite
from agent_rl.cluster_config import ClusterConfig
from agent_rl.control import send_command
from agent_rl.errors import UserError
from agent_rl.train import StepReport
from agent_rl.types import Message, Step
from tests.cluster.conftest import CPUS, Slow, actors, consumed, run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("two_nodes")]
Found = tuple[Path, torch.nn.Module]


def on_ray(folder: Path, in_process: Found, kill: Callable[[StepReport], None] = lambda report: None, **cluster):
    """Train on the cluster, and compare with the run in one process, bit for bit."""
    reports: list[StepReport] = []

    def on_step(report: StepReport) -> None:
        reports.append(report)
        kill(report)

    progress, model = run(folder, site=ClusterSite(ClusterConfig(**cluster)), on_step=on_step)
    expected_folder, expected = in_process
    assert progress.step == 4
    assert consumed(folder) == consumed(expected_folder), "nothing is lost, and nothing trained on twice"
    for (name, weight), other in zip(model.named_parameters(), expected.parameters(), strict=True):
        assert torch.equal(weight, other), name
    assert_gone("RolloutWorker", "InferenceReplica", "LearnerRank")
    return reports


def assert_gone(*kinds: str) -> None:
    """Ray ends processes in its own time, but not long after."""
    ends_at = time.monotonic() + 30.0
    while left := [actor for kind in kinds for actor in actors(kind)]:
        assert time.monotonic() < ends_at, left
        time.sleep(0.1)


def kill_after(step: int, kind: str) -> Callable[[StepReport], None]:
    def kill(report: StepReport) -> None:
        if report.step == step:
            actors(kind)[0].send_signal(signal.SIGKILL)

    return kill


def test_the_same_run(tmp_path: Path, in_process: Found) -> None:
    priorities: set[int] = set()

    def look(report: StepReport) -> None:
        priorities.update(actor.nice() for kind in ("RolloutWorker", "LearnerRank") for actor in actors(kind))

    reports = on_ray(tmp_path, in_process, look, rollout_workers=2)
    assert reports[-1].metrics["cluster/lost"] == 0
    assert priorities == {psutil.Process().nice()}, "no lower than that of what runs beside them"
    assert 0 < reports[-1].metrics["cluster/weights_sent_share"] <= 1.01


def test_the_same_run_with_inference_replicas(tmp_path: Path, in_process: Found) -> None:
    on_ray(tmp_path, in_process, rollout_workers=2, inference_replicas=2)


def test_a_lost_rollout_worker_is_replaced(tmp_path: Path, in_process: Found) -> None:
    reports = on_ray(tmp_path, in_process, kill_after(1, "RolloutWorker"), rollout_workers=2)
    assert sum(report.metrics["cluster/lost"] for report in reports) >= 1


def test_the_only_rollout_worker_is_replaced(tmp_path: Path, in_process: Found) -> None:
    on_ray(tmp_path, in_process, kill_after(1, "RolloutWorker"), rollout_workers=1)


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_lost_inference_replica_is_replaced(tmp_path: Path, in_process: Found, replicas: int) -> None:
    on_ray(tmp_path, in_process, kill_after(1, "InferenceReplica"), rollout_workers=1, inference_replicas=replicas)


def test_a_lost_learner_goes_on_from_the_last_checkpoint(tmp_path: Path, in_process: Found) -> None:
    killed: list[int] = []

    def kill(report: StepReport) -> None:
        if report.step == 3 and not killed:
            killed.append(report.step)
            actors("LearnerRank")[0].kill()

    reports = on_ray(tmp_path, in_process, kill, rollout_workers=1)
    assert [report.step for report in reports] == [1, 2, 3, 3, 4], (
        "step 3 is taken again, from the checkpoint of step 2"
    )


def test_a_learner_that_is_lost_while_its_weights_are_sent(
    tmp_path: Path, in_process: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its workers find it out: what they were to load cannot be had any more."""
    advance, updates = RemoteLearner.advance, itertools.count(1)

    def ends(self: RemoteLearner) -> tuple[float, Ref]:
        share, update = advance(self)
        if next(updates) == 4:  # in step 3, after the checkpoint of step 2
            [learner] = actors("LearnerRank")
            learner.kill()
            learner.wait(30)
            return share, self.complete()
        return share, update

    monkeypatch.setattr(RemoteLearner, "advance", ends)
    reports = on_ray(tmp_path, in_process, rollout_workers=1)
    assert [report.step for report in reports] == [1, 2, 3, 4]


def test_a_lost_node_is_done_without(tmp_path: Path, in_process: Found, two_nodes: Cluster) -> None:
    """Whatever was on it: workers, or the learner, with which step 1 is taken again."""

    def kill(report: StepReport) -> None:
        if report.step == 1 and two_nodes.worker_nodes:
            [node] = two_nodes.worker_nodes
            two_nodes.remove_node(node, allow_graceful=False)

    try:
        reports = on_ray(tmp_path, in_process, kill, rollout_workers=3)
    finally:
        two_nodes.add_node(num_cpus=CPUS)
    assert len(reports) > 4 or sum(report.metrics["cluster/lost"] for report in reports) >= 1


def test_one_of_two_lost_ranks_is_a_lost_learner(tmp_path: Path, in_process: Found) -> None:
    killed: list[int] = []

    def kill(report: StepReport) -> None:
        if report.step == 3 and not killed:
            killed.append(report.step)
            actors("LearnerRank")[-1].kill()

    site = ClusterSite(ClusterConfig(rollout_workers=1, learner_ranks=2))
    progress, model = run(tmp_path, site=site, on_step=kill)
    assert progress.step == 4
    assert consumed(tmp_path) == consumed(in_process[0])
    for weight, other in zip(model.parameters(), in_process[1].parameters(), strict=True):
        torch.testing.assert_close(weight, other, atol=1e-5, rtol=0)  # sums over ranks round in another order


def test_without_its_head_a_run_ends_and_another_ray_goes_on_with_it(tmp_path: Path, in_process: Found) -> None:
    drive = [sys.executable, "-m", "tests.cluster.driver", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
    with subprocess.Popen([*drive, "--slow"], env=environment) as driver:
        wait_for_lines(tmp_path / "metrics.jsonl", 1, driver)
        [head] = [p for p in psutil.Process(driver.pid).children(recursive=True) if p.name() == "gcs_server"]
        head.kill()
        assert driver.wait(60) != 0
    subprocess.run([*drive, "--resume"], env=environment, check=True, timeout=200)
    assert consumed(tmp_path) == consumed(in_process[0])


def wait_for_lines(file: Path, count: int, writer: subprocess.Popen[bytes], timeout_s: float = 120.0) -> None:
    ends_at = time.monotonic() + timeout_s
    while not file.is_file() or len(file.read_text().splitlines()) < count:
        assert writer.poll() is None
        assert time.monotonic() < ends_at
        time.sleep(0.1)


def test_an_operator_holds_a_cluster_too(tmp_path: Path, in_process: Found) -> None:
    """Paused after the first step, no turn is taken until the run is told to go on."""
    taken: list[int] = []

    async def hold() -> None:
        await send_command(tmp_path, ["pause"])
        for _ in range(3):
            await anyio.sleep(0.5)
            taken.append(len(consumed(tmp_path)))
        await send_command(tmp_path, ["resume"])

    def pause(report: StepReport) -> None:
        if report.step == 1:
            threading.Thread(target=anyio.run, args=(hold,)).start()

    on_ray(tmp_path, in_process, pause, rollout_workers=1)
    assert taken[1] == taken[2] < 4


def test_an_operator_changes_how_many_workers_there_are(tmp_path: Path, in_process: Found) -> None:
    """One joins a run that goes on, and another leaves it when its episodes have ended."""
    seen: list[str] = []

    async def resize() -> None:
        await send_command(tmp_path, ["pause"])  # so that the run does not end meanwhile
        seen.append((await send_command(tmp_path, ["workers", "3"]))["workers"])
        with anyio.fail_after(60):
            while (await send_command(tmp_path, ["status"]))["workers"] != "3 of 3":  # noqa: ASYNC110  # no event tells the test
                await anyio.sleep(0.1)
        seen.append((await send_command(tmp_path, ["workers", "2"]))["workers"])
        await send_command(tmp_path, ["resume"])

    def change(report: StepReport) -> None:
        if report.step == 1:
            threading.Thread(target=anyio.run, args=(resize,)).start()

    reports = on_ray(tmp_path, in_process, change, rollout_workers=1)
    assert seen == ["1 of 3", "2 of 2"]
    assert reports[-1].metrics["cluster/workers"] == 2
    assert sum(report.metrics["cluster/lost"] for report in reports) == 0, "it left in good order"


def test_a_worker_plays_as_many_as_it_has_places(tmp_path: Path, in_process: Found) -> None:
    on_ray(tmp_path, in_process, rollout_workers=1, episodes_per_worker=1)


def test_a_run_without_room_says_what_is_missing(tmp_path: Path) -> None:
    site = ClusterSite(ClusterConfig(cpus_per_rank=1000, start_timeout_s=2))
    with pytest.raises(UserError, match=r"no room for 1 learner ranks of 1000 CPUs"):
        run(tmp_path, site=site)


class Broken(Slow):
    """A bug that is nobody's failure."""

    async def step(self, action: Message) -> Step:
        raise UserError("this environment wants another option")


def test_what_an_environment_refuses_ends_the_run_with_its_own_words(tmp_path: Path) -> None:
    site = ClusterSite(ClusterConfig(rollout_workers=1))
    with pytest.raises(ExceptionGroup) as caught:
        run(tmp_path, Broken, site=site)
    refused, others = caught.value.split(UserError)
    assert "another option" in repr(refused)
    assert others is None
    assert_gone("RolloutWorker", "LearnerRank")
