"""A kubeconfig means what it means to kubectl: each field of docs/kubeconfig.md has its effect, or is refused."""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from extender.cli import main
from extender.kube.api_client import KubeClient
from extender.kube.errors import ConfigurationProblem
from extender.kube.exec_plugin import ExecConfig
from extender.kube.kubeconfig import kubeconfig_access
from extender.kube.kubeconfig_fields import Cluster, Context, User
from tests.fakes.apiserver import FakeApiServer

PAGE = Path(__file__).parents[2] / "docs" / "kubeconfig.md"
API = "client.authentication.k8s.io/v1"
PLUGIN = f"""#!{sys.executable}
import json, os, sys
said = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
server = said["spec"].get("cluster", {{}}).get("server", "-")
token = ",".join([*sys.argv[1:], os.environ.get("MORE", "-"), server])
print(json.dumps(dict(apiVersion=said["apiVersion"], kind="ExecCredential", status=dict(token=token))))
"""
EXEC = {"apiVersion": API, "command": "./plugin"}
PAIR = {"client-certificate": "pem", "client-key": "pem"}
DATA = base64.b64encode(b"data").decode()

Facts = dict[str, object]
Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a field is given, what has to stand beside it, and what it changes. A string: the refusal, as a pattern."""

    value: object
    changes: Facts | str
    beside: Json = field(default_factory=dict)


CASES: dict[str, Case] = {
    "cluster.server": Case(value="https://y/z/", changes={"server": "https://y/z"}),
    "cluster.certificate-authority": Case(value="pem", changes={"ca": b"pem"}),
    "cluster.certificate-authority-data": Case(value=DATA, changes={"ca": b"data"}),
    "cluster.insecure-skip-tls-verify": Case(value=True, changes={"verify": False}),
    "cluster.tls-server-name": Case(value="api.test", changes={"server name": "api.test"}),
    "cluster.proxy-url": Case(value="http://proxy:1", changes={"proxy": "http://proxy:1"}),
    "cluster.disable-compression": Case(value=True, changes={}),
    "user.client-certificate": Case(
        value="pem", changes={"certificate": b"pem", "key": b"pem"}, beside={"user": {"client-key": "pem"}}
    ),
    "user.client-certificate-data": Case(
        value=DATA, changes={"certificate": b"data", "key": b"pem"}, beside={"user": {"client-key": "pem"}}
    ),
    "user.client-key": Case(
        value="pem", changes={"certificate": b"pem", "key": b"pem"}, beside={"user": {"client-certificate": "pem"}}
    ),
    "user.client-key-data": Case(
        value=DATA, changes={"certificate": b"pem", "key": b"data"}, beside={"user": {"client-certificate": "pem"}}
    ),
    "user.token": Case(value="t", changes={"authorization": "Bearer t"}),
    "user.tokenFile": Case(value="pem", changes={"authorization": "Bearer pem"}, beside={"user": {"token": "t"}}),
    "user.username": Case(value="u", changes={"authorization": "Basic dTo="}),
    "user.password": Case(value="p", changes={"authorization": "Basic dTpw"}, beside={"user": {"username": "u"}}),
    "user.as": Case(value="jane", changes={"headers": [("Impersonate-User", "jane")]}),
    "user.as-uid": Case(
        value="7",
        changes={"headers": [("Impersonate-User", "jane"), ("Impersonate-Uid", "7")]},
        beside={"user": {"as": "jane"}},
    ),
    "user.as-groups": Case(
        value=["a", "b"],
        changes={"headers": [("Impersonate-User", "jane"), ("Impersonate-Group", "a"), ("Impersonate-Group", "b")]},
        beside={"user": {"as": "jane"}},
    ),
    "user.as-user-extra": Case(
        value={"example.org/why%": ["x", "y"]},
        changes={
            "headers": [
                ("Impersonate-User", "jane"),
                ("Impersonate-Extra-example.org%2Fwhy%25", "x"),
                ("Impersonate-Extra-example.org%2Fwhy%25", "y"),
            ]
        },
        beside={"user": {"as": "jane"}},
    ),
    "user.auth-provider": Case(value={"name": "oidc", "config": {}}, changes="auth-provider 'oidc' is not supported"),
    "user.exec": Case(value=EXEC, changes={"authorization": "Bearer -,-"}),
    "exec.apiVersion": Case(value=f"{API}alpha1", changes="exec.apiVersion is .*v1alpha1"),
    "exec.command": Case(value="bin/other", changes={"authorization": "Bearer -,-"}),
    "exec.args": Case(value=["a", "b"], changes={"authorization": "Bearer a,b,-,-"}),
    "exec.env": Case(value=[{"name": "MORE", "value": "m"}], changes={"authorization": "Bearer m,-"}),
    "exec.installHint": Case(value="get it there", changes="get it there", beside={"exec": {"command": "./none"}}),
    "exec.provideClusterInfo": Case(value=True, changes={"authorization": "Bearer -,https://x"}),
    "exec.interactiveMode": Case(value="Always", changes="needs a terminal"),
    "context.cluster": Case(value="other", changes="names the cluster 'other', which is not there"),
    "context.user": Case(value="other", changes="names the user 'other', which is not there"),
    "context.namespace": Case(value="there", changes={"namespace": "there"}),
    "current-context": Case(value="other", changes="no context 'other'"),
    "clusters": Case(value=[], changes="names the cluster 'k', which is not there"),
    "users": Case(value=[], changes="names the user 'u', which is not there"),
    "contexts": Case(value=[], changes="no context 'c'"),
    "preferences": Case(value={"colors": True}, changes={}),
    "extensions": Case(value=[{"name": "e", "extension": {}}], changes={}),
    "kind": Case(value="Config", changes={}),
    "apiVersion": Case(value="v1", changes={}),
}


def documented() -> dict[str, str]:
    """The fields of the page, and what it says of them."""
    found: dict[str, str] = {}
    for names, word in re.findall(r"^\| (`.+?) \| (.*?) \|", PAGE.read_text(), re.MULTILINE):
        found |= dict.fromkeys(re.findall(r"`([^`]+)`", names), word)
    return found


def kubeconfig(folder: Path, name: str = "", value: object = None, beside: Mapping[str, Json] | None = None) -> Path:
    """A kubeconfig with context c, cluster k and user u, and one more field."""
    (folder / "pem").write_text("pem")
    (folder / "bin").mkdir(exist_ok=True)
    for plugin in (folder / "plugin", folder / "bin" / "other"):
        plugin.write_text(PLUGIN)
        plugin.chmod(0o755)
    parts: dict[str, Json] = {"cluster": {"server": "https://x"}, "user": {}, "context": {"cluster": "k", "user": "u"}}
    part, _, key = name.rpartition(".")
    if part == "exec":
        parts["user"]["exec"] = {**EXEC, **(beside or {}).get("exec", {}), key: value}
    elif part:
        parts[part] |= {**(beside or {}).get(part, {}), key: value}
    tree: Json = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": parts["context"]}],
        "clusters": [{"name": "k", "cluster": parts["cluster"]}],
        "users": [{"name": "u", "user": parts["user"]}],
    }
    if name and not part:
        tree[name] = value
    path = folder / "config"
    path.write_text(json.dumps(tree))
    return path


async def facts(path: Path) -> Facts:
    """All that a request is made with."""
    access = kubeconfig_access(str(path), None, {})
    try:
        credential = await access.credential()
        bytes_of: Callable[[Path | None], bytes | None] = lambda file: None if file is None else file.read_bytes()  # noqa: E731
        return {
            "server": access.server,
            "namespace": access.namespace,
            "ca": bytes_of(access.ca_file),
            "verify": access.verify,
            "server name": access.server_name,
            "proxy": access.proxy,
            "headers": list(access.headers),
            "authorization": credential.authorization,
            "certificate": bytes_of(credential.cert_file),
            "key": bytes_of(credential.key_file),
        }
    finally:
        access.files.close()


def test_every_field_has_a_line_on_the_page_and_a_case_here() -> None:
    assert documented().keys() == CASES.keys()
    for part, struct in (("cluster", Cluster), ("user", User), ("context", Context), ("exec", ExecConfig)):
        known = {f"{part}.{name}" for name in struct.__struct_encode_fields__} - {"user.extensions"}
        assert known == {name for name in CASES if name.startswith(f"{part}.")}
    assert set(documented().values()) == {"honoured", "always", "refused", "no effect"}


@pytest.mark.parametrize("name", CASES)
async def test_each_field_does_what_the_page_says(tmp_path: Path, name: str) -> None:
    """Exactly one thing changes, the documented one, or one line says what is wrong."""
    case = CASES[name]
    before = await facts(kubeconfig(tmp_path))
    path = kubeconfig(tmp_path, name, case.value, case.beside)
    if isinstance(case.changes, str):
        with pytest.raises(ConfigurationProblem, match=case.changes) as caught:
            await facts(path)
        assert "\n" not in str(caught.value)
        return
    after = await facts(path)
    assert {key: value for key, value in after.items() if value != before[key]} == case.changes
    assert bool(case.changes) == (documented()[name] == "honoured")


@pytest.mark.parametrize(
    ("part", "fields", "expected"),
    [
        ("user", {"as-groups": ["system:masters"]}, "as, the user, which is missing"),
        ("user", {"as": "", "as-uid": "7"}, "as, the user, which is missing"),
        ("user", {"as": "jane\r\nX: y"}, "no plain text"),
        ("user", {"as": "jane", "as-groups": [" a"]}, "no plain text"),
        ("user", {"as": ["jane"]}, "Expected `str"),
        ("user", {"as-someone": "jane"}, "unknown field `as-someone`"),
        ("user", {"token": "t", "username": "u"}, "take one of them away"),
        ("user", {"tokenFile": "pem", "username": "u"}, "take one of them away"),
        ("user", {"password": "p"}, "password without username"),
        ("user", {"client-certificate": "pem"}, "one of them is missing"),
        ("user", {"client-key": "pem"}, "one of them is missing"),
        ("user", {**PAIR, "client-key-data": DATA}, "client-key and client-key-data"),
        ("user", {"client-certificate": "none", "client-key": "pem"}, "none cannot be read"),
        ("user", {"exec": {**EXEC, "interactiveMode": "Sometimes"}}, "interactiveMode is Sometimes"),
        ("user", {"exec": {**EXEC, "stdin": True}}, "unknown field `stdin`"),
        ("user", {"exec": {**EXEC, "command": ""}}, "exec.command is empty"),
        ("cluster", {"server": ""}, "no server"),
        ("cluster", {"server": "unix:///run/x"}, "server is unix://"),
        ("cluster", {"certificate-authority": "pem", "certificate-authority-data": DATA}, "take one of them away"),
        ("cluster", {"certificate-authority": "pem", "insecure-skip-tls-verify": True}, "take one of them away"),
        ("cluster", {"insecure-skip-tls-verify": "yes"}, "Expected `bool"),
        ("cluster", {"proxy-url": "socks5://u:s3cret@y"}, "is socks5://: only"),
    ],
)
def test_what_cannot_be_done_as_it_is_said_is_refused(tmp_path: Path, part: str, fields: Json, expected: str) -> None:
    """Most of it by kubectl too. The message never holds a secret."""
    key, value = next(iter(fields.items()))
    path = kubeconfig(tmp_path, f"{part}.{key}", value, {part: fields})
    with pytest.raises(ConfigurationProblem, match=expected) as caught:
        kubeconfig_access(str(path), None, {})
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


async def test_a_client_certificate_goes_with_a_token_and_before_that_of_a_plugin(tmp_path: Path) -> None:
    """Both are sent, as kubectl does."""
    for more, authorization in (
        ({"token": "t"}, "Bearer t"),
        ({"exec": EXEC}, "Bearer -,-"),
        ({"tokenFile": "pem"}, "Bearer pem"),
    ):
        found = await facts(
            kubeconfig(tmp_path, "user.client-key", "pem", {"user": {"client-certificate": "pem", **more}})
        )
        assert (found["authorization"], found["certificate"]) == (authorization, b"pem")


async def test_a_token_is_used_until_the_file_of_tokens_can_be_read(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, "user.tokenFile", "later", {"user": {"token": "t"}})
    assert (await facts(path))["authorization"] == "Bearer t"
    (tmp_path / "later").write_text("later\n")
    assert (await facts(path))["authorization"] == "Bearer later"


async def test_the_first_of_several_files_counts_and_paths_start_where_they_stand(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, content in ((one, "1"), (two, "2")):
        folder.mkdir()
        kubeconfig(folder, "user.tokenFile", "token")
        (folder / "token").write_text(content)
    both = f"{tmp_path / 'none'}:{two / 'config'}:{one / 'config'}"
    assert (await facts(Path(both)))["authorization"] == "Bearer 2"


async def test_every_request_is_made_as_who_the_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads and writes: the headers are those of the connections, whatever is asked."""
    monkeypatch.delenv("HTTP_PROXY", raising=False)
    monkeypatch.delenv("http_proxy", raising=False)
    async with FakeApiServer() as server:
        user = {"token": "abc", "as": "jane", "as-groups": ["admins", "öffis"]}
        client = await KubeClient.connect(
            kubeconfig=str(server.write_kubeconfig(tmp_path / "c", user=user)), user_agent="t"
        )
        await client.get_bytes("/api/v1/nodes")
        await client.send("POST", "/api/v1/nodes", b'{"metadata": {"name": "a"}}')
        await client.close()
        assert len(server.requests) == 2
        for request in server.requests:
            sent = [(key, value) for key, value in request.headers.items() if key.startswith("Impersonate")]
            assert sent == [
                ("Impersonate-User", "jane"),
                ("Impersonate-Group", "admins"),
                ("Impersonate-Group", "öffis"),
            ]


@pytest.mark.parametrize("command", [["plan"], ["explain", "node", "a"], ["doctor"], ["cleanup"], ["run"]])
def test_every_command_ends_with_2_where_the_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    path = kubeconfig(tmp_path, "user.as-groups", ["admins"])
    assert main([*command, "--kubeconfig", str(path)]) == 2
    assert "as, the user, which is missing" in capsys.readouterr().err
