"""Inference engines behind one contract. The local engine is not imported here, because it needs torch."""

from agent_rl.engine.base import Engine, GenerationRequest
from agent_rl.engine.scripted import ScriptedEngine

__all__ = ["Engine", "GenerationRequest", "ScriptedEngine"]
