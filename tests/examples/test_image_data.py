import gzip
import struct

import image_data
import keras
import numpy as np
import pytest


def write_idx(path, array, keep=None):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes())[:keep])


@pytest.fixture
def folder(tmp_path):
    for split, count in (("train", 4), ("t10k", 2)):
        images = np.arange(count * 784, dtype="uint32").astype("uint8")
        images = images.reshape(count, 28, 28)
        write_idx(tmp_path / f"{split}-images-idx3-ubyte.gz", images)
        labels = np.arange(count, dtype="uint8")
        write_idx(tmp_path / f"{split}-labels-idx1-ubyte.gz", labels)
    return tmp_path


def test_images_are_floats_from_0_to_1_beside_their_labels(folder):
    data = image_data.load_images(folder)
    assert data.name == "Fashion-MNIST"
    assert data.x_train.shape == (4, 28, 28, 1)
    assert data.x_train[0, 9, 3, 0] == np.float32(255 / 255)
    assert data.x_train[0, 1, 2, 0] == np.float32(30 / 255)
    np.testing.assert_array_equal(data.y_test, [0, 1])


@pytest.mark.parametrize("keep", [0, 20, -9])
def test_a_truncated_file_is_named_with_its_remedy(folder, keep):
    path = folder / "train-images-idx3-ubyte.gz"
    write_idx(path, np.zeros((4, 28, 28), "uint8"), keep)
    with pytest.raises(ValueError, match=r"train-images.*install it again"):
        image_data.load_images(folder)


def test_a_file_shorter_than_its_header_promises_is_named(folder):
    path = folder / "train-labels-idx1-ubyte.gz"
    header = bytes([0, 0, 8, 1]) + struct.pack(">I", 60000)
    path.write_bytes(gzip.compress(header + bytes(10)))
    with pytest.raises(ValueError, match=r"60000 bytes\. Received 10 bytes"):
        image_data.load_images(folder)


def test_images_without_labels_are_refused(folder):
    write_idx(folder / "train-labels-idx1-ubyte.gz", np.zeros(3, "uint8"))
    with pytest.raises(ValueError, match="3 labels"):
        image_data.load_images(folder)


def test_without_fashion_mnist_the_digits_stand_in(tmp_path, monkeypatch, capsys):
    def offline():
        raise RuntimeError("URL fetch failure")

    monkeypatch.setattr(keras.datasets.fashion_mnist, "load_data", offline)
    data = image_data.load_images(tmp_path / "missing")
    assert data.x_train.shape == (1438, 28, 28, 1)
    assert data.x_train.max() == 1.0
    assert "Images: digits from scikit-learn" in capsys.readouterr().out
