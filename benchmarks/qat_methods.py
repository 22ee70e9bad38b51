"""The methods that `qat_accuracy.py` compares; each trains and writes a file."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Sequence

import keras
import numpy as np
from qat_data import test_images, training_images
from qat_freeze import FREEZE_AT, freeze_batch_norm
from qat_nets import NETS

import keras_compress as kc
import tflite_export
from tflite_export.agreement import agreement_of
from tflite_export.compare import output_grids

KERNELS = ("xnnpack", "reference")
# How far the outputs of a file are from those of its model.
SHARES = ("argmax", "within_one_step", "equal")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How every net is trained, and on how many images.

    `fine_tuning_rate` is the learning rate at the start of the fine-tuning that every
    method gets; it falls to 0 as a cosine.
    """

    epochs: int
    fine_tuning_epochs: int
    examples: int
    test_examples: int
    batch_size: int
    fine_tuning_rate: float

    @property
    def fine_tuning_steps(self) -> int:
        """Steps of the optimizer in the fine-tuning."""
        return self.fine_tuning_epochs * -(-self.examples // self.batch_size)


class Run:
    """The methods on one net and seed; every one starts from the same float net."""

    def __init__(self, net: str, seed: int, recipe: Recipe, folder: str) -> None:
        self._net, self._seed, self._recipe = net, seed, recipe
        self._stem = os.path.join(folder, f"{net}_{seed}")
        self._x, self._y = training_images(recipe.examples)

    def measure(self, method: str, bits: int) -> dict:
        """Train and export; accuracy, bytes and float ops of the file, and parity."""
        path = f"{self._stem}_{method}_{bits}.tflite"
        makers: dict[str, Callable] = {
            "float": self._float,
            "post-training": self._post_training,
            "keras_compress": self._keras_compress,
            "TFMOT": self._tfmot,
        }
        parity = makers[method](path, bits) or {}
        images = test_images(self._recipe.test_examples)
        profile = tflite_export.inspect(path)
        return {
            "accuracy": tflite_export.evaluate(path, images, ["accuracy"])["accuracy"],
            "bytes": profile.bytes,
            "float_ops": len(profile.float_ops),
            **parity,
        }

    def _float(self, path: str, bits: int) -> None:
        tflite_export.export(self._fine_tuned(), path, quantization="none")

    def _post_training(self, path: str, bits: int) -> None:
        model = self._fine_tuned()
        if bits == 8:
            tflite_export.export(model, path, representative_data=self._x[:300])
        else:
            tflite_export.export(self._calibrated(model, bits), path)

    def _keras_compress(self, path: str, bits: int) -> dict:
        aware = self._calibrated(self._base(), bits)
        schedule = kc.QuantizationSchedule(
            freeze_ranges_at=FREEZE_AT, freeze_batchnorm_at=FREEZE_AT
        )
        self._fine_tune(aware, schedule)
        aware.save(path.replace(".tflite", ".keras"))
        tflite_export.export(aware, path)
        return {kernels: self._parity(aware, path, kernels) for kernels in KERNELS}

    def _tfmot(self, path: str, bits: int) -> None:
        weights = f"{self._stem}_base.npz"
        arrays = {
            f"{layer.name}/{index}": value
            for layer in self._base().layers
            for index, value in enumerate(layer.get_weights())
        }
        np.savez(weights, **arrays)
        given = {"net": self._net, "bits": bits, "seed": self._seed}
        given |= {"weights": weights, "output": path}
        given |= dataclasses.asdict(self._recipe)
        script = pathlib.Path(__file__).with_name("qat_tfmot_child.py")
        done = subprocess.run(
            [sys.executable, script, json.dumps(given)],
            capture_output=True,
            text=True,
            env=os.environ | {"TF_USE_LEGACY_KERAS": "1"},
        )
        if done.returncode:
            raise RuntimeError(f"TFMOT failed on {given}:\n{done.stderr}")

    def _calibrated(self, model: keras.Model, bits: int) -> keras.Model:
        data = self._x[:500]
        return kc.quantize_aware(model, weight_bits=bits, calibration_data=data)

    def _base(self) -> keras.Model:
        """The float net from which every method starts."""

        def train() -> keras.Model:
            keras.utils.set_random_seed(self._seed)
            model = NETS[self._net](keras)
            self._fit(model, keras.optimizers.Adam(1e-3), self._recipe.epochs)
            return model

        return self._kept("base", train)

    def _fine_tuned(self) -> keras.Model:
        """The float net after the same fine-tuning as the quantised ones."""

        def train() -> keras.Model:
            model = self._base()
            step = FREEZE_AT * self._recipe.fine_tuning_steps
            self._fine_tune(model, freeze_batch_norm(keras, step))
            return model

        return self._kept("float", train)

    def _kept(self, name: str, train: Callable[[], keras.Model]) -> keras.Model:
        path = f"{self._stem}_{name}.keras"
        if not os.path.exists(path):
            train().save(path)
        return keras.models.load_model(path, compile=False)

    def _fine_tune(self, model: keras.Model, callback) -> None:
        keras.utils.set_random_seed(self._seed)
        recipe = self._recipe
        rate = keras.optimizers.schedules.CosineDecay(
            recipe.fine_tuning_rate, recipe.fine_tuning_steps
        )
        optimizer = keras.optimizers.Adam(rate)
        self._fit(model, optimizer, recipe.fine_tuning_epochs, [callback])

    def _fit(self, model, optimizer, epochs: int, callbacks: Sequence = ()) -> None:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss)
        model.fit(
            self._x,
            self._y,
            self._recipe.batch_size,
            epochs,
            verbose=0,
            callbacks=list(callbacks),
        )

    def _parity(self, model: keras.Model, path: str, kernels: str) -> dict:
        """Shares of the file's outputs that agree with the model's."""
        x, _ = test_images(self._recipe.test_examples)
        expected = model.predict(x, batch_size=200, verbose=0).astype("float64")
        found = tflite_export.predict(path, x, kernels=kernels)
        [grid] = output_grids(path).values()
        agreement = agreement_of(expected, found, grid)
        return {name: getattr(agreement, name) for name in SHARES}
