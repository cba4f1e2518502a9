#!/usr/bin/env python3
"""Scores random COCO sets with pycocotools, keeps what it says as fixtures, and compares Boxwright with it.

    pip install pycocotools numpy
    python3 tests/eval_pycocotools.py --against target/release/boxwright [--sets 200] [--keep DIR]
    python3 tests/eval_pycocotools.py --fixtures tests/fixtures
    python3 tests/eval_pycocotools.py --golden

The first form makes the sets (crowds, ignore marks, ties, empty images and categories, huge, tiny and empty boxes,
masks as polygons and run lengths), scores each as COCO does, class-agnostic, and with other thresholds, size ranges and
limits, runs `boxwright eval --full` on the same files, and lists every difference above 1e-12 in the twelve numbers,
the precision array and the recall array; it exits 1 when there is one and 2 when something could not run. The second
form writes the first sets with the answers of pycocotools to eval_boxes.json and eval_masks.json, which tests/eval.rs
reads. The third prints the numbers that tests/eval.rs expects for its own data, which it makes with the same integer
arithmetic as `Scene` here.
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
TOLERANCE = 1e-12
WORD = (1 << 64) - 1
# Another choice of everything that can be chosen; 1.0 is a threshold that nothing exceeds.
OTHER = {
    "thresholds": [0.3, 0.5, 0.75, 1.0],
    "areas": [["all", 0, 1e10], ["tiny", 0, 200], ["rest", 200, 1e10]],
    "limits": [2, 10, 40],
}
CASES = {"coco": {}, "agnostic": {"agnostic": True}, "other": OTHER}


def evaluated(truth, results, iou_type, case):
    """pycocotools' evaluation; the twelve numbers are only there with COCO's own limits."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = json.loads(json.dumps(truth))
        coco.createIndex()
        loaded = coco.loadRes(json.loads(json.dumps(results)))
        evaluation = COCOeval(coco, loaded, iou_type)
        params = evaluation.params
        params.useCats = 0 if case.get("agnostic") else 1
        if "thresholds" in case:
            params.iouThrs = np.array(case["thresholds"])
            params.areaRngLbl = [label for label, _, _ in case["areas"]]
            params.areaRng = [[low, high] for _, low, high in case["areas"]]
            params.maxDets = case["limits"]
        evaluation.evaluate()
        evaluation.accumulate()
        if "thresholds" not in case:
            evaluation.summarize()
    return evaluation


def reference(truth, results, iou_type):
    """The twelve numbers, and AP by category id."""
    evaluation = evaluated(truth, results, iou_type, {})
    precision = evaluation.eval["precision"]
    by_class = []
    for k in range(precision.shape[2]):
        defined = precision[:, :, k, 0, -1]
        defined = defined[defined > -1]
        by_class.append(float(np.mean(defined)) if defined.size else -1.0)
    return [float(s) for s in evaluation.stats], by_class


# ---------------------------------------------------------------- random sets


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


def as_text(rle):
    return {"size": rle["size"], "counts": rle["counts"].decode()}


