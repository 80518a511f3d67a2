"""Floor 1, the words: pure data and protocols that every other floor speaks."""
