"""Child process of `isolation.py`: converts the task in the folder it is given."""

import os
import sys

from tflite_export.conversion.converter import convert
from tflite_export.conversion.isolation import read_task


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
