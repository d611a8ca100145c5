"""How fast clients come in: by one client stream of the API, and from files by the command line.

The second file is as people export them: windows-1251, semicolons, headings of its own and phones as they are written.
All end with the clients in the database, committed, their phones unique.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.endpoint import start_endpoint
from bench.measure import peak_rss_mb, say
from bench.service import BenchmarkFailed, Service, running_service

_CSV_FIRST_PHONE = 78000000000
_CONTACTS_FIRST_PHONE = 79500000000
_MAPPING = (
    *("--map", "Мобильный=phone", "--map", "Клиент=attributes.name", "--map", "Группа=tag"),
    *("--country", "RU", "--timezone", "Europe/Moscow"),
)


def write_csv(path: Path, clients: int) -> None:
    """Write as many clients, of consecutive phones, in the form of examples/clients.csv."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["phone", "timezone", "tag"])
        writer.writerows((phone, "UTC", "csv") for phone in range(_CSV_FIRST_PHONE, _CSV_FIRST_PHONE + clients))


def write_contacts(path: Path, clients: int) -> None:
    """Write as many clients as a CRM would: national phones with brackets, Cyrillic names and headings."""
    with path.open("w", newline="", encoding="cp1251") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["Клиент", "Мобильный", "Группа"])
        for number in range(_CONTACTS_FIRST_PHONE, _CONTACTS_FIRST_PHONE + clients):
            digits = str(number)
            phone = f"8 ({digits[1:4]}) {digits[4:7]}-{digits[7:9]}-{digits[9:]}"
            writer.writerow([f"Анна {number % 1000}", phone, "crm"])


async def file_seconds(
    service: Service, clients: int, write: Callable[[Path, int], None], options: Sequence[str] = ()
) -> float:
    """Import a file by `mailing clients import` and return the command's whole time."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "clients.csv")
        write(path, clients)
        command = str(Path(sys.executable).with_name("mailing"))
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *(command, "--address", service.address, "clients", "import", str(path), *options),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        errors = (await process.communicate())[1].decode()
        if process.returncode:
            raise BenchmarkFailed(f"mailing clients import ended with status {process.returncode}: {errors}")
        return time.monotonic() - began


async def measure(clients: int) -> dict[str, Any]:
    """Import as many new clients by each way into one service, then the first ones again."""
    endpoint = start_endpoint(kind="small")
    try:
        async with running_service(endpoint.url) as service:
            # The first call pays for connections and plans; it is not what is measured.
            await service.import_clients(500, first_phone=77000000000)
            say(f"importing {clients:,} clients by stream")
            began = time.monotonic()
            imported = await service.import_clients(clients)
            seconds = time.monotonic() - began
            if imported.created != clients:
                raise BenchmarkFailed(f"{imported.created:,} of {clients:,} clients were created")
            say("importing the same again")
            began = time.monotonic()
            await service.import_clients(clients)
            again = time.monotonic() - began
            say(f"importing {clients:,} clients from CSV")
            by_csv = await file_seconds(service, clients, write_csv)
            say(f"importing {clients:,} clients from the file of a CRM")
            by_contacts = await file_seconds(service, clients, write_contacts, _MAPPING)
            stored = await service.postgres.fetchval("SELECT count(*) FROM clients")
            if stored != 3 * clients + 500:
                raise BenchmarkFailed(f"{stored:,} clients are stored, {3 * clients + 500:,} were imported")
            return {
                "bench": "import",
                "clients": clients,
                "per_s": round(clients / seconds),
                "again_per_s": round(clients / again),
                "csv_per_s": round(clients / by_csv),
                "contacts_per_s": round(clients / by_contacts),
                "rss_mb": peak_rss_mb(service.pid),
            }
    finally:
        endpoint.stop()


def main(arguments: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark with the given command-line options."""
    parser = argparse.ArgumentParser(prog="python -m bench import", description=__doc__)
    parser.add_argument("--clients", type=int, default=100_000, help="how many clients each way (100000)")
    return asyncio.run(measure(parser.parse_args(arguments).clients))
