"""``python -m experiments``."""

import sys

from experiments.runner.cli import main

if __name__ == "__main__":
    sys.exit(main())
