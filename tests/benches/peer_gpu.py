"""Boxwright beside PyTorch on an NVIDIA GPU: times of networks and training steps in f32 and TF32, in one table.

peer_gpu.py BOXWRIGHT [--runs N] [--batches 1,8] [--json FILE] [MODEL…]

BOXWRIGHT is a release build with the features cuda and cudnn; `gpu.sh` makes one. Models have Boxwright's names; without
any, those of MODELS. Weights are random. Names and work are those of peers.py: `network` is from an input tensor to raw
head outputs, `train step` is forward, loss, backward and an update with every layer learning. PyTorch is timed where it
is installed with CUDA, for the networks of torchvision. Every time waits for the GPU to finish.
"""
import argparse, json, os, statistics, subprocess, sys, time

sys.dont_write_bytecode = True
import peers

MODELS = ["ssd300", "retinanet-r50", "mask-r50", "m2det512-vgg", "yolov3-416"]
# Boxwright's names of torchvision's networks, and the sides of their inputs.
TORCHVISION = {"ssd300": ("ssd300", 300), "retinanet-r50": ("retinanet", 800), "mask-r50": ("maskrcnn", 800)}


def ours(options, model, batch, tf32):
    command = [options.boxwright, "bench", "--device", "cuda:0", "--model", model, "--train", "--batch", str(batch),
               "--repeat", str(options.runs), "--json", "-"]
    done = subprocess.run(command, stdout=subprocess.PIPE, env=dict(os.environ, BOXWRIGHT_TF32=str(int(tf32))))
    if done.returncode != 0:
        print(f"peer_gpu.py: {' '.join(command)} ended with {done.returncode}", file=sys.stderr)
        return {}
    return {name: value["median_ms"] for name, value in json.loads(done.stdout)["times"].items()}


def timed(torch, runs, work):
    times = []
    for turn in range(runs + 3):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[3:])


def theirs(torch, options, model, batch, tf32):
    if torch is None or model not in TORCHVISION:
        return {}
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    name, side = TORCHVISION[model]
    network = peers.detector(name, side).cuda()
    images = [torch.rand(3, side, side, device="cuda") for _ in range(batch)]
    targets = []
    for _ in range(batch):
        corner, size = torch.rand(4, 2) * 0.6 * side, (torch.rand(4, 2) * 0.3 + 0.1) * side
        boxes = torch.cat([corner, corner + size], 1)
        target = {"boxes": boxes.cuda(), "labels": torch.randint(1, 91, (4,), device="cuda")}
        if name == "maskrcnn":
            target["masks"] = torch.zeros(4, side, side, dtype=torch.uint8, device="cuda")
            for mask, (x0, y0, x1, y1) in zip(target["masks"], boxes.int().tolist()):
                mask[y0:y1, x0:x1] = 1
        targets.append(target)
    stacked = network.eval().transform(images)[0].tensors

    def heads():
        maps = list(network.backbone(stacked).values())
        return network.rpn.head(maps) if hasattr(network, "rpn") else network.head(maps)
    label, of_batch = f"{name}@{side}", f" batch {batch}" if batch > 1 else ""
    with torch.no_grad():
        found = {f"{label} network{of_batch}": timed(torch, options.runs, heads)}
        if batch == 1:
            found[f"{label} forward"] = timed(torch, options.runs, lambda: network(images))
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-6, momentum=0.9, weight_decay=5e-4)

    def step():
        optimizer.zero_grad()
        sum(network(images, targets).values()).backward()
        optimizer.step()
    found[f"{label} train step{of_batch}"] = timed(torch, options.runs, step)
    return found


def main():
    parser = argparse.ArgumentParser(description="Boxwright beside PyTorch on a GPU.")
    parser.add_argument("boxwright", help="release build with cuda and cudnn")
    parser.add_argument("model", nargs="*", default=MODELS)
    parser.add_argument("--runs", type=int, default=15, help="measured runs of each thing")
    parser.add_argument("--batches", default="1,8", help="numbers of images, separated by commas")
    parser.add_argument("--json", help="file for the rows")
    options = parser.parse_args()
    try:
        import torch, torchvision
        torch = torch if torch.cuda.is_available() else None
    except ImportError:
        torch = None
    print(f"PyTorch {torch.__version__} on {torch.cuda.get_device_name()}" if torch else "without PyTorch")
    print(f"{'':<44} {'':<5} {'Boxwright':>10} {'PyTorch':>10} {'ratio':>6}")
    rows = []
    for model in options.model:
        for batch in map(int, options.batches.split(",")):
            for tf32 in (False, True):
                own, peer = ours(options, model, batch, tf32), theirs(torch, options, model, batch, tf32)
                for name, value in own.items():
                    other = peer.get(name)
                    kind = "TF32" if tf32 else "f32"
                    rows.append({"name": name, "kind": kind, "boxwright_ms": value, "pytorch_ms": other})
                    compared = f" {other:>10.2f} {value / other:>6.2f}" if other else ""
                    print(f"{name:<44} {kind:<5} {value:>10.2f}{compared}", flush=True)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(rows, file, indent=1)
    return 0 if rows else 1


if __name__ == "__main__":
    sys.exit(main())
