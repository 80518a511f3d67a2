"""The tests: they mirror the source, and each is named by the behaviour it shows."""
