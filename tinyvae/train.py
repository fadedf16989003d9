"""`python -m tinyvae.train` is the command `tinyvae train`."""

import sys

from tinyvae.commands import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
