"""Flax (linen) models of the experiments, and published PyTorch weights turned into them.

Every model is an ordinary `flax.linen.Module`: `variables = module.init(key, x)` and
`logits = module.apply(variables, x, train=False)`, with images float32 [B, H, W, C] in [0, 1] and the normalization
inside. Models with batch normalization keep running statistics in `variables["batch_stats"]` and update them under
`module.apply(variables, x, train=True, mutable=["batch_stats"])`; the others ignore `train`.
"""

from spartax.models.blocks import BasicBlock, PreActBlock
from spartax.models.cnn import CNN
from spartax.models.cnn_a import CNNA
from spartax.models.convert import Loaded, load, rebuilt
from spartax.models.convex_mnist import convex_mnist
from spartax.models.layers import CIFAR10_MEAN, CIFAR10_STD, eval_apply
from spartax.models.lenet import LeNet5
from spartax.models.mlp import MLP
from spartax.models.resnet import ResNet, preact_resnet18, resnet18
from spartax.models.resnet2b import ResNet2B
from spartax.models.resnet_cifar import resnet8, resnet20, resnet32, resnet56, resnet_cifar
from spartax.models.save import save
from spartax.models.vgg import VGG, vgg16_bn
from spartax.models.vit import ViT
from spartax.models.wide_resnet import wide_resnet

__all__ = [
    "CIFAR10_MEAN",
    "CIFAR10_STD",
    "CNN",
    "CNNA",
    "MLP",
    "VGG",
    "BasicBlock",
    "LeNet5",
    "Loaded",
    "PreActBlock",
    "ResNet",
    "ResNet2B",
    "ViT",
    "convex_mnist",
    "eval_apply",
    "load",
    "preact_resnet18",
    "rebuilt",
    "resnet8",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet56",
    "resnet_cifar",
    "save",
    "vgg16_bn",
    "wide_resnet",
]
