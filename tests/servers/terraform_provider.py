"""A provider for Terraform that knows the arguments of some resources, so that `terraform validate` works offline.

Terraform starts it (see `dev_overrides` in its configuration) and asks for its schema over gRPC, by version 5 of the
plugin protocol. Every configuration is valid to the provider itself, so what is found wrong is found by Terraform:
names, types, required arguments, references. Messages are put together by hand: the protocol needs four of them.

    python terraform_provider.py ARGUMENTS.json PROVIDER
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

_TYPES: Mapping[str, Any] = {
    "string": "string",
    "number": "number",
    "boolean": "bool",
    "array[string]": ["list", "string"],
    "map[string]": ["map", "string"],
}
_PROVIDER_ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    "aws": {"region": "string", "default_tags": {"tags": "map[string]"}},
    "google": {"project": "string", "region": "string", "default_labels": "map[string]"},
    "azurerm": {"subscription_id": "string", "storage_use_azuread": "boolean", "features!": {}},
}
_NESTED_LIST = 2


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value) if value else b""


def chunk(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def block(arguments: Mapping[str, Any]) -> bytes:
    """A Schema.Block: attributes are field 2, nested blocks field 3."""
    written = b""
    for marked, kind in arguments.items():
        name = marked.removesuffix("[]").removesuffix("!")
        is_required = "!" in marked
        if isinstance(kind, Mapping):
            nested = chunk(1, name.encode()) + chunk(2, block(kind)) + number(3, _NESTED_LIST)
            nested += number(4, int(is_required)) + number(5, 0 if marked.endswith("[]") else 1)
            written += chunk(3, nested)
        else:
            plain = str(kind).removeprefix("computed ")
            flags = number(4, 1) if is_required else number(6, 1) if plain != kind else number(5, 1) + number(6, 1)
            written += chunk(2, chunk(1, name.encode()) + chunk(2, json.dumps(_TYPES[plain]).encode()) + flags)
    return written


def schema(arguments: Mapping[str, Any]) -> bytes:
    return chunk(2, block(arguments))


def answer_schema(resources: Mapping[str, Any], provider: str) -> bytes:
    written = chunk(1, schema(_PROVIDER_ARGUMENTS[provider]))
    for name, arguments in resources.items():
        if name.startswith(f"{provider}_"):
            written += chunk(2, chunk(1, name.encode()) + chunk(2, schema(arguments)))
    return written


class Provider(grpc.GenericRpcHandler):
    def __init__(self, answers: Mapping[str, bytes], ended: threading.Event) -> None:
        self._answers = answers
        self._ended = ended

    def service(self, handler_call_details: Any) -> Any:
        method: str = handler_call_details.method

        def answer(request: bytes, _: Any) -> bytes:
            if method == "/plugin.GRPCController/Shutdown":
                self._ended.set()
            # What a provider is configured with is what it was given.
            return request if method.endswith("/PrepareProviderConfig") else self._answers.get(method, b"")

        def nothing(_request: bytes, _context: Any) -> Iterator[bytes]:
            return iter(())

        library: Any = grpc
        if method == "/plugin.GRPCStdio/StreamStdio":
            return library.unary_stream_rpc_method_handler(nothing)
        return library.unary_unary_rpc_method_handler(answer)


def main(arguments: Iterable[str]) -> None:
    table, provider = arguments
    resources = json.loads(Path(table).read_text(encoding="utf-8"))
    ended = threading.Event()
    server = grpc.server(ThreadPoolExecutor(4), maximum_concurrent_rpcs=16)
    server.add_generic_rpc_handlers(
        (Provider({"/tfplugin5.Provider/GetSchema": answer_schema(resources, provider)}, ended),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"1|5|tcp|127.0.0.1:{port}|grpc|", flush=True)  # noqa: T201  (what Terraform waits for)
    ended.wait()
    server.stop(0.2)


if __name__ == "__main__":
    main(sys.argv[1:])
