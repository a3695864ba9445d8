"""The services that give short-lived tokens, on loopback: AWS STS, Google's STS and IAM, Entra, and metadata services.

Each checks what it is sent as the real one does: who issued the token, for which audience, and whether this subject may
have this role. `guarded` stands before an emulator and lets only those through whom a service has given access.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.jwk import OctKey

KEY = OctKey.generate_key(256)
AWS_AUDIENCE = "sts.amazonaws.com"
GOOGLE_AUDIENCE = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/fairlead"
AZURE_AUDIENCE = "api://AzureADTokenExchange"
STORAGE_SCOPE = "https://storage.azure.com/.default"


def issue_token(subject: str, audience: str, *, seconds: int = 600) -> str:
    """What a platform gives a workload: a JWT that says who it is, for one audience."""
    now = int(time.time())
    claims = {
        "iss": "https://issuer.test",
        "sub": subject,
        "aud": audience,
        "iat": now,
        "nbf": now,
        "exp": now + seconds,
    }
    return jwt.encode({"alg": "HS256"}, claims, KEY)


@dataclass(slots=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.body.decode()).items()}


Answer = tuple[int, dict[str, str], bytes]


@contextlib.contextmanager
def serving(answer: Callable[[Request], Answer], *, tls: tuple[Path, Path] | None = None) -> Generator[str]:
    """Answer every request of a port of loopback by a function; its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            parts = urlsplit(self.path)
            body = self._read_body()
            query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, sent, data = answer(Request(self.command, self.path, query, headers, body))
            self.send_response(status)
            for name, value in sent.items():
                self.send_header(name, value)
            if not any(name.lower() == "content-length" for name in sent):
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":  # a body would be taken for the next answer's beginning
                self.wfile.write(data)

        def _read_body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            pieces: list[bytes] = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)

        do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _answer  # noqa: N815  (the base class's names)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key, as PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "certificate.pem", folder / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file


@dataclass(slots=True)
class TokenServices:
    """What the services were told and gave out. `trusts` says which subject may have which role, account or client."""

    trusts: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    granted: dict[str, str] = field(default_factory=dict[str, str])
    """Access keys and tokens that were given out, with the role that each is for."""
    exchanges: list[str] = field(default_factory=list[str])
    workload: str = "nobody"
    """Who the metadata services say that the machine is."""

    def check(self, token: str, audience: str, role: str) -> bool:
        """Whether a token was issued by the platform, for this audience, to somebody who may have the role."""
        try:
            claims = jwt.decode(token, KEY).claims
        except Exception:  # noqa: BLE001  (whatever is wrong with it, it is no token)
            return False
        is_valid = claims["aud"] == audience and claims["exp"] > time.time()
        return is_valid and (str(claims["sub"]), role) in self.trusts

    def grant(self, role: str) -> str:
        access = f"ASIA{secrets.token_hex(8).upper()}"
        self.granted[access] = role
        self.exchanges.append(role)
        return access

    def amazon(self, request: Request) -> Answer:
        """AssumeRoleWithWebIdentity."""
        form = request.form
        role = form.get("RoleArn", "")
        if form.get("Action") != "AssumeRoleWithWebIdentity":
            return 400, {}, b""
        if not self.check(form.get("WebIdentityToken", ""), AWS_AUDIENCE, role):
            error = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"
            return 403, {"Content-Type": "text/xml"}, error.encode()
        ends = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        key = self.grant(role)
        body = (
            '<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
            "<AssumeRoleWithWebIdentityResult><Credentials>"
            f"<AccessKeyId>{key}</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
            f"<Expiration>{ends}</Expiration></Credentials>"
            f"<AssumedRoleUser><Arn>{role}/fairlead</Arn><AssumedRoleId>A:fairlead</AssumedRoleId></AssumedRoleUser>"
            "</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        )
        return 200, {"Content-Type": "text/xml"}, body.encode()

    def google(self, request: Request) -> Answer:
        """The token exchange, and a service account's token for what came of it."""
        if request.path == "/v1/token":
            form = request.form
            if not self.check(form.get("subject_token", ""), form.get("audience", ""), GOOGLE_AUDIENCE):
                return _json(400, {"error": "invalid_grant", "error_description": "no"})
            return _json(
                200,
                {
                    "access_token": self.grant(GOOGLE_AUDIENCE),
                    "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
                    "token_type": "Bearer",
                    "expires_in": 3600,
                },
            )
        account = request.path.rpartition("/")[2].partition(":")[0].replace("%40", "@")
        federated = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.granted.get(federated) != GOOGLE_AUDIENCE:
            return _json(403, {"error": {"code": 403, "message": "no"}})
        ends = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return _json(200, {"accessToken": self.grant(account), "expireTime": ends})

    def microsoft(self, request: Request) -> Answer:
        """The client credentials grant with an assertion in the place of a secret."""
        if not request.path.partition("?")[0].endswith("/oauth2/v2.0/token"):
            return _json(404, {"error": "not_found"})
        form = request.form
        client = form.get("client_id", "")
        if form.get("scope") != STORAGE_SCOPE or not self.check(form["client_assertion"], AZURE_AUDIENCE, client):
            return _json(401, {"error": "invalid_client", "error_description": "AADSTS700213: no"})
        tenant, now = request.path.split("/")[1], int(time.time())
        claims = {
            "iss": f"https://sts.windows.net/{tenant}/",
            "aud": "https://storage.azure.com",
            "iat": now,
            "nbf": now - 5,
            "exp": now + 3600,
            "oid": client,
        }
        self.exchanges.append(client)
        access = jwt.encode({"alg": "HS256"}, claims, KEY)
        return _json(200, {"token_type": "Bearer", "expires_in": 3600, "access_token": access})

    def metadata(self, request: Request) -> Answer:
        """The metadata service of a machine of Google's, and that of one of Microsoft's."""
        if request.path.startswith("/computeMetadata/") and request.headers.get("metadata-flavor") == "Google":
            return 200, {"Content-Type": "text/plain"}, issue_token(self.workload, request.query["audience"]).encode()
        if request.path.startswith("/metadata/identity/") and request.headers.get("metadata") == "true":
            return _json(200, {"access_token": issue_token(self.workload, request.query["resource"])})
        return _json(403, {"error": "a header is missing"})

    @contextlib.contextmanager
    def guarded(self, url: str, role: str) -> Generator[str]:
        """An emulator that answers those who act under a role, and nobody else."""
        target = urlsplit(url)

        def forward(request: Request) -> Answer:
            authorization = request.headers.get("authorization", "")
            access = authorization.removeprefix("Bearer ").partition("Credential=")
            given = (access[2] or access[0]).partition("/")[0]
            if self.granted.get(given) != role:
                return 403, {"Content-Type": "text/xml"}, b"<Error><Code>AccessDenied</Code></Error>"
            connection = HTTPConnection(target.hostname or "", target.port, timeout=20)
            left_out = {"host", "connection", "transfer-encoding", "content-length", "expect"}
            headers = {name: value for name, value in request.headers.items() if name not in left_out}
            connection.request(request.method, request.path, body=request.body, headers=headers)
            answer = connection.getresponse()
            data = answer.read()
            dropped = {"connection", "transfer-encoding", "date", "server", "content-encoding"}
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in dropped}
            if request.method != "HEAD":
                kept = {name: value for name, value in kept.items() if name.lower() != "content-length"}
            connection.close()
            return answer.status, kept, data

        with serving(forward) as guarded:
            yield guarded


def _json(status: int, value: object) -> Answer:
    return status, {"Content-Type": "application/json"}, json.dumps(value).encode()
