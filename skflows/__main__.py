"""Run the ``skflows`` command as ``python -m skflows``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
