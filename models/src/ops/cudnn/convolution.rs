use std::{
    collections::HashMap,
    ffi::{c_int, c_void},
    mem,
};

use candle_core::{
    CudaStorage, Layout, Result, Tensor, bail,
    cuda_backend::cudarc::cudnn::{CudnnError, result, sys},
};
use kernels::{Activation, conv3x3::Shape};

use super::{
    context::{self, Context, Handle},
    descriptor::{ConvolutionDescriptor, FilterDescriptor, MapDescriptor, convolution_type},
    memory::{Rounded, Source, Target},
    relu, tensor, with_storage,
};
use crate::Precision;

/// A convolution of this shape, in all its passes.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Convolution {
    pub(in crate::ops) shape: Shape,
    pub(in crate::ops) precision: Precision,
    pub(in crate::ops) activation: Activation,
}

/// What is fixed by a pass, a shape and a precision.
#[derive(Clone, Copy)]
struct Chosen<A> {
    algorithm: A,
    /// Bytes of workspace.
    workspace: usize,
}

type Choice<A> = HashMap<(Shape, Precision), Chosen<A>>;

/// The algorithms of every convolution that was met.
#[derive(Default)]
pub(super) struct Choices {
    forward: Choice<sys::cudnnConvolutionFwdAlgo_t>,
    backward_data: Choice<sys::cudnnConvolutionBwdDataAlgo_t>,
    backward_filter: Choice<sys::cudnnConvolutionBwdFilterAlgo_t>,
}

/// How many algorithms cuDNN is asked for: more than it has, with each math type.
const CANDIDATES: usize = 24;
/// Bytes of workspace above which an algorithm is passed over: more memory than its speed is worth. Each pass has one
/// that needs none, or little.
const LARGEST_WORKSPACE: usize = 1 << 30;

/// The memory of a tensor.
pub(in crate::ops) type Operand<'a> = (&'a CudaStorage, &'a Layout);

/// The output: convolution, bias and activation of f32 values.
///
/// These are three calls. The fused one of cuDNN turns NaN into 0, which hides a training that diverges, and allows
/// fewer algorithms.
pub(in crate::ops) fn output(
    convolution: Convolution,
    input: Operand<'_>,
    weight: Operand<'_>,
    bias: Operand<'_>,
) -> Result<CudaStorage> {
    let Convolution { shape, precision, activation } = convolution;
    let input = Source::new(input.0, input.1, shape.input_len())?;
    let weight = Source::new(weight.0, weight.1, shape.weight_len())?;
    let bias = Source::new(bias.0, bias.1, shape.out_channels)?;
    context::with(input.device(), |context| {
        let sums = Target::rounded(input.device(), shape.output_len(), precision)?;
        let mut output = forward(context, convolution, &input.rounded(precision)?, &weight.rounded(precision)?, sums)?;
        let maps = MapDescriptor::new(output_dims(shape), convolution_type(Precision::F32))?;
        add_bias(context, shape, &bias, &maps, &mut output)?;
        if activation == Activation::Relu {
            relu::in_place(context, &maps, &mut output)?;
        }
        Ok(output.into_storage())
    })
}

/// The gradients of the input, where it needs one, of the weight and of the bias.
pub(in crate::ops) fn gradients(
    convolution: Convolution,
    input: &Tensor,
    weight: &Tensor,
    output: &Tensor,
    gradient: &Tensor,
) -> Result<(Option<Tensor>, Tensor, Tensor)> {
    let Convolution { shape, precision, activation } = convolution;
    let gradient = gradient.contiguous()?;
    let gradient = match activation {
        Activation::Identity => gradient,
        Activation::Relu => relu::input_gradient(output, &gradient)?,
    };
    let passes = |input_memory: Operand<'_>, weight_memory: Operand<'_>, gradient: Operand<'_>| {
        let input_values = Source::new(input_memory.0, input_memory.1, shape.input_len())?;
        let weight_values = Source::new(weight_memory.0, weight_memory.1, shape.weight_len())?;
        let gradient = Source::new(gradient.0, gradient.1, shape.output_len())?;
        let device = gradient.device();
        context::with(device, |context| {
            let rounded = gradient.rounded(precision)?;
            let mut input_gradient = None;
            if input.track_op() {
                let target = Target::rounded(device, shape.input_len(), precision)?;
                let found = backward_data(context, convolution, &weight_values.rounded(precision)?, &rounded, target)?;
                input_gradient = Some(tensor(found.into_storage(), input.shape()));
            }
            let target = Target::rounded(device, shape.weight_len(), precision)?;
            let found = backward_filter(context, convolution, &input_values.rounded(precision)?, &rounded, target)?;
            let weight_gradient = tensor(found.into_storage(), weight.shape());
            let bias_gradient = tensor(backward_bias(context, shape, &gradient)?.into_storage(), shape.out_channels);
            Ok((input_gradient, weight_gradient, bias_gradient))
        })
    };
    with_storage(input, |input, input_layout| {
        with_storage(weight, |weight, weight_layout| {
            with_storage(&gradient, |gradient, gradient_layout| {
                passes((input, input_layout), (weight, weight_layout), (gradient, gradient_layout))
            })
        })
    })
}

