"""The suite of `power_loop.testing.conformance` on every backend, and what is tested of every backend beside it."""
