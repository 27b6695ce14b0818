"""The version of what lies in a run folder: older ones are opened, newer ones refused before anything is touched.

Formats, in `study.json` as {"format": 1, "atmc_search": "0.2.0", "trials": {"": {...}}, "inputs": {"net.pt": "9f…"}}:
`trials` is a trial of each preset of the task as the study was last run, with all defaults written out; `inputs` are
the SHA-256 of files that its trials start from.
    0   before that file was written: a file a report, no report numbers in their rows
    1   reports with numbers, and files of many reports beside those of one

To change the layout: a new number, a line above, code in `store` and `reports` that still reads the old one, and a
study of the old one under tests/results/formats.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atmc_search.errors import RunError, shown, written
from atmc_search.version import __version__

FORMAT = 1


def check_format(path: Path) -> bool:
    """Whether `study.json` is sound, or not there; False: damaged, to be written anew.

    Raises:
        RunError: the study was written by a later release, or the file cannot be read.
    """
    try:
        document = json.loads(path.read_bytes())
        number, release = document["format"], document.get("atmc_search")
    except (FileNotFoundError, NotADirectoryError):
        return True
    except IsADirectoryError:
        return False
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}); mend its permissions") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False
    if not isinstance(number, int) or number < 0:
        return False
    if number > FORMAT:
        raise RunError(
            f"{path.parent}: format {number}, written by atmc-search {shown(release)}; this is {__version__}, which "
            f"knows formats up to {FORMAT}; install that release or a later one"
        )
    return True


def format_bytes(path: Path, defaults: Mapping[str, Any] | None, inputs: Mapping[str, str] | None) -> bytes:
    """What `study.json` is to hold.

    Args:
        path: of the file, which keeps what it says and the arguments do not.
        defaults: `TrialSpace.defaults`; None: not known here.
        inputs: SHA-256 of files that results depend on, by the name that the spec has for them; None: not known here.
    """
    before = _document(path)
    document: dict[str, Any] = {"format": FORMAT, "atmc_search": __version__}
    if defaults is not None:
        document["trials"] = dict(defaults)
    elif isinstance(before.get("trials"), dict):
        document["trials"] = before["trials"]
    files = {**_inputs(before), **(inputs or {})}
    return json.dumps(document | ({"inputs": files} if files else {})).encode()


def check_inputs(path: Path, inputs: Mapping[str, str]) -> None:
    """Passes if the files that results depend on are those that the study ran with.

    Args:
        path: of its `study.json`.
        inputs: as they are now.

    Raises:
        RunError: one is another file.
    """
    for name, digest in _inputs(_document(path)).items():
        if name in inputs and inputs[name] != digest:
            raise RunError(
                f"{name}: is not the file that {path.parent} ran with (its SHA-256 begins {inputs[name][:12]}, that "
                f"one's {str(digest)[:12]}); restore it, or give the spec another name"
            )


def check_defaults(path: Path, defaults: Mapping[str, Any]) -> bool:
    """That where a study's spec is silent, its trials are still what they were; settings that came since are left out.

    Args:
        path: of its `study.json`.
        defaults: `TrialSpace.defaults` of the spec that is to be continued.

    Returns:
        whether that could be told; False: the file is not there, or does not say.

    Raises:
        RunError: a default is another one now.
    """
    document = _document(path)
    trials = document.get("trials")
    if not isinstance(trials, dict):
        return False
    found = _changed(trials, defaults, ())
    if found is not None:
        (_, *setting), was, now = found
        raise RunError(
            f"{path.parent}: atmc-search {shown(document.get('atmc_search'))} ran it, where trial.{'.'.join(setting)} "
            f"is {written(was)} by default; it is {written(now)} now; continue with that release, or give the spec "
            "another name"
        )
    return True


def _document(path: Path) -> dict[str, Any]:
    """What `study.json` says; nothing where it is damaged, or not there."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _inputs(document: Mapping[str, Any]) -> dict[str, Any]:
    found = document.get("inputs")
    return found if isinstance(found, dict) else {}


def _changed(was: object, now: object, at: tuple[str, ...]) -> tuple[tuple[str, ...], object, object] | None:
    """The first value that is not what it was, by its path; of mappings, only the keys that were there."""
    if isinstance(was, dict) and isinstance(now, Mapping):
        pairs = ((_changed(value, now.get(key), (*at, key))) for key, value in was.items())
        return next((found for found in pairs if found), None)
    return None if was == now else (at, was, now)
