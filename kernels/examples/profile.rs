//! Times each convolution of VGG-16, pass by pass.
//!
//! `cargo run --release -p kernels --example profile -- --size 224 --batch 1 --threads 2`
//! prints milliseconds, GFLOP/s in direct terms and the algorithm chosen. `--set avx2` uses the
//! instructions of another processor, `--algorithm winograd4` forces an algorithm, `--all` tries
//! each, and `--pass forward` and `--layer block3` time a part only.
#![expect(clippy::print_stdout, reason = "printing a table is what the program is for")]

use std::time::Instant;

use kernels::conv3x3::{self, Algorithm, Pass, Shape, TransformedWeights};
use kernels::{Activation, InstructionSet};

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
    for &pass in &options.passes {
        println!("\n{pass:?}");
        let mut total = (0.0, 0.0);
        for (name, in_channels, out_channels, halvings) in LAYERS {
            if !name.starts_with(&options.layer) {
                continue;
            }
            let side = options.size >> halvings;
            let shape = Shape { batch: options.batch, in_channels, out_channels, height: side, width: side };
            let chosen = conv3x3::algorithm(shape, pass);
            let gigaflops = shape.flops() as f64 / 1e9;
            let mut line = format!("{name:<13}");
            let first = if options.algorithms.is_empty() { vec![chosen] } else { vec![] };
            for &algorithm in first.iter().chain(&options.algorithms) {
                let seconds = time(shape, pass, algorithm, options.repeats);
                line += &format!(
                    " {:>9.3} ms {:>7.1} GFLOP/s {algorithm:?}{}",
                    seconds * 1e3,
                    gigaflops / seconds,
                    if algorithm == chosen { "*" } else { " " },
                );
                total.0 += seconds;
            }
            total.1 += gigaflops;
            println!("{line}");
        }
        println!("total         {:>9.3} ms {:>7.1} GFLOP/s", total.0 * 1e3, total.1 / total.0);
    }
}

/// The shortest of some runs, in seconds.
fn time(shape: Shape, pass: Pass, algorithm: Algorithm, repeats: usize) -> f64 {
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
    let transformed = TransformedWeights::with_algorithm(algorithm, shape, &weight);
    let mut best = f64::INFINITY;
    for _ in 0..=repeats {
        let start = Instant::now();
        match pass {
            Pass::Forward => {
                conv3x3::forward_transformed(shape, &input, &transformed, Some(&bias), Activation::Relu, &mut output)
            }
            Pass::BackwardData => {
                conv3x3::backward_data_with(algorithm, shape, &output, &weight, &mut result);
            }
            Pass::BackwardFilter => {
                conv3x3::backward_filter_with(algorithm, shape, &input, &output, &mut result, Some(&mut grad_bias))
            }
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
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
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "--all" {
            options.algorithms = Algorithm::ALL.to_vec();
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
