#!/usr/bin/env python3
"""Checks the CUDA kernels of src/ops/cuda on any machine: no GPU, no CUDA toolkit.

The kernels need no shared memory or barriers, so a C++ compiler and a few macros turn them into functions of one
thread; each is run for every thread of a small grid and compared with PyTorch on the CPU. Needs g++, PyTorch and
torchvision:  python3 tests/cuda_kernels.py [name…]
"""
import ctypes
import pathlib
import subprocess
import sys
import tempfile

import torch
import torch.nn.functional as F
import torchvision

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "src/ops/cuda"
SHIM = """
#include <algorithm>
#include <cmath>
#include <cstring>
#include <math.h>
#define __global__
#define __device__
#define __forceinline__ inline
using std::isfinite;
using std::max;
using std::min;
struct Place { unsigned x; };
static Place blockIdx, threadIdx, blockDim, gridDim;
extern "C" void become(unsigned block, unsigned thread, unsigned grid, unsigned threads) {
    blockIdx.x = block, threadIdx.x = thread, gridDim.x = grid, blockDim.x = threads;
}
static float __int_as_float(int bits) { float value; std::memcpy(&value, &bits, 4); return value; }
static int __float_as_int(float value) { int bits; std::memcpy(&bits, &value, 4); return bits; }
static int __ffs(int bits) { return __builtin_ffs(bits); }
static void atomicAdd(float* at, float value) { *at += value; }
static int atomicAdd(int* at, int value) { int before = *at; *at += value; return before; }
static void atomicMax(int* at, int value) { *at = max(*at, value); }
"""
GRID, THREADS = 2, 3
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def build(folder):
    source = pathlib.Path(folder) / "kernels.cpp"
    files = [FOLDER / "prelude.cuh", *sorted(FOLDER.glob("*.cu"))]
    source.write_text(SHIM + "".join(file.read_text() for file in files))
    library = pathlib.Path(folder) / "kernels.so"
    options = ["-std=c++17", "-O1", "-ffp-contract=off", "-Wall", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["g++", *options, source, "-o", library], check=True)
    return ctypes.CDLL(str(library))


def launch(name, count, *arguments):
    """Runs a kernel in every thread of the grid; floats are Python floats, sizes are ints, the rest are tensors."""
    values = [ctypes.c_int(count)]
    for argument in arguments:
        if isinstance(argument, torch.Tensor):
            assert argument.is_contiguous()
            values.append(ctypes.c_void_p(argument.data_ptr()))
        else:
            values.append(ctypes.c_float(argument) if isinstance(argument, float) else ctypes.c_int(argument))
    for block in range(GRID):
        for thread in range(THREADS):
            LIBRARY.become(block, thread, GRID, THREADS)
            getattr(LIBRARY, name)(*values)


def same(name, found, expected, tolerance=2e-5):
    found, expected = found.detach().flatten().double(), expected.detach().flatten().double()
    assert found.shape == expected.shape, f"{name}: {found.shape} and {expected.shape}"
    worst = ((found - expected).abs() / (1 + expected.abs())).max().item() if found.numel() else 0.0
    assert worst <= tolerance, f"{name}: off by {worst:.2e}"


def noise(*shape):
    return torch.randn(*shape)


def empty(*shape):
    """Room for a result; what a kernel forgets to write shows as NaN."""
    return torch.full(shape, float("nan"))


def gradients(y, g, *inputs):
    return torch.autograd.grad(y, inputs, g)


@check
def activations():
    x = torch.cat([noise(101) * 4, torch.tensor([-1e4, -30.0, 0.0, 6.0, 25.0, 1e4])])
    curves = [F.relu, lambda v: F.leaky_relu(v, 0.1), F.relu6, torch.sigmoid, F.silu, F.mish]
    for code, curve in enumerate(curves):
        y, gx, g, v = empty(107), empty(107), noise(107), x.clone().requires_grad_()
        launch("activation", 107, x, code, 0.1, y)
        launch("activation_gradient", 107, x, g, code, 0.1, gx)
        expected = curve(v)
        same(f"curve {code}", y, expected)
        same(f"gradient of curve {code}", gx, gradients(expected, g, v)[0])


@check
def softmax():
    for rows, width in [(7, 1), (5, 21), (1, 81)]:
        for log, function in [(0, F.softmax), (1, F.log_softmax)]:
            x, g = (noise(rows, width) * 3).requires_grad_(), noise(rows, width)
            y, gx = empty(rows, width), empty(rows, width)
            launch("softmax", rows, x, width, log, y)
            launch("softmax_gradient", rows, y, g, width, log, gx)
            expected = function(x, -1)
            same("softmax", y, expected)
            same("softmax gradient", gx, gradients(expected, g, x)[0])


