"""One command, `tinyvae`, with a subcommand in each file here. They parse, call and print: no mathematics.

Exit codes: 0 done, 1 failure, 2 bad arguments, 128 + signal when stopped. A user's mistake gets one line, no traceback.
"""

import argparse
import io
import os
import sys
from typing import NoReturn

from tinyvae import __version__, blas
from tinyvae.errors import TinyvaeError, UsageError
from tinyvae.training.signals import interrupted_at_once


class Parser(argparse.ArgumentParser):
    """argparse, with errors in one line."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and where to read more, exit with 2."""
        self.exit(2, f"{self.prog}: error: {one_line(message)} (see {self.prog} --help)\n")


def main(argv: list[str] | None = None) -> int:
    """Run `tinyvae` with these arguments (default: the process's own); the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] in (["train"], ["evaluate"], ["recipes"]) and not keeps_blas(argv):
        blas.set_up(os.environ)
    with interrupted_at_once("tinyvae"):
        from tinyvae.commands import (  # these import NumPy
            anomaly,
            augment,
            doctor,
            embed,
            evaluate,
            exercises,
            export,
            generate,
            gradcheck,
            recipes,
            restore,
            train,
        )

    parser = Parser(
        prog="tinyvae",
        description="A variational autoencoder with every layer, gradient and kernel written by hand.",
        epilog="Begin with: tinyvae train    (each command explains itself: tinyvae train --help)",
    )
    parser.add_argument("--version", action="version", version=f"tinyvae {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (
        train, evaluate, generate, gradcheck, doctor, recipes, exercises, embed, augment, restore, anomaly, export,
    ):  # fmt: skip
        name = command.__name__.rpartition(".")[2]
        subparser = subparsers.add_parser(
            name,
            help=command.SUMMARY,
            description=command.DESCRIPTION,
            epilog=command.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run, parser=subparser)
    arguments = vars(parser.parse_args(argv))
    run, subparser = arguments.pop("run"), arguments.pop("parser")
    args = argparse.Namespace(**arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name need not fit the terminal's encoding
    try:
        code = run(args)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except UsageError as error:
        return subparser.error(str(error))
    except TinyvaeError as error:
        print(f"{subparser.prog}: {one_line(str(error))}", file=sys.stderr)
        return 1
    except MemoryError as error:
        print(f"{subparser.prog}: not enough memory ({one_line(str(error))}); ask for less", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(f"{subparser.prog}: interrupted", file=sys.stderr)
        return getattr(stop, "exit_code", 130)  # that of another signal, if it was one
    except OSError as error:  # the output cannot be written: its reader has gone, or its disk is full
        from tinyvae.training.progress import silence_stdout

        silence_stdout()
        if not isinstance(error, BrokenPipeError):
            print(f"{subparser.prog}: {one_line(str(error))}", file=sys.stderr)
        return 1


def add_keep_blas(parser: argparse._ActionsContainer) -> None:
    """The option --keep-blas. `keeps_blas` reads it, before NumPy is loaded; the commands need not."""
    parser.add_argument(
        "--keep-blas", action="store_true", default=argparse.SUPPRESS,
        help="leave NumPy's BLAS as it is; otherwise OpenBLAS is told which kernels suit this CPU, and to let idle "
        "threads sleep, unless OPENBLAS_CORETYPE and OPENBLAS_THREAD_TIMEOUT are set (see tinyvae doctor)",
    )  # fmt: skip


def keeps_blas(argv: list[str]) -> bool:
    """--keep-blas, or an abbreviation that the parser will take for it, is among the arguments."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    add_keep_blas(parser)
    try:
        return "keep_blas" in parser.parse_known_args(argv)[0]
    except argparse.ArgumentError:  # the parser of the command will say what is wrong
        return False


def one_line(message: str) -> str:
    """The message without line breaks and without what a terminal would obey: a file's name can hold both."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in message)
