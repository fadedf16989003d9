"""Parquet files, by pyarrow. What pandas has written beside the columns (its index, objects) is not looked at."""

from pathlib import Path

from tinyvae.errors import DataError
from tinyvae.training.data.found import Found, Wanted
from tinyvae.training.data.memory import enough_memory
from tinyvae.training.data.readers.frames import FEWER_ROWS, found_in, library
from tinyvae.training.data.regular import open_regular, reason


def read(path: Path, wanted: Wanted) -> Found:
    """The rows of the file's columns."""
    library(path, "pandas")
    parquet = library(path, "pyarrow.parquet")
    with open_regular(path) as file:
        try:
            opened = parquet.ParquetFile(file)
            about = opened.metadata
            needed = 16 * about.num_rows * about.num_columns  # Arrow's and pandas' numbers, of 8 bytes each
        except MemoryError:
            raise
        except Exception as error:  # nearly anything, of a damaged file
            raise _damaged(path, error) from error
        with enough_memory(needed, f"{path}: {about.num_rows:,} rows of {about.num_columns} columns", FEWER_ROWS):
            try:
                frame = opened.read().to_pandas(ignore_metadata=True, date_as_object=False)
            except MemoryError:
                raise
            except Exception as error:
                raise _damaged(path, error) from error
    return found_in(path, frame, wanted)


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: is not a readable Parquet file ({reason(error)}); write it again: frame.to_parquet(file)"
    )
