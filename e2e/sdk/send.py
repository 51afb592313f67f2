"""Sends traces with the OpenTelemetry SDK for Python, as an instrumented service would.

Usage: send.py {grpc|http} ENDPOINT SERVICE COUNT

Prints one JSON object per trace that was acknowledged: its id and the names of its spans.
Exits with 1 when an export was refused.
"""

import json
import sys

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, Status, StatusCode


def exporter_for(protocol, endpoint):
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter(endpoint=endpoint, insecure=True)
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=f"http://{endpoint}/v1/traces", compression=Compression.Gzip)


class Recording(SpanExporter):
    """Passes spans on and remembers what became of them."""

    def __init__(self, inner):
        self.inner = inner
        self.acknowledged = {}
        self.refused = 0

    def export(self, spans):
        result = self.inner.export(spans)
        for span in spans:
            if result is SpanExportResult.SUCCESS:
                trace = format(span.context.trace_id, "032x")
                self.acknowledged.setdefault(trace, []).append(span.name)
            else:
                self.refused += 1
        return result

    def shutdown(self):
        self.inner.shutdown()


def main():
    protocol, endpoint, service, count = sys.argv[1:5]
    recording = Recording(exporter_for(protocol, endpoint))
    provider = TracerProvider(
        resource=Resource.create({"service.name": service, "deployment.environment.name": "test"})
    )
    provider.add_span_processor(SimpleSpanProcessor(recording))
    tracer = provider.get_tracer("e2e", "1.0.0")
    for number in range(int(count)):
        with tracer.start_as_current_span("checkout", kind=SpanKind.SERVER) as root:
            root.set_attribute("http.request.method", "GET")
            root.set_attribute("order.number", number)
            root.set_attribute("order.items", ["apple", "pear"])
            with tracer.start_as_current_span("charge card", kind=SpanKind.CLIENT) as child:
                child.set_attribute("amount", 12.5)
                child.add_event("declined", {"reason": "limit"})
                child.set_status(Status(StatusCode.ERROR, "card declined"))
            with tracer.start_as_current_span("send mail", kind=SpanKind.PRODUCER) as child:
                child.set_attribute("retry", True)
    provider.shutdown()
    for trace, names in recording.acknowledged.items():
        print(json.dumps({"trace": trace, "spans": sorted(names)}))
    sys.exit(1 if recording.refused else 0)


if __name__ == "__main__":
    main()
