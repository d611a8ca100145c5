"""What wrk reaches on the same endpoint: the yardstick, where wrk is installed.

wrk sends one prepared request over and over and keeps no record of anything, so its rate
is what endpoint and machine allow at that moment.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

from bench.measure import say

CONNECTIONS = 256
SECONDS = 3
MESSAGE_ID = 0
"""No message has this id: it distinguishes the requests of wrk from deliveries."""

_SCRIPT = Path(__file__).with_name("post.lua")


async def wrk_per_s(url: str, connections: int = CONNECTIONS) -> float | None:
    """Return the POSTs a second that wrk makes to `url`; None where wrk is not installed."""
    command = shutil.which("wrk")
    if command is None:
        return None
    process = await asyncio.create_subprocess_exec(
        *(command, "-t1", f"-c{connections}", f"-d{SECONDS}s", "-s", str(_SCRIPT), f"{url}{MESSAGE_ID}"),
        stdout=asyncio.subprocess.PIPE,
    )
    output = (await process.communicate())[0].decode()
    found = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if found is None or "Non-2xx" in output:
        say(f"wrk did not get its answers:\n{output}")
        return None
    say(f"  wrk: {float(found[1]):,.0f}/s with {connections} connections")
    return float(found[1])
