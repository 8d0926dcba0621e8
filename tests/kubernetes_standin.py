"""A stand-in of the Kubernetes API on loopback: as much of it as Snakemake's plug-in asks. A pod is a process in a folder of its own.

There are no images and no mounts: a pod sees this machine, with the programs of `path` first. Only a real cluster shows those.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.loopback import Loopback


@dataclass
class Pod:
    """One job's only pod."""

    command: list[str]
    resources: Mapping[str, Mapping[str, str]]
    log: Path
    process: subprocess.Popen
    deleted: bool = False

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def status(self) -> dict[str, object]:
        code = self.process.poll()
        state = {"running": {}} if code is None else {"terminated": {"exitCode": code if code >= 0 else 128 - code}}
        told = {"name": "snakemake", "image": "", "imageID": "", "ready": True, "restartCount": 0, "state": state}
        return {"containerStatuses": [told]}


class Cluster(Loopback):
    """Started by `with`; the first `lost` pods are killed once they have started; what `refuses` makes nothing. `pods`: job -> its pod."""

    def __init__(self, folder: Path, path: str, lost: int = 0, refuses: bool = False):
        super().__init__(_Handler)
        self.folder, self.path, self.lost, self.refuses = folder, path, lost, refuses
        self.pods: dict[str, Pod] = {}
        self.secrets: set[str] = set()
        self.kubeconfig = folder / "kubeconfig"
        folder.mkdir()
        one = {"name": "here", "cluster": {"server": self.url}}
        context = {"name": "here", "context": {"cluster": "here", "user": "me"}}
        config = {"clusters": [one], "users": [{"name": "me", "user": {}}], "contexts": [context]}
        self.kubeconfig.write_text(json.dumps(config | {"current-context": "here"}))

    def start(self, job: Mapping) -> None:
        """Start the pod of a job."""
        name, container = job["metadata"]["name"], job["spec"]["template"]["spec"]["containers"][0]
        command, place = [*container["command"], *container["args"]], self.folder / name
        place.mkdir()
        log = place.with_suffix(".log")
        with log.open("wb") as file:
            environment = {"PATH": self.path, "HOME": str(place)}
            process = subprocess.Popen(
                command, cwd=place, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.pods[name] = Pod(command, container["resources"], log, process)
        if len(self.pods) <= self.lost:
            self.pods[name].kill()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        for pod in self.pods.values():
            pod.kill()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Cluster

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body, address = self._body(), urlsplit(self.path)
        if self.server.refuses:
            return self._answer(403, {"reason": "Forbidden"})
        if "dryRun" not in parse_qs(address.query):
            if address.path.endswith("/secrets"):
                self.server.secrets.add(body["metadata"]["name"])
            else:
                self.server.start(body)
        return self._answer(201, body)

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        asked, name = parse_qs(address.query), self._job(address.path)
        if address.path.endswith("/pods"):
            name = asked["labelSelector"][0].removeprefix("job-name=")
            pod = self.server.pods[name]
            told = {"metadata": {"name": name}, "spec": {"containers": []}, "status": pod.status()}
            self._answer(200, {"items": [] if pod.deleted else [told]})
        elif address.path.endswith("/log") and "previous" in asked:  # no container of it was started again
            self._answer(400, {"reason": "BadRequest"})
        elif address.path.endswith("/log"):
            self._answer(200, self.server.pods[name].log.read_text())
        else:
            code = self.server.pods[name].process.poll()
            self._answer(200, {"status": {} if code is None else {"failed" if code else "succeeded": 1}})

    def do_DELETE(self) -> None:
        self._body()
        if "/secrets/" in self.path:
            self.server.secrets.remove(self.path.rsplit("/", 1)[1])
        else:
            pod = self.server.pods[self._job(self.path)]
            pod.kill()
            pod.deleted = True
        self._answer(200, {})

    def _job(self, path: str) -> str:
        found = re.search(r"snakejob-[\w-]+", path)
        return found[0] if found else ""

    def _body(self) -> dict:
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")

    def _answer(self, code: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
