"""What a study draws, in a file of its name; `experiments.plots` has what all of them draw with."""
