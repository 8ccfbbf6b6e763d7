"""Train an agent to write programs that pass hidden tests.

Without a checkpoint, a tiny policy from random weights imitates programs that do the right steps but return any of the
plausible results; reinforcement learning from hidden tests would have to find out which result a statement asks for.
The imitation takes long, and is not known to succeed with every seed: it shows the loop. A real checkpoint gets tools,
several attempts and a data set with the same code:

    agent-rl train write_code
    agent-rl train write_code --model Qwen/Qwen3-0.6B --device cuda --dtype bfloat16 --learner.learning-rate 1e-6 \\
        --environment.tools \\
        --environment.rows.source google-research-datasets/mbpp --environment.format mbpp --limits.max-turns 6 \\
        --limits.max-response-tokens 1024 --limits.max-context-tokens 8192
"""

from __future__ import annotations

from pydantic import Field

from agent_rl import recipe
from agent_rl.cli import run_recipe
from agent_rl.environment import EnvironmentSpec
from agent_rl.learner.config import LearnerConfig
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.warm_start import WarmStartConfig
from agent_rl_envs.code import VOCABULARY, CodeConfig, CodeEnvironment


class Config(recipe.RecipeConfig):
    """Train an agent that writes programs."""

    environment: CodeConfig = Field(
        default=CodeConfig(kinds=("write",), forms=("function",), level=1, tools=False),
        description="Problems, tools, attempts and rewards.",
    )
    warm_start: WarmStartConfig = Field(
        default=WarmStartConfig(
            demonstrations=2500,
            max_steps=2000,
            max_implausible=0.1,
            learner=LearnerConfig(learning_rate=5e-3, warmup_steps=50, betas=(0.9, 0.95)),
        ),
        description="Imitation of plausible programs, from which the tiny model starts.",
    )
    limits: RolloutLimits = Field(
        default=RolloutLimits(max_turns=1, max_response_tokens=96, max_context_tokens=384),
        description="Limits of one episode.",
    )


def main(config: Config) -> None:
    """Run the recipe."""
    recipe.run(config, "write_code", EnvironmentSpec(CodeEnvironment, config.environment), vocabulary=VOCABULARY)


if __name__ == "__main__":
    run_recipe(Config, main)
