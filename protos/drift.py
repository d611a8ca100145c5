"""Says whether the committed generated code is what the protos generate now.

Generates into a temporary folder and compares file by file; changes nothing. The protos of
google/api, which stand here so that buf needs no network, are compared with those of the
installed googleapis-common-protos. Run from anywhere: `python protos/drift.py`. Ends with 1
when anything differs.
"""

import os
import subprocess
import sys
import tempfile
from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def generated_files(folder: Path) -> dict[str, bytes]:
    """Return the content of every generated file under `folder`, by its relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for pattern in GENERATED
        for path in folder.rglob(pattern)
    }


def differences(committed: Path, fresh: Path) -> list[str]:
    """Return one sentence per file that is missing, left over or different."""
    old, new = generated_files(committed), generated_files(fresh)
    found = [f"{name} is missing" for name in sorted(new.keys() - old.keys())]
    found += [f"{name} is left over from a proto that is gone" for name in sorted(old.keys() - new.keys())]
    found += [f"{name} is out of date" for name in sorted(old.keys() & new.keys()) if old[name] != new[name]]
    return found


def drift(root: Path = ROOT) -> list[str]:
    """Return the differences of the checkout at `root`.

    Raise RuntimeError when the protos do not generate.
    """
    with tempfile.TemporaryDirectory() as folder:
        # buf and its plugins stand beside the interpreter, whether or not its folder is on PATH.
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        command = ["buf", "generate", "--output", folder]
        run = subprocess.run(command, cwd=root, env=environment, stderr=subprocess.PIPE, text=True, check=False)  # noqa: S603
        if run.returncode:
            raise RuntimeError(f"the protos do not generate: {run.stderr}")
        return differences(root / "clients" / "python", Path(folder, "clients", "python"))


def copied_differences(copies: Path, originals: Path) -> list[str]:
    """Return one sentence per proto under `copies` that is not byte for byte what `originals` has."""
    names = sorted(path.relative_to(copies).as_posix() for path in copies.rglob("*.proto"))
    same = {name for name in names if (originals / name).is_file() and _equal(copies / name, originals / name)}
    return [f"google/{name} differs from googleapis-common-protos" for name in names if name not in same]


def _equal(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


def copied_drift(root: Path = ROOT) -> list[str]:
    """Return how the checkout's copies of Google's protos differ from the installed package."""
    installed = Path(str(distribution("googleapis-common-protos").locate_file("google")))
    return copied_differences(root / "protos" / "google", installed)


def main() -> None:
    """Print every difference and how to mend it."""
    generated, copied = drift(), copied_drift()
    for sentence in generated + copied:
        print(sentence, file=sys.stderr)
    if copied:
        sys.exit("Copy these protos from the installed googleapis-common-protos, then run `make generate`.")
    if generated:
        sys.exit("Run `make generate` and commit the result.")


if __name__ == "__main__":
    main()
