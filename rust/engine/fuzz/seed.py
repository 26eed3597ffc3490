"""Gives the fuzzers of HTTP/1.1 what tests/corpora has to begin with: `python rust/engine/fuzz/seed.py`."""

import hashlib
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2]))

from tests.e2e.kit.corpora import cases, load, named_mutations  # noqa: E402 # found through the line above

REQUESTS = ("chunks", "content-length", "transfer-encoding", "lines", "first-line", "pipelines")
LAST = b"GET /last HTTP/1.1\r\nHost: h\r\n\r\n"


def main() -> None:
    requests = [case.sent(b"/c") + LAST for name in REQUESTS for case in cases(name)]
    requests += [case.sent(b"/c") + LAST for case in named_mutations()]
    answers = [case["raw"].encode("latin-1") for case in load("responses")]
    write("differential", requests)
    # Its first byte says where the input is cut in two.
    write("head", [bytes([min(255, len(seed) // 2)]) + seed for seed in requests + answers])


def write(target: str, seeds: list[bytes]) -> None:
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (folder / hashlib.sha1(seed).hexdigest()).write_bytes(seed)


if __name__ == "__main__":
    main()
