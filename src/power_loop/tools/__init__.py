"""Floor 3, what a model may do: definitions beside their handlers."""
