"""Figures known before a network is built: accuracies that others published, each with its source, and costs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """An accuracy in per cent, what it was measured on (and how that network differs), who says so, and where."""

    accuracy: float
    data: str
    source: str
    link: str


# data, source, link, accuracy by network; the errors of CIFAR papers as 100 - error
TABLES: tuple[tuple[str, str, str, dict[str, float]], ...] = (
    (
        "ImageNet top-1",
        "Keras",
        "https://keras.io/api/applications",
        {"mobilenet_v1": 70.4, "resnet50": 74.9, "resnet101": 76.4, "resnet152": 76.6, "xception": 79.0},
    ),
    (
        "ImageNet top-1",
        "torchvision V1",
        "https://docs.pytorch.org/vision/stable/models.html",
        {
            "alexnet": 56.522,
            "convnext_tiny": 82.520,
            "densenet121": 74.434,
            "densenet169": 75.600,
            "densenet201": 76.896,
            "efficientnet_b0": 77.692,
            "efficientnet_b1": 78.642,
            "efficientnet_b3": 82.008,
            "efficientnet_b4": 83.384,
            "efficientnet_b5": 83.444,
            "efficientnet_b6": 84.008,
            "efficientnet_b7": 84.122,
            "inception_v3": 77.294,
            "mobilenet_v2": 71.878,
            "resnet18": 69.758,
            "resnet34": 73.314,
            "resnext50_32x4d": 77.618,
            "resnext101_32x8d": 79.312,
            "vgg16": 71.592,
            "vgg16_bn": 73.360,
            "vgg19": 72.376,
            "vgg19_bn": 74.218,
            "wide_resnet50_2": 78.468,
        },
    ),
    (
        'ImageNet top-1, downsample="3x3"',
        "torchvision V1",
        "https://docs.pytorch.org/vision/stable/models.html",
        {"resnet50": 76.130, "resnet101": 77.374, "resnet152": 78.312},
    ),
    (
        "ImageNet top-1 at 288 pixels",
        "torchvision V1",
        "https://docs.pytorch.org/vision/stable/models.html",
        {"efficientnet_b2": 80.608},
    ),
    (
        'ImageNet top-1, norm="batch", no 5x5',
        "torchvision V1",
        "https://docs.pytorch.org/vision/stable/models.html",
        {"googlenet": 69.778},
    ),
    (
        "ImageNet top-1",
        "Hu et al.",
        "https://github.com/hujie-frank/SENet",
        {"se_resnext50_32x4d": 79.03},
    ),
    (
        'ImageNet top-1, downsample="1x1"',
        "Hu et al.",
        "https://github.com/hujie-frank/SENet",
        {"se_resnet50": 77.63},
    ),
    (
        "CIFAR-10",
        "He et al. 2015",
        "https://github.com/akamaster/pytorch_resnet_cifar10",
        {"resnet20": 91.25, "resnet32": 92.49, "resnet44": 92.83, "resnet56": 93.03, "resnet110": 93.57},
    ),
    (
        "CIFAR-10",
        "Zagoruyko, Komodakis",
        "https://github.com/szagoruyko/wide-residual-networks",
        {"preact_resnet164": 94.54, "wide_resnet28_10": 96.00},
    ),
    (
        "CIFAR-100",
        "Zagoruyko, Komodakis",
        "https://github.com/szagoruyko/wide-residual-networks",
        {"preact_resnet164": 75.67, "wide_resnet28_10": 80.75},
    ),
    (
        "CIFAR-10",
        "Page",
        "https://github.com/davidcpage/cifar10-fast",
        {"resnet9": 94.08},
    ),
    (
        "CIFAR-10",
        "Jordan",
        "https://github.com/KellerJordan/cifar10-airbench",
        {"airbench94": 94.01, "airbench96": 96.03},
    ),
    (
        "CIFAR-10",
        "Huang et al.",
        "https://github.com/liuzhuang13/DenseNet",
        {"densenet40_12": 94.76, "densenet_100_24": 96.26, "densenet_bc_100_12": 95.49},
    ),
    (
        "CIFAR-100",
        "Huang et al.",
        "https://github.com/liuzhuang13/DenseNet",
        {"densenet40_12": 75.58, "densenet_100_24": 80.75, "densenet_bc_100_12": 77.73},
    ),
    (
        'CIFAR-10, stem="small"',
        "DeVries, Taylor",
        "https://github.com/uoguelph-mlrg/Cutout",
        {"resnet18": 95.28},
    ),
    (
        'CIFAR-100, stem="small"',
        "DeVries, Taylor",
        "https://github.com/uoguelph-mlrg/Cutout",
        {"resnet18": 77.54},
    ),
)

# Multiply-adds of a picture of the registered size, as `layer_table` counts them: for the list of all networks, since
# building all of them takes half a minute.
MULTIPLY_ADDS = {
    "airbench94": 118_147_360,
    "airbench96": 451_967_264,
    "alexnet": 714_188_480,
    "convnext_tiny": 4_455_531_264,
    "densenet121": 2_834_161_664,
    "densenet169": 3_359_843_328,
    "densenet201": 4_291_365_888,
    "densenet40_12": 264_812_928,
    "densenet_100_24": 6_889_347_744,
    "densenet_bc_100_12": 287_929_692,
    "efficientnet_b0": 385_814_752,
    "efficientnet_b1": 686_802_832,
    "efficientnet_b2": 993_561_872,
    "efficientnet_b3": 1_827_141_392,
    "efficientnet_b4": 4_393_771_024,
    "efficientnet_b5": 10_266_384_752,
    "efficientnet_b6": 19_067_593_536,
    "efficientnet_b7": 37_745_884_192,
    "googlenet": 1_582_671_872,
    "inception_v3": 5_713_216_096,
    "lenet5": 416_520,
    "mobilenet_v1": 568_740_352,
    "mobilenet_v2": 300_774_272,
    "preact_resnet110": 252_887_680,
    "preact_resnet164": 247_646_720,
    "preact_resnet18": 555_422_720,
    "resnet101": 7_570_194_432,
    "resnet110": 252_887_680,
    "resnet152": 11_282_415_616,
    "resnet18": 1_814_073_344,
    "resnet20": 40_551_040,
    "resnet32": 68_862_592,
    "resnet34": 3_663_761_408,
    "resnet44": 97_174_144,
    "resnet50": 3_857_973_248,
    "resnet56": 125_485_696,
    "resnet9": 379_261_952,
    "resnext101_32x8d": 16_414_015_488,
    "resnext29_8x64d": 5_387_266_048,
    "resnext50_32x4d": 4_230_479_872,
    "se_resnet18": 1_814_160_384,
    "se_resnet50": 4_091_699_200,
    "se_resnext50_32x4d": 4_232_994_816,
    "vgg11": 7_609_090_048,
    "vgg11_bn": 7_609_090_048,
    "vgg13": 11_308_466_176,
    "vgg13_bn": 11_308_466_176,
    "vgg16": 15_470_264_320,
    "vgg16_bn": 15_470_264_320,
    "vgg19": 19_632_062_464,
    "vgg19_bn": 19_632_062_464,
    "wide_resnet16_8": 1_548_145_664,
    "wide_resnet28_10": 5_243_328_768,
    "wide_resnet40_4": 1_298_582_016,
    "wide_resnet50_2": 11_398_021_120,
    "xception": 8_357_403_496,
}


def published(name: str) -> list[Published]:
    """What is known of a network; an empty list where nothing is.

    >>> [(one.accuracy, one.data) for one in published("resnet20")]
    [(91.25, 'CIFAR-10')]
    """
    return [Published(figures[name], *table) for *table, figures in TABLES if name in figures]
