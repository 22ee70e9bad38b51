"""What the caller of `export` asked for, and what each quantisation means."""

from dataclasses import dataclass

QUANTIZATIONS = ("none", "float16", "dynamic", "int8", "int16x8")
_IO_DTYPES = ("float32", "int8", "uint8", "int16")
_INTEGER_IO = {"int8": ("int8", "uint8"), "int16x8": ("int16",)}


@dataclass(frozen=True)
class Settings:
    """The options of one export, checked against each other.

    Raises:
        ValueError: If an option is unknown or does not fit the others.
    """

    quantization: str
    input_dtype: str = "float32"
    output_dtype: str = "float32"
    batch_size: int | None = 1

    def __post_init__(self) -> None:
        _one_of("quantization", self.quantization, QUANTIZATIONS)
        taken = ("float32", *_INTEGER_IO.get(self.quantization, ()))
        for name in ("input_dtype", "output_dtype"):
            dtype = getattr(self, name)
            _one_of(name, dtype, _IO_DTYPES)
            if dtype not in taken:
                raise ValueError(
                    f"`{name}` must be one of {', '.join(map(repr, taken))} when "
                    f"quantization={self.quantization!r}. Received: {name}={dtype!r}"
                )
        size = self.batch_size
        whole = isinstance(size, int) and not isinstance(size, bool)
        if size is not None and (not whole or size < 1):
            raise ValueError(
                "`batch_size` must be a positive int, the fixed batch of the file, or "
                f"None for any batch. Received: batch_size={size!r}"
            )

    @property
    def integer(self) -> bool:
        """Whether activations are integers, so that they need ranges."""
        return self.quantization in _INTEGER_IO


def _one_of(name: str, value, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(
            f"`{name}` must be one of {', '.join(map(repr, known))}. "
            f"Received: {name}={value!r}"
        )
