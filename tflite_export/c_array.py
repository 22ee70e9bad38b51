"""A `.tflite` file as a C array, for devices without a file system."""

import contextlib
import os
import re
import uuid
from pathlib import Path

from tflite_export.flatbuffer import parse, read_bytes

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*")
_HEADER_ENDS = (".h", ".hpp")
_SOURCE_ENDS = (".c", ".cc", ".cpp")
_BYTES_PER_LINE = 12

_HEADER = """\
/* Written by tflite_export.to_c_array. */
#ifndef {guard}
#define {guard}

#include <stddef.h>

#ifdef __cplusplus
extern "C" {{
#endif

/* A .tflite model, aligned to 16 bytes, and its length in bytes. */
extern const unsigned char {array}[{length}];
extern const size_t {array}_len;

#ifdef __cplusplus
}}
#endif

#endif /* {guard} */
"""

_SOURCE = """\
/* Written by tflite_export.to_c_array. */
#include "{include}"

#ifndef __cplusplus
#include <stdalign.h>
#endif

alignas(16) const unsigned char {array}[] = {{
{values}
}};
const size_t {array}_len = sizeof({array});
"""


def to_c_array(path, header, source, name: str | None = None) -> None:
    """Write a `.tflite` file as a C array, in a header and a source file.

    Both are valid C11 and C++11. They declare and define, with C linkage, the array
    `g_<name>_model_data`, aligned to 16 bytes as the runtimes ask, and its length
    `g_<name>_model_data_len`. The same file gives the same text. The new files take
    the place of older ones only when both are written.

    Args:
        path: File name of a `.tflite` file.
        header: File name ending in .h or .hpp, in an existing folder.
        source: File name ending in .c, .cc or .cpp, in an existing folder. It
            includes the header by its path from the source's folder.
        name: What the array is named after: ASCII letters, digits and single
            underscores, a letter first. By default made from the name of the
            `.tflite` file.

    Raises:
        OSError: If the file cannot be read or the new files cannot be written.
        ValueError: If it is not a whole `.tflite` file, or a name is wrong.

    Example:

    ```python
    tflite_export.to_c_array("m.tflite", "m.h", "m.cc", name="digits")
    # In C or C++: #include "m.h", then tflite::GetModel(g_digits_model_data)
    ```
    """
    header = _checked_target("header", header, _HEADER_ENDS)
    source = _checked_target("source", source, _SOURCE_ENDS)
    include = os.path.relpath(header, source.parent).replace(os.sep, "/")
    if re.search(r'["\\\n\r]', include):
        raise ValueError(
            "`header` must have a path without quotes, backslashes and line ends, as "
            f"the source includes it. Received: header={str(header)!r}"
        )
    content = read_bytes(path)
    parse(content, path)
    array = f"g_{_checked_name(name, path)}_model_data"
    text = {
        "array": array,
        "guard": f"{array}_H_",
        "include": include,
        "length": len(content),
        "values": _values(content),
    }
    _write_both(
        {header: _HEADER.format_map(text), source: _SOURCE.format_map(text)},
    )


def _checked_target(argument: str, path, ends: tuple[str, ...]) -> Path:
    """The file with its real folder; ValueError or OSError if it cannot be written."""
    if not isinstance(path, (str, os.PathLike)) or Path(path).suffix not in ends:
        raise ValueError(
            f"`{argument}` must be a file name that ends in {' or '.join(ends)}. "
            f"Received: {argument}={path!r}"
        )
    folder = Path(path).parent
    if Path(path).is_dir():
        raise IsADirectoryError(
            f"`{argument}` must be a file, not a folder. Received: {argument}={path}"
        )
    if not folder.is_dir():
        raise FileNotFoundError(
            f"The folder of `{argument}` must exist; create it first. Received: "
            f"{argument}={path}"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(
            f"The folder of `{argument}` must be writable. Received: {argument}={path}"
        )
    return folder.resolve() / Path(path).name


def _checked_name(name, path) -> str:
    if name is None:
        words = re.findall(r"[A-Za-z0-9]+", Path(path).stem)
        made = "_".join(words)
        return made if _NAME.fullmatch(made) else "_".join(["model", *words])
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            "`name` must be an identifier of ASCII letters, digits and single "
            "underscores between them, a letter first, such as 'keyword_spotting'. "
            f"Received: name={name!r}"
        )
    return name


def _values(content: bytes) -> str:
    lines = (
        content[start : start + _BYTES_PER_LINE].hex(",").replace(",", ", 0x")
        for start in range(0, len(content), _BYTES_PER_LINE)
    )
    return "\n".join(f"    0x{line}," for line in lines)


def _write_both(texts: dict[Path, str]) -> None:
    """Write all files or none: an older one comes back if a later one fails."""
    with contextlib.ExitStack() as stack:
        written = {}
        for target, text in texts.items():
            beside = target.with_name(f"{target.name}.{uuid.uuid4().hex}")
            stack.callback(beside.unlink, missing_ok=True)
            with open(beside, "x", encoding="utf-8", newline="\n") as file:
                file.write(text)
            written[target] = beside
        undo = stack.enter_context(contextlib.ExitStack())
        for target, beside in written.items():
            _replace(target, beside, undo)
        undo.pop_all()


def _replace(target: Path, beside: Path, undo: contextlib.ExitStack) -> None:
    """Move a new file into place; `undo` brings the old one back."""
    if target.exists():
        old = target.read_bytes()
        os.replace(beside, target)
        undo.callback(target.write_bytes, old)
    else:
        os.replace(beside, target)
        undo.callback(target.unlink)