def norm_gradient(x, g, statistics, gamma, count, block, lanes):
    n, channels, inner = x.shape[0], x.shape[1], x[0, 0].numel()
    parts = torch.zeros(2 * n * channels * lanes, dtype=torch.double)
    sizes = (count, channels, inner, block)
    launch("plane_gradient_sums", n * channels * lanes, x, g, statistics, *sizes, lanes, parts)
    sums, gx = empty(2 * channels), empty(*x.shape)
    launch("norm_vector_gradients", channels, parts, n, lanes, sums)
    levels = torch.zeros(2 * count)
    if block:
        members = block // inner
        groups = channels // members
        launch("group_levels", count, parts, gamma, statistics, groups, members, block, lanes, levels)
    else:
        launch("batch_levels", count, sums, gamma, statistics, n * inner, levels)
    launch("normalise_gradient", x.numel(), x, g, statistics, gamma, levels, *sizes, gx)
    return gx, sums[channels:], sums[:channels]


@check
def norms():
    for n, channels, h, w in [(3, 4, 5, 3), (2, 4, 1, 1), (1, 4, 3, 7)]:
        inner, lanes = h * w, 3
        x = (noise(n, channels, h, w) + 3).requires_grad_()
        gamma, beta = noise(channels).requires_grad_(), noise(channels).requires_grad_()
        g, y = noise(n, channels, h, w), empty(n, channels, h, w)

        def moments(rows, length, images, count, eps):
            parts, statistics = torch.zeros(2 * rows * lanes, dtype=torch.double), empty(3 * count)
            launch("plane_moments", rows * lanes, x, length, lanes, parts)
            launch("batch_statistics", count, parts, images, lanes, images * length, eps, statistics)
            return statistics

        statistics = moments(n * channels, inner, n, channels, 1e-3)
        mean, var = torch.zeros(channels), torch.zeros(channels)
        expected = F.batch_norm(x, mean, var, gamma, beta, True, 1.0, 1e-3)
        launch("normalise", x.numel(), x, statistics, gamma, beta, channels, channels, inner, 0, y)
        same("batch norm", y, expected)
        same("mean", statistics[:channels], mean)
        same("variance", statistics[2 * channels :], var)
        found = norm_gradient(x, g, statistics, gamma, channels, 0, lanes)
        for name, a, b in zip(["x", "gamma", "beta"], found, gradients(expected, g, x, gamma, beta)):
            same(f"batch norm gradient of {name}", a, b, 1e-4)

        mean, var, running = noise(channels), torch.rand(channels) + 0.5, empty(2 * channels)
        moved, both = empty(channels), empty(2 * channels)
        launch("moved_statistic", channels, mean, var, 0.25, moved)
        same("moved statistic", moved, mean + 0.25 * (var - mean), 1e-6)
        launch("factor_and_shift", channels, gamma, beta, mean, var, 1e-3, both)
        frozen = F.batch_norm(x, mean, var, gamma, beta, False, 0.0, 1e-3)
        same("factor and shift", x * both[:channels, None, None] + both[channels:, None, None], frozen)
        launch("running_statistics", channels, mean, var, 1e-3, running)
        launch("normalise", x.numel(), x, running, gamma, beta, channels, channels, inner, 0, y)
        expected = F.batch_norm(x, mean, var, gamma, beta, False, 0.0, 1e-3)
        same("running batch norm", y, expected)
        gx = empty(*x.shape)
        levels = torch.zeros(2 * channels)
        launch("normalise_gradient", x.numel(), x, g, running, gamma, levels, channels, channels, inner, 0, gx)
        same("running batch norm gradient", gx, gradients(expected, g, x)[0])

        for groups in [1, 2, 4]:
            block = channels // groups * inner
            statistics = moments(n * groups, block, 1, n * groups, 1e-3)
            expected = F.group_norm(x, groups, gamma, beta, 1e-3)
            launch("normalise", x.numel(), x, statistics, gamma, beta, n * groups, channels, inner, block, y)
            same("group norm", y, expected)
            found = norm_gradient(x, g, statistics, gamma, n * groups, block, lanes)
            for name, a, b in zip(["x", "gamma", "beta"], found, gradients(expected, g, x, gamma, beta)):
                same(f"group norm gradient of {name}", a, b, 1e-4)

        for floor, eps in [(0, 1e-10), (0, 2.0), (1, 1e-12), (1, 6.5)]:
            length = x.norm(dim=1, keepdim=True)
            divisor = length.clamp(min=eps) if floor else length + eps
            expected = gamma[None, :, None, None] * (x / divisor)
            launch("l2_norm", n * inner, x, gamma, channels, inner, floor, eps, y)
            same("l2 norm", y, expected)
            gx, inverses, of_gamma = empty(*x.shape), empty(n * inner), empty(channels)
            launch("l2_norm_gradient", n * inner, x, g, gamma, channels, inner, floor, eps, gx, inverses)
            parts = torch.zeros(channels * lanes, dtype=torch.double)
            sizes = (channels, inner, n * inner, lanes)
            launch("l2_gamma_sums", channels * lanes, x, g, inverses, *sizes, parts)
            launch("sum_lanes", channels, parts, lanes, of_gamma)
            for a, b in zip([gx, of_gamma], gradients(expected, g, x, gamma)):
                same("l2 norm gradient", a, b)


