"""Is what the model sees: the view of the log that each request carries."""
