#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tempo_fuzz::otlp_json(data));
