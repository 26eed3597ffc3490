"""`make soak`: half an hour of mixed load, or SOAK_SECONDS; ends with 0 when everything is accounted for."""

import asyncio
import os
import random
import sys

from tests.soak.run import soaked


def main() -> int:
    seconds = float(os.environ.get("SOAK_SECONDS") or 1800)
    seed = int(os.environ.get("SOAK_SEED") or random.randrange(1 << 30))
    print(f"{seconds:.0f} s of mixed load, SOAK_SEED={seed}", flush=True)
    outcome = asyncio.run(soaked(seconds, seed))
    for name, value in outcome.figures.items():
        print(f"{name}: {value}")
    for fault in outcome.faults[:50]:
        print(f"FAULT {fault}")
    print(f"{len(outcome.faults)} faults in {outcome.seconds:.0f} s")
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