@check
def pooling():
    shapes = [(1, 2, 0), (2, 2, 0), (3, 1, 1), (3, 2, 1), (5, 1, 2), (2, 3, 1), ((3, 2), (2, 1), (1, 0))]
    for kernel, stride, padding in shapes:
        for ceil in [False, True]:
            x = (noise(3, 2, 6, 7) * 2).round().requires_grad_()  # with equals in a window
            expected = F.max_pool2d(x, kernel, stride, padding, ceil_mode=ceil)
            pairs = [v if isinstance(v, tuple) else (v, v) for v in (kernel, stride, padding)]
            sizes = [6, 7, *expected.shape[2:], *pairs[0], *pairs[1], *pairs[2]]
            y, gx, g = empty(*expected.shape), empty(*x.shape), noise(*expected.shape)
            places = torch.zeros(y.numel(), dtype=torch.int)
            launch("max_pool", y.numel(), x, *sizes, y, places)
            launch("max_pool_gradient", x.numel(), g, places, *sizes, gx)
            same("max pool", y, expected, 0)
            same("max pool gradient", gx, gradients(expected, g, x)[0])
    x, y, places = torch.tensor([1.0, float("nan"), 2.0, 1.0]), torch.zeros(1), torch.zeros(1, dtype=torch.int)
    launch("max_pool", 1, x, 2, 2, 1, 1, 2, 2, 2, 2, 0, 0, y, places)
    assert y.isnan().all(), "NaN must win"


def packed(rows, columns):
    """Both axes as the kernel reads them, from lists of (source, weight)."""
    taps = [tap for axis in (rows, columns) for output in axis for tap in output]
    at = len(rows) + len(columns) + 2
    starts = []
    for axis in (rows, columns):
        for output in axis:
            starts.append(at)
            at += 2 * len(output)
        starts.append(at)
    flat = [bits for source, weight in taps for bits in (source, torch.tensor(weight).view(torch.int).item())]
    return torch.tensor(starts + flat, dtype=torch.int)


@check
def resampling():
    for (h, w), (oh, ow) in [((3, 3), (5, 5)), ((7, 5), (3, 4)), ((4, 7), (4, 7)), ((2, 3), (7, 1))]:
        def axis(size, out):
            rows = []
            for i in range(out):
                position = max((i + 0.5) * size / out - 0.5, 0.0)
                low = min(int(position), size - 1)
                rows.append([(low, 1 - (position - low)), (min(low + 1, size - 1), position - low)])
            return rows

        rows, columns = axis(h, oh), axis(w, ow)
        turned = [
            [[(o, weight) for o, taps in enumerate(part) for s, weight in taps if s == source] for source in range(size)]
            for part, size in ((rows, h), (columns, w))
        ]
        x, g, y, gx = noise(2, 3, h, w).requires_grad_(), noise(2, 3, oh, ow), empty(2, 3, oh, ow), empty(2, 3, h, w)
        launch("resample", y.numel(), x, packed(rows, columns), h, w, oh, ow, y)
        launch("resample", gx.numel(), g, packed(*turned), oh, ow, h, w, gx)
        expected = F.interpolate(x, (oh, ow), mode="bilinear")
        same("bilinear", y, expected)
        same("bilinear gradient", gx, gradients(expected, g, x)[0])


