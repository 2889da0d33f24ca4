//! Device memory as cuDNN reads and writes it.

use std::ffi::c_void;

use candle_core::{
    CudaDevice, CudaStorage, DType, Layout, Result, Shape,
    backend::{BackendDevice, BackendStorage},
    bail,
    cuda_backend::{
        CudaStorageSlice,
        cudarc::driver::{CudaStream, DevicePtr, DevicePtrMut, SyncOnDrop},
    },
};

use crate::Precision;

/// The type in memory of what a convolution reads and writes.
fn convolution_type(precision: Precision) -> DType {
    match precision {
        Precision::F32 | Precision::Tf32 => DType::F32,
        Precision::Bf16 => DType::BF16,
    }
}

/// Contiguous f32 values of a tensor, of the length that the caller's descriptor gives them.
pub(super) struct Source<'a> {
    storage: &'a CudaStorage,
    start: usize,
    length: usize,
}

impl<'a> Source<'a> {
    pub(super) fn new(storage: &'a CudaStorage, layout: &Layout, length: usize) -> Result<Self> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("cuDNN: expected a contiguous tensor, found strides {:?} of {:?}", layout.stride(), layout.shape());
        };
        if storage.dtype() != DType::F32 || end - start != length || slice_length(storage)? < end {
            bail!("cuDNN: expected {length} f32, found {:?} {:?}", storage.dtype(), layout.shape());
        }
        Ok(Self { storage, start, length })
    }

    pub(super) fn device(&self) -> &CudaDevice {
        &self.storage.device
    }

    /// The values in the type that a convolution of that precision reads: a copy where it is another one.
    pub(super) fn rounded(&self, precision: Precision) -> Result<Rounded<'_>> {
        match convolution_type(precision) {
            DType::F32 => Ok(Rounded::Here(self)),
            other => {
                let layout = Layout::contiguous_with_offset(self.length, self.start);
                Ok(Rounded::Copy(self.storage.to_dtype(&layout, other)?))
            }
        }
    }

    /// Where the values begin, until the second value is dropped.
    pub(super) fn pointer<'s>(&'s self, stream: &'s CudaStream) -> Result<(*const c_void, SyncOnDrop<'s>)> {
        let (pointer, record) = pointer(self.storage, stream)?;
        Ok((pointer.wrapping_byte_add(self.start * DType::F32.size_in_bytes()), record))
    }
}

/// What a convolution reads.
pub(super) enum Rounded<'a> {
    Here(&'a Source<'a>),
    Copy(CudaStorage),
}

impl Rounded<'_> {
    pub(super) fn pointer<'s>(&'s self, stream: &'s CudaStream) -> Result<(*const c_void, SyncOnDrop<'s>)> {
        match self {
            Self::Here(source) => source.pointer(stream),
            Self::Copy(storage) => pointer(storage, stream),
        }
    }
}

/// Memory that is about to be written whole.
pub(super) struct Target {
    storage: CudaStorage,
    length: usize,
}

impl Target {
    /// So many f32.
    pub(super) fn new(device: &CudaDevice, length: usize) -> Result<Self> {
        Self::of_type(device, length, DType::F32)
    }

    /// So many f32, 0 where cuDNN leaves them out.
    pub(super) fn zeros(device: &CudaDevice, length: usize) -> Result<Self> {
        Ok(Self { storage: device.zeros_impl(&Shape::from(length), DType::F32)?, length })
    }

    /// So many results of a convolution of that precision.
    pub(super) fn rounded(device: &CudaDevice, length: usize, precision: Precision) -> Result<Self> {
        Self::of_type(device, length, convolution_type(precision))
    }

    fn of_type(device: &CudaDevice, length: usize, dtype: DType) -> Result<Self> {
        // SAFETY: the memory has no values yet; every function of this module that makes a target has cuDNN write all of
        // it, or fails and drops it.
        let storage = unsafe { device.alloc_uninit(&Shape::from(length), dtype) }?;
        Ok(Self { storage, length })
    }

    /// Where the values begin, until the second value is dropped.
    pub(super) fn pointer<'s>(&'s mut self, stream: &'s CudaStream) -> Result<(*mut c_void, SyncOnDrop<'s>)> {
        let (pointer, record) = match &mut self.storage.slice {
            CudaStorageSlice::F32(slice) => slice.device_ptr_mut(stream),
            CudaStorageSlice::BF16(slice) => slice.device_ptr_mut(stream),
            other => bail!("cuDNN: expected f32 or bf16, found {other:?}"),
        };
        Ok((pointer as *mut c_void, record))
    }

    /// The values as f32.
    pub(super) fn into_f32(self) -> Result<Self> {
        if self.storage.dtype() == DType::F32 {
            return Ok(self);
        }
        let storage = self.storage.to_dtype(&Layout::contiguous(self.length), DType::F32)?;
        Ok(Self { storage, length: self.length })
    }

    /// The memory, once it is written.
    pub(super) fn into_storage(self) -> CudaStorage {
        self.storage
    }
}

fn slice_length(storage: &CudaStorage) -> Result<usize> {
    match &storage.slice {
        CudaStorageSlice::F32(slice) => Ok(slice.len()),
        _ => bail!("cuDNN: expected f32, found {:?}", storage.dtype()),
    }
}

fn pointer<'a>(storage: &'a CudaStorage, stream: &'a CudaStream) -> Result<(*const c_void, SyncOnDrop<'a>)> {
    let (pointer, record) = match &storage.slice {
        CudaStorageSlice::F32(slice) => slice.device_ptr(stream),
        CudaStorageSlice::BF16(slice) => slice.device_ptr(stream),
        _ => bail!("cuDNN: expected f32 or bf16, found {:?}", storage.dtype()),
    };
    Ok((pointer as *const c_void, record))
}
