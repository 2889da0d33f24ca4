/// Has the allocator of this process return large allocations to the system as soon as they are freed, from now on.
///
/// Models are loaded and computed with blocks of megabytes that come and go. glibc learns from the first of them that
/// such blocks are common, and keeps what is freed for later: 6 MiB of a VGG-16 with 8-bit weights, which weigh 128. A
/// program that serves on a small machine calls this before it opens a model, as `runtime` does; the cost is a page
/// fault for every 4 KiB of each large allocation. Allocators other than glibc's are left as they are.
pub fn return_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// Bytes from which on an allocation is the system's: glibc's own limit at the start is half of it.
        const LARGE: libc::c_int = 256 << 10;
        // SAFETY: it sets a number that the allocator reads, and may be called at any time.
        unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
    }
}
