"""Helps to test agents: a model that follows a script."""

from power_loop.testing.scripted import ScriptedLLM, call, calls

__all__ = ["ScriptedLLM", "call", "calls"]
