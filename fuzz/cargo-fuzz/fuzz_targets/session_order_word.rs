#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    overway_fuzz::session_order_word(bytes);
});
