// Sends traces with the OpenTelemetry SDK for Node.js, as an instrumented service would.
//
// Usage: node send.mjs {json|protobuf} ENDPOINT SERVICE COUNT
//
// Prints one JSON object per trace that was acknowledged: its id and the names of its spans.
// Exits with 1 when an export was refused.

import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

// The modules are installed outside the repository: OTEL_MODULES names the folder.
const require = createRequire(pathToFileURL(`${process.env.OTEL_MODULES ?? '.'}/`));
const { trace, context, SpanKind, SpanStatusCode } = require('@opentelemetry/api');
const { resourceFromAttributes } = require('@opentelemetry/resources');
const { BasicTracerProvider, SimpleSpanProcessor } = require('@opentelemetry/sdk-trace-base');

const [protocol, endpoint, service, count] = process.argv.slice(2);
const { OTLPTraceExporter } =
  protocol === 'json'
    ? require('@opentelemetry/exporter-trace-otlp-http')
    : require('@opentelemetry/exporter-trace-otlp-proto');

const inner = new OTLPTraceExporter({ url: `http://${endpoint}/v1/traces` });
const acknowledged = new Map();
let refused = 0;
const recording = {
  export(spans, done) {
    inner.export(spans, (result) => {
      for (const span of spans) {
        if (result.code !== 0) {
          refused += 1;
          continue;
        }
        const id = span.spanContext().traceId;
        acknowledged.set(id, [...(acknowledged.get(id) ?? []), span.name]);
      }
      done(result);
    });
  },
  shutdown: () => inner.shutdown(),
  forceFlush: () => inner.forceFlush?.() ?? Promise.resolve(),
};

const provider = new BasicTracerProvider({
  resource: resourceFromAttributes({ 'service.name': service }),
  spanProcessors: [new SimpleSpanProcessor(recording)],
});
const tracer = provider.getTracer('e2e', '1.0.0');
for (let number = 0; number < Number(count); number += 1) {
  const root = tracer.startSpan('render page', { kind: SpanKind.SERVER });
  root.setAttribute('page.number', number);
  const child = tracer.startSpan(
    'fetch cart',
    { kind: SpanKind.CLIENT },
    trace.setSpan(context.active(), root),
  );
  child.setStatus({ code: SpanStatusCode.ERROR, message: 'timeout' });
  child.end();
  root.end();
}
await provider.forceFlush();
await provider.shutdown();
for (const [id, names] of acknowledged) {
  console.log(JSON.stringify({ trace: id, spans: names.sort() }));
}
process.exit(refused > 0 ? 1 : 0);
