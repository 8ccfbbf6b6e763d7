"""Continuous batching over any full-attention transformers causal LM, in this process, on CPU or CUDA.

Read in this order: `engine` (the asynchronous shell), `scheduler` (what runs in the next step), `slots` (which session
holds which row), `cache` and `forward` (the model call), `sampling`, `job` (one request).
"""

from agent_rl.engine.local.engine import LocalEngine
from agent_rl.engine.local.scheduler import EngineStats

__all__ = ["EngineStats", "LocalEngine"]
