"""The client libraries: their own checks, how their drivers are built, and how they are installed elsewhere."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from deploy import client_packages
from deploy.client_packages import CLIENTS, GO_MODULE, PACKAGES, maven_build, npm_build, version
from tests.support.wheels import Environment, pack_needed

UNREACHED = re.compile(
    "dial tcp|no such host|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|Could not transfer|Unknown host"
    "|Connection refused|Network is unreachable|Could not resolve host|failed to download"
)
"""How go, npm, Maven and cargo say that they do not reach a registry."""

GO_PROGRAM = f"""
package main

import (
	"fmt"

	"{GO_MODULE}"
)

func main() {{
	fmt.Println(mailing.MessageID(3000000, 5), mailing.Version)
}}
"""

TYPESCRIPT_PROGRAM = """
import { MailingClient, messageId, VERSION } from "mailing-client";
import { Message_Status } from "mailing-client/v1";

const client = new MailingClient("localhost:1");
client.close();
if (Message_Status.DELIVERED === 2) console.log(String(messageId(3000000n, 5n)), VERSION);
"""


JAVA_PROGRAM = """
import com.example.mailing.MailingClient;
import com.example.mailing.Values;

class Main {
  public static void main(String[] arguments) {
    try (MailingClient client = MailingClient.connect("localhost:1")) {
      System.out.println(Values.messageId(3000000, 5) + " " + MailingClient.VERSION);
    }
  }
}
"""

JAVA_POM = """
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>empty.example</groupId>
  <artifactId>empty</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <repositories><repository><id>made</id><url>{repository}</url></repository></repositories>
  <dependencies>
    <dependency>
      <groupId>com.example.mailing</groupId><artifactId>mailing-client</artifactId><version>{version}</version>
    </dependency>
  </dependencies>
</project>
"""

PYTHON_PROGRAM = """
from importlib.metadata import version

import mailing
import mailing.aio

with mailing.MailingClient.connect("127.0.0.1:1") as client:
    identity: int = mailing.message_id(3000000, 5)

async def first(client: mailing.aio.MailingClient) -> str:
    async for one in client.list_clients():
        return one.phone
    return (await client.get_client(1)).phone

print(identity, version("mailing"))
"""


@dataclass(frozen=True, slots=True)
class Language:
    """A client library.

    `check` runs its own tests and linters. `build` gets a folder for what it makes, and returns
    the words that start the driver. `example` returns those of the example that sends a mailing.
    `use` installs a package into an empty project in a folder and returns what a program there prints.
    """

    name: str
    check: Callable[[], None]
    build: Callable[[Path], list[str]]
    example: Callable[[Path], list[str]]
    use: Callable[[Path, Path], str]

    @property
    def missing(self) -> list[str]:
        """Return the tools that this machine lacks."""
        return PACKAGES[self.name].missing

    def require(self) -> None:
        """Skip the test where the tools are missing, or where they reach nobody who has what the library needs."""
        if self.missing:
            pytest.skip(f"clients/{self.name}: this machine lacks {', '.join(self.missing)}")
        if why := _out_of_reach(self.name):
            pytest.skip(f"clients/{self.name}: what it needs cannot be fetched here: {why}")


def run(*words: str, folder: Path, **environment: str) -> str:
    """Run a tool; return what it printed; fail with that when it fails."""
    ended = subprocess.run(words, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{' '.join(words)}\n{ended.stdout}{ended.stderr}"
    return ended.stdout


@functools.cache
def _out_of_reach(name: str) -> str:
    """Return what the tools say where they do not reach a registry, else nothing: other failures are the tests'."""
    fetch: dict[str, Callable[[], object]] = {
        "go": lambda: client_packages.run("go", "mod", "download", folder=CLIENTS / "go"),
        "typescript": client_packages.npm_install,
        "java": maven_build,
    }
    try:
        fetch.get(name, lambda: None)()
    except RuntimeError as error:
        return next((line.strip() for line in str(error).splitlines() if UNREACHED.search(line)), "")
    return ""


def _check_go() -> None:
    assert run("gofmt", "-l", ".", folder=CLIENTS / "go") == ""
    run("go", "vet", "./...", folder=CLIENTS / "go")
    run("go", "test", "./...", folder=CLIENTS / "go")


def _build_go(folder: Path) -> list[str]:
    program = folder / "conformance"
    run("go", "build", "-o", str(program), "./internal/conformance", folder=CLIENTS / "go")
    return [str(program)]


def _example_go(folder: Path) -> list[str]:
    program = folder / "send"
    run("go", "build", "-o", str(program), "./examples/send", folder=CLIENTS / "go")
    return [str(program)]


