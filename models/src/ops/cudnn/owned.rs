use candle_core::cuda_backend::cudarc::cudnn::sys;

/// What cuDNN has created, destroyed with its owner.
pub(super) struct Owned<T: Copy> {
    raw: T,
    destroy: unsafe fn(T) -> sys::cudnnStatus_t,
}

impl<T: Copy> Owned<T> {
    /// # Safety
    /// cuDNN has created `raw`, `destroy` is its function for that kind of thing, and nobody else calls it.
    pub(super) unsafe fn of(raw: T, destroy: unsafe fn(T) -> sys::cudnnStatus_t) -> Self {
        Self { raw, destroy }
    }

    pub(super) fn raw(&self) -> T {
        self.raw
    }
}

impl<T: Copy> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: that of `of`. At the end of the process the driver may be gone before the thread's handles; there is
        // nothing left to free then, and the error says only that.
        let _ = unsafe { (self.destroy)(self.raw) };
    }
}
