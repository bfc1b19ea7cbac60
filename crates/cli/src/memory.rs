//! How the C library gives memory back.
//!
//! glibc keeps what was freed, in an arena for each thread, and learns from large blocks that were freed to keep even larger
//! ones. Buffers of a megabyte that go from thread to thread then cost several times what is in use: the daemon grew with
//! each backup, and restores took up to three times as much (docs/benchmarks.md).

/// Makes glibc keep less: two arenas, and blocks from 256 KiB on go back to the system at once. To be called before there
/// are other threads. Whoever has set it in the environment knows better.
pub(crate) fn keep_little() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const MOST_ARENAS: libc::c_int = 2;
        const SENT_BACK_BYTES: libc::c_int = 256 << 10;
        let is_unset = |name| std::env::var_os(name).is_none();
        #[expect(unsafe_code, reason = "glibc has no other way than this call")]
        // SAFETY: it stores numbers in glibc's settings, under a lock of its own, and touches no memory of ours.
        unsafe {
            if is_unset("MALLOC_ARENA_MAX") {
                libc::mallopt(libc::M_ARENA_MAX, MOST_ARENAS);
            }
            if is_unset("MALLOC_MMAP_THRESHOLD_") {
                libc::mallopt(libc::M_MMAP_THRESHOLD, SENT_BACK_BYTES);
            }
        }
    }
}
