use std::{
    cell::RefCell,
    collections::{HashMap, hash_map::Entry},
    ffi::c_void,
    ptr,
    sync::Arc,
};

use candle_core::{
    CudaDevice, Result,
    cuda_backend::{
        DeviceId, WrapErr,
        cudarc::{
            cudnn::{result, sys},
            driver::{CudaSlice, CudaStream, DevicePtrMut, SyncOnDrop},
        },
    },
};

use super::{convolution::Choices, owned::Owned};

thread_local! {
    // A handle must not be used by two threads at once.
    static CONTEXTS: RefCell<HashMap<DeviceId, Context>> = RefCell::default();
}

/// A thread's cuDNN on one device.
pub(super) struct Context {
    pub(super) handle: Handle,
    pub(super) stream: Arc<CudaStream>,
    pub(super) workspace: Workspace,
    pub(super) choices: Choices,
}

/// Runs with this thread's cuDNN on the device, which is made ready at the first call.
pub(super) fn with<R>(device: &CudaDevice, run: impl FnOnce(&mut Context) -> Result<R>) -> Result<R> {
    CONTEXTS.with_borrow_mut(|contexts| {
        let stream = device.cuda_stream();
        // cuDNN works on the device that is current in the thread, which may have used another one meanwhile.
        stream.context().bind_to_thread().w()?;
        run(match contexts.entry(device.id()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Context {
                handle: Handle::new(&stream)?,
                workspace: Workspace::default(),
                choices: Choices::default(),
                stream,
            }),
        })
    })
}

/// cuDNN's state for a thread and a stream.
pub(super) type Handle = Owned<sys::cudnnHandle_t>;

impl Handle {
    fn new(stream: &CudaStream) -> Result<Self> {
        // SAFETY: created here, and destroyed by its owner only.
        let handle = unsafe { Self::of(result::create_handle()?, sys::cudnnDestroy) };
        // SAFETY: the handle was created above, and the stream outlives it: a `Context` holds both.
        unsafe { result::set_stream(handle.raw(), stream.cu_stream().cast()) }?;
        Ok(handle)
    }
}

/// Device memory that every convolution of a thread uses in its turn.
#[derive(Default)]
pub(super) struct Workspace(Option<CudaSlice<u8>>);

impl Workspace {
    /// At least so many bytes, until the last value is dropped; null for none.
    pub(super) fn of<'a>(
        &'a mut self,
        bytes: usize,
        stream: &'a Arc<CudaStream>,
    ) -> Result<(*mut c_void, Option<SyncOnDrop<'a>>)> {
        if bytes == 0 {
            return Ok((ptr::null_mut(), None));
        }
        if self.0.as_ref().is_none_or(|memory| memory.len() < bytes) {
            // The old one goes first, so that both need not fit.
            self.0 = None;
            // SAFETY: cuDNN reads nothing from its workspace that it has not written.
            self.0 = Some(unsafe { stream.alloc(bytes) }.w()?);
        }
        Ok(match &mut self.0 {
            None => (ptr::null_mut(), None),
            Some(memory) => {
                let (pointer, record) = memory.device_ptr_mut(stream);
                (pointer as *mut c_void, Some(record))
            }
        })
    }
}