@check
def pictures():
    bits = lambda value: torch.tensor(value, dtype=torch.float).view(torch.int).item()
    mean, factor = torch.tensor([103.5, 116.3, 123.7]), 1 / torch.tensor([57.4, 57.1, 58.4])
    for (h, w), (rows, columns), (oh, ow), (top, left), channels in [
        ((5, 7), (9, 6), (9, 6), (0, 0), (0, 1, 2)), ((7, 5), (3, 4), (6, 8), (2, 3), (2, 1, 0)),
        ((4, 3), (4, 3), (5, 7), (0, 0), (2, 1, 0)), ((1, 1), (2, 3), (4, 4), (1, 0), (0, 1, 2)),
        ((1, 1), (0, 0), (2, 3), (0, 0), (0, 1, 2)),
    ]:
        pixels, table, padding = torch.randint(256, (h, w, 3), dtype=torch.uint8), [], noise(3)
        for channel, numbers in zip(channels, zip(mean.tolist(), factor.tolist(), padding.tolist())):
            table += [channel, *map(bits, numbers)]
        # Half-pixel centres, as F.interpolate has them.
        for size, out in [(h, rows), (w, columns)]:
            for i in range(out):
                position = max((i + 0.5) * size / out - 0.5, 0.0)
                low = min(int(position), size - 1)
                table += [low, min(low + 1, size - 1), bits(position - low)]
        y = empty(3, oh, ow)
        launch("picture_input", oh * ow, pixels, ints(*table), w, ow, left, top, columns, rows, y)
        planes = pixels.float().permute(2, 0, 1)[list(channels)]
        expected = padding[:, None, None].repeat(1, oh, ow)
        if rows:
            content = F.interpolate(planes[None], (rows, columns), mode="bilinear")[0]
            normal = (content - mean[:, None, None]) * factor[:, None, None]
            expected[:, top : top + rows, left : left + columns] = normal
        same("picture to input", y, expected)


ROIS = torch.tensor([
    [0, 1.0, 2.0, 9.0, 12.0], [2, -6.0, -3.0, 5.5, 7.25], [1, 10.0, 3.0, 31.0, 40.0], [1, 4.0, 4.0, 4.0, 4.0],
    [0, 0.0, 0.0, 20.0, 17.0], [2, 200.0, 200.0, 220.0, 210.0], [0, 7.3, 1.1, 7.9, 15.2],
])


@check
def regions():
    for aligned in [False, True]:
        for ratio, (ph, pw), scale in [(2, (7, 7), 0.5), (0, (3, 2), 0.5), (1, (1, 4), 1.0), (3, (2, 3), 0.25)]:
            x = noise(3, 2, 9, 11).requires_grad_()
            offset = 0.5 if aligned else 0.0
            start, end = ROIS[:, [2, 1]] * scale - offset, ROIS[:, [4, 3]] * scale - offset
            length = end - start if aligned else (end - start).clamp(min=1.0)
            bins = length / torch.tensor([ph, pw])
            samples = torch.full_like(bins, ratio) if ratio else bins.ceil()
            both = torch.stack([start, bins, samples], -1)
            table = torch.cat([ROIS[:, :1], both[:, 0], both[:, 1]], 1).contiguous()
            expected = torchvision.ops.roi_align(x, ROIS, (ph, pw), scale, ratio if ratio else -1, aligned)
            y, g, gx = empty(*expected.shape), noise(*expected.shape), torch.zeros(*x.shape)
            sizes = (2, 9, 11, ph, pw)
            launch("roi_align", y.numel(), x, table, *sizes, y)
            launch("roi_align_gradient", y.numel(), g, table, *sizes, gx)
            same("roi align", y, expected)
            same("roi align gradient", gx, gradients(expected, g, x)[0], 1e-4)
    table = torch.tensor([[0, -1e30, 1e30, 1e30, -1e30, 1e30, 1e30], [0, -0.5, 5e5, 5e5, -0.5, 5e5, 5e5]])
    y = empty(8)
    launch("roi_align", 8, torch.ones(1, 1, 4, 4), table, 1, 4, 4, 2, 2, y)
    assert y.isfinite().all() and (y[5:] == 0).all(), "huge regions"

    for ph, pw in [(7, 7), (2, 3)]:
        x = noise(3, 2, 9, 11).requires_grad_()
        table = []
        for image, x0, y0, x1, y1 in (ROIS * torch.tensor([1, 0.5, 0.5, 0.5, 0.5])).tolist():
            row = [int(image)]
            for low, high, parts, size in [(y0, y1, ph, 9), (x0, x1, pw, 11)]:
                low, high = [int(v + 0.5) if v >= 0 else -int(-v + 0.5) for v in (low, high)]
                bins = torch.tensor(max(high - low + 1, 1) / parts, dtype=torch.float)
                for p in range(parts):
                    for edge in [(p * bins).floor(), ((p + 1) * bins).ceil()]:
                        row.append(int(min(max(edge.item() + low, 0), size)))
            table.append(row)
        table = torch.tensor(table, dtype=torch.int)
        expected = torchvision.ops.roi_pool(x, ROIS, (ph, pw), 0.5)
        y, g, gx = empty(*expected.shape), noise(*expected.shape), torch.zeros(*x.shape)
        launch("roi_pool", y.numel(), x, table, 2, 9, 11, ph, pw, y)
        launch("roi_pool_gradient", y.numel(), x, g, table, 2, 9, 11, ph, pw, gx)
        same("roi pool", y, expected, 0)
        same("roi pool gradient", gx, gradients(expected, g, x)[0])


