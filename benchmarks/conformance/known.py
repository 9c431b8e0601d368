"""The differences that are known: why ours is right, and how each is seen, "where: theirs -> ours".

MLServer's faults among them are ours to get right; the others are a choice.
"""

from __future__ import annotations

from benchmarks.conformance.language import Known


def _known(why: str, *seen: str) -> Known:
    return Known(why, seen)


# In many answers.
EVERYWHERE = (
    _known(
        "a refusal is {error: a sentence}, as the protocol has it; theirs is FastAPI's", "refusal: {detail} -> {error}"
    ),
    _known(
        "a refusal is {error: a sentence}, as the protocol has it; theirs is a crash", "refusal: text/plain -> {error}"
    ),
    _known("CloudEvents' headers say again what the answer says", "*header ce-*: * -> nothing"),
    _known("an id is the caller's to give; theirs makes one up, over REST alone", "*id: (made up) -> nothing"),
    _known(
        "which codec wrote an output is MLServer's own affair, as V2 has datatypes",
        *(f"*.parameters: {{'content_type': '{codec}'}} -> nothing" for codec in ("np", "str")),
        *(f"*.parameters: {{'content_type': {{'string_param': '{codec}'}}}} -> nothing" for codec in ("np", "str")),
    ),
    _known("an empty object of parameters is left over where theirs took its headers out", "parameters: {} -> nothing"),
    _known("an output in raw form has no typed contents; theirs has empty ones", "*.contents: {} -> nothing"),
    _known(
        "no cache keeps these answers, so Vary stands only where one was packed",
        "header vary: accept-encoding -> nothing",
    ),
)

# What MLServer takes and should not.
COERCED = _known(
    "values of another kind are refused; theirs become others: 1.5 is 1, '1' is 1, true is 1, 1e39 is infinite",
    "status: 200 -> 422",
    "status: OK -> INVALID_ARGUMENT",
)
MISFIT = _known(
    "data and shape that do not fit each other are refused; theirs are filled up, cut off or overlooked",
    "status: 200 -> 422",
    "status: OK -> INVALID_ARGUMENT",
)
UNDECLARED = _known(
    "names, datatypes and shapes are those that the settings declare; theirs compares nothing",
    "status: 200 -> 422",
    "status: OK -> INVALID_ARGUMENT",
    "call 1 status: OK -> INVALID_ARGUMENT",
)
TWICE = _known(
    "what is said twice is refused; theirs takes one of the two, or gives it twice",
    "status: 200 -> 422",
    "status: OK -> INVALID_ARGUMENT",
)
MEANINGLESS = _known("a key that means nothing may be a mistyped one, and is refused", "status: 200 -> 422")
IGNORED = _known(
    "what is asked for and not supported is refused; theirs answers as if nothing had been asked",
    "status: 200 -> 501",
    "status: OK -> UNIMPLEMENTED",
)

# How it refuses.
CRASHED = _known(
    "a wrong request is the caller's fault, as the status says; theirs fails somewhere inside",
    "status: 500 -> 422",
    "status: INTERNAL -> INVALID_ARGUMENT",
    "status: UNKNOWN -> INVALID_ARGUMENT",
    "status: 500 -> 404",
)
RELOADED = _known("on a 400 Seldon's agent reloads the model and asks again, so it is a 422", "status: 400 -> 422")
BROKEN = _known(
    "a model that does not load is no failure of the server, and the sentence says what is wrong with it",
    "status: 500 -> 422",
    "status: INTERNAL -> FAILED_PRECONDITION",
    "status: INVALID_ARGUMENT -> FAILED_PRECONDITION",
)
NO_NULL = _known(
    "BYTES have no null, as over gRPC; theirs takes one over REST alone, and so do its models answer with one",
    "status: 200 -> 422",
    "status: 200 -> 500",
)
DOUBTED = _known(
    "that a model is not there is an answer, as Triton's clients expect it; theirs is an error without a code",
    "status: UNKNOWN -> OK",
)

