"""The real Hub client against a Hub on loopback: what is asked for, what is fetched, what is said."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "e" * 40
SECRET = "hf_" + "S" * 34
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 4}
FILES = {
    "config.json": json.dumps(CONFIG).encode(), "model.safetensors": b"weights", "tokenizer.json": b"{}",
    "pytorch_model.bin": b"\x80",
}  # fmt: skip


class Served(ThreadingHTTPServer):
    """Knows owner/model, gates owner/gated, has no owner/none; `log` holds "METHOD /path"."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.log: list[str] = []


class Answer(BaseHTTPRequestHandler):
    server: Served

    def log_message(self, format: str, *args: object) -> None:
        pass

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        path, file = self.path.split("?")[0], self.path.split("?")[0].rsplit("/", 1)[-1]
        self.server.log.append(f"{self.command} {path}")
        if "/none" in path:
            self.reply(404, X_Error_Code="RepoNotFound")
        elif path.endswith("/v9"):
            self.reply(404, X_Error_Code="RevisionNotFound")
        elif "/revision/" in path:
            info = {"id": "owner/model", "sha": COMMIT, "siblings": [{"rfilename": name} for name in FILES]}
            self.reply(200, json.dumps(info).encode(), Content_Type="application/json")
        elif "/gated" in path:
            self.reply(403, X_Error_Code="GatedRepo", X_Error_Message="Access is restricted")
        elif "/tree/" in path:
            tree = [{"type": "file", "path": n, "size": len(b), "oid": _etag(b)} for n, b in FILES.items()]
            self.reply(200, json.dumps(tree).encode(), Content_Type="application/json")
        elif "/resolve/" in path and file in FILES:
            self.reply(200, FILES[file], ETag=f'"{_etag(FILES[file])}"', X_Repo_Commit=COMMIT)
        else:
            self.reply(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)

    do_HEAD = do_GET


def _etag(body: bytes) -> str:
    return hashlib.sha1(body).hexdigest()


@pytest.fixture
def served() -> Iterator[Served]:
    server = Served()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


SCRIPT = """
import os, sys
from pathlib import Path
from hcl_cli.errors import HclError
from hcl_cli.models.identity import fetch_weights, resolve_model
for name in sys.argv[2:]:
    try:
        ref = resolve_model(name, memo=Path(os.environ["HF_HOME"], "memo.json"), warn=print)
        if sys.argv[1] == "fetch":
            ref = fetch_weights(ref)
        print(ref.name, ref.identity, ref.n_layers, *sorted(file.name for file in ref.folder.iterdir()))
    except HclError as error:
        print(type(error).__name__, error)
"""


def run(served: Served, home: Path, how: str, *names: str, **environment: str) -> list[str]:
    """Lines printed by a process of its own: the client reads its settings when it is imported."""
    settings = {
        "HF_ENDPOINT": f"http://127.0.0.1:{served.server_port}", "HF_HOME": str(home), "HF_TOKEN": SECRET,
        "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, how, *names],
        env={**os.environ, **settings, **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert SECRET not in ran.stdout + ran.stderr
    return ran.stdout.splitlines()


def test_from_name_to_weights_and_then_without_a_network(served: Served, tmp_path: Path) -> None:
    named = f"owner/model hub:{COMMIT} 4 config.json"
    assert run(served, tmp_path, "name", "owner/model") == [named]
    assert not any("safetensors" in line for line in served.log)  # a dry run and a hit download no weights
    whole = named + " model.safetensors tokenizer.json"
    assert run(served, tmp_path, "fetch", "owner/model", f"owner/model@{COMMIT}") == [whole, whole]
    assert not any("pytorch_model.bin" in line for line in served.log)
    served.log.clear()
    cached = f"using the cached commit {COMMIT}"
    assert run(served, tmp_path, "fetch", "owner/model", HF_HUB_OFFLINE="1") == [
        f"owner/model: the Hub is not asked (HF_HUB_OFFLINE); {cached}",
        whole,
    ]
    assert served.log == []
    gone = {"HF_ENDPOINT": "http://127.0.0.1:9"}  # the port of "discard": nobody listens
    assert run(served, tmp_path, "fetch", "owner/model", **gone) == [
        f"owner/model: the Hub gives no answer (ConnectError); {cached}",
        whole,
    ]


def test_refusals_of_the_real_client(served: Served, tmp_path: Path) -> None:
    gated, none, revision = run(served, tmp_path, "name", "owner/gated", "owner/none", "owner/model@v9")
    assert gated == (
        "EnvironmentRefused owner/gated: access to this model is gated; accept its licence on "
        "https://huggingface.co/owner/gated and give a token with `hf auth login` or HF_TOKEN"
    )
    assert none.startswith("BadInput owner/none: neither here nor on the Hub; check the spelling with `hcl models`")
    assert revision == "BadInput owner/model: the Hub has no revision v9 of this model"
