"""Floor 2, the world: storage, models, and this machine; the three do not know each other."""
