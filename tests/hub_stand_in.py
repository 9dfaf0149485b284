"""A stand-in for the Hugging Face hub's HTTP interface, on 127.0.0.1: as much of it as atomrl needs.

It starts when this file is imported, and says so in the variables that huggingface_hub reads when that is imported:
import this file first. Xet is off, large files go by Git LFS.
"""

import base64
import hashlib
import json
import os
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml

TOKEN = "hf_standin"
LICENCES = {"apache-2.0", "mit", "cc-by-4.0"}


@dataclass
class Repository:
    """Files by commit, oldest first; names of commits."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def commit(self, changes: dict[str, bytes | None], message: str = "made by hand") -> str:
        """A commit on top: contents, None for a file that goes."""
        merged = {**self.commits.get(self.names.get("main", ""), {}), **changes}
        files = {path: content for path, content in merged.items() if content is not None}
        oid = hashlib.sha1(repr((len(self.commits), sorted(files.items()))).encode()).hexdigest()
        self.commits[oid], self.messages[oid], self.names["main"] = files, message, oid
        return oid


class StandIn:
    """The server, what it has, and what it was asked."""

    def __init__(self) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.server.hub = self
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.forget()

    def forget(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.broken = False

    def add(self, name: str, folder: Path, **options) -> Repository:
        """A repository with the files of a folder."""
        found = self.repositories[name] = Repository(**options)
        found.commit({path.name: path.read_bytes() for path in folder.iterdir()})
        return found


def is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".bin", ".pth"))


def described(path: str, content: bytes) -> dict:
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    lfs = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return {"rfilename": path, "size": len(content), "blobId": blob, **({"lfs": lfs} if is_large(path) else {})}


class Answer(BaseHTTPRequestHandler):
    """Of one request."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        """Nothing on the terminal."""

    def do_GET(self) -> None:
        self.route()

    def do_HEAD(self) -> None:
        self.route()

    def do_POST(self) -> None:
        self.route()

    def do_PUT(self) -> None:
        self.route()

    def route(self) -> None:  # noqa: PLR0911
        """Read the request, answer it."""
        hub = self.server.hub
        url = urlsplit(self.path)
        self.body = self.read()
        hub.asked.append(f"{self.command} {url.path}")
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        said = self.headers.get("Authorization")
        self.known = said == f"Bearer {TOKEN}"
        if hub.broken:
            return self.send(503, {"error": "overloaded"})
        if said is not None and not self.known:
            return self.refuse(401, None, "Invalid credentials in Authorization header")
        if self.command == "PUT":
            hub.objects[parts[-1]] = self.body
            return self.send(200, {})
        if parts[:3] == ["api", "repos", "create"]:
            return self.create(hub)
        if parts[:2] == ["api", "validate-yaml"]:
            return self.validate()
        if parts[:2] == ["api", "models"]:
            return self.repository(hub, "/".join(parts[2:4]), parts[4:], parse_qs(url.query))
        if parts[-1] == "batch":
            return self.batch(hub)
        return self.file(hub, "/".join(parts[:2]), parts[3], "/".join(parts[4:]))

    def read(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def send(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status: int, code: str | None, message: str) -> None:
        headers = {"X-Error-Message": message} | ({} if code is None else {"X-Error-Code": code})
        self.send(status, {"error": message}, headers)

    def open(self, hub: StandIn, name: str) -> Repository | None:
        """A repository that this user may see; None: the request was refused."""
        found = hub.repositories.get(name)
        if found is None or (found.private and not self.known):
            self.refuse(404 if self.known else 401, "RepoNotFound", "Repository not found")
            return None
        return found

    def at(self, found: Repository, revision: str) -> str | None:
        """The commit of a revision; None: the request was refused."""
        oid = found.names.get(revision, revision)
        if oid in found.commits:
            return oid
        self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return None

    def create(self, hub: StandIn) -> None:
        asked = json.loads(self.body)
        if not self.known or asked.get("organization", "me") != "me":
            return self.refuse(403 if self.known else 401, None, "You don't have the rights to create a model")
        name = f"me/{asked['name']}"
        if name in hub.repositories:
            return self.refuse(409, None, "You already created this model repo")
        made = hub.repositories[name] = Repository(private=asked.get("visibility") == "private")
        made.commit({".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        return self.send(200, {"url": f"{hub.endpoint}/{name}"})

    def validate(self) -> None:
        """The block of a model card that the hub reads."""
        text = json.loads(self.body)["content"]
        _, block, _ = text.split("---\n", 2)
        front = yaml.safe_load(block)
        wrong = [] if front["license"] in LICENCES else [f'"license" must be one of {sorted(LICENCES)}']
        wrong += [f'"{key}" must be a string' for key in ("library_name",) if not isinstance(front[key], str)]
        wrong += [] if all(isinstance(tag, str) for tag in front["tags"]) else ['"tags" must be strings']
        self.send(400 if wrong else 200, {"errors": [{"message": each} for each in wrong], "warnings": []})

    def repository(self, hub: StandIn, name: str, rest: list[str], query: dict[str, list[str]]) -> None:
        found = self.open(hub, name)
        if found is None:
            return None
        kind, revision = (rest[0], rest[1]) if rest else ("revision", "main")
        if kind == "preupload":
            files = [file["path"] for file in json.loads(self.body)["files"]]
            modes = [{"path": file, "uploadMode": "lfs" if is_large(file) else "regular"} for file in files]
            return self.send(200, {"files": [{**mode, "shouldIgnore": False} for mode in modes]})
        oid = self.at(found, revision)
        if oid is None:
            return None
        if kind == "commit":
            return self.commit(hub, name, found, oid)
        files = [described(path, content) for path, content in found.commits[oid].items()]
        if kind == "tree":
            return self.send(200, [self.entry(file) for file in files])
        shown = files if "blobs" in query else [{"rfilename": file["rfilename"]} for file in files]
        about = {"id": name, "sha": oid, "private": found.private, "gated": "auto" if found.gated else False}
        return self.send(200, {**about, "siblings": shown})

    @staticmethod
    def entry(file: dict) -> dict:
        lfs = {"lfs": {**file["lfs"], "oid": file["lfs"]["sha256"]}} if "lfs" in file else {}
        return {"type": "file", "path": file["rfilename"], "size": file["size"], "oid": file["blobId"], **lfs}

    def commit(self, hub: StandIn, name: str, found: Repository, oid: str) -> None:
        if not self.known:
            return self.refuse(401, None, "Invalid username or password.")
        if not name.startswith("me/"):
            return self.refuse(403, None, "Forbidden: pass create_pr=1")
        changes, message = {}, ""
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                message = value["summary"]
                if value.get("parentCommit", oid) != oid:
                    return self.refuse(412, None, "A commit has happened since")
            elif entry["key"] == "file":
                changes[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                changes[value["path"]] = hub.objects[value["oid"]]
            else:
                changes[value["path"]] = None
        made = found.commit(changes, message)
        return self.send(200, {"commitOid": made, "commitUrl": f"{hub.endpoint}/{name}/commit/{made}"})

    def batch(self, hub: StandIn) -> None:
        """Where large files are put; those that are there already are not asked for again."""
        asked = json.loads(self.body)["objects"]
        answers = [
            {"oid": one["oid"], "size": one["size"]}
            | (
                {}
                if one["oid"] in hub.objects
                else {"actions": {"upload": {"href": f"{hub.endpoint}/lfs/{one['oid']}"}}}
            )
            for one in asked
        ]
        self.send(200, {"transfer": "basic", "objects": answers})

    def file(self, hub: StandIn, name: str, revision: str, path: str) -> None:
        found = self.open(hub, name)
        if found is None:
            return None
        if found.gated and not self.known:
            return self.refuse(403, "GatedRepo", f"Access to model {name} is restricted")
        oid = self.at(found, revision)
        if oid is None:
            return None
        content = found.commits[oid].get(path)
        if content is None:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        about = described(path, content)
        etag = about["lfs"]["sha256"] if "lfs" in about else about["blobId"]
        return self.send(200, content, {"X-Repo-Commit": oid, "ETag": f'"{etag}"'})


HUB = StandIn()
assert "huggingface_hub" not in sys.modules, (
    "huggingface_hub reads its variables when it is imported: import this first"
)
os.environ |= {"HF_ENDPOINT": HUB.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
for variable in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
    os.environ.pop(variable, None)


@pytest.fixture
def hub(tmp_path_factory, monkeypatch) -> StandIn:
    """An empty hub, an empty cache, nobody logged in."""
    from huggingface_hub import constants

    home = tmp_path_factory.mktemp("hf")
    monkeypatch.setenv("HF_HOME", str(home))  # of programs that the test starts
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    assert HUB.endpoint == constants.ENDPOINT
    HUB.forget()
    return HUB


@pytest.fixture
def logged_in(hub, monkeypatch) -> StandIn:
    """The hub, and the owner of `me/...` logged in."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub
