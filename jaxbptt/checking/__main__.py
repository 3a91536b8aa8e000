"""``python -m jaxbptt.checking path.to.module:CELL``: checks a cell or readout of your own from the shell.

Prints the table and exits with 0; exits with 1 when a rule is wrong, saying where, and with 2 when there is
nothing to check.
"""

import argparse
import importlib
import os
import sys
import traceback

import jax

from jaxbptt.checking import GradientMismatchError, _errors, check_cell, check_readout
from jaxbptt.checking.cell import SIZES as CELL_SIZES
from jaxbptt.checking.readout import SIZES as READOUT_SIZES
from jaxbptt.types import Cell, Readout


def load(target) -> Cell | Readout:
    """The Cell or Readout that ``MODULE:NAME`` names; a factory is called without arguments."""
    module_name, _, name = target.partition(":")
    if not module_name or not name:
        _errors.not_checkable(target, "it needs both parts, with a colon between")
    if module_name.endswith(".py") and not os.path.isfile(module_name):
        _errors.not_checkable(target, f"there is no file `{module_name}` in {os.getcwd()}")
    try:
        value = _import(module_name)
    except (Exception, SystemExit) as error:  # whatever the file does when it runs
        _errors.not_checkable(target, f"importing `{module_name}` failed ({type(error).__name__}: {error})")
    for part in name.split("."):
        if not hasattr(value, part):
            _errors.not_checkable(target, f"`{module_name}` has no `{name}`")
        value = getattr(value, part)
    if not isinstance(value, (Cell, Readout)) and callable(value):
        try:
            value = value()
        except (Exception, SystemExit) as error:
            _errors.not_checkable(target, f"calling `{name}()` failed ({type(error).__name__}: {error})")
    if isinstance(value, (Cell, Readout)):
        return value
    return _errors.not_checkable(target, f"`{name}` is a {type(value).__name__}")


def _import(module_name):
    """A module by its dotted name, or by the path of its file."""
    folder, name = os.getcwd(), module_name
    if module_name.endswith(".py"):
        folder, name = os.path.split(os.path.abspath(module_name[: -len(".py")]))
    sys.path.insert(0, folder)
    return importlib.import_module(name)


def _token_ids(number):
    return None if number is None else lambda key, shape, *_: jax.random.randint(key, shape, 0, number)


def pair_of_integers(text):
    """INPUT,HIDDEN as two; argparse says the name of this function when it can't."""
    first, second = (int(part) for part in text.split(","))  # a ValueError is argparse's sign of a bad argument
    return first, second


def main(arguments=None):
    """The command; returns its exit status."""
    about = "Checks the hand-written rule of a cell or readout against jax.vjp and finite differences."
    parser = argparse.ArgumentParser(prog="python -m jaxbptt.checking", description=about)
    parser.add_argument("target", help="MODULE:NAME of a Cell, a Readout, or a function that makes one")
    parser.add_argument("--seeds", type=int, default=3, help="how many random problems of each shape (default: 3)")
    pairs = "pairs INPUT,HIDDEN of a cell or HIDDEN,OUTPUT of a readout (default: 3,5 1,4)"
    parser.add_argument("--sizes", type=pair_of_integers, nargs="+", help=pairs)
    below = "the inputs are integers below this number; where they are rows of a table of INPUT rows, see --sizes too"
    parser.add_argument("--tokens", type=int, help=below)
    options = parser.parse_args(arguments)
    try:
        value = load(options.target)
        seeds, sizes = range(options.seeds), options.sizes
        if isinstance(value, Readout):
            table = check_readout(value, seeds=seeds, sizes=sizes or READOUT_SIZES)
        else:
            table = check_cell(value, seeds=seeds, sizes=sizes or CELL_SIZES, inputs=_token_ids(options.tokens))
    except GradientMismatchError as wrong:
        sys.stderr.write(f"WRONG: {wrong}\n")
        return 1
    except (TypeError, ValueError, NotImplementedError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except (Exception, SystemExit):  # of the rule itself: where in it, the traceback says
        traceback.print_exc()
        return 2
    sys.stdout.write(f"{table}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
