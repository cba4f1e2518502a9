#!/usr/bin/env python3
"""Scores random COCO data with pycocotools and with Boxwright, and compares the twelve numbers bit for bit.

    pip install pycocotools numpy
    python3 tests/eval_pycocotools.py --boxwright target/release/boxwright [--seeds 8] [--keep DIR]
    python3 tests/eval_pycocotools.py --golden

The first form writes ground truth and results for every seed, as boxes and as masks, runs `boxwright eval`, and lists
every difference; it exits 1 when there is one and 2 when something could not run. The second form prints the numbers
that tests/eval.rs expects for its own data, which it makes with the same integer arithmetic as `Scene` here.
"""

import argparse
import contextlib
import io
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
WORD = (1 << 64) - 1


def reference(truth, results, iou_type):
    """The twelve numbers, and AP by category id."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = json.loads(json.dumps(truth))
        coco.createIndex()
        loaded = coco.loadRes(json.loads(json.dumps(results)))
        evaluation = COCOeval(coco, loaded, iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"]
    by_class = []
    for k in range(precision.shape[2]):
        defined = precision[:, :, k, 0, -1]
        defined = defined[defined > -1]
        by_class.append(float(np.mean(defined)) if defined.size else -1.0)
    return [float(s) for s in evaluation.stats], by_class


# ---------------------------------------------------------------- random files


def random_polygon(rng, x, y, w, h):
    corners = rng.randint(3, 9)
    points = []
    for i in range(corners):
        angle = 2 * np.pi * (i + rng.random() * 0.8) / corners
        points.append(round(x + w / 2 + np.cos(angle) * w / 2, 2))
        points.append(round(y + h / 2 + np.sin(angle) * h / 2, 2))
    return points


def rle_of(segmentation, height, width):
    if isinstance(segmentation, list):
        return mask_api.merge(mask_api.frPyObjects(segmentation, height, width))
    return mask_api.frPyObjects(segmentation, height, width)


def as_list(rle):
    """Compressed run lengths as the list form that crowds have in COCO."""
    flat = mask_api.decode(rle).flatten(order="F")
    counts, value, run = [], 0, 0
    for pixel in flat:
        if pixel != value:
            counts.append(run)
            run, value = 0, pixel
        run += 1
    counts.append(run)
    return {"size": rle["size"], "counts": counts}


def random_files(seed, iou_type):
    rng = random.Random(seed)
    segm = iou_type == "segm"
    categories = sorted(rng.sample(range(1, 91), 6))
    sizes = {i: (rng.randint(120, 260), rng.randint(120, 260)) for i in rng.sample(range(1, 10_000), 12 if segm else 60)}
    images = [{"id": i, "height": h, "width": w, "file_name": f"{i}.jpg"} for i, (h, w) in sizes.items()]
    rng.shuffle(images)
    annotations, results = [], []
    for image in images:
        height, width = image["height"], image["width"]
        for _ in range(rng.randint(0, 7)):
            w, h = round(rng.uniform(3, width * 0.8), 2), round(rng.uniform(3, height * 0.8), 2)
            x, y = round(rng.uniform(0, width - w), 2), round(rng.uniform(0, height - h), 2)
            crowd = int(rng.random() < 0.1)
            # the last category has detections and no objects
            category = rng.choice(categories[:-1])
            segmentation = [random_polygon(rng, x, y, w, h) for _ in range(rng.randint(1, 2))]
            if segm and crowd:
                segmentation = as_list(rle_of(segmentation, height, width))
            area = float(mask_api.area(rle_of(segmentation, height, width))) if segm else round(w * h * rng.uniform(0.4, 1), 4)
            annotations.append({
                "id": len(annotations) + 1, "image_id": image["id"], "category_id": category, "iscrowd": crowd,
                "bbox": [x, y, w, h], "area": area, "segmentation": segmentation,
            })
            for _ in range(rng.randint(0, 3)):
                shift = rng.choice([0.0, 0.02, 0.1, 0.3])
                bbox = [round(v + rng.uniform(-shift, shift) * side, 2) for v, side in zip((x, y, w, h), (w, h, w, h))]
                bbox[2:] = [max(bbox[2], 1.0), max(bbox[3], 1.0)]
                results.append(random_result(rng, image, categories, category, bbox, segm))
        strays = rng.randint(0, 6)
        if rng.random() < 0.05:
            strays += 150  # more than 100 of a class: the cap
        for _ in range(strays):
            bbox = [round(rng.uniform(0, 100), 2), round(rng.uniform(0, 100), 2), round(rng.uniform(2, 60), 2), round(rng.uniform(2, 60), 2)]
            category = categories[0] if strays > 100 else rng.choice(categories)
            results.append(random_result(rng, image, categories, category, bbox, segm))
    rng.shuffle(results)
    truth = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": c, "name": f"class {c}"} for c in reversed(categories)],
    }
    return truth, results


def random_result(rng, image, categories, category, bbox, segm):
    if rng.random() < 0.1:
        category = rng.choice(categories)
    # two decimals half of the time, so that scores tie
    score = round(rng.random(), rng.choice([2, 16]))
    result = {"image_id": image["id"], "category_id": category, "score": score}
    if segm:
        rle = rle_of([random_polygon(rng, *bbox)], image["height"], image["width"])
        result["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode()}
    else:
        result["bbox"] = bbox
    return result


def run_boxwright(binary, folder, truth, results, iou_type):
    paths = {name: folder / f"{name}.json" for name in ("gt", "results", "scores")}
    paths["gt"].write_text(json.dumps(truth))
    paths["results"].write_text(json.dumps(results))
    command = [str(binary), "eval", "--gt", str(paths["gt"]), "--results", str(paths["results"])]
    command += ["--iou-type", iou_type, "--json", str(paths["scores"])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    return json.loads(paths["scores"].read_text())["stats"]


def compare(binary, seeds, keep):
    different = 0
    for seed in range(seeds):
        for iou_type in ("bbox", "segm"):
            truth, results = random_files(seed, iou_type)
            expected, _ = reference(truth, results, iou_type)
            with contextlib.ExitStack() as stack:
                if keep:
                    folder = Path(keep) / f"{iou_type}-{seed}"
                    folder.mkdir(parents=True, exist_ok=True)
                else:
                    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                got = run_boxwright(binary, folder, truth, results, iou_type)
            wrong = [(n, e, g) for n, e, g in zip(NAMES, expected, got) if e != g]
            print(f"{iou_type} seed {seed}: {len(results)} results, AP {expected[0]:.4f}: {'differs' if wrong else 'equal'}")
            for name, e, g in wrong:
                print(f"    {name}: pycocotools {e!r}, boxwright {g!r}, difference {g - e:.3g}")
            different += len(wrong)
    return 1 if different else 0


# ---------------------------------------------------------------- the data of tests/eval.rs


class Scene:
    """SplitMix64 and whole numbers only, so that Rust makes the very same data. Boxes are in quarters of a pixel."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state + 0x9E3779B97F4A7C15) & WORD
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
        return (z ^ (z >> 31)) % n

    def boxes(self):
        """Ground truth and results, category id = class index + 1; class 4 has no objects."""
        annotations, results, ids = [], [], []

        def detect(image, category, x, y, w, h):
            results.append({
                "image_id": image, "category_id": category, "bbox": [x / 4, y / 4, w / 4, h / 4],
                "score": self.below(64) / 64,
            })

        for i in range(40):
            image = (i * 37 + 11) % 1009
            ids.append(image)
            for _ in range(self.below(7)):
                scale = [60, 240, 900][self.below(3)]
                x, y = self.below(1600), self.below(1600)
                w, h = 8 + self.below(scale), 8 + self.below(scale)
                category = 1 + self.below(4)
                crowd = int(self.below(8) == 0)
                area = w * h * (4 + self.below(5)) // 128
                annotations.append({
                    "id": len(annotations) + 1, "image_id": image, "category_id": category, "iscrowd": crowd,
                    "bbox": [x / 4, y / 4, w / 4, h / 4], "area": area,
                })
                for _ in range(self.below(4)):
                    dx, dy = self.below(w // 4 + 1), self.below(h // 4 + 1)
                    dw, dh = self.below(w // 8 + 1), self.below(h // 8 + 1)
                    other = 1 + self.below(5) if self.below(8) == 0 else category
                    detect(image, other, x + dx, y + dy, w - dw, h - dh)
            crowded = i % 8 == 7  # more than 100 detections of a class: the cap
            for _ in range(130 if crowded else self.below(6)):
                x, y = self.below(1600), self.below(1600)
                w, h = 8 + self.below(400), 8 + self.below(400)
                detect(image, 1 + i // 8 % 4 if crowded else 1 + self.below(5), x, y, w, h)
        return dataset(ids, annotations), results

    def masks(self):
        """Rectangles with a lattice of holes in pictures of 48×64 pixels."""
        annotations, results, ids = [], [], []

        def holed(x, y, w, h, step):
            bitmap = np.zeros((48, 64), dtype=np.uint8)
            rows, columns = np.mgrid[0:48, 0:64]
            inside = (columns >= x) & (columns < x + w) & (rows >= y) & (rows < y + h) & ((rows * 3 + columns) % step != 0)
            bitmap[inside] = 1
            rle = mask_api.encode(np.asfortranarray(bitmap))
            return {"size": rle["size"], "counts": rle["counts"].decode()}

        for i in range(20):
            image = 100 - i
            ids.append(image)
            for _ in range(self.below(5)):
                x, y, w, h = self.below(40), self.below(30), 4 + self.below(50), 4 + self.below(40)
                category = 1 + self.below(2)
                crowd = int(self.below(6) == 0)
                segmentation = holed(x, y, w, h, 5 + self.below(8))
                annotations.append({
                    "id": len(annotations) + 1, "image_id": image, "category_id": category, "iscrowd": crowd,
                    "bbox": [x, y, w, h], "area": w * h, "segmentation": segmentation,
                })
                for _ in range(self.below(4)):
                    x1, y1 = x + self.below(w // 4 + 1), y + self.below(h // 4 + 1)
                    segmentation = holed(x1, y1, w, h, 5 + self.below(8))
                    other = 1 + self.below(3) if self.below(8) == 0 else category
                    results.append({
                        "image_id": image, "category_id": other, "segmentation": segmentation,
                        "score": self.below(64) / 64,
                    })
        return dataset(ids, annotations), results


def dataset(ids, annotations):
    images = [{"id": i, "height": 48, "width": 64} for i in ids]
    return {"images": images, "annotations": annotations, "categories": [{"id": c, "name": f"c{c}"} for c in range(1, 6)]}


def devkit(truth, results, eleven, plus):
    """Mean AP of the VOC devkit, ties in order of image id and detection; crowds count as difficult."""
    values = []
    order = {image: n for n, image in enumerate(sorted(i["id"] for i in truth["images"]))}
    for category in (c["id"] for c in truth["categories"]):
        targets = {i: [] for i in order}
        for a in truth["annotations"]:
            if a["category_id"] == category:
                targets[a["image_id"]].append([a["bbox"], a["iscrowd"], False])
        positives = sum(not t[1] for ts in targets.values() for t in ts)
        if not positives:
            continue
        found = [r for r in results if r["category_id"] == category]
        found.sort(key=lambda r: order[r["image_id"]])
        found.sort(key=lambda r: -r["score"])
        tp, fp, recall, precision = 0, 0, [], []
        for r in found:
            x, y, w, h = r["bbox"]
            best, target = -1.0, None
            for t in targets[r["image_id"]]:
                tx, ty, tw, th = t[0]
                iw = max(min(x + w, tx + tw) - max(x, tx) + plus, 0)
                ih = max(min(y + h, ty + th) - max(y, ty) + plus, 0)
                union = (w + plus) * (h + plus) + (tw + plus) * (th + plus) - iw * ih
                if iw * ih / union > best:
                    best, target = iw * ih / union, t
            if best > 0.5:
                if not target[1]:
                    if target[2]:
                        fp += 1
                    else:
                        tp, target[2] = tp + 1, True
            else:
                fp += 1
            recall.append(tp / positives)
            precision.append(tp / max(tp + fp, np.finfo(np.float64).eps))
        recall, precision = np.array(recall), np.array(precision)
        if eleven:
            reached = [precision[recall >= t] for t in np.arange(0.0, 1.1, 0.1)]
            values.append(sum((float(p.max()) if p.size else 0.0) / 11.0 for p in reached))
        else:
            mrec, mpre = np.concatenate(([0.0], recall, [1.0])), np.concatenate(([0.0], precision, [0.0]))
            mpre = np.maximum.accumulate(mpre[::-1])[::-1]
            i = np.where(mrec[1:] != mrec[:-1])[0]
            values.append(float(np.sum((mrec[i + 1] - mrec[i]) * mpre[i + 1])))
    return sum(values) / len(values)


def golden():
    for name, make, iou_type in (("boxes", Scene(2024).boxes, "bbox"), ("masks", Scene(7).masks, "segm")):
        truth, results = make()
        stats, by_class = reference(truth, results, iou_type)
        print(f"{name}: {len(truth['annotations'])} objects, {len(results)} results")
        print("  stats", ", ".join(map(repr, stats)))
        print("  AP by class", ", ".join(map(repr, by_class)))
        if iou_type == "bbox":
            for label, eleven, plus in (("voc07", True, 1.0), ("voc12", False, 1.0), ("voc12 continuous", False, 0.0)):
                print(f"  {label} mAP {devkit(truth, results, eleven, plus)!r}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxwright", default="target/release/boxwright", help="the binary to compare")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--keep", help="folder that keeps the files of every run")
    parser.add_argument("--golden", action="store_true", help="print the numbers that tests/eval.rs expects")
    arguments = parser.parse_args()
    if arguments.golden:
        golden()
        return 0
    try:
        return compare(arguments.boxwright, arguments.seeds, arguments.keep)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        print(f"cannot compare: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
