//! Times each convolution of VGG-16, pass by pass.
//!
//! `cargo run --release -p kernels --example profile -- --size 224 --batch 1 --threads 2`
//! prints the processor's peak, and of each layer the milliseconds, GFLOP/s in direct terms, their ratio to the
//! peak and the algorithm chosen. `--set avx2` uses the instructions of another processor, `--algorithm winograd4`
//! forces an algorithm, `--all` tries each and says how much slower than the best the chosen ones are together,
//! `--packed` transforms the weights on the way, `--integers` convolves bytes, `--others` times what is bound by memory, and `--pass forward` and
//! `--layer block3` time a part only.
#![expect(clippy::print_stdout, reason = "printing a table is what the program is for")]

use std::time::Instant;

use kernels::adam::{self, AdamStep};
use kernels::conv3x3::integer::{self, IntegerWeights};
use kernels::conv3x3::{self, Algorithm, Epilogue, Layout, Pass, Shape, TransformedWeights};
use kernels::fake_quantize::Grid;
use kernels::{Activation, InstructionSet, dense, peak, pool2x2, relu, resize};

/// Channels in and out, and how often the layer's input has been halved.
const LAYERS: [(&str, usize, usize, u32); 13] = [
    ("block1_conv1", 3, 64, 0),
    ("block1_conv2", 64, 64, 0),
    ("block2_conv1", 64, 128, 1),
    ("block2_conv2", 128, 128, 1),
    ("block3_conv1", 128, 256, 2),
    ("block3_conv2", 256, 256, 2),
    ("block3_conv3", 256, 256, 2),
    ("block4_conv1", 256, 512, 3),
    ("block4_conv2", 512, 512, 3),
    ("block4_conv3", 512, 512, 3),
    ("block5_conv1", 512, 512, 4),
    ("block5_conv2", 512, 512, 4),
    ("block5_conv3", 512, 512, 4),
];

struct Options {
    size: usize,
    batch: usize,
    repeats: usize,
    algorithms: Vec<Algorithm>,
    passes: Vec<Pass>,
    layer: String,
    others: bool,
    packed: bool,
    integers: bool,
}

fn main() {
    let options = options();
    println!(
        "size {} batch {} threads {} {:?}",
        options.size,
        options.batch,
        rayon::current_num_threads(),
        InstructionSet::current(),
    );
    if options.others {
        others(&options);
        return;
    }
    let peak = peak::gigaflops(options.repeats);
    println!("peak {peak:.1} GFLOP/s of independent multiply-adds in registers");
    if let Some(integers) = peak::integer_gigaops(options.repeats) {
        println!("peak {integers:.1} GOP/s of 16-bit integers, their products added in 32 bits");
    }
    for &pass in &options.passes {
        println!("\n{pass:?}");
        let mut total = (0.0, 0.0);
        let mut regret = (0.0, 0.0);
        for (name, in_channels, out_channels, halvings) in LAYERS {
            if !name.starts_with(&options.layer) {
                continue;
            }
            let side = options.size >> halvings;
            let shape = Shape { batch: options.batch, in_channels, out_channels, height: side, width: side };
            let chosen = conv3x3::algorithm(shape, pass);
            let gigaflops = shape.flops() as f64 / 1e9;
            let mut line = format!("{name:<13}");
            let mut best = f64::INFINITY;
            let first = if options.algorithms.is_empty() { vec![chosen] } else { vec![] };
            for &algorithm in first.iter().chain(&options.algorithms) {
                let seconds = match options.integers {
                    true => time_of_integers(shape, options.repeats),
                    false => time(shape, pass, algorithm, &options),
                };
                line += &format!(
                    " {:>9.3} ms {:>7.1} GFLOP/s {:>5.2} of peak {algorithm:?}{}",
                    seconds * 1e3,
                    gigaflops / seconds,
                    gigaflops / seconds / peak,
                    if algorithm == chosen { "*" } else { " " },
                );
                total.0 += seconds;
                best = best.min(seconds);
                if algorithm == chosen {
                    regret.0 += seconds;
                }
            }
            regret.1 += best;
            total.1 += gigaflops;
            println!("{line}");
        }
        if options.algorithms.is_empty() {
            let speed = total.1 / total.0;
            println!("total         {:>9.3} ms {speed:>7.1} GFLOP/s {:>5.2} of peak", total.0 * 1e3, speed / peak);
        } else if regret.0 > 0.0 {
            println!("chosen        {:>9.3} ms, the best {:.3} ms", regret.0 * 1e3, regret.1 * 1e3);
        }
    }
}

