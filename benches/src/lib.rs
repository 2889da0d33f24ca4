//! Latency, throughput and training-step measurements.
