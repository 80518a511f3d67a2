"""Is this machine: processes and what they may touch."""
