"""Write a file whole or not at all."""

import os
import pathlib


def write_whole(path, text: str) -> None:
    """Writes a file beside `path`, then moves it there.

    Raises:
        OSError: If the folder does not exist or cannot be written to.
    """
    target = pathlib.Path(path)
    content = text.encode()
    beside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        beside.write_bytes(content)
        os.replace(beside, target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
