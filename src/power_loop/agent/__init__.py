"""Floor 5, the handle that an application holds."""
