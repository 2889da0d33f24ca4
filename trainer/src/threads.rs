use anyhow::Context;

/// Limits the threads of the network: of rayon, on which the kernels run, and of candle's own operators, which ask the
/// environment. To be called before any other thread is started.
pub(crate) fn limit(threads: usize) -> anyhow::Result<()> {
    // candle takes its number from nowhere else, which is why this stands outside the kernels.
    // SAFETY: the commands call this first, while the program has one thread, so nobody reads the environment meanwhile.
    unsafe { std::env::set_var("RAYON_NUM_THREADS", threads.to_string()) };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    pool.with_context(|| format!("cannot start {threads} threads; set a smaller --threads"))
}
