"""What several rooms refuse. Each message names the argument, what came, what was expected and the remedy.

What looks at shapes, dtypes and trees runs when a function is traced, before any work; what has to see numbers, such
as those of a training step, runs on the host. What one room alone refuses is said there, in an `_errors.py` or beside
the code.
"""
