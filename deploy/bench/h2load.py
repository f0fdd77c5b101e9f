"""h2load as a gRPC client: one request, many times. It sees HTTP only: what comes back is checked
once, by a real call, before anything is measured."""

import re
import struct
import subprocess
from pathlib import Path

from deploy.bench.daemon import Process

CLIENTS, STREAMS = 8, 32
_RATE = re.compile(r"finished in [\d.]+\w+, ([\d.]+) req/s")


def frame(message: bytes) -> bytes:
    """gRPC's five bytes before a message: not compressed, and how long it is."""
    return struct.pack(">BI", 0, len(message)) + message


def rate(server: Process, path: str, message: bytes, folder: Path, seconds: int = 2) -> float:
    """Calls per second, `CLIENTS` connections with `STREAMS` calls under way on each."""
    body = folder / "body"
    body.write_bytes(frame(message))
    command = ["h2load", "-c", str(CLIENTS), "-m", str(STREAMS), "-t", "1", "-D", str(seconds)]
    command += ["--warm-up-time", "1", "-d", str(body), "-w", "24", "-W", "27"]
    for header in (
        "content-type: application/grpc",
        "te: trailers",
        "vsignal-identity: operator/bench",
    ):
        command += ["-H", header]
    done = subprocess.run(
        [*command, f"http://{server.target}{path}"],
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=True,
    )
    found = _RATE.search(done.stdout)
    if found is None or " 0 failed" not in done.stdout or ", 0 errored" not in done.stdout:
        raise RuntimeError(f"h2load failed: {done.stdout[-800:]}")
    return float(found[1])
