"""Many mutants, and what came of them."""

from __future__ import annotations

import collections
import re
import time
import traceback
import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path

from .bounds import Hang, most_resident, time_limit
from .corpus import corpus
from .handmade import sealed
from .mutations import mutant, sources_of
from .verdict import Fault, announced, verdict

_TRACED = 16  # every so many mutants are decoded under tracemalloc, which makes them slower


@dataclass
class Ledger:
    """What came of all mutants."""

    kinds: collections.Counter[str] = field(default_factory=collections.Counter)
    accepted: collections.Counter[str] = field(default_factory=collections.Counter)
    reasons: collections.Counter[str] = field(default_factory=collections.Counter)
    findings: dict[str, list[int]] = field(default_factory=dict)
    slowest: tuple[float, int] = (0.0, -1)
    peaks: list[tuple[int, int]] = field(default_factory=list)  # (values announced, bytes that NumPy took at most)

    def line(self, count: int, wall: float) -> str:
        return f"{count:,} mutants in {wall:.0f} s: {sum(self.accepted.values()):,} accepted, {self.total:,} findings"

    @property
    def total(self) -> int:
        return sum(map(len, self.findings.values()))

    def show(self, wall: float) -> None:
        count = sum(self.kinds.values())
        print(self.line(count, wall))
        for kind, n in sorted(self.kinds.items()):
            print(f"  {kind:14} {n:8,}  accepted {self.accepted[kind]:7,}")
        print("refused, by reason")
        for reason, n in self.reasons.most_common(40):
            print(f"  {n:8,}  {reason}")
        print(f"slowest: {self.slowest[0]:.2f} s, mutant {self.slowest[1]}")
        if self.peaks:
            base = max((peak for values, peak in self.peaks if values <= 1 << 12), default=0)
            more = max(((peak - base) / values for values, peak in self.peaks if values > 1 << 16), default=0.0)
            most = max(peak for _, peak in self.peaks)
            print(f"under tracemalloc: {len(self.peaks):,}; at most {most:,} bytes of NumPy and Python at once;")
            print(f"  {base:,} where up to 4,096 values are announced, {more:.1f} a value more where over 65,536 are")
        print(f"resident at most: {most_resident():,.0f} MiB")
        print(f"findings: {self.total}")
        for what, indices in self.findings.items():
            print(f"  {len(indices):,} × {what}; mutants {indices[:5]}")


def fuzz(seed: int, first: int, count: int, seconds: float, hang: int, folder: Path) -> Ledger:
    """Reads `count` mutants, or as many as `seconds` suffice for; what is found is saved in `folder`."""
    sources, ledger, began = sources_of(corpus()), Ledger(), time.perf_counter()
    for source in sources:  # the first of each costs caches
        verdict(sealed(source.content, source.version))
    said = began
    for index in range(first, first + count):
        kind, data = mutant(seed, index, sources)
        (folder / "current.atmc").write_bytes(data)  # what a crash leaves behind
        traced = index % _TRACED == 0
        before = time.perf_counter()
        if traced:
            tracemalloc.start()
        try:
            with time_limit(hang):
                reason = verdict(data)
        except (Fault, Hang) as error:
            reason = f"finding: {error}"
            what = f"{type(error).__name__}: {re.sub('[0-9]+', 'N', str(error))[:160]}"
            ledger.findings.setdefault(what, []).append(index)
            if len(ledger.findings[what]) <= 5:
                (folder / f"{seed}-{index}.atmc").write_bytes(data)
                (folder / f"{seed}-{index}.txt").write_text(traceback.format_exc(), errors="backslashreplace")
        if traced:
            ledger.peaks.append((announced(data), tracemalloc.get_traced_memory()[1]))
            tracemalloc.stop()
        else:
            ledger.slowest = max(ledger.slowest, (time.perf_counter() - before, index))
        ledger.kinds[kind] += 1
        ledger.accepted[kind] += not reason
        if reason:
            ledger.reasons[re.sub(r"'[^']*'|[0-9][0-9,]*|\([^)]*\)", "…", reason)[:110]] += 1
        now = time.perf_counter()
        if now - said > 60:
            print(ledger.line(index - first + 1, now - began), flush=True)
            said = now
        if now - began > seconds:
            break
    (folder / "current.atmc").unlink(missing_ok=True)
    ledger.show(time.perf_counter() - began)
    return ledger
