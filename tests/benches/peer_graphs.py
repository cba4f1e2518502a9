"""YOLOv3, RefineDet and M2Det on VGG-16 as plain PyTorch modules: peers for networks that no package has.

Run by itself, it says of each whether its parameters and operations are Boxwright's; nothing is computed for that.

From pixels to raw head outputs, for COCO's 80 classes and under random weights. Layers follow darknet's yolov3.cfg,
luuuyi/RefineDet.PyTorch and qijiezhao/M2Det. Two graphs count as the same when they have as many parameters and, within
1 %, as many operations as `boxwright models` prints; `network` refuses another. Running statistics of batch norms are
no parameters. The 1×1 convolution that M2Det's modules share is run once, as in Boxwright, not once for each module; the
attention of its paper's SFAM is in neither, as in its published settings.
"""
import functools, sys
import torch
from torch import nn
from torch.nn import functional

CLASSES = 80


def conv(inputs, outputs, kernel=3, stride=1, dilation=1):
    """Of the input's size, or half of it, with bias."""
    return nn.Conv2d(inputs, outputs, kernel, stride, dilation * (kernel // 2), dilation)


def normed(inputs, outputs, kernel, stride=1, padding=None, activation=nn.ReLU):
    """Convolution, batch norm, activation; padded to the input's size unless told otherwise."""
    padding = kernel // 2 if padding is None else padding
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), activation(inplace=True))


def reduced_vgg16(stride):
    """VGG-16 in three parts that end with conv4_3, conv5_3 and fc7; `stride` is that of fc7, 16 or 32."""
    parts, layers, channels = [], [], 3
    for stage, (width, count) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]):
        if stage > 0:
            layers.append(nn.MaxPool2d(2, ceil_mode=stage == 3))
        for _ in range(count):
            layers += [conv(channels, width), nn.ReLU(inplace=True)]
            channels = width
        if stage >= 3:
            parts, layers = [*parts, nn.Sequential(*layers)], []
    pool, dilation = (nn.MaxPool2d(3, 1, 1), 6) if stride == 16 else (nn.MaxPool2d(2), 3)
    fc6, fc7 = conv(channels, 1024, dilation=dilation), conv(1024, 1024, kernel=1)
    return [*parts, nn.Sequential(pool, fc6, nn.ReLU(inplace=True), fc7, nn.ReLU(inplace=True))]


class Multibox(nn.Module):
    """Box codes [N, P, 4] and logits [N, P, classes] of one map a level."""

    def __init__(self, channels, anchors, classes):
        super().__init__()
        self.boxes = nn.ModuleList(conv(width, 4 * anchors) for width in channels)
        self.logits = nn.ModuleList(conv(width, classes * anchors) for width in channels)
        self.classes = classes

    def forward(self, maps):
        def rows(layers, values):
            outputs = [layer(x).permute(0, 2, 3, 1) for layer, x in zip(layers, maps)]
            return torch.cat([x.reshape(x.shape[0], -1, values) for x in outputs], 1)
        return rows(self.boxes, 4), rows(self.logits, self.classes)


def leaky(inputs, outputs, kernel, stride=1):
    """Darknet's layer."""
    return normed(inputs, outputs, kernel, stride, activation=lambda inplace: nn.LeakyReLU(0.1, inplace))


