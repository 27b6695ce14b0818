"""The command line: thin, over `api` and `search`. A user's mistake is one line on standard error and exit code 2.

To add a command: a function in the file of its kind, and a line in `cli`'s list below.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import click

from atmc_search.cli.artifacts import evaluate, export, inspect, repack
from atmc_search.cli.looking import choose, columns, front, report
from atmc_search.cli.measuring import curves, verify
from atmc_search.cli.running import run, trial
from atmc_search.cli.settings import settings
from atmc_search.errors import AtmcError, printable


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="atmc-search")
def cli() -> None:
    """Search for neural networks that are small, accurate and hard to fool.

    \b
    A study is a YAML file; a run is its folder under runs/. The usual order:
      atmc-search run search_spaces/digits_quickstart.yaml      search (again: continues where it stopped)
      atmc-search front runs/digits-quickstart                  look at the Pareto front
      atmc-search choose runs/digits-quickstart --max size_bytes=2500 --best robust_accuracy
      atmc-search verify runs/digits-quickstart                 measure the front on test images
    """


_RUNS = (run, trial, front, choose, verify, curves, report)
_FILES = (inspect, evaluate, export, repack)
for _command in (*_RUNS, *_FILES, columns, settings):
    cli.add_command(_command)


def main() -> None:
    """`AtmcError` and click's own complaints are one line, exit code 2; SIGTERM ends in order, as Ctrl-C does."""
    try:
        with _sigterm_raises():
            code = cli.main(prog_name="atmc-search", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(2)
    except click.ClickException as error:
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "atmc-search"
        _fail(f"{error.format_message()} (see {command} --help)")
    except AtmcError as error:
        _fail(str(error))
    except OSError as error:  # standard output on a full disk, say: no place of ours to name
        place = error.filename or "a file or standard output"
        _fail(f"{place}: {error.strerror or error}; check the path, its permissions and the space left")
    except (click.Abort, KeyboardInterrupt) as error:
        click.echo("stopped", err=True)
        terminated = isinstance(error, _Terminated) or isinstance(error.__cause__, _Terminated)
        sys.exit(128 + (signal.SIGTERM if terminated else signal.SIGINT))


def _fail(message: str) -> None:
    click.echo("error: " + printable(" ".join(message.split())), err=True)
    sys.exit(2)


class _Terminated(KeyboardInterrupt):
    """SIGTERM came, before a sweep took it for itself."""


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Within, SIGTERM unwinds the stack, so that locks are given free and half-written files go. Main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise _Terminated
