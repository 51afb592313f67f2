//! Fetching from memory before something waits for it.

/// Bytes of a line of a processor's cache.
const LINE_BYTES: usize = 64;

/// Asks the processor to bring bytes into its cache, and does not wait for them. Does nothing where it
/// cannot be asked.
#[inline]
pub fn fetch_ahead(bytes: &[u8]) {
    for line in bytes.chunks(LINE_BYTES) {
        fetch_line_ahead(&line[0]);
    }
}

/// The same for the line in which a value begins.
#[inline(always)]
#[allow(unsafe_code)]
pub(crate) fn fetch_line_ahead<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has SSE, and the address is that of a value.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
