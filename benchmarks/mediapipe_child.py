"""Classify stored pictures with MediaPipe and store what it found.

    python mediapipe_child.py FILE PICTURES.npy FOUND.npz

`benchmarks/mediapipe_accepts.py` runs this in MediaPipe's own environment. PICTURES are
uint8 of shape (pictures, height, width, 3). FOUND holds the `index` and the `name` of
the best class of each picture, "" where the file has no labels, and the `version`.
"""

import os
import sys

import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision


def classify(path: str, pictures: np.ndarray) -> list:
    """MediaPipe's best category for each picture."""
    options = vision.ImageClassifierOptions(
        base_options=BaseOptions(model_asset_path=path), max_results=1
    )
    with vision.ImageClassifier.create_from_options(options) as classifier:
        return [
            classifier.classify(
                mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=picture)
            )
            .classifications[0]
            .categories[0]
            for picture in pictures
        ]


if __name__ == "__main__":
    file, stored, results = sys.argv[1:]
    try:
        found = classify(file, np.load(stored, allow_pickle=False))
    except (OSError, NotImplementedError, ValueError) as error:
        print(f"refused: {str(error).splitlines()[0]}", file=sys.stderr, flush=True)
        # MediaPipe's own clean-up of a half-made classifier fails or hangs.
        os._exit(1)
    np.savez(
        results,
        index=[category.index for category in found],
        name=[category.category_name or "" for category in found],
        version=mediapipe.__version__,
    )
