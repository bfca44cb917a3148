"""Data sets in memory as float32 images in [0, 1], deterministic batches, augmentation on the device."""

from spartax.data.augment import augment
from spartax.data.batches import Batches, batches
from spartax.data.dataset import Dataset
from spartax.data.digits import digits
from spartax.data.hold_out import hold_out
from spartax.data.image_sets import cifar10, cifar100, fashion_mnist, mnist, svhn, tfds_images
from spartax.data.load import load

__all__ = [
    "Batches",
    "Dataset",
    "augment",
    "batches",
    "cifar10",
    "cifar100",
    "digits",
    "fashion_mnist",
    "hold_out",
    "load",
    "mnist",
    "svhn",
    "tfds_images",
]
