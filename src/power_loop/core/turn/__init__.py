"""Is what happens: the pure decision, and the driver that performs one act and commits it."""