/// Times the loops that are bound by memory, at the sizes of VGG-16.
fn others(options: &Options) {
    let report = |name: &str, bytes: usize, run: &mut dyn FnMut()| {
        let seconds = shortest(options.repeats, run);
        println!("{name:<34} {:>9.3} ms {:>6.1} GB/s", seconds * 1e3, bytes as f64 / seconds / 1e9);
    };
    let Options { size, batch, .. } = *options;
    let count = 64 * batch * size * size;
    let values = noise(count);
    let mut copy = values.clone();
    report("copy", count * 8, &mut || copy.copy_from_slice(&values));
    report("relu::forward_in_place", count * 8, &mut || relu::forward_in_place(&mut copy));
    report("relu::backward", count * 12, &mut || relu::backward(&values, &mut copy));
    let shape = pool2x2::Shape { planes: 64 * batch, height: size, width: size };
    let mut pooled = vec![0.0; shape.output_len()];
    let mut indices = vec![0; shape.output_len()];
    let bytes = count * 5 + count / 4;
    report("pool2x2::forward", bytes, &mut || {
        pool2x2::forward(shape, &values, &mut pooled, Some(&mut indices));
    });
    report("pool2x2::backward", bytes, &mut || pool2x2::backward(shape, &indices, &pooled, &mut copy));

    let shape = dense::Shape { batch, inputs: 512 * (size / 32) * (size / 32), outputs: 4096 };
    let (input, weight) = (noise(batch * shape.inputs), noise(shape.inputs * shape.outputs));
    let mut output = noise(batch * shape.outputs);
    let bytes = weight.len() * 4;
    report("dense::forward of fc1", bytes, &mut || {
        dense::forward(shape, &input, &weight, None, Activation::Relu, &mut output);
    });
    let mut grad_input = input.clone();
    report("dense::backward_data of fc1", bytes, &mut || {
        dense::backward_data(shape, &output, &weight, &mut grad_input);
    });
    let mut grad_weight = weight.clone();
    report("dense::backward_filter of fc1", bytes, &mut || {
        dense::backward_filter(shape, &input, &output, &mut grad_weight, None);
    });
    let (mut first, mut second) = (vec![0.0; weight.len()], vec![0.0; weight.len()]);
    report("adam::step of fc1 (102.8 million)", weight.len() * 28, &mut || {
        adam::step(AdamStep::default(), &mut grad_weight, &weight, &mut first, &mut second);
    });

    let pixels = vec![127; 640 * 480 * 3];
    let source = resize::Source { pixels: &pixels, width: 640, height: 480, channels: 3 };
    let planes = resize::Planes {
        width: size,
        height: size,
        multiplier: [1.0 / 255.0; 3],
        offset: [0.0; 3],
        reverse_channels: false,
    };
    let mut resized = vec![0.0; 3 * size * size];
    let bytes = pixels.len() + resized.len() * 4;
    report("resize::bilinear, one thread", bytes, &mut || {
        resize::bilinear(source, None, planes, &mut resized);
    });
}

