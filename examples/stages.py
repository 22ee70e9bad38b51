"""The stages of a run: each leaves its model and its measurements, and is done once."""

import json
import os
import pathlib
import time

import keras

from keras_compress.pipeline.files import write_whole


class Stages:
    """Runs one stage after the other in a folder, or takes up what a run left there.

    A stage is finished when its `NAME.json` is written, the last of its files. It holds
    the settings of this stage and of all before it, so that `resume` mixes no two
    configurations.

    Args:
        folder: a `pathlib.Path`, made if need be.
        settings: what all stages depend on, such as the seed; JSON values.
        resume: whether finished stages are kept; otherwise they are forgotten.

    Raises:
        OSError: the folder cannot be made or written to.
    """

    def __init__(self, folder: pathlib.Path, settings: dict, *, resume: bool):
        self.folder = folder
        self._settings = dict(settings)
        self._resume = resume
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError("it is not writable")
        except OSError as error:
            raise OSError(
                f"Cannot write to --output_dir={folder}: {error}. Choose a folder that "
                "you may write to."
            ) from error
        if not resume:
            for path in folder.glob("*.stage.json"):
                path.unlink()

    def run(self, name: str, settings: dict, train, measure):
        """The model of a stage and what was measured of it.

        Args:
            name: of the stage and of its files.
            settings: what this stage adds to those before it.
            train: `train()` returns the trained model, or None.
            measure: `measure(model, seconds)` exports and measures it, after `seconds`
                of training, and returns JSON values.

        Returns:
            `(model, measured)`.

        Raises:
            ValueError: `resume` finds this stage with other settings.
        """
        self._settings[name] = settings
        record = self.folder / f"{name}.stage.json"
        file = self.folder / f"{name}.keras"
        if self._resume and record.exists():
            found = json.loads(record.read_text())
            self._check(name, found["settings"], record)
            print(f"{name}: taken from {record}.")
            model = keras.saving.load_model(file) if file.exists() else None
            return model, found["measured"]
        start = time.perf_counter()
        model = train()
        seconds = time.perf_counter() - start
        if model is not None:
            partial = self.folder / f"{name}.partial.keras"
            model.save(partial)
            os.replace(partial, file)
        measured = measure(model, seconds)
        content = {"settings": self._settings, "measured": measured}
        write_whole(record, json.dumps(content, indent=2) + "\n")
        return model, measured

    def _check(self, name: str, found: dict, record: pathlib.Path) -> None:
        # As JSON gives them back: tuples have become lists.
        wanted = json.loads(json.dumps(self._settings))
        if found != wanted:
            keys = [k for k in {**wanted, **found} if wanted.get(k) != found.get(k)]
            differences = "; ".join(
                f"{key}: now {wanted.get(key)}, then {found.get(key)}" for key in keys
            )
            raise ValueError(
                f"--resume found the stage {name} of another configuration in "
                f"{record.parent}. {differences}. Give the flags of that run, another "
                "--output_dir, or leave --resume out to begin anew."
            )
