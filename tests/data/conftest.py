import io
import json

import numpy as np
import pytest
from array_record.python import array_record_module
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2


@pytest.fixture(scope="session")
def tiny_pixels():
    return np.random.RandomState(0).randint(0, 256, (5, 3, 4, 3)).astype(np.uint8)


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory, tiny_pixels):
    """A prepared set `tiny` (5 images 3x4x3, labels 0 1 0 1 0) in an old and a new version, as TFDS lays it out."""
    root = tmp_path_factory.mktemp("prepared")
    write_version(root, "9.0.0", tiny_pixels[::-1])
    write_version(root, "10.0.0", tiny_pixels)
    return root


def write_version(root, version, pixels):
    folder = root / "tiny" / version
    folder.mkdir(parents=True)
    split = {
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "name": "train",
        "numBytes": "1",
        "shardLengths": [str(len(pixels))],
    }
    info = {"fileFormat": "array_record", "name": "tiny", "version": version, "splits": [split]}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    core = "tensorflow_datasets.core.features."
    shape = {"dimensions": [str(side) for side in pixels.shape[1:]]}
    features = {
        "image": {"image": {"dtype": "uint8", "shape": shape}, "pythonClassName": core + "image_feature.Image"},
        "label": {"classLabel": {"numClasses": "2"}, "pythonClassName": core + "class_label_feature.ClassLabel"},
    }
    features = {
        "featuresDict": {"features": features},
        "pythonClassName": core + "features_dict.FeaturesDict",
    }
    (folder / "features.json").write_text(json.dumps(features))
    (folder / "label.labels.txt").write_text("cat\ndog\n")
    file = folder / "tiny-train.array_record-00000-of-00001"
    writer = array_record_module.ArrayRecordWriter(str(file), "group_size:1")
    for row, image in enumerate(pixels):
        writer.write(record(image, row % 2))
    writer.close()


def record(image, label):
    png = io.BytesIO()
    Image.fromarray(image).save(png, "PNG")
    feature = {
        "image": tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=[png.getvalue()])),
        "label": tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=[label])),
    }
    return tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=feature)).SerializeToString()