fn output_dims(shape: Shape) -> [usize; 4] {
    [shape.batch, shape.out_channels, shape.height, shape.width]
}

/// Those of the three passes.
struct Descriptors {
    input: MapDescriptor,
    weight: FilterDescriptor,
    output: MapDescriptor,
    convolution: ConvolutionDescriptor,
}

impl Descriptors {
    fn new(Convolution { shape, precision, .. }: Convolution) -> Result<Self> {
        let input = [shape.batch, shape.in_channels, shape.height, shape.width];
        Ok(Self {
            input: MapDescriptor::new(input, convolution_type(precision))?,
            weight: FilterDescriptor::new(shape, precision)?,
            output: MapDescriptor::new(output_dims(shape), convolution_type(precision))?,
            convolution: ConvolutionDescriptor::new(precision)?,
        })
    }
}

/// A factor of cuDNN's, which is f32 for f32 and bf16.
pub(super) fn factor(factor: &'static f32) -> *const c_void {
    (&raw const *factor).cast()
}

fn forward(
    context: &mut Context,
    convolution: Convolution,
    input: &Rounded<'_>,
    weight: &Rounded<'_>,
    mut output: Target,
) -> Result<Target> {
    let Context { handle, stream, workspace, choices } = context;
    let descriptors = Descriptors::new(convolution)?;
    let Chosen { algorithm, workspace: bytes } =
        remembered(&mut choices.forward, convolution, || choose_forward(handle, &descriptors))?;
    {
        let (input, _input) = input.pointer(stream)?;
        let (weight, _weight) = weight.pointer(stream)?;
        let (output, _output) = output.pointer(stream)?;
        let (workspace, _workspace) = workspace.of(bytes, stream)?;
        // SAFETY: the module's three facts; the workspace has the bytes that cuDNN asks for.
        unsafe {
            result::convolution_forward(
                handle.raw(),
                factor(&1.0),
                descriptors.input.raw(),
                input,
                descriptors.weight.raw(),
                weight,
                descriptors.convolution.raw(),
                algorithm,
                workspace,
                bytes,
                factor(&0.0),
                descriptors.output.raw(),
                output,
            )
        }?;
    }
    output.into_f32()
}

fn backward_data(
    context: &mut Context,
    convolution: Convolution,
    weight: &Rounded<'_>,
    gradient: &Rounded<'_>,
    mut input_gradient: Target,
) -> Result<Target> {
    let Context { handle, stream, workspace, choices } = context;
    let descriptors = Descriptors::new(convolution)?;
    let Chosen { algorithm, workspace: bytes } =
        remembered(&mut choices.backward_data, convolution, || choose_backward_data(handle, &descriptors))?;
    {
        let (weight, _weight) = weight.pointer(stream)?;
        let (gradient, _gradient) = gradient.pointer(stream)?;
        let (input_gradient, _input_gradient) = input_gradient.pointer(stream)?;
        let (workspace, _workspace) = workspace.of(bytes, stream)?;
        // SAFETY: the module's three facts; the workspace has the bytes that cuDNN asks for.
        unsafe {
            result::convolution_backward_data(
                handle.raw(),
                factor(&1.0),
                descriptors.weight.raw(),
                weight,
                descriptors.output.raw(),
                gradient,
                descriptors.convolution.raw(),
                algorithm,
                workspace,
                bytes,
                factor(&0.0),
                descriptors.input.raw(),
                input_gradient,
            )
        }?;
    }
    input_gradient.into_f32()
}

