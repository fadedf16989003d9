"""What a learner has done: `progress.json` in the folder of the learner's files."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tinyvae.errors import TinyvaeError
from tinyvae.training.files import write_text

FILE = "progress.json"


@dataclass
class Record:
    """One exercise: how often it was checked, whether it has passed, what help was taken."""

    checks: int = 0
    passed: bool = False
    hints: int = 0  # seen
    shown: bool = False  # the solution, before it passed


def read(folder: Path) -> dict[str, Record]:
    """The records by the exercise's name; none where nothing has been done.

    Raises TinyvaeError if the file cannot be understood.
    """
    path = folder / FILE
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {name: Record(**record) for name, record in content.items()}
    except OSError as error:
        raise TinyvaeError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise TinyvaeError(f"{path}: is no record of progress; delete it to begin a new one") from error


def write(folder: Path, records: dict[str, Record]) -> None:
    """Replace the file. Raises TinyvaeError if it cannot be written."""
    content = {name: asdict(record) for name, record in sorted(records.items())}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / FILE, json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise TinyvaeError(f"{folder / FILE}: cannot be written ({error.strerror or error})") from error
