"""Training through vLLM: the loop, the weights and the log-probs are those of training with our own engine."""

import copy
import json

import numpy as np
import pytest

from agent_rl.engine.choose import EngineConfig
from agent_rl.errors import ConfigError
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.seeding import stream
from agent_rl.testing.environments import GuessNumber
from agent_rl.testing.tiny import make_tokenizer
from agent_rl.train import train
from agent_rl.train_config import TrainConfig
from agent_rl.types import Message, Step

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


class Lottery(GuessNumber):
    """A reward at random for what ends by itself, so that there is something to learn from."""

    async def reset(self, task, seed):
        self._rng = stream(seed, id(self))
        return await super().reset(task, seed)

    async def step(self, action: Message) -> Step:
        return Step((), float(self._rng.random() < 0.5), terminated=True)


def config(server, **options):
    return TrainConfig(
        steps=2,
        groups_per_batch=2,
        group_size=8,
        limits=RolloutLimits(max_turns=1, max_response_tokens=250, max_context_tokens=380),
        engine=EngineConfig(kind="vllm_server", urls=(server,)),
        **options,
    )


async def test_two_steps(server, model, tokenizer, tmp_path):
    tasks = GuessNumber.tasks("train", 8)
    progress = await train(
        config(server),
        run_dir=tmp_path,
        model=copy.deepcopy(model),
        tokenizer=tokenizer,
        environment=lambda task: Lottery(),
        task_at=lambda index: tasks[index % 8],
    )
    assert progress.step == 2
    first, second = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for line in (first, second):
        differences = [value for name, value in line.items() if "logprob_diff" in name or "mismatch" in name]
        assert differences, sorted(line)
        assert max(map(abs, differences)) < 1e-3, "vLLM samples with the learner's weights"
    assert np.isfinite(second["rollout/reward"])


async def test_another_tokenizer_is_refused_before_the_run(server, model, tmp_path):
    with pytest.raises(BaseException) as refused:  # noqa: PT011  # perhaps in a group
        await train(
            config(server),
            run_dir=tmp_path,
            model=copy.deepcopy(model),
            tokenizer=make_tokenizer(["other words altogether, other merges"]),
            environment=lambda task: Lottery(),
            task_at=lambda index: GuessNumber.tasks("train", 1)[0],
        )
    leaves = refused.value.exceptions if isinstance(refused.value, BaseExceptionGroup) else [refused.value]
    assert [type(leaf) for leaf in leaves] == [ConfigError]
    assert "serve the model that is trained" in str(leaves[0])
