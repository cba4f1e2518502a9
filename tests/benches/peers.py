"""Boxwright beside PyTorch, torchvision and ONNX Runtime on the CPU, in turns, and the ratios of their times.

peers.py BOXWRIGHT [SECTION…] [--rounds N] [--runs N] [--size N] [--threads N] [--json FILE]

Needs a Python with torch, torchvision, onnx and onnxruntime; `peers.sh` finds or makes one. BOXWRIGHT is the release
build. Sections: conv, op, simd, draw, the torchvision networks ssd300, retinanet, fcos, fasterrcnn and maskrcnn, the
networks yolov3, refinedet and m2det, and ssd300-batch8; without any, all of them. --size is the side of the input of
torchvision's networks but ssd300; the others have their own.

In every round each section runs once in Boxwright and once in each peer, each in a process of its own; what is printed
is the median of the rounds' medians. Weights are random, and the same things have the same names on both sides:

* `NETWORK@SIZE forward`: from a picture in memory to detections, resizing and suppression included.
* `NETWORK@SIZE network`: from an input tensor to raw head outputs; of the two-stage networks to those of the RPN.
* `NETWORK@SIZE train step`: forward, loss, backward and an SGD update with momentum, every layer learning.
  torchvision normalises its input inside the step, Boxwright before it: a percent or two in Boxwright's favour.
* `conv …`: with bias and ReLU forward; without them backward, where the gradient of the output is given.

Of RefineDet, M2Det and YOLOv3, for which torchvision has nothing, only the network has peers: the same graphs as plain
PyTorch modules (peer_graphs.py, which checks that they are the same). PyTorch runs batch norms as they are, as it does
torchvision's; the export to ONNX Runtime folds them into the convolutions before them, as Boxwright does.

The asked ratio of a row is the largest that counts as reached. `best` stands for the best times that any of four kinds
of kernels (two libraries, two prototypes, PyTorch's own) took on two Zen 5 cores with 512-bit vectors: on another
machine those rows mean nothing.
"""
import argparse, json, os, re, statistics, subprocess, sys, tempfile, time

MODELS = {"ssd300": ("ssd300", "ssd300_vgg16"), "retinanet": ("retinanet-r50", "retinanet_resnet50_fpn"),
          "fcos": ("fcos-r50", "fcos_resnet50_fpn"), "fasterrcnn": ("faster-r50", "fasterrcnn_resnet50_fpn"),
          "maskrcnn": ("mask-r50", "maskrcnn_resnet50_fpn")}
# Boxwright's names of the networks in peer_graphs.py.
GRAPHS = {"yolov3": "yolov3", "refinedet": "refinedet320", "m2det": "m2det320-vgg"}
SECTIONS = ["conv", "op", "simd", "draw", *MODELS, *GRAPHS, "ssd300-batch8"]
WARM_UP = 2

# Milliseconds of forward pass, gradient of the input and of the weight.
BEST = {
    "conv 3->64 300x300 k3 s1": (0.92, None, None), "conv 64->64 300x300 k3 s1": (6.8, 7.2, 7.9),
    "conv 64->128 150x150 k3 s1": (2.4, 3.0, 3.5), "conv 128->128 150x150 k3 s1": (5.0, 5.5, 7.0),
    "conv 256->256 75x75 k3 s1": (4.7, 5.1, 6.8), "conv 512->512 38x38 k3 s1": (6.6, 6.1, 9.7),
    "conv 512->512 19x19 k3 s1": (2.4, 2.7, 3.8), "conv 512->1024 19x19 k3 s1 d6": (5.5, 5.6, 5.6),
    "conv 1024->1024 19x19 k1 s1": (1.5, 1.6, 1.8), "conv 256->256 100x100 k3 s1": (7.9, 9.5, 11.4),
    "conv 64->256 200x200 k1 s1": (2.9, 4.2, 4.5), "conv 256->64 200x200 k1 s1": (3.8, 3.9, 3.6),
    "conv 512->2048 25x25 k1 s1": (2.6, None, None), "conv 128->128 100x100 k3 s2": (1.8, 2.4, 1.9),
    "conv 3->64 800x800 k7 s2": (7.4, 55.0, 8.4), "conv 256->256 13x13 k3 s1": (0.30, None, None),
}
# The layers of MobileNet: the side of the map by the number of input channels.
MOBILENET = {(32, 112), (64, 112), (64, 56), (128, 56), (128, 28), (256, 28), (256, 14), (512, 14), (512, 7), (1024, 7)}


