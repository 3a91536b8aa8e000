"""Loss and gradient of one recurrent layer, side by side with what a user would pick instead.

``python -m experiments bench`` runs it; README.md beside this file says how to read what comes out. From the bottom up:

* `peers`: `work` (what everybody computes), `contender` (somebody who computes it), one file for each library, and
  `contenders` (the list).
* `measuring`: `side_by_side` (all checked, then timed by `kit.clock`), what is measured with it (`speed`, `checkpoint`,
  `length`, `long`, `peak`), and how one measurement follows another (`kept`, `beside`, `attempts`).
* `reporting`: `summary`, `result`, `report`, `figures`, `circumstances`.

`config` has the flags, and `command` puts them together.
"""
