"""What the tests of pre-trainings share: options that take seconds on the small crystal set."""

SMALL = [
    "train.batch_size=3",
    "train.warmup=2",
    "train.decay_steps=1",  # a constant rate up to the last steps, so that a shorter run is the beginning of a longer
    "threads=1",
    "val_every=2",
    "val_batches=1",
    "log_every=1",
]
