"""A run folder or an artifact from a stranger: nothing it names is imported, nothing it says reaches a terminal raw."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from folders import REPORT, artifact, reported, respecified, run_folder, with_header
from refusals import as_run, document
from shell import Run

from atmc_search.report.figures.style import write_figure

READERS = (
    "front run",
    "front run --json",
    "front run --csv",
    "choose run --best size_bytes",
    "choose run --best size_bytes --json",
    "report run --out front.svg",
    "columns run",
    "verify run",
    "verify run --checks",
    "verify run --trial 1",
    "curves run --steps 1 --eps 0.1",
    "inspect run/artifacts/00001.atmc",
    "evaluate run/artifacts/00001.atmc --data digits --attack none",
    "export run/artifacts/00001.atmc --to state_dict --out out.pt",
    "repack run/artifacts/00001.atmc --out out.atmc",
)
NAMING = {"model": "stranger:net", "args": {}, "input": [1, 8, 8], "classes": 10, "threat": ["linf", 0.1]}


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that is there as soon as the module `stranger` was imported."""
    (tmp_path / "stranger.py").write_text(
        "from pathlib import Path\n\nPath('imported').touch()\nload = Task = net = Attack = None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "stranger", raising=False)
    yield tmp_path / "imported"
    sys.modules.pop("stranger", None)


def by_reports(folder: Path) -> None:
    """The spec lets names be chosen; the reports chose one that it does not list."""
    reported(folder, {"trial.model.name": "stranger:net"})
    changed = as_run(("trial.model", {"name": {"choice": ["mlp", "small_cnn"]}}))
    (folder / "run" / "spec.yaml").write_text(yaml.safe_dump(changed))
    (folder / "run" / "study.json").write_text('{"format": 1}')  # which says nothing of trials that could differ


def by_artifacts(folder: Path) -> None:
    reported(folder, {"artifact_sha256": None})
    for path in (folder / "run" / "artifacts").iterdir():
        path.write_bytes(with_header(NAMING))


HOSTILE: dict[str, Callable[[Path], object]] = {
    "task": lambda folder: respecified(folder, ("task", "stranger:Task")),
    "data": lambda folder: respecified(folder, ("trial.data", {"name": "stranger:load"})),
    "model": lambda folder: respecified(folder, ("trial.model", {"name": "stranger:net"})),
    "attack": lambda folder: respecified(folder, ("trial.evaluate.attack", {"name": "stranger:Attack"})),
    "loss": lambda folder: respecified(folder, ("trial.train.loss", {"name": "stranger:Loss"})),
    "choice": lambda folder: respecified(folder, ("trial.model.name", {"choice": ["mlp", "stranger:net"]})),
    "reports": by_reports,
    "artifacts": by_artifacts,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_reading_a_strangers_folder_imports_nothing_of_theirs(
    atmc: Run, tmp_path: Path, imported: Path, name: str
) -> None:
    HOSTILE[name](tmp_path)
    refusals = 0
    for words in READERS:
        outcome = atmc(*words.split())
        assert outcome.code in (0, 2), words
        assert not imported.exists(), words
        refusals += outcome.code == 2
    assert refusals or name == "choice"  # whose trials all have the known model


@pytest.mark.parametrize("name", ["task", "data", "attack"])
def test_with_trust_it_does(atmc: Run, tmp_path: Path, imported: Path, name: str) -> None:
    HOSTILE[name](tmp_path)
    said = atmc(*["verify", "run", "--trust"]).err
    assert imported.exists()
    assert "is no" in said  # what was imported is None


def test_a_study_does_not_go_on_from_a_strangers_reports(atmc: Run, tmp_path: Path, imported: Path) -> None:
    by_reports(tmp_path)
    (tmp_path / "spec.yaml").write_text((tmp_path / "run" / "spec.yaml").read_text())
    (tmp_path / "runs").mkdir()
    (tmp_path / "run").rename(tmp_path / "runs" / "bad")
    outcome = atmc("run", "spec.yaml")
    assert outcome.code == 2
    assert "'stranger:net', not sampled from {mlp, small_cnn}" in outcome.err or "no column" in outcome.err
    assert not imported.exists()


def test_nothing_that_is_read_is_unpickled_or_run(atmc: Run, tmp_path: Path) -> None:
    """Python itself says what is unpickled and which programs are started."""
    watched = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen")
    seen: list[tuple[str, Any]] = []
    listening = [True]
    sys.addaudithook(lambda event, args: seen.append((event, args)) if listening[0] and event in watched else None)
    run_folder(tmp_path)
    (tmp_path / "run" / "starts" / "0123456789ab.safetensors").write_bytes(b"\x80\x04cos\nsystem\n(S'touch gone'\ntR.")
    try:
        codes = [atmc(*words.split()).code for words in READERS]
    finally:
        listening[0] = False
    assert set(codes) == {0}
    # torch.load(weights_only=True), by which an export is read back, has an unpickler of its own without find_class.
    assert seen == []


# --- what it says

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b1m\u202e\u2066\x00[red]<b>$x^2$\r\nnext"


def saying(folder: Path, text: str, **columns: Any) -> None:
    """A run whose reports and spec say this wherever they can say something."""
    words = dict.fromkeys(("reason", "masking_flags", "host", "device", "fingerprint", "mine"), text)
    reported(folder, words | {text: 3.0} | columns)
    spec = document((f"objectives.{text.replace('.', '')}", "max"), ("objectives.size_bytes", "min"))
    (folder / "run" / "spec.yaml").write_text(yaml.safe_dump(spec))


@pytest.mark.parametrize("words", [*READERS[:7], "verify run --trial 0", "choose run --best nothing"])
def test_no_control_character_reaches_the_terminal(atmc: Run, tmp_path: Path, words: str) -> None:
    saying(tmp_path, ESCAPES)
    outcome = atmc(*words.split())
    for stream in (outcome.out, outcome.err):
        assert all(character.isprintable() or character == "\n" for character in stream)


@pytest.mark.parametrize("words", READERS[:7])
def test_no_control_character_of_a_column_s_description_is_shown(atmc: Run, tmp_path: Path, words: str) -> None:
    reported(tmp_path, {"masking_flags": "steps", "dense_size_bytes": 15_000, "dense_clean_accuracy": 0.9})
    said, quoted = ESCAPES.encode(), json.dumps(ESCAPES).encode()
    metadata = {b"unit": said, b"meaning": said, b"baseline_name": quoted, b"warning": quoted, b"heading": quoted}
    metadata |= {b"role": b"study", b"baseline": b'"dense_clean_accuracy"', b"samples": b'"size_bytes"'}
    table = pq.ParquetFile(tmp_path / REPORT).read()
    pq.write_table(table.cast(pa.schema([field.with_metadata(metadata) for field in table.schema])), tmp_path / REPORT)
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # text as text, not as paths
        outcome = atmc(*words.split())
    assert (outcome.code, outcome.err) == (0, "")
    assert all(character.isprintable() or character == "\n" for character in outcome.out)
    if "report" in words:
        assert r"\x1b]0;owned" in "".join(ElementTree.parse(tmp_path / "front.svg").getroot().itertext())


def test_what_is_shown_is_shown_as_it_is_written(atmc: Run, tmp_path: Path) -> None:
    saying(tmp_path, ESCAPES)
    table = atmc("front", "run").out
    assert "[red]<b>$x^2$" in table  # rich reads no markup in it
    assert r"\x1b]0;owned\x07\x1b[2J\x9b1m\u202e\u2066\x00" in table


def test_an_artifacts_name_is_shown_as_it_is_written(atmc: Run, tmp_path: Path) -> None:
    (tmp_path / "model.atmc").write_bytes(artifact())
    (tmp_path / "named.atmc").write_bytes(with_header(NAMING | {"model": f"{ESCAPES}:net"}))
    for words in ("inspect named.atmc", "evaluate named.atmc --data digits", "export named.atmc --to onnx --out x"):
        outcome = atmc(*words.split())
        assert "[red]<b>$x^2$" in outcome.out + outcome.err
        assert all(character.isprintable() or character == "\n" for character in outcome.out + outcome.err)


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", r"$\frac{1}{0}$", r"a $\nonsense{ b $", "a & 'b' \"c\""])
def test_a_figure_shows_names_as_they_are_written(atmc: Run, tmp_path: Path, name: str) -> None:
    saying(tmp_path, name)
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # text as text, not as paths
        outcome = atmc("report", "run", "--out", "front.svg")
    assert (outcome.code, outcome.err) == (0, "")
    picture = ElementTree.parse(tmp_path / "front.svg").getroot()
    texts = ["".join(element.itertext()) for element in picture.iter() if element.tag.endswith("}text")]
    assert any(name in text for text in texts)
    assert not any(element.tag.endswith("}script") for element in picture.iter())


def test_figures_have_no_other_way_to_be_written() -> None:
    """What reads `$` as a formula everywhere else is off in the one function that writes figures."""
    found = []

    def draw() -> Any:
        found.append(matplotlib.rcParams["text.parse_math"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_figure(draw, Path("x.svg"))
    assert found == [False]


def test_a_report_that_the_cases_are_made_of_is_good(atmc: Run, tmp_path: Path) -> None:
    reported(tmp_path, {"mine": "a word"})
    assert (tmp_path / REPORT).exists()
    for words in READERS[:7]:
        assert atmc(*words.split()).code == 0
