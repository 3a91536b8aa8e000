"""Studies: what the formulas claim, measured. ``python -m experiments`` lists them.

One file a study, each with a frozen dataclass of its flags, a pure ``run(config, report) -> Result``, and a `Study`
that names them (`experiments.study`). Studies stand on rooms: `plots` draws, `common` has flags, files, devices and
training, `tasks` what is learned, `networks` and `measures` what the library does not have, `figures` what one study
draws; `benchmarks` is a study in many files. `experiments.catalogue` lists the studies; in `runner`, `cli` runs one and
writes what it found, and `reproduce` runs them all and makes one report.
"""
