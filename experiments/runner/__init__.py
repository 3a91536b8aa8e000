"""Who runs the studies: the command, the terminal, and the report of all."""
