"""Train a policy through an agent program that is not ours: the OpenAI Agents SDK, which never hears of training.

Its own loop asks a chat endpoint, runs the tools, and answers. The endpoint is a gateway that records every token; the
episode's database and its judge are those of the quickstart. `pip install 'agent-rl[agents]'` comes first.

    agent-rl train quickstart                                              # makes a policy that knows the format
    agent-rl train black_box_agent --model runs/quickstart-.../start --steps 40
    agent-rl train black_box_agent --model Qwen/Qwen3-0.6B --device cuda --dtype bfloat16 --learner.learning-rate 1e-6
"""

from __future__ import annotations

import json
from typing import Any, Self

from pydantic import Field

from agent_rl import recipe
from agent_rl.cli import run_recipe
from agent_rl.environment import EnvironmentSpec
from agent_rl.errors import ConfigError
from agent_rl.gateway.program import Assignment
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.tool import Tool, run_tool_calls
from agent_rl.types import ToolCall
from agent_rl_envs.sql_lookup import SqlLookup, SqlLookupConfig


class Config(recipe.RecipeConfig):
    """Train a policy that acts inside the OpenAI Agents SDK."""

    model: str = Field(description="Hub id or folder of a checkpoint that knows the tool format.")
    limits: RolloutLimits = Field(
        default=RolloutLimits(max_turns=6, max_response_tokens=48, max_context_tokens=512),
        description="Limits of one episode.",
    )


class AgentsProgram:
    """One client for all episodes; each call is one run of the SDK's loop."""

    def __init__(self) -> None:
        try:
            import agents
            import openai
        except ImportError as error:
            raise ConfigError(f"{error}: pip install 'agent-rl[agents]'.") from error
        agents.set_tracing_disabled(True)  # it would send every episode to its maker
        self._sdk: Any = agents
        self._client = openai.AsyncOpenAI(api_key="unused", base_url="http://unused", max_retries=0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._client.close()

    async def __call__(self, assignment: Assignment) -> str:
        """The SDK's final answer. `max_turns` is the gateway's matter, which ends the episode at its limits."""
        client = self._client.with_options(base_url=assignment.base_url, api_key=assignment.api_key)
        system, *rest = assignment.prompt
        agent = self._sdk.Agent(
            name="analyst",
            instructions=system.content,
            model=self._sdk.OpenAIChatCompletionsModel(assignment.model, client),
            tools=[self._tool(tool) for tool in assignment.tools],
        )
        result = await self._sdk.Runner.run(agent, "\n\n".join(message.content for message in rest), max_turns=None)
        return str(result.final_output)

    def _tool(self, tool: Tool) -> Any:
        async def invoke(context: Any, arguments: str) -> str:
            (result,) = await run_tool_calls([tool], [ToolCall("call", tool.name, json.loads(arguments or "{}"))])
            return result.content

        return self._sdk.FunctionTool(tool.name, tool.description, dict(tool.parameters), invoke, False)


def main(config: Config) -> None:
    """Run the recipe. What the policy learned inside the SDK is measured without it."""
    databases = EnvironmentSpec(SqlLookup, SqlLookupConfig(two_query_share=0.0))
    recipe.run(config, "black_box_agent", databases, program=AgentsProgram)


if __name__ == "__main__":
    run_recipe(Config, main)
