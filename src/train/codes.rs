//! Every error code of training with what it means.

/// Code and explanation, sorted by code.
pub const CODES: &[(&str, &str)] = &[
    (
        "train::batch",
        "The rows of a step, `batch`, cannot be shared among the ranks so that each has as many. Write a multiple of their number, or start another number.",
    ),
    (
        "train::checkpoint",
        "A checkpoint cannot be gone on with: there is none, one of its two files is missing or of another run, or the folder has one already and `--resume` was not said.",
    ),
    (
        "train::dtype",
        "`dtype = \"bf16\"` is for code that LLVM generates: the interpreter and Cranelift compute in f32. Write `dtype = \"f32\"`, or train by `--target cpu --cpu-backend llvm`.",
    ),
    (
        "train::idle_ste",
        "`ste` says what stands for the derivative of binary gates, and every gate of the model that learns is scaled by its probability, which has one.",
    ),
    (
        "train::no_derivative",
        "Something between the loss and a tensor that trains has no derivative. Freeze the tensors in front of it, or leave it out of the model.",
    ),
    (
        "train::no_mpi",
        "Several ranks were started, and this skipc was built without the feature `mpi`, by which they find each other: each would train alone. Build it by `cargo build --release --features cuda,mpi`.",
    ),
    (
        "train::no_rate_loss",
        "`aux_weight` is 0, so that routers execute as many tokens as helps the loss, whatever their densities say.",
    ),
    ("train::no_target", "No row of a batch has two tokens, so that there is none to predict."),
    (
        "train::no_window",
        "The data, or the share of it that is held out, is shorter than a window of `seq` + 1 tokens.",
    ),
    (
        "train::not_finite",
        "The loss or a gradient left the range of f32. Weights and checkpoints are as they were before the step.",
    ),
    ("train::nothing", "No tensor of the model trains: `train` and `freeze` leave none."),
    ("train::pattern", "A pattern of the configuration matches no tensor of the model."),
    ("train::positions", "`seq` is more than the model has positions, `max_positions` of its spec."),
    (
        "train::rank_died",
        "A rank of the run ended, by a signal or for want of memory, or gave no sign of life for 20 seconds, and all others ended with it. Steps since the last checkpoint are lost; `--resume` goes on from it, with as many ranks or another number.",
    ),
    (
        "train::ranks",
        "The environment does not say which rank of how many this process is, or MPI says otherwise, or ranks cannot reach each other. Start them by the `mpirun` of the MPI that skipc was built with, or by `srun --mpi=pmix`; torchrun starts no MPI.",
    ),
    (
        "train::ranks_differ",
        "Ranks have to train one model: skipc, spec, configuration, data, teacher, weights, options, and what code is compiled for, are compared when a run begins, and weights at each checkpoint. The message names what differs on which rank.",
    ),
    (
        "train::resumed",
        "The configuration, the spec, the data or the teacher of a run that goes on is another than before. `--override KEY` allows a key of the configuration.",
    ),
    ("train::routers", "The model has more routers than the noise of training has room for."),
    (
        "train::routing",
        "Decisions that were to be replayed are not those of this run: `wanted.npy` and `gates.npy` are uint8 [steps, routers, batch, seq].",
    ),
    (
        "train::rows",
        "Rows of tokens have `seq` + 1 each, and neither a held-out share nor lengths of a stream.",
    ),
    (
        "train::rows_model",
        "The model takes rows of numbers in place of tokens, or gives rows: a part of a model has no loss of its own.",
    ),
    ("train::step", "A step was refused by what runs it. This is a fault of skipc."),
    (
        "train::teacher",
        "The teacher of `[distill]` has another vocabulary than the model, so that their distributions cannot be compared.",
    ),
    ("train::token", "The data has a token that the model does not have; file and index are in the message."),
    (
        "train::unsupported",
        "No rule says yet how something in the model trains: what gradient its decision gets. The message names the key of the spec.",
    ),
];
