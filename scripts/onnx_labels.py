"""Whether exported ONNX models answer as their artifacts do, on every test image: labels, logits, channels, size.

python scripts/onnx_labels.py runs/digits-quickstart --data digits        # the artifacts of a run's front
python scripts/onnx_labels.py model.atmc --data fashion_mnist             # or files
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
import torch

import atmc_search
from atmc_search.artifact import read_header, unpack
from atmc_search.data import DataSpec, DeviceData, load_splits
from atmc_search.export import About, export


def paths(given: list[Path]) -> list[Path]:
    """Artifact files; of a run folder, those on its front."""
    found = []
    for path in given:
        front = atmc_search.front(atmc_search.load_trials(path)) if path.is_dir() else None
        found += [path] if front is None else [path / name for name in front["artifact"]]
    return found


@torch.no_grad()
def main(files: list[Path], data: DeviceData) -> int:
    worst = labels = 0.0
    for file in files:
        artifact = file.read_bytes()
        model = unpack(artifact)
        exported = export(model, About(read_header(artifact)), "onnx")
        session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
        ours = torch.cat([model(x) for x, _ in data.batches(500)]).numpy()
        theirs = np.concatenate([session.run(None, {"images": x.numpy()})[0] for x, _ in data.batches(500)])
        apart = float(np.abs(ours - theirs).max() / max(1.0, np.abs(ours).max()))
        differ = int((ours.argmax(1) != theirs.argmax(1)).sum())
        print(
            f"{file}: {len(artifact):,} bytes, as ONNX {len(exported):,}; n = {len(data):,}, labels that differ ",
            end="",
        )
        print(f"{differ}, logits off by at most {apart:.1e} of the largest")
        worst, labels = max(worst, apart), labels + differ
    print(f"\n{len(files)} models: {labels:.0f} labels differ, logits within {worst:.1e}")
    return int(labels > 0 or worst > 1e-5)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--data", required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    test = load_splits(DataSpec(name=arguments.data)).test
    raise SystemExit(main(paths(arguments.paths), DeviceData(test, "cpu")))
