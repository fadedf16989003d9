"""One trial by hand: `python tests/faults/trial.py SCENARIO FAULT`, say `fresh write:7:EIO`, or two faults.

With SCENARIO alone: the calls that it makes.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from injector import Fault, problem
from scenarios import SCENARIOS, Bench, listing


def main() -> int:
    """Run it, print what was seen; 1 if something was wrong."""
    if len(sys.argv) not in (2, 3, 4) or problem():
        sys.exit(problem() or f"{__doc__}\nscenarios: {', '.join(SCENARIOS)}")
    scenario = SCENARIOS[sys.argv[1]]
    bench = Bench(Path(tempfile.mkdtemp(prefix="faults-")))
    try:
        if len(sys.argv) == 2:
            for i, call in enumerate(bench.undisturbed(scenario).outcome.calls, 1):
                print(f"{i:4} {call.outcome:5} {call}")
            print(dict(bench.undisturbed(scenario).outcome.count()))
            shutil.rmtree(bench.folder)
            return 0
        faults = [Fault.parse(word) for word in sys.argv[2:]]
        trial = bench.trial(scenario, *faults) if len(faults) == 1 else bench.trial_of_two(scenario, *faults)
    finally:
        bench.commands.close()
    print(trial)
    print(f"{bench.root}: {listing(bench.root)}")
    if trial.wrong:
        return 1
    print("as it should be")
    shutil.rmtree(bench.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
