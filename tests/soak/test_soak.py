"""The soak of `make soak`, for a few seconds; with TIDEGATE_LONG=1 for half an hour."""

import os
import random

import pytest

from tests.soak.run import soaked

SECONDS = 1800 if os.environ.get("TIDEGATE_LONG") else 10


@pytest.mark.timeout(SECONDS + 300)
async def test_everything_is_accounted_for() -> None:
    seed = random.randrange(1 << 30)
    outcome = await soaked(SECONDS, seed)
    assert outcome.faults == [], f"SOAK_SEED={seed} SOAK_SECONDS={SECONDS} make soak\n{outcome.figures}"
    causes = outcome.figures["causes"]
    assert isinstance(causes, dict)
    assert causes.keys() >= {"client", "upstream", "client_lost", "upstream_lost", "protocol_error"}, causes
