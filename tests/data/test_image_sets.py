import sys

import numpy as np
import pytest

from spartax import data
from spartax.data import image_sets


def test_reads_the_newest_version_as_floats_in_unit_range(tiny_dir, tiny_pixels):
    got = data.tfds_images("tiny", "train", tiny_dir)
    assert got.x.dtype == np.float32
    assert got.y.dtype == np.int32
    np.testing.assert_array_equal(got.x, tiny_pixels.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(got.y, [0, 1, 0, 1, 0])
    assert got[2:] == ("tiny/train", 2, ("cat", "dog"))


def test_split_slices(tiny_dir, tiny_pixels):
    got = data.tfds_images("tiny", "train[1:3]", tiny_dir)
    np.testing.assert_array_equal(np.rint(got.x * 255), tiny_pixels[1:3])
    np.testing.assert_array_equal(got.y, [1, 0])
    assert got.name == "tiny/train[1:3]"


class Counted:
    """A data source that notes which examples are decoded."""

    def __init__(self, source):
        self.source, self.dataset_info, self.read = source, source.dataset_info, []

    def __len__(self):
        return len(self.source)

    def __getitem__(self, row):
        example = self.source[row]
        self.read.append(row)
        return example


@pytest.mark.parametrize(("count", "read"), [(2, [0, 1]), (9, [0, 1, 2, 3, 4])])
def test_a_count_decodes_the_first_alone(count, read, tiny_dir, tiny_pixels, monkeypatch):
    made, source = [], image_sets._source
    monkeypatch.setattr(image_sets, "_source", lambda *a: made.append(Counted(source(*a))) or made[0])
    monkeypatch.setitem(
        sys.modules["spartax.data.load"]._TFDS, "cifar10", lambda *given: data.tfds_images("tiny", *given)
    )
    got = data.load("cifar10", "train", tiny_dir, count)
    assert made[0].read == read
    np.testing.assert_array_equal(np.rint(got.x * 255), tiny_pixels[:count])
    assert (got.y.tolist(), got.name) == ([0, 1, 0, 1, 0][:count], "tiny/train")


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_a_count_is_a_positive_integer(name, tmp_path):
    with pytest.raises(ValueError, match="count must be an integer of at least 1; got 0"):
        data.load(name, "train", tmp_path, 0)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn", "mnist", "fashion_mnist"])
def test_every_set_passes_its_count_on(name, monkeypatch):
    monkeypatch.setattr(image_sets, "tfds_images", lambda *given: given)
    assert getattr(data, name)("test", "folder", 7)[1:] == ("test", "folder", 7)


def test_data_dir_from_the_environment(tiny_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tiny_dir))
    assert len(data.tfds_images("tiny", "train").y) == 5


def test_unknown_split_names_the_known(tiny_dir):
    with pytest.raises(ValueError, match=r"'valid'.*\['train'\]"):
        data.tfds_images("tiny", "valid", tiny_dir)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn", "mnist", "fashion_mnist"])
def test_missing_folder_says_where_and_how(name, tmp_path):
    folder = tmp_path / {"svhn": "svhn_cropped"}.get(name, name)
    with pytest.raises(ValueError, match=r"download_and_prepare") as error:
        data.load(name, "test", tmp_path)
    assert str(folder) in str(error.value)


def test_format_without_random_access_is_explained(tiny_dir, tmp_path):
    source = tiny_dir / "tiny" / "10.0.0"
    folder = tmp_path / "tiny" / "10.0.0"
    folder.mkdir(parents=True)
    for file in ("features.json", "label.labels.txt"):
        (folder / file).write_text((source / file).read_text())
    info = (source / "dataset_info.json").read_text().replace("array_record", "tfrecord")
    (folder / "dataset_info.json").write_text(info)
    with pytest.raises(ValueError, match=r"without random access.*array_record"):
        data.tfds_images("tiny", "train", tmp_path)


def test_load_names_the_known_sets():
    with pytest.raises(ValueError, match=r"'digits'.*'svhn'.*Did you mean 'cifar10'"):
        data.load("cifar-10", "test")


@pytest.mark.parametrize(
    ("name", "shape", "names"),
    [
        ("cifar10", (32, 32, 3), ("airplane", "automobile", "bird")),
        ("mnist", (28, 28, 1), ("0", "1", "2")),
        ("fashion_mnist", (28, 28, 1), ("T-shirt/top", "Trouser", "Pullover")),
    ],
)
def test_real_sets(shared_data, name, shape, names):
    got = data.load(name, "test[:8]", shared_data)
    assert got.x.shape == (8, *shape)
    assert got.classes == len(got.label_names) == 10
    assert got.label_names[:3] == names
    assert 0 <= got.x.min() < got.x.max() <= 1
