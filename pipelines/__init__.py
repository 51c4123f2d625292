"""Data: sources, splits, decoding, augmentation and tf.data batches."""

from pipelines.batches import make_eval, make_train
from pipelines.sources import open_dataset

__all__ = ["make_eval", "make_train", "open_dataset"]
