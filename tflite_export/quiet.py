"""Keep a noisy library off the user's standard error."""

import contextlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator

# Two threads that swap the file descriptor at once would leave it on the null device.
_LOCK = threading.RLock()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No Python warnings, no TensorFlow log lines, nothing on file descriptor 2."""
    loggers = [logging.getLogger(name) for name in ("tensorflow", "absl")]
    levels = [logger.level for logger in loggers]
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for logger, level in zip(loggers, levels, strict=True):
            stack.callback(logger.setLevel, level)
            logger.setLevel(logging.CRITICAL)
        stack.enter_context(quiet_stderr())
        yield


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Nothing on file descriptor 2, to which C++ code writes."""
    with _LOCK, contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, AttributeError, ValueError):
            sys.stderr.flush()
        # Without an open standard error there is nothing to silence.
        with contextlib.suppress(OSError):
            saved = os.dup(2)
            stack.callback(os.close, saved)
            stack.callback(os.dup2, saved, 2)
            with open(os.devnull, "wb") as null:
                os.dup2(null.fileno(), 2)
        yield