fn backward_filter(
    context: &mut Context,
    convolution: Convolution,
    input: &Rounded<'_>,
    gradient: &Rounded<'_>,
    mut weight_gradient: Target,
) -> Result<Target> {
    let Context { handle, stream, workspace, choices } = context;
    let descriptors = Descriptors::new(convolution)?;
    let Chosen { algorithm, workspace: bytes } =
        remembered(&mut choices.backward_filter, convolution, || choose_backward_filter(handle, &descriptors))?;
    {
        let (input, _input) = input.pointer(stream)?;
        let (gradient, _gradient) = gradient.pointer(stream)?;
        let (weight_gradient, _weight_gradient) = weight_gradient.pointer(stream)?;
        let (workspace, _workspace) = workspace.of(bytes, stream)?;
        // SAFETY: the module's three facts; the workspace has the bytes that cuDNN asks for.
        unsafe {
            result::convolution_backward_filter(
                handle.raw(),
                factor(&1.0),
                descriptors.input.raw(),
                input,
                descriptors.output.raw(),
                gradient,
                descriptors.convolution.raw(),
                algorithm,
                workspace,
                bytes,
                factor(&0.0),
                descriptors.weight.raw(),
                weight_gradient,
            )
        }?;
    }
    weight_gradient.into_f32()
}

fn add_bias(
    context: &Context,
    shape: Shape,
    bias: &Source<'_>,
    maps: &MapDescriptor,
    output: &mut Target,
) -> Result<()> {
    let descriptor = MapDescriptor::of_bias(shape.out_channels)?;
    let (bias, _bias) = bias.pointer(&context.stream)?;
    let (output, _output) = output.pointer(&context.stream)?;
    let (handle, one) = (context.handle.raw(), factor(&1.0));
    // SAFETY: the module's three facts. One f32 for each channel is added to the maps where they are.
    unsafe { sys::cudnnAddTensor(handle, one, descriptor.raw(), bias, one, maps.raw(), output) }.result()?;
    Ok(())
}

/// The sums over pictures, rows and columns.
fn backward_bias(context: &Context, shape: Shape, gradient: &Source<'_>) -> Result<Target> {
    let maps = MapDescriptor::new(output_dims(shape), convolution_type(Precision::F32))?;
    let descriptor = MapDescriptor::of_bias(shape.out_channels)?;
    let mut sums = Target::new(gradient.device(), shape.out_channels)?;
    {
        let (gradient, _gradient) = gradient.pointer(&context.stream)?;
        let (sums, _sums) = sums.pointer(&context.stream)?;
        let (handle, one, zero) = (context.handle.raw(), factor(&1.0), factor(&0.0));
        // SAFETY: the module's three facts.
        unsafe { sys::cudnnConvolutionBackwardBias(handle, one, maps.raw(), gradient, zero, descriptor.raw(), sums) }
            .result()?;
    }
    Ok(sums)
}

/// The choice for this convolution, made when it is first met.
fn remembered<A: Copy>(
    choices: &mut Choice<A>,
    Convolution { shape, precision, .. }: Convolution,
    choose: impl FnOnce() -> Result<Option<Chosen<A>>>,
) -> Result<Chosen<A>> {
    if let Some(chosen) = choices.get(&(shape, precision)) {
        return Ok(*chosen);
    }
    let Some(chosen) = choose()? else {
        bail!(
            "cuDNN has no deterministic algorithm for the {shape:?} in {precision} on this device; try another precision"
        );
    };
    choices.insert((shape, precision), chosen);
    Ok(chosen)
}