@check
def losses():
    for target in [(torch.rand(40) > 0.6).float(), torch.rand(40)]:
        x, g = (noise(40) * 3).requires_grad_(), noise(40)
        kinds = [(0, 0.0, 0.0, lambda: F.binary_cross_entropy_with_logits(x, target, reduction="none"))]
        for alpha, gamma in [(0.25, 2.0), (0.6, 1.0), (-1.0, 1.5)]:
            focal = lambda a=alpha, b=gamma: torchvision.ops.sigmoid_focal_loss(x, target, a, b, "none")
            kinds.append((1, alpha, gamma, focal))
        for beta in [1.0, 1 / 9]:
            kinds.append((2, beta, 0.0, lambda b=beta: F.smooth_l1_loss(x, target, reduction="none", beta=b)))
        kinds.append((2, 0.0, 0.0, lambda: F.l1_loss(x, target, reduction="none")))
        for kind, a, b, function in kinds:
            y, gx, expected = empty(40), empty(40), function()
            launch("pair_loss", 40, x, target, kind, a, b, y)
            launch("pair_loss_gradient", 40, x, target, g, kind, a, b, gx)
            same(f"loss {kind}", y, expected)
            same(f"gradient of loss {kind}", gx, gradients(expected, g, x)[0], 5e-5)
    x, target, g = noise(7, 5).requires_grad_(), torch.tensor([2, 0, -1, 4, 1, -1, 3]), noise(7)
    y, gx = empty(7), empty(7, 5)
    launch("cross_entropy", 7, x, target.int(), 5, y)
    launch("cross_entropy_gradient", 7, x, g, target.int(), 5, gx)
    expected = F.cross_entropy(x, target, ignore_index=-1, reduction="none")
    same("cross entropy", y, expected)
    same("cross entropy gradient", gx, gradients(expected, g, x)[0])


@check
def box_losses():
    def boxes(count):
        corner, size = torch.rand(count, 2) * 12, torch.rand(count, 2) * 8 + 1
        return torch.cat([corner, corner + size], 1)

    p, t, g = boxes(30).double().requires_grad_(), boxes(30).double(), noise(30)
    iou = torchvision.ops.box_iou(p, t).diagonal()
    losses = [
        lambda: -iou.clamp(min=1e-7).log(),
        lambda: 1 - iou,
        lambda: torchvision.ops.generalized_box_iou_loss(p, t),
        lambda: torchvision.ops.distance_box_iou_loss(p, t),
        lambda: torchvision.ops.complete_box_iou_loss(p, t),
    ]
    for kind, loss in enumerate(losses):
        y, gx, single = empty(30), empty(30, 4), p.detach().float()
        launch("box_loss", 30, single, t.float(), kind, 1e-7, y)
        launch("box_loss_gradient", 30, single, t.float(), g, kind, 1e-7, gx)
        expected = loss()
        same(f"box loss {kind}", y, expected)
        found = torch.autograd.grad(expected, p, g.double(), retain_graph=True)[0]
        same(f"gradient of box loss {kind}", gx, found, 1e-4)


