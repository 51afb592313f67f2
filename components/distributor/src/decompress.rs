//! Decompression of request bodies, bounded: an archive bomb ends at the limit, not in memory.

use std::io::{self, Read};

use zstd::zstd_safe::{DCtx, DParameter, ResetDirective};

use crate::inflight::{InflightPermit, Overloaded};

/// Bytes by which the output grows at least.
const STEP_BYTES: usize = 64 << 10;

/// Largest zstd window accepted, as a power of two: 32 MiB, the most that common encoders use.
const MAX_ZSTD_WINDOW_LOG: u32 = 25;

/// What begins a framed snappy stream; a bare block begins with its length instead.
const SNAPPY_STREAM_IDENTIFIER: &[u8] = b"\xff\x06\x00\x00sNaPpY";

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// gzip, one or more members.
    Gzip,
    /// zlib, which HTTP calls `deflate` too.
    Zlib,
    /// Zstandard.
    Zstd,
    /// Snappy, one block or framed: told apart by the stream identifier.
    Snappy,
    /// Snappy, framed.
    SnappyFramed,
    /// LZ4, framed.
    Lz4,
}

impl Encoding {
    /// The meaning of a `Content-Encoding` header.
    pub fn from_http(name: &[u8]) -> Option<Self> {
        match name {
            b"" => Some(Self::Identity),
            b"gzip" => Some(Self::Gzip),
            b"zlib" | b"deflate" => Some(Self::Zlib),
            b"zstd" => Some(Self::Zstd),
            b"snappy" => Some(Self::Snappy),
            b"x-snappy-framed" => Some(Self::SnappyFramed),
            b"lz4" => Some(Self::Lz4),
            _ => None,
        }
    }

    /// The meaning of a `grpc-encoding` header.
    pub fn from_grpc(name: &[u8]) -> Option<Self> {
        match name {
            b"" | b"identity" => Some(Self::Identity),
            b"gzip" => Some(Self::Gzip),
            b"zstd" => Some(Self::Zstd),
            b"snappy" => Some(Self::SnappyFramed),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
            Self::Snappy | Self::SnappyFramed => "snappy",
            Self::Lz4 => "lz4",
        }
    }
}

/// Why a body was not decompressed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecompressError {
    /// It would take more bytes than allowed.
    #[error("request body is larger than {max_bytes} bytes when decompressed")]
    TooLarge { max_bytes: usize },
    /// It is not what it is said to be.
    #[error("request body is not valid {encoding}: {cause}")]
    Corrupt {
        encoding: &'static str,
        cause: String,
    },
    /// There is no memory for it now.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
}

/// Decompresses bodies, one after another, reusing what the formats need to have allocated.
#[derive(Default)]
pub(crate) struct Decompressor {
    zstd: Option<DCtx<'static>>,
}

impl Decompressor {
    /// Replaces `out` by the decompressed `body`, at most `max_bytes`, each counted in `permit`.
    pub(crate) fn decompress(
        &mut self,
        encoding: Encoding,
        body: &[u8],
        max_bytes: usize,
        permit: &mut InflightPermit,
        out: &mut Vec<u8>,
    ) -> Result<(), DecompressError> {
        out.clear();
        let held_before = permit.bytes();
        let mut output = Output {
            encoding,
            max_bytes,
            permit,
            out,
        };
        match encoding {
            Encoding::Identity => output.read_all(body),
            Encoding::Gzip => output.read_all(flate2::read::MultiGzDecoder::new(body)),
            Encoding::Zlib => output.read_all(flate2::read::ZlibDecoder::new(body)),
            Encoding::Zstd => self.zstd(body, &mut output),
            Encoding::Snappy if !body.starts_with(SNAPPY_STREAM_IDENTIFIER) => {
                output.snappy_block(body)
            }
            Encoding::Snappy | Encoding::SnappyFramed => {
                output.read_all(snap::read::FrameDecoder::new(body))
            }
            Encoding::Lz4 => output.read_all(lz4_flex::frame::FrameDecoder::new(body)),
        }?;
        let held = held_before + out.len();
        permit.shrink_to(held);
        Ok(())
    }

    fn zstd(&mut self, body: &[u8], output: &mut Output<'_>) -> Result<(), DecompressError> {
        let context = match self.zstd.take().or_else(DCtx::try_create) {
            Some(context) => self.zstd.insert(context),
            None => return Err(output.corrupt("no memory for a decompressor")),
        };
        // A context may stand in the middle of a body that was refused.
        context
            .reset(ResetDirective::SessionOnly)
            .and_then(|_| context.set_parameter(DParameter::WindowLogMax(MAX_ZSTD_WINDOW_LOG)))
            .map_err(|code| output.corrupt(zstd::zstd_safe::get_error_name(code)))?;
        output.read_all(zstd::stream::read::Decoder::with_context(body, context))
    }

    /// Bytes kept for the next body.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.zstd.as_ref().map_or(0, DCtx::sizeof)
    }
}

/// Where decompressed bytes go, and how many may.
struct Output<'a> {
    encoding: Encoding,
    max_bytes: usize,
    permit: &'a mut InflightPermit,
    out: &'a mut Vec<u8>,
}

