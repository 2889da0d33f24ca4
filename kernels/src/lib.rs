//! The hot loops of training and serving a VGG network on a CPU, on plain slices.
