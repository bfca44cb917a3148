"""Data sets in memory as float32 images in [0, 1], deterministic batches, augmentation on the device."""

from spartax.data.dataset import Dataset
from spartax.data.digits import digits
from spartax.data.image_sets import cifar10, cifar100, fashion_mnist, mnist, svhn, tfds_images

__all__ = ["Dataset", "cifar10", "cifar100", "digits", "fashion_mnist", "mnist", "svhn", "tfds_images"]
