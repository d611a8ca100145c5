"""What `deploy/` holds fits together and fits the program: commands, settings, ports, labels, secrets, files."""

from __future__ import annotations

import fnmatch
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.docker.image import DOCKERFILE, Stage, command, stages
from server.config import load
from server.config.problems import unknown_variables
from server.config.settings import Settings, is_secret, variables_of
from server.config.sources import FILE_VARIABLE
from tests.support.command_lines import understood
from tests.support.project import ROOT

DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose" / "compose.yaml"
UNIT = (DEPLOY / "systemd" / "mailing.service").read_text(encoding="utf-8")
HARDENED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def unknown_settings(names: Iterator[str]) -> list[str]:
    pointers = {f"{variables_of(name)[0]}_FILE" for name in Settings.model_fields if is_secret(name)}
    known = {*pointers, FILE_VARIABLE, *(one for name in Settings.model_fields for one in variables_of(name))}
    given = [name for name in names if name.startswith(("MAILING_", "POSTGRES_"))]
    return unknown_variables(given, known) + [name for name in given if name[0] == "P" and name not in known]


class TestImage:
    FOUND = stages(DOCKERFILE.read_text(encoding="utf-8"))

    def sources(self) -> list[str]:
        copied = [rest.split()[:-1] for stage in self.FOUND for keyword, rest in stage.steps if keyword == "COPY"]
        return [source for words in copied if not words[0].startswith("--from") for source in words]

    def test_what_is_copied_exists_and_is_sent_to_the_builder(self) -> None:
        lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
        sent = [line[1:] for line in lines if line.startswith("!")]
        assert lines[0] == "*"
        assert [one for one in self.sources() if not (ROOT / one).exists() or one not in sent] == []

    def test_it_runs_as_nobody_in_particular(self) -> None:
        uid, _, gid = self.FOUND[-1].last("USER").partition(":")
        assert int(uid) > 1000
        assert int(gid) > 1000

    def test_its_commands_are_those_of_the_program(self) -> None:
        last = self.FOUND[-1]
        program = command(last.last("ENTRYPOINT"))
        assert program == ["/opt/mailing/bin/mailing-server"]
        assert understood([*program, *command(last.last("CMD"))]) == "serve"
        assert understood(command(last.last("HEALTHCHECK"))) == "health"

    def test_the_rehearsal_refuses_what_it_would_not_carry_out(self) -> None:
        with pytest.raises(ValueError, match="ADD"):
            stages("FROM scratch\nADD a b")
        assert stages("# c\nFROM a AS b\nRUN one && \\\n    two\n") == [Stage("b", [("RUN", "one &&      two")])]

    def test_its_packages_are_locked_like_those_that_are_tested(self) -> None:
        """Fails when `make lock` wrote only one of the two, and when a dependency is missing."""
        ours, all_of_them = (
            dict(
                re.findall(r"^([a-z0-9-]+)(?:\[[a-z0-9,-]+\])?==(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)
            )
            for path in (DEPLOY / "docker" / "requirements.lock", ROOT / "requirements.lock")
        )
        assert {name: all_of_them.get(name) for name in ours} == ours
        wanted = [
            name
            for project in (ROOT, ROOT / "clients" / "python")
            for name in tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"][
                "dependencies"
            ]
        ]
        names = {re.split(r"[\[><=; ]", one)[0].lower() for one in wanted}
        assert names - ours.keys() == {"mailing"}