/// The shortest of some runs, in seconds.
fn shortest(repeats: usize, run: &mut dyn FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..=repeats {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

/// Times one pass of one layer, in seconds.
fn time(shape: Shape, pass: Pass, algorithm: Algorithm, Options { packed, repeats, .. }: &Options) -> f64 {
    let input = noise(shape.input_len());
    let weight = noise(shape.weight_len());
    let bias = noise(shape.out_channels);
    let mut output = noise(shape.output_len());
    let mut result = match pass {
        Pass::Forward => vec![],
        Pass::BackwardData => vec![0.0; shape.input_len()],
        Pass::BackwardFilter => vec![0.0; shape.weight_len()],
    };
    let mut grad_bias = vec![0.0; shape.out_channels];
    let transformed = match *packed {
        true => TransformedWeights::with_limit(0, shape, &weight),
        false => TransformedWeights::with_algorithm(algorithm, shape, &weight),
    };
    shortest(*repeats, &mut || match pass {
        Pass::Forward => {
            let epilogue = Epilogue { bias: Some(&bias), activation: Activation::Relu, ..Epilogue::default() };
            conv3x3::forward_transformed(shape, (&input, Layout::Planes), &transformed, epilogue, &mut output);
        }
        Pass::BackwardData => {
            conv3x3::backward_data_with(algorithm, shape, &output, &weight, &mut result);
        }
        Pass::BackwardFilter => {
            conv3x3::backward_filter_with(algorithm, shape, &input, &output, &mut result, Some(&mut grad_bias))
        }
    })
}

/// Times a convolution from bytes to bytes, in seconds.
fn time_of_integers(shape: Shape, repeats: usize) -> f64 {
    let Shape { batch, in_channels, out_channels, height, width } = shape;
    let integers = |length: usize| noise(length).into_iter().map(|value| value * 127.0);
    let bytes = |channels: usize| integer::bytes_len(batch, channels, height, width);
    let input: Vec<u8> = integers(bytes(in_channels)).map(|value| value.abs() as u8).collect();
    let weight: Vec<i8> = integers(shape.weight_len()).map(|value| value as i8).collect();
    let weights = IntegerWeights::new(shape, &weight, &vec![0.01; out_channels]);
    let grid = Grid { scale: 0.1, lowest: 0.0, highest: 255.0 };
    let epilogue = Epilogue { activation: Activation::Relu, grid: Some(grid), ..Epilogue::default() };
    let mut output = vec![0; bytes(out_channels)];
    shortest(repeats, &mut || {
        let (input, output) = (integer::Input::Bytes(&input), integer::Output::Bytes(&mut output));
        integer::forward(shape, (input, grid), &weights, epilogue, output);
    })
}

fn noise(length: usize) -> Vec<f32> {
    let mut state = 1_u32;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn options() -> Options {
    let mut options = Options {
        size: 224,
        batch: 1,
        repeats: 9,
        algorithms: vec![],
        passes: vec![Pass::Forward, Pass::BackwardData, Pass::BackwardFilter],
        layer: String::new(),
        others: false,
        packed: false,
        integers: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "--all" {
            options.algorithms = Algorithm::ALL.to_vec();
            continue;
        }
        if name == "--packed" {
            options.packed = true;
            continue;
        }
        if name == "--integers" {
            options.integers = true;
            options.passes = vec![Pass::Forward];
            continue;
        }
        if name == "--others" {
            options.others = true;
            continue;
        }
        let value = arguments.next().unwrap_or_default();
        let number = || value.parse().unwrap_or_else(|_| panic!("{name} needs a number"));
        let is = |debug: String| debug.eq_ignore_ascii_case(&value);
        match name.as_str() {
            "--size" => options.size = number(),
            "--batch" => options.batch = number(),
            "--repeats" => options.repeats = number(),
            "--threads" => rayon::ThreadPoolBuilder::new()
                .num_threads(number())
                .build_global()
                .expect("the pool has not been used yet"),
            "--set" => InstructionSet::limit(
                InstructionSet::available()
                    .find(|set| is(format!("{set:?}")))
                    .expect("an instruction set of this processor"),
            ),
            "--algorithm" => options
                .algorithms
                .push(Algorithm::ALL.into_iter().find(|algorithm| is(format!("{algorithm:?}"))).expect("an algorithm")),
            "--layer" => options.layer = value,
            "--pass" => options.passes.retain(|pass| is(format!("{pass:?}"))),
            _ => panic!("unknown option {name}"),
        }
    }
    options
}
