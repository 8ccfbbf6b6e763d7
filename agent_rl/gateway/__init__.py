"""An OpenAI-compatible server in front of an engine that records what agent programs sample through it, as tokens."""
