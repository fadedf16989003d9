"""Peak memory of a whole training command on MNIST, figures included, as the operating system counts it.

python -m benchmarks.memory --data-dir DIR
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    folder = str(parser.parse_args().data_dir)
    with tempfile.TemporaryDirectory() as out:
        options = ["--data", "mnist", "--data-dir", folder, "--epochs", "1", "--quiet", "--out", f"{out}/run"]
        subprocess.run([sys.executable, "-m", "tinyvae.train", *options], check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # KiB on Linux
    print(f"peak memory of 'tinyvae train --data mnist --epochs 1': {peak / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
