"""Studies: what the formulas claim, measured. ``python -m experiments`` lists them.

One file a study, each with a frozen dataclass of its flags, a pure ``run(config, report) -> Result``, and a `Study`
that names them; `experiments.catalogue` lists the studies, `experiments.cli` runs one and writes what it found,
`experiments.reproduce` runs them all and makes one report.
"""
