#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| securelink_fuzz::targets::records::run(data));