class TestCompose:
    CONTENT: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))

    def test_the_service_s_command_and_settings_are_known(self) -> None:
        service = self.CONTENT["services"]["mailing"]
        assert understood(["mailing-server", *service["command"]]) == "serve"
        assert unknown_settings(iter(service["environment"])) == []

    def test_the_console_is_off_unless_its_profile_is_on(self) -> None:
        console = self.CONTENT["services"]["console"]
        assert console["profiles"] == ["console"]
        assert understood(["mailing-server", *console["command"]]) == "console"
        assert [name for name, one in self.CONTENT["services"].items() if "profiles" in one] == ["console"]

    def test_every_file_that_is_mounted_exists(self) -> None:
        services = self.CONTENT["services"].values()
        mounted = [volume.split(":")[0] for service in services for volume in service.get("volumes", [])]
        paths = [path for path in mounted if path.startswith(".")]
        assert [path for path in paths if not (COMPOSE.parent / path).exists()] == []
        assert {name for name in mounted if not name.startswith(".")} == set(self.CONTENT["volumes"])

    def test_no_password_comes_with_it(self) -> None:
        """Fails when a password is written into the project."""
        head = COMPOSE.read_text(encoding="utf-8").partition("\nname:")[0]
        files = [secret["file"].removeprefix("./") for secret in self.CONTENT["secrets"].values()]
        assert [name for name in files if f"> deploy/compose/{name}" not in head] == []
        ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
        assert {f"deploy/compose/{name}" for name in files} <= set(ignored)

    def test_every_container_drops_what_it_does_not_need(self) -> None:
        services = self.CONTENT["services"].items()
        assert [name for name, one in services if one.get("cap_drop") != ["ALL"]] == []
        assert [name for name, one in services if "no-new-privileges:true" not in one.get("security_opt", [])] == []

    def test_ports_are_published_to_this_machine_only(self) -> None:
        ports = [port for service in self.CONTENT["services"].values() for port in service.get("ports", [])]
        assert ports
        assert all(str(port).startswith("127.0.0.1:") for port in ports)


FILES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
OBJECTS: list[dict[str, Any]] = [
    one for path in FILES for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if "metadata" in one
]
PODS = [one["spec"]["template"] for one in OBJECTS if one["kind"] in ("Deployment", "Job")]


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [one for one in OBJECTS if one["kind"] == kind]


class TestKubernetes:
    def test_the_kustomization_has_every_file_but_the_example_of_a_secret(self) -> None:
        listed = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
        assert sorted([*listed, "kustomization.yaml", "secret.example.yaml"]) == [path.name for path in FILES]

    @pytest.mark.parametrize("pod", PODS, ids=lambda pod: pod["metadata"]["labels"]["app.kubernetes.io/component"])
    def test_a_pod_has_no_more_rights_than_it_needs_and_known_settings(self, pod: dict[str, Any]) -> None:
        spec, (container,) = pod["spec"], pod["spec"]["containers"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert f"{spec['securityContext']['runAsUser']}" in TestImage.FOUND[-1].last("USER")
        assert container["securityContext"] == HARDENED
        assert not spec["automountServiceAccountToken"]
        assert unknown_settings(one["name"] for one in container["env"]) == []
        assert understood(["mailing-server", *container["args"]]) in ("serve", "dispatcher", "migrate")

    def test_the_settings_of_the_config_map_can_be_used(self, tmp_path: Path) -> None:
        (config,) = of_kind("ConfigMap")
        (tmp_path / "mailing.toml").write_text(config["data"]["mailing.toml"])
        settings = load(tmp_path / "mailing.toml").settings
        (port,) = [
            one["containerPort"] for pod in PODS for one in pod["spec"]["containers"][0].get("ports", [])
            if one["name"] == "grpc"
        ]  # fmt: skip
        assert settings.listen.endswith(f":{port}")

    def test_secrets_and_settings_that_pods_read_are_there(self) -> None:
        (config,) = of_kind("ConfigMap")
        secrets = {one["metadata"]["name"]: one["stringData"] for one in of_kind("Secret")}
        folders = {"/run/secrets/mailing": secrets["mailing"], "/run/secrets/tls": secrets["mailing-tls"]}
        for pod in PODS:
            for one in pod["spec"]["containers"][0]["env"]:
                folder, _, name = one["value"].rpartition("/")
                assert name in folders.get(folder, config["data"])

    def test_a_pod_gets_the_secrets_that_it_reads_and_no_other(self) -> None:
        """Fails when a migration can read the tokens of callers."""
        for pod in PODS:
            read = {one["value"].rpartition("/")[2] for one in pod["spec"]["containers"][0]["env"]}
            (volume,) = [one["secret"] for one in pod["spec"]["volumes"] if one["name"] == "secrets"]
            assert {item["key"] for item in volume["items"]} == read - {"mailing.toml", "tls.crt", "tls.key"}

    def test_selectors_find_pods_and_ports_have_their_names(self) -> None:
        """Fails for a label or port name that is misspelled on either side."""
        ports = {port["name"] for pod in PODS for port in pod["spec"]["containers"][0].get("ports", [])}
        (policy,), (monitor,), (service,) = of_kind("NetworkPolicy"), of_kind("PodMonitor"), of_kind("Service")
        named = [port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]]
        named += [one["port"] for one in monitor["spec"]["podMetricsEndpoints"]]
        named += [one["targetPort"] for one in service["spec"]["ports"]]
        for pod in PODS:
            probes = [probe for key, probe in pod["spec"]["containers"][0].items() if key.endswith("Probe")]
            named += [probe["httpGet"]["port"] for probe in probes]
        assert set(named) == ports
        selectors = [policy["spec"]["podSelector"]["matchLabels"], service["spec"]["selector"]]
        selectors += [one["spec"]["selector"]["matchLabels"] for one in of_kind("PodDisruptionBudget")]
        selectors += [one["spec"]["selector"]["matchLabels"] for one in of_kind("Deployment")]
        for selector in selectors:
            assert any(selector.items() <= pod["metadata"]["labels"].items() for pod in PODS), selector

    def test_the_autoscaler_scales_what_is_there_and_nobody_else_counts_it(self) -> None:
        (scaler,) = of_kind("HorizontalPodAutoscaler")
        target = scaler["spec"]["scaleTargetRef"]
        (scaled,) = [one for one in of_kind(target["kind"]) if one["metadata"]["name"] == target["name"]]
        assert "replicas" not in scaled["spec"]


