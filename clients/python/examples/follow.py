"""Follow every message as it ends, across restarts of both sides: `python follow.py 127.0.0.1:50051 POSITION`.

The file POSITION keeps the place of the last change that was handled completely. A token goes into
MAILING_TOKEN; `--until N` stops after N changes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path

from mailing.aio import MailingClient
from mailing.v1.message_pb2 import Message


def kept(position: Path) -> str:
    """Return the kept position, empty at the first run."""
    return position.read_text(encoding="utf-8") if position.exists() else ""


def keep(position: Path, token: str) -> None:
    """Keep a position."""
    position.write_text(token, encoding="utf-8")


async def main(address: str, position: Path, until: int) -> None:
    """Print changes from the kept position on, else from the oldest that the service has."""
    token = kept(position)
    async with MailingClient.connect(address, os.environ.get("MAILING_TOKEN")) as service:
        watch = service.watch_messages(resume_token=token, from_start=not token)
        seen = 0
        async for change in watch:
            print(change.message_id, Message.Status.Name(change.status), flush=True)
            # Behind whole responses only, so the next run may repeat the last few changes.
            keep(position, watch.resume_token)
            seen += 1
            if seen == until:
                break
        await watch.close()


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("address")
    options.add_argument("position", type=Path)
    options.add_argument("--until", type=int, default=0)
    chosen = options.parse_args()
    asyncio.run(main(chosen.address, chosen.position, chosen.until))
