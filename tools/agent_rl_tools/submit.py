"""`submit`: the model's own end of an episode, where a message without tool calls is not one."""

from __future__ import annotations

from agent_rl import Toolset, tool


class SubmitTool(Toolset):
    """Ends the episode: `ToolEnvironment` passes what was submitted to its `answer`."""

    def __init__(self) -> None:
        self.submitted: str | None = None

    @tool
    async def submit(self, answer: str = "") -> str:
        """Submit the final answer. This ends the task.

        Args:
            answer: The answer; empty if what was done is the answer.
        """
        self.submitted = answer
        return "Submitted."
