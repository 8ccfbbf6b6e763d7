"""Our environments as `gymnasium` environments: `gymnasium.make("agent_rl/SqlLookup-v0")` after `import agent_rl.gym`.

Actions and observations are texts. An action may hold tool calls, written as the parser reads them (`tool_parser`);
`info` has what a text cannot tell: the messages, the tools' definitions, the terms of the reward. `gymnasium.make_vec`
gives many environments at once, which step side by side.

Importing this package registers every known environment with gymnasium, and imports none. Without an import,
`gymnasium.make("agent_rl.gym:agent_rl/SqlLookup-v0")` does the same.
"""

from __future__ import annotations

import gymnasium
from gymnasium.envs.registration import registry as gymnasium_registry

from agent_rl.gym.single import GymnasiumEnv
from agent_rl.gym.text import AnyText
from agent_rl.gym.vector import GymnasiumVectorEnv
from agent_rl.registry import environments

__all__ = ["AnyText", "GymnasiumEnv", "GymnasiumVectorEnv", "gymnasium_id", "register_all"]


def gymnasium_id(id: str) -> str:
    """`agent_rl/SqlLookup-v0` for `sql_lookup`."""
    return f"agent_rl/{''.join(part[:1].upper() + part[1:] for part in id.split('_'))}-v0"


def register_all() -> None:
    """Register every known environment with gymnasium; again after `register_environment`, for what is new."""
    for id in environments():
        name = gymnasium_id(id)
        if name not in gymnasium_registry:
            gymnasium.register(
                name,
                entry_point="agent_rl.gym:GymnasiumEnv",
                vector_entry_point="agent_rl.gym:GymnasiumVectorEnv",
                kwargs={"environment": id},
            )


register_all()
