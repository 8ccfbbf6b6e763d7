"""Warnings about a run: each where its metrics call for it, none where they do not, and none twice."""

import logging

import pytest

from agent_rl.health import SYMPTOMS, Health

HEALTHY = {
    "learner/approx_kl": 0.02,
    "learner/mismatch_abs": 0.01,
    "learner/skipped_steps": 0,
    "rollout/staleness_max": 0.0,
    "rollout/episodes": 250.0,
    "rollout/episodes_failed": 6.0,
    "rollout/truncated": 0.3,
    "rollout/groups_trained": 20.0,
    "rollout/reward": 0.4,
}
SICK = {
    "moved 0.19 nats per token": ({"learner/approx_kl": 0.19}, 1),
    "are 0.20 nats per token": ({"learner/mismatch_abs": 0.2}, 1),
    "3 optimizer steps": ({"learner/skipped_steps": 3}, 1),
    "40% of episodes failed": ({"rollout/episodes": 60.0, "rollout/episodes_failed": 40.0}, 1),
    "90% of episodes are still cut": ({"rollout/truncated": 0.9}, 20),
    "mean reward 1.00": ({"rollout/groups_trained": 0.0, "rollout/reward": 1.0}, 5),
}


def told(caplog: pytest.LogCaptureFixture, *steps: dict[str, float]) -> list[str]:
    health = Health()
    with caplog.at_level(logging.WARNING, "agent_rl.health"):
        for step, metrics in enumerate(steps, 1):
            health.look(step, metrics)
    return caplog.messages


def test_a_healthy_run_hears_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert told(caplog, *[HEALTHY] * 50, {}) == []


@pytest.mark.parametrize(("words", "sick", "steps"), [(words, *case) for words, case in SICK.items()])
def test_a_symptom_is_told_once_it_has_lasted(caplog, words, sick, steps) -> None:
    metrics = HEALTHY | sick
    assert told(caplog, *[metrics] * (steps - 1)) == []
    messages = told(caplog, *[metrics] * (steps - 1), HEALTHY, *[metrics] * (3 * steps))
    assert len(messages) == 1
    assert words in messages[0]
    assert messages[0].startswith(f"Step {2 * steps}: ")


def test_every_symptom_has_its_case() -> None:
    assert len(SICK) == len(SYMPTOMS)


def test_staleness_is_no_mismatch_of_engine_and_learner(caplog: pytest.LogCaptureFixture) -> None:
    assert told(caplog, HEALTHY | {"learner/mismatch_abs": 0.2, "rollout/staleness_max": 1.0}) == []


def test_guidance_that_is_left_out_is_no_move_of_the_policy(caplog: pytest.LogCaptureFixture) -> None:
    apart = {"learner/mismatch_abs": 0.2, "learner/approx_kl": 0.2}
    assert told(caplog, HEALTHY | apart | {"guidance/kept_in_context": 0.0}) == []
    assert len(told(caplog, HEALTHY | apart)) == 2
