"""The client libraries: their own checks, how their drivers are built, and how they are installed elsewhere."""

from __future__ import annotations

import atexit
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from deploy import client_packages
from deploy.client_packages import CLIENTS, GO_MODULE, PACKAGES, maven_built, npm_built, version
from tests.support.wheels import Environment, pack_needed

UNREACHED = re.compile(
    "dial tcp|no such host|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|Could not transfer|Unknown host"
    "|Connection refused|Network is unreachable|Could not resolve host|failed to download"
)
"""How go, npm, Maven and cargo say that they do not reach a registry."""

JAVA_POM = """
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>empty.example</groupId>
  <artifactId>empty</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <repositories>
    <repository><id>made</id><url>{repository}</url></repository>
    <repository><id>fetched</id><url>{fetched}</url></repository>
  </repositories>
  <pluginRepositories><pluginRepository><id>fetched</id><url>{fetched}</url></pluginRepository></pluginRepositories>
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
    Both run where no later build changes anything: a program loads its parts when it first needs them.
    `use` installs a package into an empty project in a folder, and returns the words that start a program there.
    """

    name: str
    check: Callable[[], None]
    build: Callable[[Path], list[str]]
    example: Callable[[Path], list[str]]
    use: Callable[[Path, Path, str], list[str]]

    @property
    def first_program(self) -> str:
        """Return the program that the library's page begins with."""
        page = (CLIENTS / self.name / "README.md").read_text(encoding="utf-8")
        program = re.search(r"^```(?:go|ts|java|python)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        assert program, f"clients/{self.name}/README.md has no program"
        return program[1]

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
        "java": _java_home,
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


def _use_go(package: Path, project: Path, program: str) -> list[str]:
    """Take the module from a folder that looks like a proxy, and what it needs from this machine or from afar."""
    cache = Path(run("go", "env", "GOMODCACHE", folder=project).strip())
    proxies = [package.parents[GO_MODULE.count("/") + 2].as_uri(), (cache / "cache" / "download").as_uri()]
    settings = {
        "GOPROXY": ",".join([*proxies, run("go", "env", "GOPROXY", folder=project).strip()]),
        "GOMODCACHE": str(project / "modules"),  # or a later package of the same version would not be seen
        "GOFLAGS": "-mod=mod -modcacherw",
        "GOSUMDB": "off",
        "GODEBUG": "goindex=0",  # which remembers the imports of an earlier package in a folder of the same name
    }
    (project / "main.go").write_text(program)
    run("go", "mod", "init", "empty.example", folder=project, **settings)
    run("go", "get", f"{GO_MODULE}@v{version()}", folder=project, **settings)
    run("go", "build", "-o", "program", ".", folder=project, **settings)
    return [str(project / "program")]


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


def _use_python(package: Path, project: Path, program: str) -> list[str]:
    """Install the wheel from a folder, with what it needs from this environment."""
    pack_needed(["mailing"], package.parent)
    environment = Environment(project / "environment", package.parent)
    environment.install("mailing")
    (project / "program.py").write_text(program)
    return [str(environment.python), str(project / "program.py")]


def _kept_copy(source: Path, parts: list[str]) -> Path:
    """Copy parts of a build into a folder that lasts as long as this process."""
    kept = Path(tempfile.mkdtemp(prefix="mailing-client-"))
    atexit.register(shutil.rmtree, kept, ignore_errors=True)
    for part in parts:
        shutil.copytree(source / part, kept / part)
    return kept


@functools.cache
def _node_home() -> Path:
    """Compile the TypeScript client, once, and return a folder with its programs."""
    with npm_built() as source:
        home = _kept_copy(source, ["dist"])
        shutil.copy(source / "package.json", home)
        (home / "node_modules").symlink_to(source / "node_modules")
    return home


def _check_typescript() -> None:
    run("node", "--test", "dist/test/mailing.test.js", folder=_node_home())


def _build_typescript(_: Path) -> list[str]:
    return ["node", str(_node_home() / "dist" / "conformance" / "main.js")]


def _example_typescript(_: Path) -> list[str]:
    return ["node", str(_node_home() / "dist" / "examples" / "send.js")]


def _use_typescript(package: Path, project: Path, program: str) -> list[str]:
    """Check the program's types as well: it is TypeScript and JavaScript at once."""
    (project / "package.json").write_text('{"private": true}')
    for name in ("program.mjs", "program.mts"):
        (project / name).write_text(program)
    run("npm", "install", "--no-fund", "--no-audit", "--prefer-offline", str(package), folder=project)
    compiler = CLIENTS / "typescript" / "node_modules" / "typescript" / "bin" / "tsc"
    words = ["--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "program.mts"]
    run("node", str(compiler), *words, folder=project)
    return ["node", str(project / "program.mjs")]


@functools.cache
def _java_home() -> Path:
    """Compile the Java client, once, and return a folder with its classes and what they need."""
    with maven_built() as source:
        return _kept_copy(source / "target", ["classes", "test-classes", "lib"])


def _java(name: str) -> list[str]:
    """Return the words that start one of the programs beside the Java client."""
    home = _java_home()
    return ["java", "-cp", f"{home}/classes:{home}/test-classes:{home}/lib/*", f"com.example.mailing.{name}"]


def _check_java() -> None:
    run(*_java("Checks"), folder=CLIENTS / "java")
    home, sources = _java_home(), (CLIENTS / "java" / "src" / "main" / "java").rglob("*.java")
    words = ["-quiet", "-Werror", "-d", str(home / "doc"), "-cp", f"{home}/classes:{home}/lib/*"]
    run("javadoc", *words, *map(str, sources), folder=CLIENTS / "java")


def _build_java(_: Path) -> list[str]:
    return _java("conformance.Main")


def _example_java(_: Path) -> list[str]:
    return _java("examples.Send")


def _use_java(package: Path, project: Path, program: str) -> list[str]:
    """Let Maven resolve the jar from its repository, and the rest from what this machine has fetched, or from afar."""
    repository, fetched = package.parents[5].as_uri(), (Path.home() / ".m2" / "repository").as_uri()
    (project / "pom.xml").write_text(JAVA_POM.format(version=version(), repository=repository, fetched=fetched))
    (project / "Main.java").write_text(program)
    copy = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
    # With a cache of its own, or a later package of the same version would not be seen.
    run("mvn", "-q", "-B", f"-Dmaven.repo.local={project}/cache", copy, "-DoutputDirectory=lib", folder=project)
    run("javac", "-Xlint:all", "-Werror", "-cp", "lib/*", "Main.java", folder=project)
    return ["java", "-cp", f"{project}/lib/*:{project}", "Main"]


PYTHON = Language("python", _check_python, _build_python, _example_python, _use_python)

LANGUAGES = [
    pytest.param(one, id=one.name)
    for one in (
        Language("go", _check_go, _build_go, _example_go, _use_go),
        Language("typescript", _check_typescript, _build_typescript, _example_typescript, _use_typescript),
        Language("java", _check_java, _build_java, _example_java, _use_java),
        PYTHON,
    )
]

DRIVERS = [*LANGUAGES, pytest.param(replace(PYTHON, build=_build_threads), id="python-threads")]
"""The languages, and the other client of Python."""
