"""Child process of `isolation.py`: `python -m tflite_export.convert_child FOLDER`."""

import os
import sys

from tflite_export.converter import convert
from tflite_export.isolation import read_task


def main(folder: str) -> None:
    """Convert the task in the folder; exit with 1 and one last line on an error."""
    try:
        content = convert(**read_task(folder))
    except ValueError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(1)
    with open(os.path.join(folder, "model.tflite"), "wb") as file:
        file.write(content)


if __name__ == "__main__":
    main(sys.argv[1])
