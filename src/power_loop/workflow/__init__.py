"""Floor 6, many agents in plain code: workflows that are written as data, run step by step and survive."""