@check
def updates():
    d, s, third = noise(17), noise(17), noise(17)
    y = d.clone()
    launch("blend", 17, y, s, 0.9, 0.5)
    same("blend", y, 0.9 * d + 0.5 * s)
    y = d.clone()
    launch("blend_squares", 17, y, s, 0.9, 0.5)
    same("blend of squares", y, 0.9 * d + 0.5 * s * s)
    y = d.clone()
    launch("velocity", 17, y, s, third, 0.9, 0.5, 0.1)
    same("velocity", y, 0.9 * d + 0.5 * s + 0.1 * third)
    y, v = d.clone(), third.abs()
    launch("adaptive_step", 17, y, s, v, 0.99, 0.1, 2.0)
    same("adaptive step", y, 0.99 * d - 0.1 * s / ((v * 2).sqrt() + 1e-8))
    parts = torch.zeros(4, dtype=torch.double)
    launch("squares", 4, d, 17, parts)
    same("squares", parts.sum(), d.double().square().sum())


def ints(*values):
    return torch.tensor(values, dtype=torch.int)


def pairs_of(found):
    """Place to value, from numbers that alternate between places and bits of values."""
    return dict(zip(found[0::2].tolist(), found[1::2].contiguous().view(torch.float).tolist()))


def best_of_runs(x, runs, order, copies=2):
    """The elements that radix selection finds in each run (start, length, how many): place to value."""
    n, total, table = len(runs), 0, []
    for start, length, wanted in runs:
        table += [start, length, wanted, total]
        total += wanted
    table, bounds = ints(*table), ints(*[v for run in runs for v in (0, 0, run[2])])
    longest = max(run[1] for run in runs)
    for digit in range(8):
        if digit > 3 and longest <= 1 << 8 * (7 - digit):
            continue
        counts, following = torch.zeros(copies * n * 256, dtype=torch.int), torch.full((3 * n,), -7, dtype=torch.int)
        launch("count_digits", x.numel(), x, table, n, order, digit, copies, bounds, counts)
        launch("choose_digit", 256 * n, counts, n, digit, copies, bounds, following)
        bounds = following
    found = torch.zeros(n + 2 * total, dtype=torch.int)
    launch("take_best", x.numel(), x, table, n, order, bounds, found)
    assert found[:n].tolist() == [run[2] for run in runs], "as many as were wanted"
    parts = found[n:].split([2 * run[2] for run in runs])
    return [pairs_of(part) for part in parts]


@check
def selection():
    x = torch.cat([noise(40) * 2, torch.tensor([float("nan"), float("inf"), -float("inf"), 0.5, 0.5])]).view(9, 5)
    for first, bound, room in [(0, 0.5, 99), (2, -1.0, 99), (1, 0.5, 2), (0, -float("inf"), 99), (4, 9e9, 1)]:
        found = torch.zeros(1 + 2 * room, dtype=torch.int)
        launch("above", 45, x, 5, first, bound, room, found)
        columns = torch.arange(45) % 5
        expected = {p: x.flatten()[p].item() for p in ((x.flatten() > bound) & (columns >= first)).nonzero().flatten().tolist()}
        assert found[0] == len(expected)
        taken = pairs_of(found[1 : 1 + 2 * min(room, len(expected))])
        assert len(taken) == min(room, len(expected)) and taken.items() <= expected.items()

    # With ties, both zeros, NaN and infinities; places beyond one byte.
    values = (noise(700) * 3).round() / 4
    values[::7], values[3], values[4], values[5] = -0.0, float("nan"), float("inf"), -float("inf")
    values[600:603] = float("nan")
    for runs in [[(0, 700, 9)], [(0, 300, 299), (300, 1, 1), (310, 390, 40)], [(5, 256, 100), (261, 257, 257)]]:
        for order in [0, 1]:
            def rank(place):
                v = values[place].item()
                if v != v:
                    return (1 if order == 0 else -1, 0.0, 0, place)
                # Of zeros the negative one is the smaller, but not in a top-k.
                return (0, -v, order * int(str(v) == "-0.0"), place)

            for (start, length, wanted), found in zip(runs, best_of_runs(values, runs, order)):
                expected = sorted(range(start, start + length), key=rank)[:wanted]
                assert sorted(found) == sorted(p - start for p in expected), f"order {order} of {runs}"
                bits = [values[start + p].view(torch.int).item() for p in sorted(found)]
                assert bits == [torch.tensor(found[p]).view(torch.int).item() for p in sorted(found)]
    top = torch.rand(5000)
    found = best_of_runs(top, [(0, 5000, 50)], 0)[0]
    assert sorted(found) == sorted(top.topk(50).indices.tolist())

    y = torch.zeros(5, 3)
    launch("fill_rows", 6, ints(4, 1), 3, 2.5, y)
    expected = torch.zeros(5, 3)
    expected[[4, 1]] = 2.5
    same("fill rows", y, expected, 0)