# What it cannot do.
NAN = _known("NaN is a number over gRPC too; theirs becomes None, and fails", "status: INTERNAL -> OK")
BYTES = _known("BYTES are any bytes; theirs have to be UTF-8", "status: INTERNAL -> OK")
BFLOAT = _known(
    "BF16 is a datatype of V2; theirs does not start with a model that declares it",
    "status: 422 -> 200",
    "status: INTERNAL -> OK",
    "*bf16: nothing -> *",
)
PADDED = _known("a tensor of one dimension stays one; theirs gets a second", "outputs[0].shape: * -> *")
LONG = _known(
    "a message may have 64 MiB, or what the settings say; theirs has gRPC's 4", "status: RESOURCE_EXHAUSTED -> OK"
)
FRACTION = _known("a fraction is a parameter too; theirs becomes None", "raw.parameters: * -> *")
BREAKS = _known(
    "an id may be any text; theirs becomes a header, which breaks the connection", "status: no answer -> 200"
)
ANSWERED = _known("each request of a stream gets its answer; theirs answers the first alone", "body: 1 -> 2 of them")
BINARY = _known(
    "tensors may be bytes behind the JSON, as Triton's client has them by default",
    "status: 422 -> 200",
    "header content-type: application/json -> application/octet-stream",
    "header inference-header-content-length: nothing -> *",
    "body: {* -> [*",
)
CODING = _known(
    "a body packed in an unknown way cannot be read, and is refused by HTTP's own status", "status: 200 -> 415"
)
UNPACKED = _known("gzip;q=0 means: not gzip", "header content-encoding: gzip -> nothing")
LEAKS = _known("what are headers elsewhere is no parameter of an event", "[*].parameters: {'headers'* -> nothing")
MIXED = _known(
    "calls that differ share no batch, and none suffers for another; theirs are thrown together",
    "call * status: INTERNAL -> OK",
    "call * status: INVALID_ARGUMENT -> OK",
)
HANGS = _known(
    "who leaves a batch harms nobody; theirs leaves the others waiting for ever",
    "call 1 status: DEADLINE_EXCEEDED -> OK",
)
STATE = _known("a state is a word of the protocol; theirs is Python's name for it", "models.*.state: State.* -> *")

# What it does otherwise.
TOLD = _known(
    "good news is JSON, too: {live: true}, or {}; theirs is a status alone",
    "header content-type: nothing -> application/json",
    "body: None -> {*",
)
STRAIGHT = _known("a slash at the end means nothing; theirs sends the caller elsewhere", "status: 307 -> 200")
HEAD = _known("HEAD is GET without the content", "status: 405 -> 200")
NAMED = _known(
    "it is another server, which can do more", "name: * -> croupier", "version: * -> *", "extensions: * -> [*"
)
PLATFORM = _known("a model says what it runs on, be it declared or not", "platform: * -> python_numpy")
VERSIONS = _known(
    "the versions are those that are served; theirs is what a settings file says that others are", "versions: * -> [*"
)
PLAIN_PARAMETERS = _known(
    "a parameter is a text, a number or a truth, as gRPC has them; theirs takes lists and objects", "status: 200 -> 422"
)
LETTERS = _known("a text is one element, however many letters its model gives as its shape", "outputs[0].shape: * -> *")
UNSAYABLE = _known(
    "a model's parameter that is a list is left out, as both do over gRPC; the log says so",
    "parameters.list: [* -> nothing",
)
NO_ID = _known("an empty id is none", "id:  -> nothing")
ANY_TYPE = _known("a body is JSON, whatever its header calls it: curl calls it a form", "status: 422 -> 200")
NO_BODY = _known("Triton's client asks for the index without a body", "status: 422 -> 200")
TRITON = _known(
    "Triton's clients ask this",
    "status: 404 -> 200",
    "status: UNIMPLEMENTED -> OK",
    "status: UNIMPLEMENTED -> NOT_FOUND",
)
PATHS = _known("there are more paths, those of versions stand with their versions", "paths.*: nothing -> there")
OF_A_VERSION = _known("a version has a description of its own", "paths./v2/models/fp32/versions/*: there -> nothing")
NOT_READY = _known(
    "a model that is known and not served is not ready, which is 503",
    "status: 404 -> 503",
    "refusal: {error} -> {name, ready}",
)
GONE = _known("to unload what is not loaded is no error", "status: 404 -> 200", "status: NOT_FOUND -> OK")
REASON = _known("the index says why a model is not served", "*.reason: * -> *")
UNREAD = _known("a question without content is answered without reading it", "status: UNKNOWN -> OK")
LEGACY = _known(
    "what nothing is ever counted in, is left out", "grpc_server_handled_latency_seconds: histogram [] -> nothing"
)
CREATED = _known("times of creation are told to whoever takes OpenMetrics", "*_created: * -> nothing")
COUNTED = _known(
    "what a model counts by mlserver.log is told by one process, too; theirs tells it with workers alone",
    "doubled*: nothing -> *",
)
EXPOSED = _known("the format is the one that the scraper asked for", "header content-type: text/plain* -> text/plain*")
