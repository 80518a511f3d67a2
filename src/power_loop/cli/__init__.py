"""Is the `power-loop` command: one file a subcommand, all of it on public names of the package."""
