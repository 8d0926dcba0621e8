"""A stand-in of the Hugging Face hub's HTTP interface on loopback: as much of it as pushing and pulling a folder needs."""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit

from tests.loopback import Loopback

TOKEN = "hf_of_the_stand_in"


@dataclass
class Repository:
    """What was pushed."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"0" * 40: {}})  # sha -> path -> content
    lfs: set[str] = field(default_factory=set)  # paths that came as large files

    def at(self, revision: str) -> tuple[str, dict[str, bytes]]:
        sha = list(self.commits)[-1] if revision == "main" else revision
        return sha, self.commits[sha]


class Hub(Loopback):
    """Started by `with`; `repositories` and `requests` say what came."""

    def __init__(self):
        super().__init__(_Handler)
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}  # sha256 -> content
        self.requests: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def handle_one(self) -> None:
        path, body = unquote(urlsplit(self.path).path), self._body()
        self.server.requests.append(f"{self.command} {path}")
        for pattern, name in ROUTES.items():
            if match := re.fullmatch(pattern, f"{self.command} {path}"):
                if name != "resolve" and not self._known():
                    return self._answer({"error": "Invalid credentials"}, 401)
                return getattr(self, f"_{name}")(body, *match.groups())
        return self._answer({"error": f"no route for {path}"}, 404)

    do_GET = do_HEAD = do_POST = do_PUT = handle_one

    def _known(self) -> bool:  # large files go to a signed address, without a token
        return self.command == "PUT" or self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _whoami(self, body: bytes) -> None:
        self._answer({"type": "user", "name": "me", "orgs": []})

    def _create(self, body: bytes) -> None:
        wanted = json.loads(body)
        name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
        if name in self.server.repositories:
            return self._answer({"error": "You already created this repo", "url": f"{self.server.url}/{name}"}, 409)
        private = wanted.get("private") is True or wanted.get("visibility") == "private"
        self.server.repositories[name] = Repository(private)
        return self._answer({"url": f"{self.server.url}/{name}", "name": name})

    def _validate(self, body: bytes) -> None:
        good = json.loads(body)["content"].startswith("---\n")
        self._answer({"warnings": [], "errors": [] if good else [{"message": "no header"}]}, 200 if good else 400)

    def _preupload(self, body: bytes, name: str) -> None:
        files = [file["path"] for file in json.loads(body)["files"]]
        modes = {path: "lfs" if path.endswith(".safetensors") else "regular" for path in files}
        self._answer(
            {"files": [{"path": path, "uploadMode": modes[path], "shouldIgnore": False} for path in files]},
        )

    def _batch(self, body: bytes, name: str) -> None:
        wanted = json.loads(body)["objects"]
        actions = {"upload": {"href": f"{self.server.url}/put/%s", "header": {}}}
        answer = [
            {**one, "actions": {"upload": actions["upload"] | {"href": actions["upload"]["href"] % one["oid"]}}}
            for one in wanted
        ]
        self._answer({"transfer": "basic", "objects": answer})

    def _put(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            return self._answer({"error": "wrong sha256"}, 400)
        self.server.large[oid] = body
        return self._answer({})

    def _commit(self, body: bytes, name: str) -> None:
        repository = self.server.repositories[name]
        files = dict(repository.at("main")[1])
        for line in map(json.loads, body.decode().splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
                repository.lfs.add(value["path"])
        sha = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        repository.commits[sha] = files
        self._answer({"commitOid": sha, "commitUrl": f"{self.server.url}/{name}/commit/{sha}", "hookOutput": ""})

    def _info(self, body: bytes, name: str, revision: str | None = None) -> None:
        if name not in self.server.repositories:
            return self._answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        if revision not in (None, "main", *self.server.repositories[name].commits):
            said = f"Invalid rev id: {revision}"
            return self._answer({"error": said}, 404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": said})
        sha, files = self.server.repositories[name].at(revision or "main")
        siblings = [{"rfilename": path} for path in files]
        return self._answer(
            {
                "id": name,
                "modelId": name,
                "sha": sha,
                "siblings": siblings,
                "tags": [],
                "private": self.server.repositories[name].private,
            }
        )

    def _tree(self, body: bytes, name: str, revision: str) -> None:
        repository = self.server.repositories[name]
        table = []
        for path, content in repository.at(revision)[1].items():
            row = {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
            if path in repository.lfs:
                row["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
            table.append(row)
        self._answer(table)

    def _resolve(self, body: bytes, name: str, revision: str, path: str) -> None:
        sha, files = self.server.repositories[name].at(revision)
        if path not in files:
            return self._answer({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        large = path in self.server.repositories[name].lfs
        tag = (hashlib.sha256 if large else hashlib.sha1)(files[path]).hexdigest()
        return self._send(files[path], 200, {"ETag": f'"{tag}"', "X-Repo-Commit": sha})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(value).encode(), status, {"Content-Type": "application/json"} | (headers or {}))

    def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


REPO = r"([\w.-]+/[\w.-]+)"
ROUTES = {
    "GET /api/whoami-v2": "whoami",
    "POST /api/repos/create": "create",
    "POST /api/validate-yaml": "validate",
    f"POST /api/models/{REPO}/preupload/main": "preupload",
    f"POST /{REPO}.git/info/lfs/objects/batch": "batch",
    "PUT /put/([0-9a-f]{64})": "put",
    f"POST /api/models/{REPO}/commit/main": "commit",
    f"GET /api/(?:models|datasets)/{REPO}": "info",
    rf"GET /api/(?:models|datasets)/{REPO}/revision/(\w+)": "info",
    rf"GET /api/(?:models|datasets)/{REPO}/tree/(\w+)": "tree",
    rf"(?:GET|HEAD) /(?:datasets/)?{REPO}/resolve/(\w+)/(.+)": "resolve",
}
