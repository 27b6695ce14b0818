"""The version of what lies in a run folder: older ones are opened, newer ones refused before anything is touched.

Formats, in `study.json` as {"format": 1, "atmc_search": "0.2.0"}:
    0   before that file was written: a file a report, no report numbers in their rows
    1   reports with numbers, and files of many reports beside those of one

To change the layout: a new number, a line above, code in `store` and `reports` that still reads the old one, and a
study of the old one under tests/results/formats.
"""

from __future__ import annotations

import json
from pathlib import Path

from atmc_search.errors import RunError, shown
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


def format_bytes() -> bytes:
    """What `study.json` is to hold."""
    return json.dumps({"format": FORMAT, "atmc_search": __version__}).encode()