class Residual(nn.Module):
    """Half the channels and back, added to the input."""

    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(leaky(width, width // 2, 1), leaky(width // 2, width, 3))

    def forward(self, x):
        return x + self.layers(x)


class YoloV3(nn.Module):
    """Darknet-53 and three levels of 255 channels, coarsest first."""

    def __init__(self):
        super().__init__()
        self.stem = leaky(3, 32, 3)
        self.stages = nn.ModuleList()
        for width, blocks in zip((64, 128, 256, 512, 1024), (1, 2, 8, 8, 4)):
            self.stages.append(nn.Sequential(leaky(width // 2, width, 3, 2), *(Residual(width) for _ in range(blocks))))
        self.lateral, self.neck, self.head = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for width in (1024, 512, 256):
            half, inputs = width // 2, width
            if width < 1024:
                self.lateral.append(leaky(width, half, 1))
                inputs += half
            self.neck.append(nn.Sequential(
                leaky(inputs, half, 1), leaky(half, width, 3), leaky(width, half, 1), leaky(half, width, 3),
                leaky(width, half, 1)))
            self.head.append(nn.Sequential(leaky(half, width, 3), conv(width, 3 * (5 + CLASSES), kernel=1)))

    def forward(self, x):
        x, features = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        outputs = []
        for level, (neck, head) in enumerate(zip(self.neck, self.head)):
            if level > 0:
                up = functional.interpolate(self.lateral[level - 1](x), scale_factor=2)
                x = torch.cat([up, features[-1 - level]], 1)
            x = neck(x)
            outputs.append(head(x))
        return tuple(outputs)


class L2Norm(nn.Module):
    """Each cell's channels at unit length, times a learnt scale."""

    def __init__(self, channels, scale):
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, channels, 1, 1), scale))

    def forward(self, x):
        return self.weight * (x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10))


class RefineDet(nn.Module):
    """Box codes and logits of the anchor refinement module, then of the object detection module."""

    def __init__(self):
        super().__init__()
        sources = (512, 512, 1024, 512)
        self.backbone = nn.ModuleList(reduced_vgg16(stride=32))
        self.norms = nn.ModuleList([L2Norm(512, 10.0), L2Norm(512, 8.0)])
        self.extra = nn.Sequential(
            conv(1024, 256, kernel=1), nn.ReLU(inplace=True), conv(256, 512, stride=2), nn.ReLU(inplace=True))
        self.arm = Multibox(sources, 3, 2)
        self.lateral = nn.ModuleList(
            nn.Sequential(conv(width, 256), nn.ReLU(inplace=True), conv(256, 256)) for width in sources)
        self.doubled = nn.ModuleList(nn.ConvTranspose2d(256, 256, 2, 2) for _ in sources[1:])
        self.smooth = nn.ModuleList(
            nn.Sequential(nn.ReLU(inplace=True), conv(256, 256), nn.ReLU(inplace=True)) for _ in sources)
        self.odm = Multibox((256,) * 4, 3, CLASSES + 1)

    def forward(self, x):
        maps = []
        for part in self.backbone:
            x = part(x)
            maps.append(x)
        conv4_3, conv5_3, fc7 = maps
        sources = [self.norms[0](conv4_3), self.norms[1](conv5_3), fc7, self.extra(fc7)]
        connected = []
        for level in (3, 2, 1, 0):
            y = self.lateral[level](sources[level])
            if level < 3:
                y = y + self.doubled[level](connected[-1])
            connected.append(self.smooth[level](y))
        return (*self.arm(sources), *self.odm(connected[::-1]))


class Tum(nn.Module):
    """M2Det's thinned U-shape module: six maps of 256 channels, coarsest first; `sides` are of all but that."""

    def __init__(self, inputs, sides):
        super().__init__()
        self.sides = sides
        self.encoder = nn.ModuleList(normed(width, 256, 3, stride=2) for width in (inputs, 256, 256, 256))
        self.encoder.append(normed(256, 256, 3, padding=0))
        self.top = normed(256, 256, 1)
        self.lateral = nn.ModuleList(normed(width, 256, 3) for width in (256, 256, 256, 256, inputs))
        self.smooth = nn.ModuleList(normed(256, 256, 1) for _ in sides)

    def forward(self, x):
        encoded = []
        for layer in self.encoder:
            encoded.append(x)
            x = layer(x)
        sums = [self.top(x)]
        for side, lateral, x in zip(self.sides, self.lateral, reversed(encoded)):
            sums.append(functional.interpolate(sums[-1], size=(side, side)) + lateral(x))
        return [sums[0], *(smooth(x) for smooth, x in zip(self.smooth, sums[1:]))]


class M2Det(nn.Module):
    """Box codes and logits of six levels that take their channels from eight modules."""

    def __init__(self, sides):
        super().__init__()
        to_conv4_3, to_conv5_3, to_fc7 = reduced_vgg16(stride=16)
        self.to_conv4_3, self.to_fc7 = to_conv4_3, nn.Sequential(to_conv5_3, to_fc7)
        self.reduce, self.up_reduce = normed(512, 256, 3), normed(1024, 512, 1)
        self.leach = normed(768, 128, 1)
        self.modules_in_a_row = nn.ModuleList(Tum(128 if first else 384, sides) for first in [True] + 7 * [False])
        self.norm = nn.BatchNorm2d(2048)
        self.head = Multibox((2048,) * 6, 6, CLASSES + 1)

    def forward(self, x):
        shallow = self.to_conv4_3(x)
        deep = functional.interpolate(self.up_reduce(self.to_fc7(shallow)), scale_factor=2)
        leached = self.leach(torch.cat([self.reduce(shallow), deep], 1))
        pyramids = []
        for module in self.modules_in_a_row:
            pyramids.append(module(torch.cat([leached, pyramids[-1][-1]], 1) if pyramids else leached))
        sources = [torch.cat(maps, 1) for maps in zip(*pyramids)][::-1]
        return self.head([self.norm(sources[0]), *sources[1:]])


# By Boxwright's name: the module, the side of its input, and the parameters and GFLOPs of `boxwright models`.
GRAPHS = {"yolov3": (YoloV3, 416, 61_949_149, 65.9), "refinedet320": (RefineDet, 320, 36_100_484, 77.3),
          "refinedet512": (RefineDet, 512, 36_100_484, 197.9),
          "m2det320-vgg": (functools.partial(M2Det, (3, 5, 10, 20, 40)), 320, 132_633_140, 146.4),
          "m2det512-vgg": (functools.partial(M2Det, (4, 8, 16, 32, 64)), 512, 132_633_140, 374.6)}


def counted(module, side):
    """Parameters, and the operations of one pass in billions, a multiply–add counting two; nothing is computed."""
    operations = 0

    def count(layer, inputs, output):
        nonlocal operations
        spread = isinstance(layer, nn.ConvTranspose2d)
        operations += 2 * (inputs[0] if spread else output).numel() * layer.weight[0].numel()
    with torch.device("meta"), torch.no_grad():
        built = module().eval()
        for layer in built.modules():
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                layer.register_forward_hook(count)
        built(torch.empty(1, 3, side, side))
    return sum(parameter.numel() for parameter in built.parameters()), operations / 1e9


def compared(name):
    """Whether the network here is the one that Boxwright calls `name`, and a line that tells it."""
    module, side, parameters, gflops = GRAPHS[name]
    own_parameters, own_gflops = counted(module, side)
    same = own_parameters == parameters and abs(own_gflops / gflops - 1) <= 0.01
    line = f"{name}@{side}: {own_parameters:,} parameters, {own_gflops:.1f} GFLOPs"
    return same, line + (", as in Boxwright" if same else f"; Boxwright has {parameters:,} and {gflops}")


def network(name):
    """The network that Boxwright calls `name`, for inference, and the side of its input. Ends the program where it is
    another one."""
    same, line = compared(name)
    if not same:
        sys.exit(f"peer_graphs.py: {line}")
    module, side = GRAPHS[name][:2]
    return module().eval(), side


def main():
    results = [compared(name) for name in GRAPHS]
    print(*(line for _, line in results), sep="\n")
    return 0 if all(same for same, _ in results) else 1


if __name__ == "__main__":
    sys.exit(main())
