"""Floor 4, the loop: how it speaks, what the model sees, what happens."""
