//! Loads and runs artefacts on CPU and CUDA.