@check
def suppression():
    for count, classes, threshold in [(1, 1, 0.5), (33, 1, 0.3), (150, 3, 0.5), (150, 1, 0.0), (64, 2, -1.0)]:
        corner = torch.rand(count, 2) * 40
        boxes = torch.cat([corner, corner + torch.rand(count, 2) * 30 + 1], 1)
        boxes[::11, 2] = boxes[::11, 0] - 1
        boxes[5::29] = float("nan")
        own = torch.randint(classes, (count,), dtype=torch.int)
        words = -(-count // 32)
        mask, states = torch.full((count * words,), -7, dtype=torch.int), torch.zeros(count, dtype=torch.int)
        launch("overlaps", count * words, boxes, own, words, threshold, mask)
        for round in range(count):
            launch("settle", count, mask, words, states)
            assert states[: round + 1].bool().all(), "a round settles the best that is open"
        kept = []
        for i in range(count):
            overlap = torchvision.ops.box_iou(boxes[kept], boxes[i : i + 1]).flatten() if kept else torch.zeros(0)
            proper = [(boxes[k, 2:] > boxes[k, :2]).all() and (boxes[i, 2:] > boxes[i, :2]).all() for k in kept]
            overlap = [o.item() if p else 0.0 for o, p in zip(overlap, proper)]
            if not any(o > threshold and own[k] == own[i] for k, o in zip(kept, overlap)):
                kept.append(i)
        assert (states == 1).nonzero().flatten().tolist() == kept, f"{count} boxes above {threshold}"


@check
def matching():
    for count, n in [(1, 1), (50, 1), (200, 7)]:
        # Whole coordinates, so that IoUs are equal here and there; some objects far from all anchors.
        def boxes(amount, reach):
            corner = torch.randint(reach, (amount, 2)).float()
            return torch.cat([corner, corner + torch.randint(1, 7, (amount, 2))], 1)

        anchors, objects = boxes(count, 14), boxes(n, 18)
        table = torchvision.ops.box_iou(objects, anchors)
        iou, best, peaks = empty(count), torch.full((count,), -7, dtype=torch.int), torch.zeros(n, dtype=torch.int)
        launch("best_objects", count, anchors, objects, n, iou, best, peaks)
        highest = table.max(0).values
        same("best iou", iou, highest, 0)
        first = [next(k for k in range(n) if table[k, a] == highest[a]) for a in range(count)]
        assert best.tolist() == first, "the first of equal objects"
        same("peaks", peaks.view(torch.float), table.max(1).values, 0)

        for bound in [0.0, 0.3]:
            found = torch.zeros(1 + 3 * count, dtype=torch.int)
            launch("close_anchors", count, iou, best, bound, count, found)
            rows = found[1 : 1 + 3 * found[0]].view(-1, 3)
            expected = [[a, first[a], iou[a].view(torch.int).item()] for a in range(count) if highest[a] >= bound]
            assert sorted(rows.tolist()) == expected
        pairs = [(k, a) for k in range(n) for a in range(count) if table[k, a] > 0 and table[k, a] == table[k].max()]
        room = max(len(pairs) - 1, 1)
        for room in [room, len(pairs) + 1]:
            found = torch.zeros(1 + 4 * room, dtype=torch.int)
            launch("peak_anchors", count, anchors, objects, n, iou, best, peaks, room, found)
            assert found[0] == len(pairs)
        rows = found[1 : 1 + 4 * len(pairs)].view(-1, 4)
        assert sorted(rows.tolist()) == [[k, a, first[a], iou[a].view(torch.int).item()] for k, a in pairs]


@check
def transposed():
    for (kh, kw), stride, padding, extra, n in [
        ((2, 2), 2, 0, 0, 3), ((3, 3), 2, 1, 1, 1), ((4, 3), 2, 1, 0, 3), ((5, 2), 3, 1, 2, 1), ((2, 3), 3, 0, 2, 2)
    ]:
        x, weight, bias = noise(n, 4, 3, 5), noise(4, 3, kh, kw), noise(3)
        expected = F.conv_transpose2d(x, weight, bias, stride, padding, extra)
        patches = torch.einsum("ncp,cokl->oklnp", x.flatten(2), weight).contiguous()
        sizes = (n, 3, kh, kw, 3, 5, *expected.shape[2:], stride, padding)
        y, g, back = empty(*expected.shape), noise(*expected.shape), empty(*patches.shape)
        launch("fold", y.numel(), patches, bias, *sizes, y)
        same("fold", y, expected)
        launch("unfold", back.numel(), g, *sizes, back)
        # The transpose: both sides of <fold(p), g> = <p, unfold(g)>.
        same("unfold", (back * patches).sum().double(), ((expected - bias[:, None, None]) * g).sum().double(), 1e-4)


@check
def convolution():
    for n, groups, (ins, outs), (h, w), (kh, kw), stride, padding, dilation in [
        (1, 1, (3, 8), (9, 11), (3, 3), (1, 1), (1, 1), (1, 1)), (2, 1, (5, 6), (10, 12), (2, 2), (2, 2), (0, 0), (1, 1)),
        (1, 1, (6, 4), (9, 9), (3, 3), (1, 1), (6, 6), (6, 6)), (3, 1, (3, 5), (9, 17), (5, 5), (1, 2), (2, 1), (2, 2)),
        (2, 4, (2, 3), (8, 5), (3, 3), (2, 2), (1, 1), (1, 1)), (1, 6, (1, 2), (9, 11), (3, 5), (1, 3), (2, 0), (1, 2)),
        (1, 1, (4, 3), (7, 6), (1, 1), (2, 2), (0, 0), (1, 1)),
    ]:
        x = noise(n, groups * ins, h, w).requires_grad_()
        weight = noise(groups * outs, ins, kh, kw).requires_grad_()
        bias = noise(groups * outs)
        expected = F.conv2d(x, weight, None, stride, padding, dilation, groups)
        oh, ow = expected.shape[2:]
        sizes = (groups, ins, outs, h, w, kh, kw, oh, ow, *stride, *padding, *dilation)
        y, g = empty(*expected.shape), noise(*expected.shape)
        launch("conv", y.numel(), x, weight, *sizes, y)
        same("conv", y, expected, 1e-4)
        gx, gw, lanes = empty(*x.shape), empty(*weight.shape), 3
        launch("conv_input_gradient", gx.numel(), g, weight, *sizes, gx)
        parts = torch.zeros(gw.numel() * lanes, dtype=torch.double)
        launch("conv_weight_gradient", parts.numel(), x, g, *sizes, n, lanes, parts)
        launch("sum_lanes", gw.numel(), parts, lanes, gw)
        for a, b in zip([gx, gw], gradients(expected, g, x, weight)):
            same("conv gradient", a, b, 1e-4)
        channels, inner = groups * outs, oh * ow
        parts, of_bias = torch.zeros(channels * lanes, dtype=torch.double), empty(channels)
        launch("channel_sums", channels * lanes, g, channels, inner, n * inner, lanes, parts)
        launch("sum_lanes", channels, parts, lanes, of_bias)
        same("bias gradient", of_bias, g.sum((0, 2, 3)), 1e-4)
        for slope in [1.0, 0.0, 0.1]:
            done = (y + bias[:, None, None]).requires_grad_()
            bent, before = F.leaky_relu(done, slope), empty(*y.shape)
            shifted, plain = y.clone(), y.clone()
            launch("bias_activation", y.numel(), shifted, bias, channels, inner, slope)
            same("bias and activation", shifted, bent)
            launch("before_activation", y.numel(), shifted, g, slope, before)
            same("before activation", before, gradients(bent, g, done)[0])
            launch("plain_activation", y.numel(), plain, slope)
            same("activation", plain, F.leaky_relu(y, slope))


@check
def rounding():
    ulp = 2.0 ** -10
    x = torch.cat([torch.tensor([1 + 0.49 * ulp, 1 + 0.5 * ulp, -1 - 0.5 * ulp, float("inf"), -float("inf")]), noise(101)])
    y = empty(106)
    launch("round_tf32", 106, x, y)
    bits = torch.where(x.isinf(), x.view(torch.int32), (x.view(torch.int32) + 0x1000) & ~0x1FFF)
    assert torch.equal(y, bits.view(torch.float32)), y
    assert y[:5].tolist() == [1.0, 1 + ulp, -1 - ulp, float("inf"), -float("inf")], y[:5]


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(1)
    with tempfile.TemporaryDirectory() as folder:
        LIBRARY = build(folder)
        for function in CHECKS:
            if len(sys.argv) == 1 or function.__name__ in sys.argv[1:]:
                function()
                print(f"{function.__name__}: ok")
