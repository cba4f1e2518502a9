"""Times pycocotools or faster-coco-eval on COCO files and prints one line of JSON, for coco_sets.rs.

peer_coco.py MODULE eval GROUND_TRUTH RESULTS    loads both, evaluates boxes
peer_coco.py MODULE load ANNOTATIONS             loads

MODULE is pycocotools or faster_coco_eval. Times are seconds, without the imports. What the modules print goes to stderr.
"""

import contextlib
import json
import resource
import sys
import time


def classes_of(module):
    """The annotation and the evaluation class of a module."""
    if module == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        return COCO, COCOeval
    if module == "faster_coco_eval":
        from faster_coco_eval import COCO, COCOeval_faster

        return COCO, COCOeval_faster
    raise SystemExit(f"unknown module {module}")


def measure_eval(module, truth, results):
    coco_class, eval_class = classes_of(module)
    begin = time.perf_counter()
    ground_truth = coco_class(truth)
    detections = ground_truth.loadRes(results)
    loaded = time.perf_counter()
    evaluation = eval_class(ground_truth, detections, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    done = time.perf_counter()
    return {
        "load": loaded - begin,
        "evaluate": done - loaded,
        "stats": [float(value) for value in list(evaluation.stats)[:12]],
    }


def measure_load(module, annotations):
    coco_class, _ = classes_of(module)
    begin = time.perf_counter()
    coco_class(annotations)
    return {"load": time.perf_counter() - begin}


def main():
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    module, what, *files = sys.argv[1:]
    measures = {("eval", 2): measure_eval, ("load", 1): measure_load}
    if (what, len(files)) not in measures:
        raise SystemExit(__doc__)
    with contextlib.redirect_stdout(sys.stderr):
        measured = measures[what, len(files)](module, *files)
    # kilobytes on Linux
    measured["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
