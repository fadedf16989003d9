"""`python -m tinyvae.train` is the command `tinyvae train`."""

import sys

from tinyvae.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
