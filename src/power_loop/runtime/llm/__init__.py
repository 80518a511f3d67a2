"""Is how models are reached: pure wire formats, and the carriers that bring bytes."""
