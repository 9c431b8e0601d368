"""What the failure of a model is to whoever called, and what of it the log says."""

from __future__ import annotations

import logging
from traceback import walk_tb

from protos.errors import CallError, Internal, InvalidArgument, ResourceExhausted, Unavailable

_log = logging.getLogger(__name__)


def failure(name: str, error: BaseException) -> CallError:
    """The answer to a call for which a model raised something.

    The caller is told what the model said. The log is told type and place: the words may hold a caller's values.
    """
    # The caller's fault, or that of the device that the model runs on, and said so by the model.
    if isinstance(error, InvalidArgument | ResourceExhausted | Unavailable):
        return error
    theirs = error.__cause__ or error  # a format puts what its library says into words of ours
    says = error.message if isinstance(error, CallError) else f"{type(error).__name__}: {_words(error)}"
    _log.warning("model %r failed: %s", name, says if isinstance(theirs, CallError) else _place(theirs))
    _log.debug("model %r failed: %s", name, says, exc_info=error)
    return Internal(f"model {name!r} failed: {says}")


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # noqa: BLE001 - their code, too
        return "and what it says cannot be told"


def _place(error: BaseException) -> str:
    *_, (frame, line) = walk_tb(error.__traceback__)
    return f"{type(error).__name__} at {frame.f_code.co_filename}:{line}"
