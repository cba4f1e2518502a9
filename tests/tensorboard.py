#!/usr/bin/env python3
"""Opens a run's event files with TensorBoard and compares every scalar with metrics.jsonl.

    pip install tensorboard
    python3 tests/tensorboard.py RUN_FOLDER
Without a folder it trains ssd-nano for a few iterations with target/release/boxwright, killing and resuming it once.
Exit 0 when all points agree.
"""

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).resolve().parent.parent


def train() -> Path:
    folder = Path(tempfile.mkdtemp()) / "run"
    program = str(ROOT / "target/release/boxwright")
    start = [program, "train", "--model", "ssd-nano", "--data", "shapes:train=32,val=4,test=4", "--out", str(folder)]
    for setting in ("iterations=12", "batch=2", "checkpoint_every=4", "validate_every=6"):
        start += ["--set", setting]
    subprocess.run(start + ["--until", "6"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([program, "train", "--resume", "--out", str(folder)], check=True, stdout=subprocess.DEVNULL)
    return folder


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else train()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0})
    events.Reload()
    tags = events.Tags()["scalars"]
    print(f"{len(lines)} iterations, {len(tags)} scalars: {', '.join(sorted(tags))}")

    def expected(tag: str) -> dict[int, float]:
        kind, name = tag.split("/", 1)
        values = {}
        for line in lines:
            validation = line.get("validation") or {}
            value = {
                "loss/total": line["loss"],
                "train/learning_rate": line["learning_rate"],
                "train/gradient_norm": line["gradient_norm"],
                "validation/loss": validation.get("loss"),
                "validation/AP": validation.get("ap"),
                "validation/AP50": validation.get("ap50"),
            }.get(tag, line["parts"].get(name) if kind == "loss" else None)
            if value is not None and not (kind == "validation" and name != "loss" and value < 0):
                values[line["iteration"]] = value
        return values

    wrong = 0
    for tag in tags:
        wanted = expected(tag)
        if not wanted:
            continue
        found = {event.step: event.value for event in events.Scalars(tag)}
        agree = found.keys() == wanted.keys() and all(
            math.isclose(found[step], value, rel_tol=1e-6, abs_tol=1e-7) for step, value in wanted.items()
        )
        print(f"  {tag:<28} {len(found):>6} points  {'agree' if agree else 'DIFFER'}")
        wrong += not agree
    missing = {"loss/total", "train/learning_rate", "train/gradient_norm"} - set(tags)
    if missing:
        print(f"missing: {', '.join(sorted(missing))}")
    return 1 if wrong or missing or not lines else 0


if __name__ == "__main__":
    sys.exit(main())