impl Output<'_> {
    fn read_all(&mut self, mut reader: impl Read) -> Result<(), DecompressError> {
        loop {
            let filled = self.out.len();
            // One byte of room beyond the limit tells a body that ends there from one that goes on.
            let room = STEP_BYTES
                .max(filled)
                .min(self.max_bytes.saturating_add(1) - filled);
            if room == 0 {
                return Err(DecompressError::TooLarge {
                    max_bytes: self.max_bytes,
                });
            }
            self.permit.grow(room)?;
            self.out.reserve_exact(room);
            self.out.resize(filled + room, 0);
            let read = read_full(&mut reader, &mut self.out[filled..])
                .map_err(|error| self.corrupt(error))?;
            self.out.truncate(filled + read);
            if read < room {
                return Ok(());
            }
        }
    }

    fn snappy_block(&mut self, body: &[u8]) -> Result<(), DecompressError> {
        let len = snap::raw::decompress_len(body).map_err(|error| self.corrupt(error))?;
        if len > self.max_bytes {
            return Err(DecompressError::TooLarge {
                max_bytes: self.max_bytes,
            });
        }
        self.permit.grow(len)?;
        self.out.resize(len, 0);
        snap::raw::Decoder::new()
            .decompress(body, self.out)
            .map_err(|error| self.corrupt(error))?;
        Ok(())
    }

    fn corrupt(&self, cause: impl ToString) -> DecompressError {
        DecompressError::Corrupt {
            encoding: self.encoding.name(),
            cause: cause.to_string(),
        }
    }
}

/// Fills `buffer`, or as much of it as there is.
fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::{io::Write, sync::Arc};

    use prometheus::IntGauge;

    use super::*;
    use crate::inflight::InflightBudget;

    fn budget(max_bytes: usize) -> Arc<InflightBudget> {
        InflightBudget::new(max_bytes, IntGauge::new("used", "used").unwrap())
    }

    fn compress(encoding: Encoding, data: &[u8]) -> Vec<u8> {
        match encoding {
            Encoding::Identity => data.to_vec(),
            Encoding::Gzip => {
                let mut gzip = flate2::write::GzEncoder::new(Vec::new(), Default::default());
                gzip.write_all(data).unwrap();
                gzip.finish().unwrap()
            }
            Encoding::Zlib => {
                let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), Default::default());
                zlib.write_all(data).unwrap();
                zlib.finish().unwrap()
            }
            Encoding::Zstd => zstd::encode_all(data, 1).unwrap(),
            Encoding::Snappy => snap::raw::Encoder::new().compress_vec(data).unwrap(),
            Encoding::SnappyFramed => {
                let mut framed = snap::write::FrameEncoder::new(Vec::new());
                framed.write_all(data).unwrap();
                framed.into_inner().unwrap()
            }
            Encoding::Lz4 => {
                let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
                lz4.write_all(data).unwrap();
                lz4.finish().unwrap()
            }
        }
    }

    const ALL: [Encoding; 7] = [
        Encoding::Identity,
        Encoding::Gzip,
        Encoding::Zlib,
        Encoding::Zstd,
        Encoding::Snappy,
        Encoding::SnappyFramed,
        Encoding::Lz4,
    ];

    #[test]
    fn every_encoding_gives_back_what_went_in_up_to_the_limit_exactly() {
        let data: Vec<u8> = (0..300_000_u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .collect();
        let budget = budget(1 << 30);
        let mut decompressor = Decompressor::default();
        let mut out = Vec::new();
        for encoding in ALL {
            let body = compress(encoding, &data);
            for (max_bytes, fits) in [(data.len(), true), (data.len() - 1, false)] {
                let mut permit = budget.open();
                let done =
                    decompressor.decompress(encoding, &body, max_bytes, &mut permit, &mut out);
                if fits {
                    done.unwrap();
                    assert!(out == data, "{encoding:?}");
                    assert_eq!(permit.bytes(), data.len(), "{encoding:?}");
                } else {
                    assert!(
                        matches!(done, Err(DecompressError::TooLarge { .. })),
                        "{encoding:?} {done:?}"
                    );
                }
            }
        }
        let framed = compress(Encoding::SnappyFramed, &data);
        let mut permit = budget.open();
        decompressor
            .decompress(Encoding::Snappy, &framed, 1 << 30, &mut permit, &mut out)
            .unwrap();
        assert!(out == data, "framing is told from the first bytes");
    }

    #[test]
    fn bombs_end_at_the_limit_without_more_memory() {
        let bomb = vec![0_u8; 8 << 20];
        let max_bytes = 1 << 20;
        for encoding in ALL {
            let body = compress(encoding, &bomb);
            let budget = budget(1 << 30);
            let mut out = Vec::new();
            let mut permit = budget.open();
            let done = Decompressor::default().decompress(
                encoding,
                &body,
                max_bytes,
                &mut permit,
                &mut out,
            );
            assert!(
                matches!(done, Err(DecompressError::TooLarge { .. })),
                "{encoding:?} {done:?}"
            );
            assert!(
                out.capacity() <= 2 * max_bytes,
                "{encoding:?} {}",
                out.capacity()
            );
        }
    }

    #[test]
    fn a_full_budget_refuses_and_garbage_is_named() {
        let body = compress(Encoding::Gzip, &vec![0; 1 << 20]);
        let full = budget(100_000);
        let mut out = Vec::new();
        let done = Decompressor::default().decompress(
            Encoding::Gzip,
            &body,
            1 << 30,
            &mut full.open(),
            &mut out,
        );
        assert!(
            matches!(done, Err(DecompressError::Overloaded(_))),
            "{done:?}"
        );

        let roomy = budget(1 << 30);
        let mut decompressor = Decompressor::default();
        for encoding in ALL.into_iter().skip(1) {
            let error = decompressor
                .decompress(
                    encoding,
                    b"\x7f\xffneither of them",
                    1 << 20,
                    &mut roomy.open(),
                    &mut out,
                )
                .unwrap_err();
            assert!(
                error.to_string().contains(encoding.name()),
                "{encoding:?} {error}"
            );
            // The decompressor is as good as new after a failure.
            let body = compress(encoding, b"fine");
            decompressor
                .decompress(encoding, &body, 4, &mut roomy.open(), &mut out)
                .unwrap();
            assert_eq!(out, b"fine");
        }
    }
}
