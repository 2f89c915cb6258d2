//! Comparisons of lanes as bits. The compiler makes a dozen instructions of what is one on wide registers, and a search
//! compares a dozen times: it takes half the time with this.

use super::LANES;

/// How lanes are compared.
pub(super) trait Masks {
    /// In bits, which lanes are at most `limit`.
    fn at_most(lanes: &[u32; LANES], limit: u32) -> u16;
}

/// For any processor.
pub(super) struct Plain;

impl Masks for Plain {
    #[inline(always)]
    fn at_most(lanes: &[u32; LANES], limit: u32) -> u16 {
        let mut bits = 0;
        for (lane, value) in lanes.iter().enumerate() {
            bits |= u16::from(*value <= limit) << lane;
        }
        bits
    }
}

/// For AVX-512; used only in functions that are compiled for it.
#[cfg(target_arch = "x86_64")]
pub(super) struct Wide;

#[cfg(target_arch = "x86_64")]
impl Masks for Wide {
    #[inline(always)]
    #[expect(unsafe_code, reason = "the callers are compiled for these instructions")]
    fn at_most(lanes: &[u32; LANES], limit: u32) -> u16 {
        use std::arch::x86_64::{_mm512_cmple_epu32_mask, _mm512_loadu_si512, _mm512_set1_epi32};
        // SAFETY: the array is as long as the register and need not be aligned; that the processor has the
        // instructions was found out before a function was called that uses this.
        unsafe {
            let lanes = _mm512_loadu_si512(lanes.as_ptr().cast());
            _mm512_cmple_epu32_mask(lanes, _mm512_set1_epi32(limit.cast_signed()))
        }
    }
}