def asked(name, peer):
    """The ratio that counts as reached, or None where nothing is asked."""
    network, _, what = name.partition(" ")
    network = network.partition("@")[0]
    if peer == "best":
        return 1.1
    if peer == "ONNX Runtime" and what == "network":
        return {"ssd300": 0.65, "retinanet": 0.65}.get(network)
    if peer == "ONNX Runtime" and name.startswith("conv"):
        shape = Shape(name)
        mobile = (shape.groups > 1 or shape.kernel == 1) and (shape.input, shape.side) in MOBILENET
        return 1.0 if mobile else None
    if peer == "PyTorch" and what == "forward":
        return {"ssd300": 0.5, "retinanet": 0.5, "fasterrcnn": 0.7, "maskrcnn": 0.7}.get(network)
    if peer == "PyTorch" and what == "train step":
        return {"ssd300": 0.6, "retinanet": 0.7, "fasterrcnn": 1.0, "maskrcnn": 1.0}.get(network)
    if peer == "PyTorch":
        return {"nms 50000": 0.1, "roialign 1000 x 256 x 7 x 7": 0.5, "ssd300@300 train step batch 8": 0.8,
                "ssd300@300 train step batch 8, peak memory": 1.0}.get(name)
    return None


class Shape:
    """A convolution from its name: conv 64->128 150x150 k3 s1 d6 g32."""
    def __init__(self, name):
        found = re.match(r"conv (\d+)->(\d+) (\d+)x\d+ k(\d+) s(\d+)(?: d(\d+))?(?: g(\d+))?(?: |$)", name)
        if not found:
            sys.exit(f"peers.py: {name!r} names no convolution; are Boxwright and this script of one version?")
        numbers = [int(n) if n else 1 for n in found.groups()]
        self.input, self.output, self.side, self.kernel, self.stride, self.dilation, self.groups = numbers
        self.padding = self.dilation * (self.kernel - 1) // 2


# What runs in a process of its own, with the peers' packages.

def timed(runs, work):
    for _ in range(WARM_UP):
        work()
    milliseconds = []
    for _ in range(max(runs, 1)):
        start = time.perf_counter()
        work()
        milliseconds.append((time.perf_counter() - start) * 1e3)
    return {"median_ms": statistics.median(milliseconds), "min_ms": min(milliseconds), "max_ms": max(milliseconds)}


