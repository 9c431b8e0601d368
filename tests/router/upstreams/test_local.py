"""The models of this process."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from protos.errors import CallError, Code, FailedPrecondition, Fault, NotFound, UpstreamError
from router.upstreams.local import Local, Models
from tests.router.fakes import call_of

pytestmark = pytest.mark.anyio


async def test_a_model_that_is_not_there_is_refused_when_it_is_opened(models: Path):
    served = Models(models, CollectorRegistry())
    with pytest.raises(CallError, match="'triple'"):
        await served.upstream("triple", "")
    with pytest.raises(NotFound, match=r"'8'.*'7'"):
        await served.upstream("double", "8")


async def test_a_model_that_does_not_load_says_why(tmp_path: Path, models: Path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model.pt").write_bytes(b"nothing of the kind")
    (broken / "model-settings.json").write_text((models / "double" / "model-settings.json").read_text())
    with pytest.raises(FailedPrecondition, match="not a TorchScript archive"):
        await Models(tmp_path, CollectorRegistry()).upstream("double", "")


async def test_a_model_that_is_gone_is_the_arms_failure_and_not_the_clients(models: Path):
    served = Models(models, CollectorRegistry())
    arms = [await served.upstream("double", version) for version in ("", "7")]
    await served._engine.unload("double")
    for arm in arms:
        with pytest.raises(UpstreamError, match=r"'double'.*is not loaded") as failed:
            await arm(call_of("credit"))
        assert (failed.value.code, failed.value.fault) == (Code.INTERNAL, Fault.UPSTREAM)
        assert not await arm.ready()


async def test_a_model_that_was_never_there_is_not_ready(models: Path):
    engine = Models(models, CollectorRegistry())._engine
    assert not await Local(engine, "double").ready()
