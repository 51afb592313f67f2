"""Sends one trace after another with the OpenTelemetry SDK for Python over one gRPC channel, as a
service that runs for weeks does, until its standard input is closed.

Usage: steady.py ENDPOINT SERVICE PAUSE_SECONDS

Prints one JSON object per trace: its number, its id, whether it was acknowledged, and whether the
exporter had to send it again. Each trace has three spans with the attribute `load.number`.
"""

import json
import logging
import select
import sys

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult


class Collecting(SpanProcessor):
    """Keeps spans until the trace is whole, as a batch would."""

    def __init__(self):
        self.spans = []

    def on_end(self, span):
        self.spans.append(span)


class Retries(logging.Handler):
    """Notes whether the exporter told of a failure."""

    told = False

    def emit(self, record):
        self.told = True


def main():
    endpoint, service, pause = sys.argv[1:4]
    retries = Retries(level=logging.WARNING)
    logging.getLogger("opentelemetry").addHandler(retries)
    exporter = OTLPSpanExporter(endpoint=endpoint, insecure=True)
    collecting = Collecting()
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(collecting)
    tracer = provider.get_tracer("e2e", "1.0.0")
    number = 0
    while not select.select([sys.stdin], [], [], float(pause))[0]:
        with tracer.start_as_current_span("a") as root:
            root.set_attribute("load.number", number)
            for name in ("b", "c"):
                with tracer.start_as_current_span(name) as child:
                    child.set_attribute("load.number", number)
        retries.told = False
        result = exporter.export(collecting.spans)
        told = {
            "number": number,
            "trace": format(root.get_span_context().trace_id, "032x"),
            "acknowledged": result is SpanExportResult.SUCCESS,
            "retried": retries.told,
        }
        print(json.dumps(told), flush=True)
        collecting.spans.clear()
        number += 1
    exporter.shutdown()


if __name__ == "__main__":
    main()
