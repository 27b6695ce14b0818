"""Feeds damaged and hostile artifacts to the decoder: each must give a model or an `ArtifactError`, and nothing else.

    python scripts/fuzz_artifact.py --count 100000         # mutants of small artifacts of both formats
    python scripts/fuzz_artifact.py --bombs                # the costliest files that are accepted: time, memory
    python scripts/fuzz_artifact.py --atheris --seconds 600    # guided by coverage; needs the package atheris

A mutant is a finding where it raises anything but an `ArtifactError`, warns, imports what it names, holds NaN, takes
longer than `--hang` seconds, or is read one way by `unpack` and another by `describe`. Findings are saved with their
traceback, and the exit code is then 1. Mutant i of a seed is always the same; `--first i --count 1` repeats it.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch


def _instrumented() -> contextlib.AbstractContextManager[Any]:
    """What the package is imported in: atheris counts branches only of modules that it saw being imported."""
    if __name__ != "__main__" or "--atheris" not in sys.argv:
        return contextlib.nullcontext()
    try:
        import atheris
    except ImportError:
        sys.exit("--atheris: package atheris is not installed; pip install atheris, or leave the flag out")
    instrumented: contextlib.AbstractContextManager[Any] = atheris.instrument_imports(include=["atmc_search.artifact"])
    return instrumented


with _instrumented():
    from fuzzing.bombs import read_one, show_bombs
    from fuzzing.bounds import bound_memory
    from fuzzing.corpus import every_kind
    from fuzzing.guided import fuzz_guided
    from fuzzing.ledger import fuzz

__all__ = ["every_kind"]  # the corpus names it as a model of this script


def in_child(arguments: Sequence[str], folder: Path) -> int:
    """Runs this script again with a bound on its memory; a crash is a finding too."""
    code = subprocess.run([sys.executable, __file__, *arguments, "--child"], check=False).returncode
    if code < 0:
        print(f"finding: the reader was ended by signal {-code}; the file is {folder / 'current.atmc'}")
    return 1 if code else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--seconds", type=int, default=1 << 30)
    parser.add_argument("--hang", type=int, default=20, help="seconds that a file may take")
    parser.add_argument("--folder", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--atheris", action="store_true", help="guided by coverage")
    parser.add_argument("--bombs", nargs="?", const="", default=None, metavar="WORD", help="the costliest files")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.read:
        read_one(chosen.read)
        return 0
    if chosen.bombs is not None:
        show_bombs(chosen.bombs, __file__)
        return 0
    chosen.folder.mkdir(parents=True, exist_ok=True)
    if chosen.atheris:
        fuzz_guided(chosen.seconds, chosen.seed, chosen.folder)
        return 0
    if not chosen.child:
        return in_child(sys.argv[1:], chosen.folder)
    bound_memory()
    ledger = fuzz(chosen.seed, chosen.first, chosen.count, chosen.seconds, chosen.hang, chosen.folder)
    return 1 if ledger.total else 0


if __name__ == "__main__":
    sys.exit(main())