def peak_mebibytes():
    try:
        with open("/proc/self/status") as status:
            return next((int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:")), None)
    except OSError:
        return None


def onnx_session(module, x, file, threads):
    """A call of ONNX Runtime on `module`; `file` is written once and read again in later rounds."""
    import onnxruntime, torch
    if not os.path.exists(file):
        torch.onnx.export(module, (x,), file + ".part", dynamo=False, opset_version=17)
        os.replace(file + ".part", file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x.numpy()}
    return lambda: session.run(None, feed)


def peer_conv(settings):
    import torch
    from torch.nn import functional
    out = {}
    for name in settings["names"]:
        if not name.endswith(" forward"):
            continue
        s, base = Shape(name), name.removesuffix(" forward")
        x, bias = torch.randn(1, s.input, s.side, s.side), torch.randn(s.output)
        weight = torch.randn(s.output, s.input // s.groups, s.kernel, s.kernel)
        how = {"stride": s.stride, "padding": s.padding, "dilation": s.dilation, "groups": s.groups}
        layer = torch.nn.Sequential(torch.nn.Conv2d(s.input, s.output, s.kernel, **how), torch.nn.ReLU()).eval()
        with torch.no_grad():
            own = timed(settings["runs"], lambda: functional.conv2d(x, weight, bias, **how).relu_())
            file = os.path.join(settings["cache"], re.sub(r"\W+", "-", base) + ".onnx")
            onnx = timed(settings["runs"], onnx_session(layer, x, file, settings["threads"]))
            gradient = torch.randn_like(functional.conv2d(x, weight, **how))
        out[name] = {"PyTorch": own, "ONNX Runtime": onnx}

        def alone(mask):
            pairs = [[s.stride] * 2, [s.padding] * 2, [s.dilation] * 2]
            return lambda: torch.ops.aten.convolution_backward(
                gradient, x, weight, None, *pairs, False, [0, 0], s.groups, mask)
        leaves = x.clone().requires_grad_(), weight.clone().requires_grad_()

        def both():
            leaves[0].grad = leaves[1].grad = None
            functional.conv2d(*leaves, **how).backward(gradient)
        out[f"{base} forward+backward"] = {"PyTorch": timed(settings["runs"], both)}
        out[f"{base} gradient of input"] = {"PyTorch": timed(settings["runs"], alone([True, False, False]))}
        out[f"{base} gradient of weight"] = {"PyTorch": timed(settings["runs"], alone([False, True, False]))}
    return out


def peer_op(settings):
    import torch, torchvision
    from torch.nn import functional
    out, runs = {}, settings["runs"]

    def boxes(count, longest):
        center, size = torch.rand(count, 2) * 800, torch.rand(count, 2) * (longest - 4) + 4
        return torch.cat([center - size / 2, center + size / 2], 1)
    for count in (1000, 10000, 50000):
        some, scores = boxes(count, 84), torch.rand(count)
        # the largest takes seconds a run
        out[f"nms {count}"] = {"PyTorch": timed(min(runs, 3) if count > 10000 else runs,
                                               lambda: torchvision.ops.nms(some, scores, 0.5))}
    rois = torch.cat([torch.zeros(1000, 1), boxes(1000, 208)], 1)
    gamma, beta = torch.rand(256), torch.rand(256)
    targets = torch.zeros(120087, 91)
    targets[::100, 7] = 1
    work = {
        "roialign 1000 x 256 x 7 x 7":
            ((1, 256, 200, 200), lambda x: torchvision.ops.roi_align(x, rois, (7, 7), 0.25, 2)),
        "max pool 64 x 300 x 300 k2 s2": ((1, 64, 300, 300), lambda x: functional.max_pool2d(x, 2)),
        "resize nearest 256 x 50 x 50 to 100 x 100":
            ((1, 256, 50, 50), lambda x: functional.interpolate(x, size=(100, 100), mode="nearest")),
        "resize bilinear 256 x 50 x 50 to 100 x 100":
            ((1, 256, 50, 50), lambda x: functional.interpolate(x, size=(100, 100), mode="bilinear")),
        "batch norm 256 x 100 x 100":
            ((1, 256, 100, 100), lambda x: functional.batch_norm(x, None, None, gamma, beta, True)),
        "softmax 8732 x 91": ((8732, 91), lambda x: functional.softmax(x, -1)),
        "focal loss 120087 x 91":
            ((120087, 91), lambda x: torchvision.ops.sigmoid_focal_loss(x, targets, 0.25, 2.0)),
    }
    for name, (shape, forward) in work.items():
        x = torch.rand(shape) * 2 - 1
        with torch.no_grad():
            out[name] = {"PyTorch": timed(runs, lambda: forward(x))}
            gradient = torch.ones_like(forward(x))
        leaf = x.clone().requires_grad_()

        def both():
            leaf.grad = None
            forward(leaf).backward(gradient)
        out[f"{name} forward+backward"] = {"PyTorch": timed(runs, both)}
    return out


def detector(name, size):
    import torchvision.models.detection as detection
    builder = getattr(detection, MODELS[name][1])
    if name == "ssd300":
        return builder(weights=None, weights_backbone=None)
    return builder(weights=None, weights_backbone=None, trainable_backbone_layers=5, min_size=size,
                   max_size=-(-size * 1333 // 800))


def peer_forward(settings):
    import torch
    name, size = settings["model"], settings["size"]
    model, x = detector(name, size).eval(), [torch.rand(3, size, size)]

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, images):
            maps = list(self.model.backbone(images).values())
            if hasattr(self.model, "rpn"):
                scores, deltas = self.model.rpn.head(maps)
                return (*scores, *deltas)
            return tuple(self.model.head(maps).values())
    label = f"{name}@{size}"
    with torch.no_grad():
        whole = timed(settings["runs"], lambda: model(x))
        images = model.transform(x)[0].tensors
        return {f"{label} forward": {"PyTorch": whole}} | network_alone(label, Network().eval(), images, settings)


def network_alone(label, network, images, settings):
    """From an input tensor to raw head outputs, in both peers; to be called without gradients."""
    own = timed(settings["runs"], lambda: network(images))
    file = os.path.join(settings["cache"], f"{label}.onnx")
    onnx = timed(settings["runs"], onnx_session(network, images, file, settings["threads"]))
    return {f"{label} network": {"PyTorch": own, "ONNX Runtime": onnx}}


def peer_graph(settings):
    import torch
    sys.dont_write_bytecode = True
    import peer_graphs
    network, side = peer_graphs.network(settings["model"])
    with torch.no_grad():
        return network_alone(f"{settings['model']}@{side}", network, torch.rand(1, 3, side, side), settings)


def peer_train(settings):
    import torch
    name, size, batch = settings["model"], settings["size"], settings["batch"]
    model = detector(name, size).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9, weight_decay=5e-4)
    images, targets = [], []
    for _ in range(batch):
        corner, sides = torch.rand(4, 2) * 0.6 * size, (torch.rand(4, 2) * 0.3 + 0.1) * size
        target = {"boxes": torch.cat([corner, corner + sides], 1), "labels": torch.randint(1, 91, (4,))}
        if name == "maskrcnn":
            target["masks"] = torch.zeros(4, size, size, dtype=torch.uint8)
            for mask, (x0, y0, x1, y1) in zip(target["masks"], target["boxes"].int().tolist()):
                mask[y0:y1, x0:x1] = 1
        images.append(torch.rand(3, size, size))
        targets.append(target)

    def step():
        optimizer.zero_grad()
        sum(model(images, targets).values()).backward()
        optimizer.step()
    times = timed(settings["runs"], step)
    times["peak_mib"] = peak_mebibytes()
    return {f"{name}@{size} train step" + (f" batch {batch}" if batch > 1 else ""): {"PyTorch": times}}


def peer_versions(_):
    import onnxruntime, torch, torchvision
    return {"torch": torch.__version__, "torchvision": torchvision.__version__, "onnxruntime": onnxruntime.__version__}


PEERS = {"conv": peer_conv, "op": peer_op, "forward": peer_forward, "graph": peer_graph, "train": peer_train,
         "versions": peer_versions}


def child(kind):
    settings = json.load(sys.stdin)
    answer = os.fdopen(os.dup(1), "w")
    # what a package prints must not get into the answer
    os.dup2(2, 1)
    if "threads" in settings:
        import torch
        torch.set_num_threads(settings["threads"])
    json.dump(PEERS[kind](settings), answer)
    answer.close()


# What runs in the process that compares.

class Comparison:
    """Every round's results by name: Boxwright's, and those of each peer."""
    def __init__(self, options, cache):
        self.options, self.cache, self.rows = options, cache, {}

    def ours(self, arguments, simd=None):
        command = [self.options.boxwright, "bench", *arguments, "--threads", str(self.options.threads),
                   "--repeat", str(self.options.runs), "--json", "-"]
        environment = dict(os.environ, **({"BOXWRIGHT_SIMD": simd} if simd else {}))
        done = subprocess.run(command, stdout=subprocess.PIPE, env=environment)
        if done.returncode != 0:
            print(f"peers.py: {' '.join(command)} ended with {done.returncode}", file=sys.stderr)
            return {}
        return json.loads(done.stdout)["times"]

    def peer(self, kind, **settings):
        settings |= {"runs": self.options.runs, "threads": self.options.threads, "cache": self.cache}
        done = subprocess.run([sys.executable, __file__, "--peer", kind], input=json.dumps(settings),
                              stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            print(f"peers.py: the peers' {kind} {settings.get('model', '')} ended with {done.returncode}",
                  file=sys.stderr)
            return {}
        return json.loads(done.stdout)

    def add(self, name, peer, ours, theirs, unit="ms"):
        row = self.rows.setdefault((name, peer), {"unit": unit, "ours": [], "theirs": []})
        row["ours"].append(ours)
        row["theirs"].append(theirs)

    def add_all(self, ours, peers):
        for name, value in ours.items():
            for peer, theirs in peers.get(name, {}).items():
                self.add(name, peer, value["median_ms"], theirs["median_ms"])
                if value.get("peak_mib") and theirs.get("peak_mib"):
                    self.add(f"{name}, peak memory", peer, value["peak_mib"], theirs["peak_mib"], "MiB")

    def section(self, section):
        if section == "conv":
            ours = self.ours(["--conv", "--train"])
            self.add_all(ours, self.peer("conv", names=list(ours)))
            for base, best in BEST.items():
                for what, milliseconds in zip(("forward", "gradient of input", "gradient of weight"), best):
                    if milliseconds and f"{base} {what}" in ours:
                        self.add(f"{base} {what}", "best", ours[f"{base} {what}"]["median_ms"], milliseconds)
        elif section == "op":
            self.add_all(self.ours(["--op", "--train"]), self.peer("op"))
        elif section == "simd":
            # a ratio of 2 is a share of 50 %
            wide, narrow = (self.ours(["--conv"], simd) for simd in ("avx512", "avx2"))
            for name in narrow.keys() & wide.keys():
                self.add(f"AVX2: {name}", "AVX-512", narrow[name]["median_ms"], wide[name]["median_ms"])
        elif section == "draw":
            ours = self.ours(["--draw"])
            egui = next((value for name, value in ours.items() if "egui" in name), None)
            for name, value in ours.items():
                if egui and name.startswith("draw ") and "egui" not in name:
                    self.add(name, "egui's painter", value["median_ms"], egui["median_ms"])
        elif section == "ssd300-batch8":
            ours = self.ours(["--model", "ssd300", "--batch", "8", "--train"])
            ours = {name: value for name, value in ours.items() if name.endswith("train step batch 8")}
            self.add_all(ours, self.peer("train", model="ssd300", size=300, batch=8))
        elif section in GRAPHS:
            self.add_all(self.ours(["--model", GRAPHS[section]]), self.peer("graph", model=GRAPHS[section]))
        else:
            size = 300 if section == "ssd300" else self.options.size
            arch = MODELS[section][0]
            ours = self.ours(["--model", arch, "--size", str(size), "--train"])
            peers = self.peer("forward", model=section, size=size)
            self.add_all(ours, peers | self.peer("train", model=section, size=size, batch=1))

    def results(self):
        out = []
        for (name, peer), row in self.rows.items():
            ours, theirs = statistics.median(row["ours"]), statistics.median(row["theirs"])
            # the AVX2 path has to reach 45 % of the wider one's speed; egui may take twenty times as long
            goal = {"AVX-512": 1 / 0.45, "egui's painter": 0.05 if name.startswith("draw 100000 of 100000 ") else None}
            goal = goal[peer] if peer in goal else asked(name, peer)
            ratio = ours / theirs if theirs else None
            reached = None if goal is None or ratio is None else ratio <= goal
            out.append({"name": name, "peer": peer, "unit": row["unit"], "ours": ours, "theirs": theirs,
                        "ratio": ratio, "asked": goal, "reached": reached, "rounds": row})
        return out


def print_table(results):
    print(f"{'name':58s} {'beside':14s} {'ours':>10s} {'theirs':>10s} {'':3s} {'ratio':>6s} {'asked':>6s}  reached")
    for row in results:
        ratio = "—" if row["ratio"] is None else f"{row['ratio']:.2f}"
        goal = "" if row["asked"] is None else f"{row['asked']:.2f}"
        reached = {None: "", True: "yes", False: "NO"}[row["reached"]]
        print(f"{row['name']:58s} {row['peer']:14s} {row['ours']:10.2f} {row['theirs']:10.2f} {row['unit']:3s} "
              f"{ratio:>6s} {goal:>6s}  {reached}")
    shares = [row["theirs"] / row["ours"] for row in results if row["peer"] == "AVX-512" and row["ours"]]
    if shares:
        print(f"\nAVX2 reaches {100 * statistics.median(shares):.0f} % of AVX-512's speed in the median of "
              f"{len(shares)} convolutions, {100 * min(shares):.0f} % at least")
    judged = [row["reached"] for row in results if row["reached"] is not None]
    print(f"\n{sum(judged)} of {len(judged)} asked ratios are reached")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("boxwright", help="the program, built with --release")
    parser.add_argument("section", nargs="*", help=", ".join(SECTIONS))
    parser.add_argument("--rounds", type=int, default=3, help="turns of each section")
    parser.add_argument("--runs", type=int, default=7, help="measured runs of each thing in a turn")
    parser.add_argument("--size", type=int, default=800, help="side of torchvision's inputs, but for ssd300")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of every program")
    parser.add_argument("--json", help="file for rows and single rounds")
    options = parser.parse_args()
    sections = options.section or SECTIONS
    unknown = [section for section in sections if section not in SECTIONS]
    if unknown:
        parser.error(f"there is no section {', '.join(unknown)}; there are: {', '.join(SECTIONS)}")
    with tempfile.TemporaryDirectory(prefix="boxwright-peers-") as cache:
        comparison = Comparison(options, cache)
        versions = comparison.peer("versions")
        print(", ".join(f"{name} {version}" for name, version in versions.items()) + f", {options.threads} threads")
        for turn in range(options.rounds):
            for section in sections:
                print(f"round {turn + 1} of {options.rounds}: {section}", file=sys.stderr, flush=True)
                comparison.section(section)
    results = comparison.results()
    print_table(results)
    if options.json:
        with open(options.json, "w") as file:
            json.dump({**versions, "threads": options.threads, "rows": results}, file, indent=1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peer"]:
        child(sys.argv[2])
    else:
        main()
