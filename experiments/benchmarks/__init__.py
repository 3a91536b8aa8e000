"""Loss and gradient of one recurrent layer, side by side with what a user would pick instead.

``python -m experiments bench`` runs it; README.md beside this file says how to read what comes out. From the bottom up:
`work` (what everybody computes), `contender` (somebody who computes it), one file for each library, `contenders` (the
list), `measure` (the clock), then what is measured with it (`speed`, `checkpoint`, `length`, `peak`), how one
measurement follows another (`kept`, `beside`, `attempts`), and what is made of the numbers (`summary`, `report`,
`figures`); `command` puts them together.
"""
