//! Gives memory that is free again back to the operating system.

/// To be called after work that took much memory for a while. The allocator of glibc keeps what was
/// freed below an allocation that lives on; after a cut that is most of what the generation took.
/// Who allocates waits meanwhile, up to some 15 ms for each 10 MiB in small pieces.
pub(crate) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        // SAFETY: the signature is that of glibc's malloc.h, and it may be called at any time from
        // any thread. Where another allocator is in use, it finds nothing to give back.
        unsafe { malloc_trim(0) };
    }
}
