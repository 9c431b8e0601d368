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
    cause = error.__cause__  # a format puts what its library says into words of ours
    theirs = error if cause is None or cause.__traceback__ is None else cause
    says = said_by(error)
    _log.warning("model %r failed: %s", name, says if isinstance(theirs, CallError) else _place(theirs))
    _log.debug("model %r failed: %s", name, says, exc_info=error)
    return Internal(f"model {name!r} failed: {says}")


def said_by(error: BaseException) -> str:
    """A CallError's sentence, or the type of any other error and its words."""
    if isinstance(error, CallError):
        return error.message
    try:
        words = str(error)
    except BaseException:  # noqa: BLE001 - their code, too
        words = "and what it says cannot be told"
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def _place(error: BaseException) -> str:
    places = [f"{frame.f_code.co_filename}:{line}" for frame, line in walk_tb(error.__traceback__)]
    return " at ".join([type(error).__name__, *places[-1:]])
