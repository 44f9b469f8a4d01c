"""A hub for models on this machine: as much of Hugging Face's protocol as `hf download` speaks for files."""

import hashlib
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves files by repository and name, and remembers what was asked for."""

    def __init__(self, repositories: dict[str, dict[str, Path]]) -> None:
        self.repositories = repositories
        self.downloads: list[str] = []  # names of files, in the order of their downloads
        self.revisions: set[str] = set()
        self.tokens: set[str] = set()
        self.url = ""


@contextmanager
def serve(hub: Hub) -> Generator[Hub]:
    """Until the end of the block, at `hub.url`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            hub.tokens.add(self.headers.get("Authorization", ""))
            parts = self.path.partition("?")[0].strip("/").split("/")
            if parts[:2] == ["api", "models"]:
                repository = "/".join(parts[2:4])
                files = hub.repositories.get(repository)
                facts = {"id": repository, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files or {}]}
                if len(parts) > 4 and parts[4] == "tree":
                    listing = [entry(name, path) for name, path in (files or {}).items()]
                    return self.send(200 if files else 404, json.dumps(listing).encode(), with_body)
                return self.send(200 if files else 404, json.dumps(facts).encode(), with_body)
            repository, revision, name = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
            hub.revisions.add(revision)
            path = hub.repositories.get(repository, {}).get(name)
            if path is None:
                return self.send(404, b"", with_body, {"X-Error-Code": "EntryNotFound"})
            content = path.read_bytes()
            if with_body:
                hub.downloads.append(name)
            headers = {"ETag": f'"{digest(path)}"', "X-Repo-Commit": COMMIT}
            return self.send(200, content, with_body, headers)

        def send(self, code: int, content: bytes, with_body: bool, headers: dict[str, str] | None = None) -> None:
            self.send_response(code)
            for key, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if with_body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing: the tests look at what was asked for."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def digest(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


def entry(name: str, path: Path) -> dict[str, object]:
    return {"type": "file", "path": name, "size": path.stat().st_size, "oid": digest(path)}
