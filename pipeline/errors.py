"""Every error that a person is meant to read. One line each; the class decides the exit code.

PipelineError
├── RecipeError          exit 2   a setting is wrong
├── InputError           exit 2   a file that the recipe names is not what it should be
├── FingerprintMismatch  exit 2   the root was made with other settings
├── StorageError         exit 1   a disk is full, or a store does not answer: no shard's fault, so the run stops
├── NotOpened            exit 1   a worker cannot get ready for its stage's shards
└── ShardFailed          exit 1   a shard could not be made
A fault of a single row is never an exception: it is a reject (pipeline/reasons.py).
"""

import functools
import sys
from collections.abc import Callable, Sequence


class PipelineError(Exception):
    exit_code = 1


class RecipeError(PipelineError):
    exit_code = 2


class InputError(PipelineError):
    exit_code = 2


class FingerprintMismatch(PipelineError):
    exit_code = 2


class StorageError(PipelineError):
    exit_code = 1


class NotOpened(PipelineError):
    exit_code = 1


class ShardFailed(PipelineError):
    exit_code = 1


def reporting_errors(main: Callable[[Sequence[str]], int]) -> Callable[[Sequence[str]], int]:
    """For a job's main: an error that a person is meant to read is one line on stderr and its exit code."""

    @functools.wraps(main)
    def run(argv: Sequence[str]) -> int:
        try:
            return main(argv)
        except PipelineError as error:
            sys.stderr.write(f"{error}\n")
            return error.exit_code
        except NotADirectoryError as error:
            sys.stderr.write(f"{error.filename} is to lie below a file; a root is a folder: give another one\n")
            return 2
        except KeyboardInterrupt:
            sys.stderr.write("Interrupted. The same command continues; what is done is kept.\n")
            return 130

    return run
