"""The suite that every store has to pass, written against the port only."""
