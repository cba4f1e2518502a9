"""Boxwright beside PyTorch on an NVIDIA GPU: times of networks and training steps in four precisions, in one table.

peer_gpu.py BOXWRIGHT [--runs N] [--batches 1,8] [--precisions f32,tf32,f16,bf16] [--json FILE] [MODEL…]

BOXWRIGHT is a release build with the features cuda and cudnn; `gpu.sh` makes one. Models have Boxwright's names;
without any, those of MODELS. Weights are random. Names and work are those of peers.py: `forward` is from pixels to
detections, `network` from an input tensor to raw head outputs, `train step` is forward, loss, backward and an update
with every layer learning. Every time waits for the GPU to finish.

PyTorch is timed where it is installed with CUDA: torchvision's networks, and those of peer_graphs.py, whose training
step has a plain mean of the outputs for its loss, in PyTorch's favour. It runs eagerly, in f16 and bf16 under autocast,
in f16 with scaled gradients. A ratio above what is asked has a mark. Exits with 1 when something could not be timed.
"""
import argparse, json, statistics, subprocess, sys, time

sys.dont_write_bytecode = True
import peers

MODELS = ["ssd300", "retinanet-r50", "mask-r50", "m2det512-vgg", "yolov3-416", "ssd512", "fcos-r50", "faster-r50",
          "cascade-r50", "refinedet320", "refinedet512"]
PRECISIONS = ["f32", "tf32", "f16", "bf16"]
# Torchvision's networks by Boxwright's names.
TORCHVISION = {own: name for name, (own, _) in peers.MODELS.items()}
# Networks of peer_graphs.py by Boxwright's names, where those differ.
GRAPHS = {"yolov3-416": "yolov3"}
# The largest ratio that counts as reached.
ASKED = {"forward": 1.0, "network": 1.0, "train step": 1.1}


def ours(options, model, batch, precision):
    command = [options.boxwright, "bench", "--device", "cuda:0", "--model", model, "--train", "--batch", str(batch),
               "--precision", precision, "--repeat", str(options.runs), "--json", "-"]
    done = subprocess.run(command, stdout=subprocess.PIPE)
    if done.returncode != 0:
        print(f"peer_gpu.py: {' '.join(command)} ended with {done.returncode}", file=sys.stderr)
        return {}
    return {name: value["median_ms"] for name, value in json.loads(done.stdout)["times"].items()}


def timed(torch, runs, work):
    times = []
    for _ in range(runs + 3):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[3:])


def torchvision_peer(torch, name, batch):
    """The label of a network, its forward passes by name, and its loss."""
    side = 300 if name == "ssd300" else 800
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
    passes = {"network": heads}
    if batch == 1:
        passes["forward"] = lambda: network(images)
    return f"{name}@{side}", network, passes, lambda: sum(network(images, targets).values())


def graph_peer(torch, name, batch):
    """The same of a network of peer_graphs.py."""
    import peer_graphs
    network, side = peer_graphs.network(name)
    network = network.cuda()
    images = torch.rand(batch, 3, side, side, device="cuda")
    passes = {"network": lambda: network(images)}
    return f"{name}@{side}", network, passes, lambda: sum(output.float().mean() for output in network(images))


def theirs(torch, options, model, batch, precision):
    if torch is None:
        return {}
    import peer_graphs
    graph = GRAPHS.get(model, model)
    if model in TORCHVISION:
        label, network, passes, loss = torchvision_peer(torch, TORCHVISION[model], batch)
    elif graph in peer_graphs.GRAPHS:
        label, network, passes, loss = graph_peer(torch, graph, batch)
    else:
        return {}
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    of_batch = f" batch {batch}" if batch > 1 else ""
    narrow = {"f16": torch.float16, "bf16": torch.bfloat16}.get(precision)
    autocast = lambda: torch.autocast("cuda", dtype=narrow, enabled=narrow is not None)
    found = {}
    network.eval()
    for what, work in passes.items():
        with torch.no_grad(), autocast():
            found[f"{label} {what}{of_batch}"] = timed(torch, options.runs, work)
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-6, momentum=0.9, weight_decay=5e-4)
    scaler = torch.amp.GradScaler("cuda", enabled=precision == "f16")

    def step():
        optimizer.zero_grad()
        with autocast():
            value = loss()
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()
    found[f"{label} train step{of_batch}"] = timed(torch, options.runs, step)
    return found


def mark(name, ratio):
    asked = next((most for what, most in ASKED.items() if f" {what}" in name), None)
    return f"  above {asked}" if asked is not None and ratio > asked else ""


def main():
    parser = argparse.ArgumentParser(description="Boxwright beside PyTorch on a GPU.")
    parser.add_argument("boxwright", help="release build with cuda and cudnn")
    parser.add_argument("model", nargs="*", default=MODELS)
    parser.add_argument("--runs", type=int, default=15, help="measured runs of each thing")
    parser.add_argument("--batches", default="1,8", help="numbers of images, separated by commas")
    parser.add_argument("--precisions", default=",".join(PRECISIONS), help="some of f32,tf32,f16,bf16")
    parser.add_argument("--json", help="file for the rows")
    options = parser.parse_intermixed_args()
    precisions = options.precisions.split(",")
    if unknown := set(precisions) - set(PRECISIONS):
        parser.error(f"no precision: {', '.join(sorted(unknown))}")
    try:
        import torch, torchvision
        torch = torch if torch.cuda.is_available() else None
    except ImportError:
        torch = None
    print(f"PyTorch {torch.__version__} on {torch.cuda.get_device_name()}" if torch else "without PyTorch")
    print(f"{'':<44} {'':<5} {'Boxwright':>10} {'PyTorch':>10} {'ratio':>6}")
    rows, complete = [], True
    for model in options.model:
        for batch in map(int, options.batches.split(",")):
            for precision in precisions:
                own, peer = ours(options, model, batch, precision), {}
                try:
                    peer = theirs(torch, options, model, batch, precision)
                except RuntimeError as error:
                    print(f"peer_gpu.py: PyTorch's {model}, batch {batch}, {precision}: {error}", file=sys.stderr)
                if torch is not None:
                    # The memory that PyTorch keeps would be missing in the next process.
                    torch.cuda.empty_cache()
                complete = complete and bool(own)
                for name, value in own.items():
                    other = peer.get(name)
                    rows.append({"name": name, "precision": precision, "boxwright_ms": value, "pytorch_ms": other})
                    ratio = f" {other:>10.2f} {value / other:>6.2f}{mark(name, value / other)}" if other else ""
                    print(f"{name:<44} {precision:<5} {value:>10.2f}{ratio}", flush=True)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(rows, file, indent=1)
    return 0 if rows and complete else 1


if __name__ == "__main__":
    sys.exit(main())
