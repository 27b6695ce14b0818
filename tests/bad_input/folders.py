"""Good things to spoil: a run folder with two measured trials, artifacts, and datasets in their true formats."""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import shutil
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from refusals import DOCUMENT, as_run

from atmc_search.artifact import Architecture, CompressedModel, pack
from atmc_search.artifact.streams import Writer
from atmc_search.compress import factorise
from atmc_search.results import STUDY_COLUMNS, RunFolder, parameter_columns
from atmc_search.spec import parse_study
from atmc_search.tasks import checked
from atmc_search.tasks.atmc.columns import ATMC_COLUMNS

REPORT = "run/reports/00000001.parquet"
ARTIFACT = "run/artifacts/00001.atmc"


@functools.cache
def artifact(
    name: str = "mlp",
    shape: tuple[int, int, int] = (1, 8, 8),
    classes: int = 10,
    hidden: tuple[int, ...] | None = (8,),
    threat: tuple[str, float] | None = ("linf", 0.1),
) -> bytes:
    """An untrained model's file."""
    args = {} if hidden is None else {"hidden": list(hidden)}
    architecture = Architecture(name, args, shape, classes)
    model = architecture.build([0.3] * shape[0], [0.2] * shape[0], seed=1).eval()
    meta = {} if threat is None else {"threat": list(threat)}
    return pack(CompressedModel.of(model, factorise(model, "none"), architecture, meta=meta))


def with_header(header: object) -> bytes:
    """A file whose checksum holds and whose header says this."""
    writer = Writer()
    writer.header(header if isinstance(header, bytes) else json.dumps(header).encode())
    content = writer.getvalue()
    return b"ATMC\x02" + zlib.crc32(content).to_bytes(4, "little") + content


def rows() -> list[dict[str, Any]]:
    """Two measured trials and a failed one, as reports have them."""
    digest = hashlib.sha256(artifact()).hexdigest()
    figures = [(1000, 0.90, 0.50), (500, 0.80, 0.40)]
    found: list[dict[str, Any]] = []
    for number, (size, clean, robust) in enumerate(figures):
        row = {"trial": number, "state": "complete", "reason": "", "epoch": 1, "epochs": 1, "dense_size_bytes": 15_000}
        row |= {"trial.train.lr": 0.02, "trial.compress.keep": 0.1 * (number + 1), "trial.compress.bits": 4}
        row |= {"size_bytes": size, "clean_accuracy": clean, "robust_accuracy": robust}
        found.append({**row, "artifact": f"artifacts/{number:05d}.atmc", "artifact_sha256": digest})
    parameters = {key: value for key, value in found[0].items() if key.startswith("trial")}
    return [*found, {**parameters, "trial": 2, "state": "failed", "reason": "the loss is nan"}]


@functools.cache
def _template() -> Path:
    study = checked(parse_study(DOCUMENT), "spec")
    folder = RunFolder(Path(tempfile.mkdtemp(prefix="bad-input-")) / "run")
    folder.create(study)
    columns = (*STUDY_COLUMNS, *ATMC_COLUMNS, *parameter_columns(study.distributions))
    for number, row in enumerate(rows()):
        folder.append(row, columns, number)
        if "artifact" in row:
            folder.write_artifact(number, artifact())
    return folder.path


def run_folder(folder: Path) -> Path:
    """`folder`/run, a good one."""
    return Path(shutil.copytree(_template(), folder / "run"))


def one_report(folder: Path) -> None:
    """A good run of which only the second report is left."""
    for path in (run_folder(folder) / "reports").iterdir():
        if path.name != Path(REPORT).name:
            path.unlink()


def respecified(folder: Path, *changes: tuple[str, object]) -> None:
    """A good run whose spec.yaml was changed by hand."""
    (run_folder(folder) / "spec.yaml").write_text(yaml.safe_dump(as_run(*changes), sort_keys=False))


def reported(folder: Path, changes: Mapping[str, Any], *, drop: str = "") -> None:
    """A run of one report, of which these columns are changed: to a value, or to an Arrow array; or one is gone."""
    one_report(folder)
    table = pq.ParquetFile(folder / REPORT).read()
    columns = {name: table[name] for name in table.column_names if name != drop}
    columns |= {name: value if isinstance(value, pa.Array) else pa.array([value]) for name, value in changes.items()}
    pq.write_table(pa.table(columns), folder / REPORT)


def idx(array: np.ndarray) -> bytes:
    """IDX, MNIST's format, of unsigned bytes."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def mnist(folder: Path, **spoilt: bytes | None) -> None:
    """`folder`/data with 40 images in MNIST's four files; by keyword other contents, or None for no such file."""
    images, labels = idx(np.zeros((40, 28, 28))), idx(np.arange(40) % 10)
    files: dict[str, bytes | None] = {}
    for part in ("train", "t10k"):
        files[f"{part}_images"], files[f"{part}_labels"] = gzip.compress(images), gzip.compress(labels)
    (folder / "data").mkdir()
    for name, content in (files | spoilt).items():
        part, kind = name.split("_")
        if content is not None:
            (folder / "data" / f"{part}-{kind}-idx{3 if kind == 'images' else 1}-ubyte.gz").write_bytes(content)


def cifar10(folder: Path, **spoilt: bytes | None) -> None:
    """`folder`/data with CIFAR-10's binary files of 20 records; by keyword other contents, or None for no such file."""
    records = b"".join(bytes([label % 10]) + bytes(3072) for label in range(20))
    (folder / "data").mkdir()
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        content = spoilt.get(name, records)
        if content is not None:
            (folder / "data" / f"{name}.bin").write_bytes(content)
