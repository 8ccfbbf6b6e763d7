"""Fakes and conformance checks that ship with the framework: test your own tools and environments with them."""

from agent_rl.testing.tool import check_tool

__all__ = ["check_tool"]
