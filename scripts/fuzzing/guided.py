"""Mutants that are guided by coverage, by atheris."""

from __future__ import annotations

import contextlib
import random
import sys
import tempfile
from pathlib import Path

from .corpus import corpus
from .handmade import FRAME, sealed
from .mutations import MUTATIONS, Source, sources_of
from .verdict import verdict


def fuzz_guided(seconds: int, seed: int, folder: Path) -> None:
    """Runs atheris on the corpus, with checksums mended after every mutation. Ends the process."""
    import atheris

    files = corpus()
    sources = sources_of(files)

    def read(data: bytes) -> None:
        verdict(data)

    def mended(data: bytes, most: int, number: int) -> bytes:
        draw = random.Random(number)
        if len(data) < FRAME + 1:
            data = draw.choice(files)
        version = data[4] if data[4] in (1, 2) else 2
        content = data[FRAME:]
        if draw.random() < 0.5:
            content = bytes(atheris.Mutate(content, max(most - FRAME, len(content))))
        else:
            with contextlib.suppress(Exception):
                content = draw.choice(list(MUTATIONS.values()))(draw, Source(version, content), sources)
        return sealed(content[: max(1, most - FRAME)], version)

    with tempfile.TemporaryDirectory() as seeds:
        for i, data in enumerate(files):
            Path(seeds, f"{i}.atmc").write_bytes(data)
        flags = [
            f"-max_total_time={seconds}",
            f"-seed={seed + 1}",
            "-max_len=20000",
            "-timeout=20",
            "-rss_limit_mb=6000",
        ]
        atheris.Setup([sys.argv[0], *flags, f"-artifact_prefix={folder}/", seeds], read, custom_mutator=mended)
        atheris.Fuzz()
