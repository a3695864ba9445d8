"""A small server that stands for `bentoml serve`: it says who it is, and whether it is ready."""

from __future__ import annotations

import sys
from pathlib import Path

_SERVER = """
import os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if os.path.exists("hangs") else 200)
        self.send_header("x-fairlead-endpoint", os.environ["FAIRLEAD_ENDPOINT"])
        self.end_headers()
    def log_message(self, *_):
        pass

HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


def write_interpreter(folder: Path) -> str:
    """An interpreter for `LocalTarget` that runs the small server, whatever module it is asked for.

    A file `hangs` in the folder of a place makes its endpoints live without being ready.
    """
    (folder / "server.py").write_text(_SERVER)
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -I {folder}/server.py "$@"\n')
    script.chmod(0o755)
    return str(script)
