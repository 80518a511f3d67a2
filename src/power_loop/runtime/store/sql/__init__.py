"""Is the only place where a database is named."""
