"""vLLM as an engine: in this process (`VLLMEngine`) or behind HTTP (`VLLMServerEngine`). Token ids only, never text."""

from agent_rl.engine.vllm.in_process import VLLMEngine
from agent_rl.engine.vllm.server import VLLMServerEngine

__all__ = ["VLLMEngine", "VLLMServerEngine"]
