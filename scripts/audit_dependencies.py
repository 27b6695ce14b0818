"""What is known against the packages that we install: pip-audit over constraints.txt, judged for CI.

    python scripts/audit_dependencies.py

Exit code 1 if a package has a known vulnerability that JUSTIFIED does not name. Where no vulnerability service answers,
or the one that does knows none of the packages (as behind a mirror of PyPI), it says that nothing was audited, and why,
and ends with 0: being without network is no fault of a change.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
JUSTIFIED: Mapping[str, str] = {
    # "GHSA-xxxx-xxxx-xxxx": "why it cannot be reached from here, and until when this stands",
}
SERVICES = ("pypi", "osv")
SECONDS = 15
"""For each service: CI must not wait for one that does not answer."""


def main() -> int:
    reasons = []
    for service in SERVICES:
        report, reason = ask(service)
        audited, lines = judged(report, JUSTIFIED)
        if audited:
            print("\n".join([*lines, f"audited {audited} of {len(report)} packages by {service}"]))
            return int(any(line.startswith("VULNERABLE") for line in lines))
        reasons.append(f"{service}: {reason or f'it knows none of the {len(report)} packages'}")
    print(f"NOT AUDITED: no vulnerability service says anything about our packages ({'; '.join(reasons)})")
    return 0


def ask(service: str) -> tuple[Sequence[Mapping[str, Any]], str]:
    """The packages as a service knows them; or none, and why."""
    words = ["--requirement", str(CONSTRAINTS), "--no-deps", "--disable-pip", "--format", "json"]
    command = [sys.executable, "-m", "pip_audit", *words, "--vulnerability-service", service, "--timeout", "5"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        return json.loads(done.stdout)["dependencies"], ""
    except subprocess.TimeoutExpired:
        return [], f"no answer in {SECONDS} s"
    except (ValueError, KeyError):  # it ended with a traceback of its own
        return [], (done.stderr.strip().splitlines() or ["no answer"])[-1][:150]


def judged(report: Sequence[Mapping[str, Any]], justified: Mapping[str, str]) -> tuple[int, list[str]]:
    """How many packages the service knew, and a line for each thing known against them.

    Args:
        report: packages as pip-audit's JSON has them: name, version, vulns (id, aliases, fix_versions); or skip_reason.
        justified: why a vulnerability, by its id or an alias, stands.
    """
    known = [package for package in report if "skip_reason" not in package]
    lines = []
    for package in known:
        for found in package["vulns"]:
            names = [found["id"], *found.get("aliases", ())]
            why = next((justified[name] for name in names if name in justified), None)
            word = "VULNERABLE" if why is None else "justified "
            mended = ", ".join(found["fix_versions"]) or "no release"
            lines.append(
                f"{word} {package['name']} {package['version']}: {' '.join(names)}; {why or f'mended in {mended}'}"
            )
    return len(known), lines


if __name__ == "__main__":
    sys.exit(main())
