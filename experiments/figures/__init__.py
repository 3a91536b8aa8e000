"""What studies draw that `experiments.plots` has no function for; a file is named after its study, or after what
two of them share.
"""
