"""Asks the streaming query service as a gRPC client of another language does, with stubs that are
generated from this repository's .proto files.

Usage: stream.py ADDRESS METHOD REQUEST [--tenant TENANT] [--cancel-after MESSAGES]

METHOD is one of tempopb.StreamingQuerier, REQUEST its message as JSON. Prints each answer as one
line of JSON when it comes, and at the end {"end": CODE, "message": TEXT}.
"""

import argparse
import importlib
import json
import pathlib
import sys
import tempfile

import grpc
import grpc_tools
from google.protobuf import json_format
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"
SOURCES = [
    "tempo.proto",
    "opentelemetry/proto/common/v1/common.proto",
    "opentelemetry/proto/resource/v1/resource.proto",
    "opentelemetry/proto/trace/v1/trace.proto",
]


def generate(folder):
    """Writes the stubs to a folder and makes them importable, before any installed ones."""
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    code = protoc.main(
        [
            "protoc",
            f"-I{PROTO / 'tempopb'}",
            f"-I{PROTO}",
            f"-I{well_known}",
            f"--python_out={folder}",
            f"--grpc_python_out={folder}",
            *SOURCES,
        ]
    )
    if code != 0:
        sys.exit(f"protoc ended with {code}")
    # Regular packages, so that they are not merged with those of the OpenTelemetry SDK.
    for path in [folder / "opentelemetry", *(folder / "opentelemetry").rglob("*/")]:
        (path / "__init__.py").touch()
    sys.path.insert(0, str(folder))
    return importlib.import_module("tempo_pb2"), importlib.import_module("tempo_pb2_grpc")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("address")
    arguments.add_argument("method")
    arguments.add_argument("request")
    arguments.add_argument("--tenant")
    arguments.add_argument("--cancel-after", type=int)
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        messages, services = generate(pathlib.Path(folder))
        ask(asked, messages, services)


def ask(asked, messages, services):
    service = messages.DESCRIPTOR.services_by_name["StreamingQuerier"]
    method = service.methods_by_name[asked.method]
    request = getattr(messages, method.input_type.name)()
    json_format.Parse(asked.request, request)
    metadata = [("x-scope-orgid", asked.tenant)] if asked.tenant else []
    with grpc.insecure_channel(asked.address) as channel:
        call = getattr(services.StreamingQuerierStub(channel), asked.method)(
            request, metadata=metadata
        )
        received = 0
        try:
            for answer in call:
                print(json_format.MessageToJson(answer, indent=None), flush=True)
                received += 1
                if received == asked.cancel_after:
                    call.cancel()
        except grpc.RpcError:
            # The code below tells what happened.
            pass
        print(json.dumps({"end": call.code().name, "message": call.details()}))


if __name__ == "__main__":
    main()