class TestChart:
    FOLDER = DEPLOY / "helm" / "mailing"
    VALUES: dict[str, Any] = yaml.safe_load((FOLDER / "values.yaml").read_text(encoding="utf-8"))
    TEXT = "\n".join(path.read_text(encoding="utf-8") for path in sorted((FOLDER / "templates").iterdir()))

    def value(self, path: str) -> Any:
        found: Any = self.VALUES
        for name in path.split("."):
            found = found[name]
        return found

    def test_it_has_the_version_of_the_project(self) -> None:
        chart = yaml.safe_load((self.FOLDER / "Chart.yaml").read_text(encoding="utf-8"))
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        assert [chart["version"], chart["appVersion"]] == [project["version"]] * 2

    def test_every_value_is_used_and_there(self) -> None:
        """Fails for a name that is misspelled on either side."""
        used = {path.rstrip(".") for path in re.findall(r"\.Values\.([\w.]+)", self.TEXT)}
        assert [path for path in used if self.value(path) is None] == []
        leaves = {
            f"{name}.{inner}" for name, value in self.VALUES.items() if isinstance(value, dict) for inner in value
        }
        assert [leaf for leaf in leaves if not {leaf, leaf.partition(".")[0]} & used] == []

    def test_its_pods_are_as_hardened_as_the_manifests(self) -> None:
        names = re.findall(r"name: (MAILING_\w+)", self.TEXT)
        assert set(names) == {one["name"] for pod in PODS for one in pod["spec"]["containers"][0]["env"]}
        for line in ("readOnlyRootFilesystem: true", "capabilities: {drop: [ALL]}", "runAsNonRoot: true"):
            assert line in self.TEXT
        commands = re.findall(r"args: \[(\w+)", self.TEXT)
        assert commands == ["dispatcher", "serve"]

    @pytest.mark.parametrize(
        "options",
        [[], ["ingress.enabled=true", "autoscaling.enabled=true", "podMonitor.enabled=true", "image.digest=sha256:ab"]],
        ids=["as it comes", "with everything"],
    )
    def test_it_renders(self, options: list[str]) -> None:
        """Where Helm is installed."""
        if (helm := shutil.which("helm")) is None:
            pytest.skip("there is no helm on this machine")
        sets = [word for one in options for word in ("--set", one)]
        command = [helm, "template", "mailing", str(self.FOLDER), "--kube-version", "1.33.0", *sets]
        rendered = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        kinds = [one["kind"] for one in yaml.safe_load_all(rendered) if one]
        assert kinds.count("Deployment") == 2
        assert ("Ingress" in kinds) == bool(options)


