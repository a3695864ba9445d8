"""MLflow's routes of artifacts, below `/api/2.0/mlflow-artifacts`."""

from __future__ import annotations

from itertools import chain

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from fairlead.core.db import is_dry_run
from fairlead.core.errors import InvalidInput
from fairlead.registry.access import MayRead, MayWrite
from fairlead.registry.mlflow.api import answer
from fairlead.registry.mlflow.artifacts import MlflowArtifacts
from fairlead.registry.mlflow.fields import Asked
from fairlead.registry.mlflow.multipart import Multipart
from fairlead.registry.mlflow.sources import ARTIFACTS_PATH
from fairlead.registry.mlflow.staging import Staging, area_of

MULTIPART_PATH = "/api/2.0/mlflow-artifacts/mpu"
STREAMED_PREFIXES = (f"{ARTIFACTS_PATH}/", f"{MULTIPART_PATH}/part/")
"""Where bodies of any size come in, and go to disk piece by piece."""

_WRITE_BYTES = 1 << 20


def artifacts_router(  # noqa: C901  (one a route)
    artifacts: MlflowArtifacts, staging: Staging, multipart: Multipart
) -> APIRouter:
    """Upload, download and listing of files."""
    router = APIRouter(include_in_schema=False)

    @router.get(ARTIFACTS_PATH)
    def list_artifacts(asked: Asked, caller: MayRead) -> Response:
        return answer({"files": artifacts.list(caller, (asked.text("path") or "").strip("/"))})

    @router.get(ARTIFACTS_PATH + "/{path:path}")
    def download(path: str, caller: MayRead) -> Response:
        found = artifacts.open(caller, path)
        pieces = iter(found.pieces)
        # The first piece is read before the answer begins, so that damage is told by a status.
        first = next(pieces, b"")
        headers = {
            "Content-Length": str(found.size),
            "Content-Disposition": "attachment",
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": "sandbox; default-src 'none'",
        }
        if found.digest is not None:
            headers["ETag"] = f'"{found.digest}"'
        return StreamingResponse(chain((first,), pieces), headers=headers, media_type="application/octet-stream")

    @router.put(ARTIFACTS_PATH + "/{path:path}")
    async def upload(path: str, request: Request, caller: MayWrite) -> Response:
        checked = artifacts.check_writable(path)
        if not is_dry_run():
            await _receive(request, staging, area_of(caller), checked)
        return answer({})

    @router.delete(ARTIFACTS_PATH + "/{path:path}")
    def delete(path: str, caller: MayWrite) -> Response:
        checked = artifacts.check_writable(path)
        if not is_dry_run():
            staging.delete(area_of(caller), checked)
        return answer({})

    @router.post(MULTIPART_PATH + "/create/{path:path}")
    def create_multipart(path: str, asked: Asked, request: Request, caller: MayWrite) -> Response:
        checked = artifacts.check_writable(_file_path(path, asked.required("path")))
        parts = asked.number("num_parts") or 1
        upload_id = multipart.create(area_of(caller), checked, parts)
        base = f"{request.url.scheme}://{request.url.netloc}{MULTIPART_PATH}/part/{upload_id}"
        # Parts come from another request of the same client, which sends what it is told to.
        headers = {"Authorization": request.headers.get("authorization", "")}
        credentials = [
            {"url": f"{base}/{number}", "part_number": number, "headers": headers} for number in range(1, parts + 1)
        ]
        return answer({"upload_id": upload_id, "credentials": credentials})

    @router.put(MULTIPART_PATH + "/part/{upload_id}/{number}")
    async def upload_part(upload_id: str, number: int, request: Request, caller: MayWrite) -> Response:
        path = multipart.part_path(area_of(caller), upload_id, number)
        if not is_dry_run():
            await _receive(request, staging, area_of(caller), path)
        return Response(status_code=200, headers={"ETag": f'"{upload_id}-{number}"'})

    @router.post(MULTIPART_PATH + "/complete/{path:path}")
    def complete_multipart(path: str, asked: Asked, caller: MayWrite) -> Response:
        checked = artifacts.check_writable(_file_path(path, asked.required("path")))
        if not is_dry_run():
            multipart.complete(area_of(caller), checked, asked.required("upload_id"))
        return answer({})

    @router.post(MULTIPART_PATH + "/abort/{path:path}")
    def abort_multipart(path: str, asked: Asked, caller: MayWrite) -> Response:
        artifacts.check_writable(_file_path(path, asked.required("path")))
        if not is_dry_run():
            multipart.abort(area_of(caller), asked.required("upload_id"))
        return answer({})

    return router


async def _receive(request: Request, staging: Staging, area: str, path: str) -> None:
    """Write a body to disk as it comes; what does not come whole is not kept."""
    declared = request.headers.get("content-length")
    writing = staging.writing(area, path)
    file = await to_thread.run_sync(writing.__enter__)
    error: BaseException | None = None
    try:
        received = 0
        pending = bytearray()
        async for piece in request.stream():
            pending += piece
            received += len(piece)
            if len(pending) >= _WRITE_BYTES:
                await to_thread.run_sync(file.write, bytes(pending))
                pending.clear()
        await to_thread.run_sync(file.write, bytes(pending))
        if declared is not None and declared.isdigit() and received != int(declared[:20]):
            raise InvalidInput(  # noqa: TRY301  (what was written is then not kept)
                f"{received} bytes came of {declared[:20]}.", hint="Upload the file again."
            )
    except BaseException as raised:
        error = raised
        raise
    finally:
        kind = None if error is None else type(error)
        await to_thread.run_sync(writing.__exit__, kind, error, None if error is None else error.__traceback__)


def _file_path(path: str, local_path: str) -> str:
    """The path of a file: the client sends the folder in the address and its local path in the body."""
    name = local_path.replace("\\", "/").rpartition("/")[2]
    folder = path.strip("/")
    return f"{folder}/{name}" if folder else name
