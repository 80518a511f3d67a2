"""Is the public face: every name that an application uses, handed on lazily; it defines nothing."""