class RandomSet:
    """Ground truth and results of one seed; small, and full of what makes evaluations differ."""

    def __init__(self, seed, iou_type):
        self.rng = random.Random(seed * 2 + (iou_type == "segm"))
        self.segm = iou_type == "segm"
        rng = self.rng
        self.categories = sorted(rng.sample(range(1, 91), 3))
        # results of masks may carry boxes, whose areas then count
        self.boxes_too = self.segm and rng.random() < 0.3
        # few decimals make scores tie
        self.decimals = rng.choice([1, 2, 6, 16])
        self.annotations, self.results, self.images = [], [], []
        first_id = rng.choice([1, 1, 1, 0])
        for image_id in rng.sample(range(1, 10_000), rng.randint(2, 7)):
            image = {"id": image_id, "height": rng.randint(30, 90), "width": rng.randint(30, 90)}
            self.images.append(image)
            for _ in range(rng.choice([0, 0, 1, 2, 4, 6])):
                self.add_object(image, first_id)
            for _ in range(rng.randint(0, 4)):
                self.detect(image, rng.choice(self.categories), self.box(image))
        if seed % 8 == 5:
            # more than a hundred of one class in one image: the cap
            image, category = rng.choice(self.images), self.categories[0]
            for _ in range(110):
                self.detect(image, category, self.box(image))
        if not self.results:
            self.detect(self.images[0], self.categories[0], self.box(self.images[0]))
        rng.shuffle(self.results)
        rng.shuffle(self.images)

    def box(self, image):
        rng = self.rng
        kind = "plain" if self.segm else rng.choice(["plain"] * 6 + ["huge", "tiny", "outside", "empty"])
        w, h = rng.uniform(2, image["width"] * 0.9), rng.uniform(2, image["height"] * 0.9)
        x, y = rng.uniform(0, image["width"] - w), rng.uniform(0, image["height"] - h)
        if kind == "huge":
            w, h = rng.uniform(1e3, 1e6), rng.uniform(1e3, 1e6)
        elif kind == "tiny":
            return [round(x, 3), round(y, 3), round(rng.uniform(0.001, 0.9), 3), round(rng.uniform(0.001, 0.9), 3)]
        elif kind == "outside":
            x, y = x - 2 * image["width"], y + 2 * image["height"]
        elif kind == "empty":
            w = 0
        return [round(v, 1) for v in (x, y, w, h)]

    def outline(self, image, box):
        """A polygon within the box, or in one of four cases its rectangle."""
        x, y, w, h = box
        if self.rng.random() < 0.25:
            return [[x, y, x + w, y, x + w, y + h, x, y + h]]
        points = []
        corners = self.rng.randint(3, 7)
        for i in range(corners):
            angle = 2 * np.pi * (i + self.rng.random() * 0.8) / corners
            points += [round(x + w / 2 + np.cos(angle) * w / 2, 1), round(y + h / 2 + np.sin(angle) * h / 2, 1)]
        return [points]

    def add_object(self, image, first_id):
        rng = self.rng
        box = self.box(image)
        # the last category has detections and no objects
        category = rng.choice(self.categories[:-1])
        crowd = int(rng.random() < 0.15)
        entry = {
            "id": len(self.annotations) + first_id, "image_id": image["id"], "category_id": category,
            "iscrowd": crowd, "bbox": box,
        }
        if rng.random() < 0.2:
            entry["ignore"] = rng.randint(0, 1)
        entry["area"] = round(box[2] * box[3] * rng.uniform(0.4, 1), 3)
        if rng.random() < 0.1:
            # the ends of the size ranges belong to both neighbours
            entry["area"] = rng.choice([1024, 9216])
        if self.segm:
            polygons = self.outline(image, box)
            rle = rle_of(polygons, image["height"], image["width"])
            forms = [as_list(rle)] if crowd else [polygons, polygons, as_text(rle)]
            entry["segmentation"] = rng.choice(forms)
            entry["area"] = float(mask_api.area(rle)) * rng.choice([1, 1, 20])
        self.annotations.append(entry)
        for _ in range(rng.randint(0, 3)):
            shift = rng.choice([0.0, 0.0, 0.05, 0.15, 0.3])
            near = [round(v + rng.uniform(-shift, shift) * side, 1) for v, side in zip(box, (box[2], box[3]) * 2)]
            near[2:] = [max(near[2], 0), max(near[3], 0)]
            if shift == 0.0:
                near = box
            other = rng.random() < 0.1
            self.detect(image, rng.choice(self.categories) if other else category, near)

    def detect(self, image, category, box):
        entry = {
            "image_id": image["id"], "category_id": category, "score": round(self.rng.random(), self.decimals),
        }
        if self.segm:
            polygons = self.outline(image, box)
            entry["segmentation"] = as_text(rle_of(polygons, image["height"], image["width"]))
        if self.boxes_too or not self.segm:
            entry["bbox"] = box
        self.results.append(entry)

    def files(self):
        categories = [{"id": c, "name": f"class {c}"} for c in reversed(self.categories)]
        return {"images": self.images, "annotations": self.annotations, "categories": categories}, self.results


# ---------------------------------------------------------------- fixtures


def coded(values):
    """An array as its different values and runs of their positions: [index, length, index, length, …]."""
    unique, positions = np.unique(values, return_inverse=True)
    runs = []
    for position in positions.ravel().tolist():
        if runs and runs[-2] == position:
            runs[-1] += 1
        else:
            runs += [position, 1]
    return {"values": unique.tolist(), "runs": runs}


def fixture(seed, iou_type):
    truth, results = RandomSet(seed, iou_type).files()
    cases = []
    for name in ["coco", "agnostic", "other"] if seed % 3 == 0 else ["coco"]:
        case = CASES[name]
        evaluation = evaluated(truth, results, iou_type, case)
        # recalls run fastest, for along them values stay equal
        precision = evaluation.eval["precision"].transpose(0, 2, 3, 4, 1)
        entry = {"settings": case, "precision": coded(precision), "recall": coded(evaluation.eval["recall"])}
        if "thresholds" not in case:
            entry["stats"] = [float(s) for s in evaluation.stats]
        cases.append(entry)
    return {"seed": seed, "iou_type": iou_type, "gt": truth, "results": results, "cases": cases}


