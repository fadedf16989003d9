"""`python -m tinyvae` is the command `tinyvae`."""

import sys

from tinyvae.commands import main

if __name__ == "__main__":
    sys.exit(main())
