"""The first minute with power-loop: a real model here, a kill -9 in the middle of a tool call, and what survives."""