def write_fixtures(folder, count):
    for name, iou_type in (("boxes", "bbox"), ("masks", "segm")):
        sets = [fixture(seed, iou_type) for seed in range(count)]
        path = Path(folder) / f"eval_{name}.json"
        lines = ",\n".join(json.dumps(s, separators=(",", ":")) for s in sets)
        path.write_text(f"[\n{lines}\n]\n")
        scored = [s["cases"][0]["stats"][0] for s in sets]
        print(f"{path}: {count} sets, {path.stat().st_size} bytes, AP {min(scored):.3f} to {max(scored):.3f}")


# ---------------------------------------------------------------- comparison


def run_boxwright(binary, folder, truth, results, iou_type, case):
    paths = {name: folder / f"{name}.json" for name in ("gt", "results", "scores")}
    paths["gt"].write_text(json.dumps(truth))
    paths["results"].write_text(json.dumps(results))
    command = [str(binary), "eval", "--gt", str(paths["gt"]), "--results", str(paths["results"])]
    command += ["--iou-type", iou_type, "--full", "--json", str(paths["scores"])]
    if case.get("agnostic"):
        command += ["--class-agnostic"]
    if "thresholds" in case:
        command += ["--iou-thresholds", ",".join(map(repr, case["thresholds"]))]
        command += ["--areas", ",".join(f"{label}:{low}:{high}" for label, low, high in case["areas"])]
        command += ["--max-detections", ",".join(map(str, case["limits"]))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    return json.loads(paths["scores"].read_text())


def differences(got, evaluation, with_stats):
    """One line for each thing that differs."""
    lines = []
    if with_stats:
        for name, e, g in zip(NAMES, evaluation.stats, got["stats"]):
            if not abs(e - g) <= TOLERANCE:
                lines.append(f"{name}: pycocotools {float(e)!r}, boxwright {g!r}")
    for name in ("precision", "recall"):
        expected = evaluation.eval[name]
        if tuple(got[name]["shape"]) != expected.shape:
            lines.append(f"{name}: shape {got[name]['shape']} instead of {list(expected.shape)}")
            continue
        distance = np.abs(np.array(got[name]["values"], dtype=float).reshape(expected.shape) - expected)
        if not np.all(distance <= TOLERANCE):
            where = np.unravel_index(np.argmax(distance), distance.shape)
            at = [int(i) for i in where]
            lines.append(f"{name}: {int(np.sum(distance > TOLERANCE))} entries, most at {at}: {np.max(distance):.3g}")
    return lines


def compare(binary, count, keep):
    wrong, compared = 0, 0
    for seed in range(count):
        iou_type = "segm" if seed % 3 == 2 else "bbox"
        truth, results = RandomSet(seed, iou_type).files()
        for name, case in CASES.items():
            evaluation = evaluated(truth, results, iou_type, case)
            with contextlib.ExitStack() as stack:
                if keep:
                    folder = Path(keep) / f"{iou_type}-{seed}-{name}"
                    folder.mkdir(parents=True, exist_ok=True)
                else:
                    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                got = run_boxwright(binary, folder, truth, results, iou_type, case)
            lines = differences(got, evaluation, "thresholds" not in case)
            compared += 1
            wrong += bool(lines)
            for line in lines:
                print(f"{iou_type} seed {seed} {name}: {line}")
    print(f"{count} sets, {compared} evaluations, {wrong} differ by more than {TOLERANCE}")
    return 1 if wrong else 0


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
    parser.add_argument("--against", metavar="BINARY", help="the binary to compare")
    parser.add_argument("--sets", type=int, default=200, help="how many sets are compared")
    parser.add_argument("--keep", help="folder that keeps the files of every comparison")
    parser.add_argument("--fixtures", metavar="DIR", help="write eval_boxes.json and eval_masks.json there")
    parser.add_argument("--golden", action="store_true", help="print the numbers that tests/eval.rs expects")
    arguments = parser.parse_args()
    if arguments.golden:
        golden()
        return 0
    try:
        if arguments.fixtures:
            write_fixtures(arguments.fixtures, 15)
            return 0
        if not arguments.against:
            parser.error("say what to do: --against BINARY, --fixtures DIR or --golden")
        return compare(arguments.against, arguments.sets, arguments.keep)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        print(f"cannot compare: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
