"""The kubeconfig is what kubectl expects, and private."""

import stat
from pathlib import Path

import yaml

from kaos.local import kubeconfig


def test_the_current_context_leads_to_server_and_token(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    kubeconfig.write(path, "https://127.0.0.1:4321", "secret", b"PEM")
    config = yaml.safe_load(path.read_text())
    contexts = {entry["name"]: entry["context"] for entry in config["contexts"]}
    context = contexts[config["current-context"]]
    clusters = {entry["name"]: entry["cluster"] for entry in config["clusters"]}
    users = {entry["name"]: entry["user"] for entry in config["users"]}
    assert config["current-context"] == "kaos"
    assert clusters[context["cluster"]] == {
        "server": "https://127.0.0.1:4321",
        "certificate-authority-data": "UEVN",
    }
    assert users[context["user"]]["token"] == "secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
