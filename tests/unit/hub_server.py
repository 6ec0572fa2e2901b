"""As much of the Hugging Face Hub as its own client needs to fetch and upload models."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

TOKEN = "hf_" + "x" * 34


@dataclass
class Repository:
    """Files by branch, as the last commit left them."""

    private: bool = False
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})

    def sha(self, branch: str) -> str:
        """Stands for the commit: changes with the content."""
        content = sorted((name, bytes(data)) for name, data in self.branches[branch].items())
        return hashlib.sha1(repr(content).encode()).hexdigest()

    def at(self, revision: str) -> str | None:
        """The branch that a branch's name or a commit means."""
        by_commit = {self.sha(branch): branch for branch in self.branches}
        return revision if revision in self.branches else by_commit.get(revision)


class Hub:
    """What is on the Hub, and what it was asked."""

    def __init__(self) -> None:
        self.address = ""
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}  # uploaded large files, by sha256
        self.requests: list[tuple[str, str]] = []
        self.commits: list[dict] = []
        self.status = 200  # of every answer, when it is another

    def files(self, repository: str, branch: str = "main") -> dict[str, bytes]:
        return self.repositories[repository].branches[branch]


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def log_message(self, *arguments) -> None:
        pass

    def _answer(self, method: str) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append((method, path))
        if self.hub.status != 200:
            return self._send(self.hub.status, {"error": "no"})
        verb = "GET" if method == "HEAD" else method
        for wanted, pattern, action in _ROUTES:
            if wanted == verb and (found := re.fullmatch(pattern, path)):
                return action(self, body, *found.groups())
        return self._send(404, {"error": "no such page"}, {"X-Error-Code": "EntryNotFound"})

    def _send(self, status: int, content, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _logged_in(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _find(self, name: str, revision: str) -> tuple[Repository, str] | None:
        """The repository and its branch, or the answer that there is none."""
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self._logged_in()):
            self._send(404, {"error": "none"}, {"X-Error-Code": "RepoNotFound"})
            return None
        branch = repository.at(revision)
        if branch is None:
            self._send(404, {"error": "none"}, {"X-Error-Code": "RevisionNotFound"})
            return None
        return repository, branch

    def about(self, body: bytes, name: str, revision: str | None = None) -> None:
        if found := self._find(name, revision or "main"):
            repository, branch = found
            files = [{"rfilename": file} for file in repository.branches[branch]]
            self._send(
                200,
                {
                    "id": name,
                    "sha": repository.sha(branch),
                    "private": repository.private,
                    "siblings": files,
                },
            )

    def tree(self, body: bytes, name: str, revision: str) -> None:
        if found := self._find(name, revision):
            repository, branch = found
            entries = [
                {"type": "file", "path": file, "size": len(data), "oid": _digest(data)}
                for file, data in repository.branches[branch].items()
            ]
            self._send(200, entries)

    def resolve(self, body: bytes, name: str, revision: str, file: str) -> None:
        if found := self._find(name, revision):
            repository, branch = found
            data = repository.branches[branch].get(file)
            head = {"X-Repo-Commit": repository.sha(branch)}
            if data is None:
                self._send(404, {}, {**head, "X-Error-Code": "EntryNotFound"})
            else:
                # Large files are known by their SHA-256, as on the real Hub.
                large = file.endswith(".safetensors")
                digest = hashlib.sha256(data).hexdigest() if large else _digest(data)
                self._send(200, data, {**head, "ETag": f'"{digest}"'})

    def create(self, body: bytes) -> None:
        if not self._logged_in():
            return self._send(401, {"error": "log in"})
        asked = json.loads(body)
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if name in self.hub.repositories:
            return self._send(409, {"url": f"{self.hub.address}/{name}", "error": "exists"})
        self.hub.repositories[name] = Repository(
            asked.get("visibility") == "private" or bool(asked.get("private"))
        )
        return self._send(200, {"url": f"{self.hub.address}/{name}", "name": name})

    def branch(self, body: bytes, name: str, branch: str) -> None:
        repository = self.hub.repositories[name]
        repository.branches.setdefault(branch, dict(repository.branches["main"]))
        self._send(200, {})

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in json.loads(body)["files"]
        ]
        self._send(200, {"files": files})

    def batch(self, body: bytes, name: str) -> None:
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.hub.address}/lfs/{one['oid']}"}}}
            for one in json.loads(body)["objects"]
        ]
        self._send(200, {"transfer": "basic", "objects": objects})

    def store(self, body: bytes, digest: str) -> None:
        assert hashlib.sha256(body).hexdigest() == digest
        self.hub.blobs[digest] = body
        self._send(200, {})

    def commit(self, body: bytes, name: str, revision: str) -> None:
        if not self._logged_in():
            return self._send(401, {"error": "log in"})
        lines = [json.loads(line) for line in body.splitlines()]
        self.hub.commits.append(next(x["value"] for x in lines if x["key"] == "header"))
        files = self.hub.repositories[name].branches[revision]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
        url = f"{self.hub.address}/{name}/commit/{'0' * 40}"
        return self._send(200, {"success": True, "commitOid": "0" * 40, "commitUrl": url})

    def check_card(self, body: bytes) -> None:
        if "library_name" in json.loads(body)["content"]:
            return self._send(200, {"errors": [], "warnings": []})
        return self._send(400, {"errors": [{"message": "no library"}], "warnings": []})


_NAME = r"([^/]+/[^/]+)"
_ROUTES = (
    ("GET", rf"/api/models/{_NAME}", _Handler.about),
    ("GET", rf"/api/models/{_NAME}/revision/(.+)", _Handler.about),
    ("GET", rf"/api/models/{_NAME}/tree/([^/]+)/?", _Handler.tree),
    ("GET", rf"/{_NAME}/resolve/([^/]+)/(.+)", _Handler.resolve),
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", rf"/api/models/{_NAME}/branch/(.+)", _Handler.branch),
    ("POST", rf"/api/models/{_NAME}/preupload/(.+)", _Handler.preupload),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", "/lfs/(.+)", _Handler.store),
    ("POST", rf"/api/models/{_NAME}/commit/(.+)", _Handler.commit),
    ("POST", "/api/validate-yaml", _Handler.check_card),
)


def _digest(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@contextmanager
def serving() -> Iterator[Hub]:
    """A Hub on this machine."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield hub
    server.shutdown()
    server.server_close()
