"""Studies: what the formulas claim, measured. ``python -m experiments`` lists them.

One file a study, each with a frozen dataclass of its flags, a pure ``run(config, report) -> Result``, and a `Study`
that names them (`experiments.study`). Rooms, each standing on those before it: `plots` draws, `common` is what every
study stands on, `tasks` are what is learned, `networks` and `measures` what more than the library has, `figures` has
one file a study, `benchmarks` is a study in many files. `experiments.catalogue` lists the studies; in `runner`, `cli`
runs one and writes what it found, and `reproduce` runs them all and makes one report.
"""
