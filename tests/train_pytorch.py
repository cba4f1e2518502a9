#!/usr/bin/env python3
"""Trains the same SSD300 from the same weights on the same batches in Boxwright and in PyTorch, and compares.

    pip install torch torchvision safetensors pillow numpy
    cargo build --release
    python3 tests/train_pytorch.py [--steps 50] [--batch 4] [--threads N]

Both sides read one tiny COCO data set of 300x300 PNG pictures made here by a formula, so that no resize takes part, in
the order of its images, without augmentation. Boxwright builds the network and saves it before its first iteration;
torchvision's ssd300_vgg16 takes those weights by name. SGD with momentum, weight decay and a constant rate on both
sides; the scale of the first source does not decay (it is a norm). The loss curves must agree within 1 % over the first
20 steps, and the ratio of the times per iteration should be at most 1. An iteration of Boxwright counts with its wait
for the batch, one of PyTorch without the making of it. Prints the curves, both times and their ratio; exit 0 when the
curves agree (times depend on what else the machine does).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.models.detection import ssd300_vgg16

ROOT = Path(__file__).resolve().parent.parent
SIDE = 300
CLASSES = ["disc", "block", "bar"]
RATE, MOMENTUM, DECAY = 2e-5, 0.9, 5e-4
# Steps whose losses must agree, and how well.
COMPARED, TOLERANCE = 20, 0.01


def picture(index: int) -> tuple[np.ndarray, list[tuple[int, list[int]]]]:
    """A coloured ramp with three filled boxes; every number follows from the index."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    pixels = np.stack([(columns * (1 + index % 3)) % 256, (rows * 2 + 40 * index) % 256, (rows + columns) % 256], 2)
    objects = []
    for number in range(3):
        left = (37 * index + 91 * number) % 170
        top = (53 * index + 67 * number) % 170
        width = 40 + (29 * index + 31 * number) % 80
        height = 40 + (17 * index + 43 * number) % 80
        label = (index + number) % len(CLASSES)
        pixels[top : top + height, left : left + width] = [80 * label + 40, 255 - 80 * label, 30 + 70 * number]
        objects.append((label, [left, top, width, height]))
    return pixels.astype(np.uint8), objects


def write_data(folder: Path, count: int) -> None:
    (folder / "annotations").mkdir(parents=True)
    (folder / "train").mkdir()
    images, annotations = [], []
    for index in range(count):
        pixels, objects = picture(index)
        name = f"{index:04d}.png"
        Image.fromarray(pixels).save(folder / "train" / name)
        images.append({"id": index + 1, "file_name": name, "width": SIDE, "height": SIDE})
        for label, bbox in objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": label + 1,
                    "bbox": bbox,
                    "area": bbox[2] * bbox[3],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(CLASSES)]
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    (folder / "annotations" / "instances_train.json").write_text(text)


def boxwright(data: Path, run: Path, steps: int, batch: int, threads: int) -> tuple[list[float], list[float], dict]:
    """Loss and seconds of every iteration, and the weights before the first."""
    program = str(ROOT / "target/release/boxwright")
    start = [program, "train", "--model", "ssd300", "--data", str(data), "--split", "train", "--out", str(run)]
    start += ["--no-augmentation", "--device", "cpu", "--threads", str(threads)]
    settings = {
        "iterations": steps,
        "batch": batch,
        "shuffle": "false",
        "learning_rate": RATE,
        "momentum": MOMENTUM,
        "weight_decay": DECAY,
        "bias_factor": 1.0,
        "bias_decay": 1.0,
        "warmup": 0,
        "clip_norm": 0.0,
        "ema": 0.0,
        "spike_factor": 0.0,
        "checkpoint_every": 0,
    }
    for key, value in settings.items():
        start += ["--set", f"{key}={value}"]
    subprocess.run(start + ["--until", "0"], check=True, stdout=subprocess.DEVNULL)
    weights = load_file(str(run / "weights" / "last.safetensors"))
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith("optimizer.")}
    resume = [program, "train", "--resume", "--out", str(run), "--device", "cpu", "--threads", str(threads)]
    subprocess.run(resume, check=True, stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines], [line["seconds"] for line in lines], weights


def pytorch(weights: dict, steps: int, batch: int, count: int) -> tuple[list[float], list[float]]:
    model = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=len(CLASSES) + 1)
    report = model.load_state_dict(weights, strict=False)
    if report.missing_keys or report.unexpected_keys:
        sys.exit(f"the weights do not fit: missing {report.missing_keys}, unexpected {report.unexpected_keys}")
    model.train()
    plain = [p for name, p in model.named_parameters() if name == "backbone.scale_weight"]
    decayed = [p for name, p in model.named_parameters() if name != "backbone.scale_weight"]
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=RATE, momentum=MOMENTUM)
    losses, seconds = [], []
    position = 0
    for _ in range(steps):
        # Boxwright's epoch in order ends with the smaller batch of what is left.
        chosen = range(position, min(position + batch, count))
        position = chosen.stop % count
        images, targets = [], []
        for index in chosen:
            pixels, objects = picture(index)
            images.append(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)
            boxes = torch.tensor([[x, y, x + w, y + h] for _, (x, y, w, h) in objects], dtype=torch.float32)
            labels = torch.tensor([label + 1 for label, _ in objects])
            targets.append({"boxes": boxes, "labels": labels})
        begin = time.perf_counter()
        parts = model(images, targets)
        loss = sum(parts.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - begin)
    return losses, seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder / "data", arguments.images)
        ours, our_seconds, weights = boxwright(
            folder / "data", folder / "run", arguments.steps, arguments.batch, arguments.threads
        )
    theirs, their_seconds = pytorch(weights, arguments.steps, arguments.batch, arguments.images)
    if len(ours) != arguments.steps:
        print(f"Boxwright wrote {len(ours)} iterations instead of {arguments.steps}")
        return 1
    differences = []
    print(f"{'step':>5} {'Boxwright':>12} {'PyTorch':>12} {'relative':>10}")
    for step, (a, b) in enumerate(zip(ours, theirs), 1):
        differences.append(abs(a - b) / max(abs(b), 1e-9))
        print(f"{step:>5} {a:>12.5f} {b:>12.5f} {100 * differences[-1]:>8.3f} %")
    compared = differences[:COMPARED]
    # a loss that is no number agrees with nothing
    agree = all(difference <= TOLERANCE for difference in compared)
    own, other = statistics.median(our_seconds[2:]), statistics.median(their_seconds[2:])
    print(f"largest difference of the first {len(compared)} steps: {100 * max(compared):.3f} %, "
          f"asked {100 * TOLERANCE:.0f} % at most: {'yes' if agree else 'NO'}")
    print(f"median seconds per iteration: Boxwright {own:.3f}, PyTorch {other:.3f}, ratio {own / other:.2f}, "
          f"asked 1.00 at most: {'yes' if own <= other else 'NO'}")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
