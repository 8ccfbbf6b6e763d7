"""Distil a teacher into a policy on what the policy itself does, together with reinforcement learning (KDRL).

The policy plays; a teacher says of each token that was sampled how likely it would have been, and the difference of
log-probs is a reward of that token: the reverse KL of on-policy distillation (GKD, arXiv:2306.13649). The rewards of
the episodes count as ever (KDRL, arXiv:2506.02208), unless distillation is to be all there is.

Without a checkpoint, the teacher is a quickstart that is trained first, in `teacher_dir`, and the policy starts where
that one started: it gets there in fewer steps.

    agent-rl train distill
    agent-rl train distill --distill-only            # the teacher alone, without rewards
    agent-rl train distill --learner.distillation.teacher Qwen/Qwen3-8B --model Qwen/Qwen3-0.6B --device cuda \\
        --dtype bfloat16 --learner.learning-rate 1e-6 --limits.max-response-tokens 512 --limits.max-context-tokens 4096
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from agent_rl import recipe
from agent_rl.cli import run_recipe
from agent_rl.environment import EnvironmentSpec
from agent_rl.errors import UserError
from agent_rl.evaluate.actor import model_source
from agent_rl.learner.config import DistillationConfig
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.store.run_folder import REPORT
from agent_rl_envs.sql_lookup import VOCABULARY, SqlLookup, SqlLookupConfig

DATABASES = EnvironmentSpec(SqlLookup, SqlLookupConfig(two_query_share=0.12))
DEMONSTRATED = EnvironmentSpec(SqlLookup, SqlLookupConfig(two_query_share=0.4))  # as in the quickstart


class Config(recipe.RecipeConfig):
    """Distil a teacher into a policy that also learns from rewards."""

    steps: int = Field(default=30, ge=1, description="Training steps of the policy, one batch of groups each.")
    distill_only: bool = Field(default=False, description="Learn from the teacher alone: rewards count nothing.")
    teacher_steps: int = Field(default=80, ge=1, description="Training steps of the teacher, if it is made here.")
    teacher_dir: Path = Field(default=Path("runs/teacher"), description="Folder of a teacher that is made here.")
    limits: RolloutLimits = Field(
        default=RolloutLimits(max_turns=6, max_response_tokens=48, max_context_tokens=512),
        description="Limits of one episode.",
    )


def main(config: Config) -> None:
    """Run the recipe."""
    update: dict[str, object] = {"advantage_coefficient": 0.0} if config.distill_only else {}
    if config.learner.distillation is None:
        if config.model is not None:
            raise UserError("A checkpoint needs a teacher with its tokenizer: set learner.distillation.teacher.")
        update["distillation"] = DistillationConfig(teacher=_trained(config))
    config = config.model_copy(update={"learner": config.learner.model_copy(update=update)})
    recipe.run(config, "distill", DATABASES, demonstrated=DEMONSTRATED, vocabulary=VOCABULARY)


def _trained(config: Config) -> str:
    """The teacher in `teacher_dir`; what is not finished there goes on."""
    folder = config.teacher_dir
    if not (folder / REPORT).is_file():
        update = {"run_dir": folder, "resume": folder.exists(), "steps": config.teacher_steps}
        learning = config.model_copy(update=update)
        recipe.run(learning, "teacher", DATABASES, demonstrated=DEMONSTRATED, vocabulary=VOCABULARY)
    return model_source(str(folder))


if __name__ == "__main__":
    run_recipe(Config, main)