/// Of cuDNN's candidates, the fastest first, the first one that works, is deterministic, and needs no workspace above
/// the largest.
fn first_usable<A: Copy>(
    candidates: impl Iterator<Item = (A, sys::cudnnStatus_t, sys::cudnnDeterminism_t)>,
    workspace: impl Fn(A) -> std::result::Result<usize, CudnnError>,
) -> Option<Chosen<A>> {
    candidates
        .filter(|(_, status, determinism)| {
            *status == sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS
                && *determinism == sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC
        })
        .filter_map(|(algorithm, ..)| Some(Chosen { algorithm, workspace: workspace(algorithm).ok()? }))
        .find(|chosen| chosen.workspace <= LARGEST_WORKSPACE)
}

fn choose_forward(
    handle: &Handle,
    descriptors: &Descriptors,
) -> Result<Option<Chosen<sys::cudnnConvolutionFwdAlgo_t>>> {
    let Descriptors { input, weight, output, convolution } = descriptors;
    let (handle, x, w, y) = (handle.raw(), input.raw(), weight.raw(), output.raw());
    // SAFETY: numbers, and enumerations that all have a 0.
    let mut found: [sys::cudnnConvolutionFwdAlgoPerf_t; CANDIDATES] = unsafe { mem::zeroed() };
    let (mut count, room, list) = (0, CANDIDATES as c_int, found.as_mut_ptr());
    // SAFETY: the module's first fact; the list has the room that is named.
    unsafe {
        result::get_convolution_forward_algorithm(handle, x, w, convolution.raw(), y, room, &raw mut count, list)
    }?;
    let candidates = found.iter().take(count as usize).map(|found| (found.algo, found.status, found.determinism));
    // SAFETY: the module's first fact.
    let workspace = |algorithm| unsafe {
        result::get_convolution_forward_workspace_size(handle, x, w, convolution.raw(), y, algorithm)
    };
    Ok(first_usable(candidates, workspace))
}

fn choose_backward_data(
    handle: &Handle,
    descriptors: &Descriptors,
) -> Result<Option<Chosen<sys::cudnnConvolutionBwdDataAlgo_t>>> {
    let Descriptors { input, weight, output, convolution } = descriptors;
    let (handle, dx, w, dy) = (handle.raw(), input.raw(), weight.raw(), output.raw());
    // SAFETY: numbers, and enumerations that all have a 0.
    let mut found: [sys::cudnnConvolutionBwdDataAlgoPerf_t; CANDIDATES] = unsafe { mem::zeroed() };
    let (mut count, room, list) = (0, CANDIDATES as c_int, found.as_mut_ptr());
    // SAFETY: the module's first fact; the list has the room that is named.
    unsafe {
        result::get_convolution_backward_data_algorithm(
            handle,
            w,
            dy,
            convolution.raw(),
            dx,
            room,
            &raw mut count,
            list,
        )
    }?;
    let candidates = found.iter().take(count as usize).map(|found| (found.algo, found.status, found.determinism));
    // SAFETY: the module's first fact.
    let workspace = |algorithm| unsafe {
        result::get_convolution_backward_data_workspace_size(handle, w, dy, convolution.raw(), dx, algorithm)
    };
    Ok(first_usable(candidates, workspace))
}

fn choose_backward_filter(
    handle: &Handle,
    descriptors: &Descriptors,
) -> Result<Option<Chosen<sys::cudnnConvolutionBwdFilterAlgo_t>>> {
    let Descriptors { input, weight, output, convolution } = descriptors;
    let (handle, x, dw, dy) = (handle.raw(), input.raw(), weight.raw(), output.raw());
    // SAFETY: numbers, and enumerations that all have a 0.
    let mut found: [sys::cudnnConvolutionBwdFilterAlgoPerf_t; CANDIDATES] = unsafe { mem::zeroed() };
    let (mut count, room, list) = (0, CANDIDATES as c_int, found.as_mut_ptr());
    // SAFETY: the module's first fact; the list has the room that is named.
    unsafe {
        result::get_convolution_backward_filter_algorithm(
            handle,
            x,
            dy,
            convolution.raw(),
            dw,
            room,
            &raw mut count,
            list,
        )
    }?;
    let candidates = found.iter().take(count as usize).map(|found| (found.algo, found.status, found.determinism));
    // SAFETY: the module's first fact.
    let workspace = |algorithm| unsafe {
        result::get_convolution_backward_filter_workspace_size(handle, x, dy, convolution.raw(), dw, algorithm)
    };
    Ok(first_usable(candidates, workspace))
}
