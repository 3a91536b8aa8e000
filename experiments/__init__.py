"""Studies: what the formulas claim, measured. ``python -m experiments`` lists them.

Each study has a frozen dataclass of its flags, a pure ``run(config, report) -> Result``, and a `Study` that names them
(`experiments.study`). It is one file of `studies`, or a folder there. It stands on `kit` alone: what studies share.
`benchmarks` is a study of its own size. `catalogue` lists the studies; in `runner`, `cli` runs one and writes what it
found, and `reproduce` runs them all and makes one report.
"""