def _use_go(package: Path, project: Path) -> str:
    """Take the module from a folder that looks like a proxy, and what it needs from this machine or from afar."""
    cache = Path(run("go", "env", "GOMODCACHE", folder=project).strip())
    proxies = [package.parents[GO_MODULE.count("/") + 2].as_uri(), (cache / "cache" / "download").as_uri()]
    settings = {
        "GOPROXY": ",".join([*proxies, run("go", "env", "GOPROXY", folder=project).strip()]),
        "GOMODCACHE": str(project / "modules"),  # or a later package of the same version would not be seen
        "GOFLAGS": "-mod=mod -modcacherw",
        "GOSUMDB": "off",
    }
    (project / "main.go").write_text(GO_PROGRAM)
    run("go", "mod", "init", "empty.example", folder=project, **settings)
    run("go", "get", f"{GO_MODULE}@v{version()}", folder=project, **settings)
    return run("go", "run", ".", folder=project, **settings)


def _check_python() -> None:
    """Check the types of a program that uses both clients; everything else is checked with the project."""
    run(
        sys.executable,
        "-m",
        "mypy",
        "--config-file=",
        "--strict",
        "--no-incremental",
        "-c",
        PYTHON_PROGRAM,
        folder=CLIENTS / "python",
    )


def _build_python(_: Path) -> list[str]:
    return [sys.executable, str(CLIENTS / "python" / "conformance.py")]


def _build_threads(folder: Path) -> list[str]:
    return [*_build_python(folder), "--threads"]


def _example_python(_: Path) -> list[str]:
    return [sys.executable, str(CLIENTS / "python" / "examples" / "send.py")]


def _use_python(package: Path, project: Path) -> str:
    """Install the wheel from a folder, with what it needs from this environment."""
    pack_needed(["mailing"], package.parent)
    environment = Environment(project / "environment", package.parent)
    environment.install("mailing")
    ended = environment.run("python", "-c", PYTHON_PROGRAM)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def _check_typescript() -> None:
    run("node", "--test", "dist/test/mailing.test.js", folder=npm_build())


def _build_typescript(_: Path) -> list[str]:
    return ["node", str(npm_build() / "dist" / "conformance" / "main.js")]


def _example_typescript(_: Path) -> list[str]:
    return ["node", str(npm_build() / "dist" / "examples" / "send.js")]


def _use_typescript(package: Path, project: Path) -> str:
    (project / "package.json").write_text('{"private": true, "type": "module"}')
    (project / "main.js").write_text(TYPESCRIPT_PROGRAM)
    run("npm", "install", "--no-fund", "--no-audit", "--prefer-offline", str(package), folder=project)
    return run("node", "main.js", folder=project)


def _java(name: str) -> list[str]:
    """Return the words that start one of the programs beside the Java client."""
    target = maven_build() / "target"
    return ["java", "-cp", f"{target}/classes:{target}/test-classes:{target}/lib/*", f"com.example.mailing.{name}"]


def _check_java() -> None:
    run(*_java("Checks"), folder=CLIENTS / "java")


def _build_java(_: Path) -> list[str]:
    return _java("conformance.Main")


def _example_java(_: Path) -> list[str]:
    return _java("examples.Send")


def _use_java(package: Path, project: Path) -> str:
    """Let Maven resolve the jar from its repository, after this machine's cache has forgotten an earlier one."""
    shutil.rmtree(Path.home() / ".m2" / "repository" / "com" / "example" / "mailing", ignore_errors=True)
    repository = package.parents[5].as_uri()
    (project / "pom.xml").write_text(JAVA_POM.format(version=version(), repository=repository))
    (project / "Main.java").write_text(JAVA_PROGRAM)
    copy = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
    run("mvn", "-q", "-B", copy, "-DoutputDirectory=lib", folder=project)
    run("javac", "-cp", "lib/*", "Main.java", folder=project)
    return run("java", "-cp", "lib/*:.", "Main", folder=project)


def each(languages: list[Language]) -> list[object]:
    """Return the languages as parameters of a test, those of one in one worker."""
    return [pytest.param(one, id=one.name, marks=pytest.mark.xdist_group(one.name)) for one in languages]


PYTHON = Language("python", _check_python, _build_python, _example_python, _use_python)

LANGUAGES = each(
    [
        Language("go", _check_go, _build_go, _example_go, _use_go),
        Language("typescript", _check_typescript, _build_typescript, _example_typescript, _use_typescript),
        Language("java", _check_java, _build_java, _example_java, _use_java),
        PYTHON,
    ]
)

DRIVERS = [*LANGUAGES, pytest.param(replace(PYTHON, build=_build_threads), id="python-threads")]
"""The languages, and the other client of Python."""
