"""What is made of the numbers: ratios and marks, ``result.json``, tables and figures."""