class TestConsole:
    FOLDER = DEPLOY / "kubernetes" / "console"
    OBJECTS: tuple[dict[str, Any], ...] = tuple(
        yaml.safe_load_all((FOLDER / "console.yaml").read_text(encoding="utf-8"))
    )

    def one(self, kind: str) -> dict[str, Any]:
        (found,) = [one for one in self.OBJECTS if one["kind"] == kind]
        return found

    def test_it_is_applied_by_itself_only(self) -> None:
        resources = yaml.safe_load((self.FOLDER / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
        assert resources == ["console.yaml"]
        assert "console" not in (DEPLOY / "kubernetes" / "kustomization.yaml").read_text(encoding="utf-8")

    def test_its_pod_has_no_more_rights_than_it_needs_and_known_settings(self) -> None:
        spec = self.one("Deployment")["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        assert container["securityContext"] == HARDENED
        assert spec["securityContext"]["runAsNonRoot"]
        assert unknown_settings(one["name"] for one in container["env"]) == []
        assert understood(["mailing-server", *container["args"]]) == "console"

    def test_it_is_found_by_its_service_and_may_call_the_api(self) -> None:
        labels = self.one("Deployment")["spec"]["template"]["metadata"]["labels"]
        service, ingress, policy = self.one("Service"), self.one("Ingress"), self.one("NetworkPolicy")
        (path,) = ingress["spec"]["rules"][0]["http"]["paths"]
        assert service["spec"]["selector"].items() <= labels.items()
        assert path["backend"]["service"]["name"] == service["metadata"]["name"]
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
        (allowed,) = of_kind("NetworkPolicy")[0]["spec"]["ingress"][0]["from"]
        assert allowed["podSelector"]["matchLabels"].items() <= labels.items()


class TestCluster:
    """The examples of a cluster, beside the rest."""

    FOLDER = DEPLOY / "kubernetes" / "cluster"
    COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose" / "cluster.yaml").read_text(encoding="utf-8"))
    OBJECTS: tuple[dict[str, Any], ...] = tuple(
        yaml.safe_load_all(
            "\n---\n".join(
                (DEPLOY / "kubernetes" / "cluster" / name).read_text(encoding="utf-8")
                for name in ("citus.yaml", "layout.yaml")
            )
        )
    )
    SETS: tuple[dict[str, Any], ...] = tuple(one for one in OBJECTS if one["kind"] == "StatefulSet")
    JOB: dict[str, Any] = next(one for one in OBJECTS if one["kind"] == "Job")["spec"]["template"]["spec"]

    def images(self) -> set[str]:
        containers = [pod["spec"]["template"]["spec"]["containers"][0] for pod in self.SETS]
        containers += self.JOB["initContainers"]
        beside = [one.get("image", "") for one in self.COMPOSE["services"].values()]
        return {
            one for one in (*beside, *(container["image"] for container in containers)) if one not in ("", "mailing")
        }

    def test_all_nodes_are_of_one_exact_release(self) -> None:
        (image,) = self.images()
        assert re.fullmatch(r"citusdata/citus:\d+\.\d+\.\d+", image)

    def test_tables_are_laid_out_before_the_service_starts(self) -> None:
        services = self.COMPOSE["services"]
        assert understood(["mailing-server", *services["migrate"]["command"]]) == "migrate"
        assert unknown_settings(iter(services["migrate"]["environment"])) == []
        assert list(services["migrate"]["depends_on"]) == ["nodes"]
        assert list(services["mailing"]["depends_on"]) == ["migrate"]
        (container,) = self.JOB["containers"]
        assert understood(["mailing-server", *container["args"]]) == "migrate"
        assert unknown_settings(one["name"] for one in container["env"]) == []
        assert "--distribute" in container["args"]
        assert "--distribute" in services["migrate"]["command"]

    def test_every_worker_is_made_known_by_the_name_it_has(self) -> None:
        (sets, names) = ({one["metadata"]["name"]: one["spec"] for one in self.SETS}, self.JOB["initContainers"][0])
        workers = re.findall(r"citus_add_node\('([\w.-]+)'", " ".join(names["args"]))
        spec = sets["citus-worker"]
        assert workers == [f"citus-worker-{n}.{spec['serviceName']}" for n in range(spec["replicas"])]
        services = {one["metadata"]["name"] for one in self.OBJECTS if one["kind"] == "Service"}
        assert {one["serviceName"] for one in sets.values()} == services
        told = re.findall(r"citus_add_node\('([\w-]+)'", " ".join(self.COMPOSE["services"]["nodes"]["command"]))
        assert told == [name for name in self.COMPOSE["services"] if name.startswith("worker")]

    def test_nodes_can_commit_together(self) -> None:
        for words in (
            self.COMPOSE["services"]["worker-1"]["command"],
            *(one["spec"]["template"]["spec"]["containers"][0]["args"] for one in self.SETS),
        ):
            given = dict(word.split("=") for word in words if "=" in word)
            assert int(given["max_prepared_transactions"]) >= 2 * int(given["max_connections"])
            assert given["wal_level"] == "logical"

    def test_nothing_has_more_rights_than_it_needs(self) -> None:
        pods = [*(one["spec"]["template"]["spec"] for one in self.SETS), self.JOB]
        for pod in pods:
            assert pod["securityContext"]["runAsNonRoot"]
            assert not pod["automountServiceAccountToken"]
            assert all(one["securityContext"] == HARDENED for one in pod["containers"] + pod.get("initContainers", []))
        services = {name: one for name, one in self.COMPOSE["services"].items() if "image" in one}
        assert [name for name, one in services.items() if one["cap_drop"] != ["ALL"]] == []
        assert [name for name, one in services.items() if one["security_opt"] != ["no-new-privileges:true"]] == []

    def test_it_is_applied_by_itself_only(self) -> None:
        listed = yaml.safe_load((self.FOLDER / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
        assert sorted([*listed, "kustomization.yaml"]) == sorted(path.name for path in self.FOLDER.glob("*.yaml"))
        assert "cluster" not in (DEPLOY / "kubernetes" / "kustomization.yaml").read_text(encoding="utf-8")

    def test_volumes_are_those_that_are_mounted(self) -> None:
        mounted = [one.split(":")[0] for node in self.COMPOSE["services"].values() for one in node.get("volumes", [])]
        assert set(mounted) == set(self.COMPOSE["volumes"])


class TestUnit:
    def test_its_command_and_settings_are_known(self) -> None:
        (start,) = re.findall(r"^ExecStart=(.*)$", UNIT, re.MULTILINE)
        assert understood(start) == "serve"
        environment = shlex.split(" ".join(re.findall(r"^Environment=(.*)$", UNIT, re.MULTILINE)))
        assert unknown_settings(one.partition("=")[0] for one in environment) == []

    @pytest.mark.parametrize(
        "line",
        ["DynamicUser=yes", "NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet=", "ProtectHome=yes"],
    )
    def test_it_is_hardened(self, line: str) -> None:
        assert fnmatch.filter(UNIT.splitlines(), line)
