"""The epochs of a training for TensorBoard."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf


def require_tensorboard() -> None:
    """A `ValueError` where the package is missing, without which TensorFlow cannot write for it."""
    if find_spec("tensorboard") is None:
        raise ValueError("`--tensorboard` needs the package tensorboard: pip install 'kerascnn[tensorboard]'.")


class TensorBoardLog(keras.callbacks.Callback):
    """Write what is known of every epoch, with the names, steps and folders that `keras.callbacks.TensorBoard` gives.

    Unlike Keras' callback it can go on in the folder of an interrupted training: what that wrote of epochs which are
    trained again is withdrawn, so that no epoch is there twice. It does not write the graph, nor scalars by evaluation,
    whose steps are batches and would be withdrawn by epochs.

    Args:
        folder: For the folders `train` and `validation`; may have those of an earlier part of the same training.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Write an epoch, counted from 0: `epoch_NAME` for every value in the logs, and `epoch_learning_rate`."""
        rate = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        for name, value in {**(logs or {}), "learning_rate": rate}.items():
            held_out = name.startswith("val_")
            with self._writer("validation" if held_out else "train", epoch).as_default(step=epoch):
                tf.summary.scalar(f"epoch_{name.removeprefix('val_')}", value)  # on disk when the block ends

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _writer(self, part: str, epoch: int) -> tf.summary.SummaryWriter:
        if part not in self._writers:
            withdraw(self.folder / part, epoch)
            self._writers[part] = tf.summary.create_file_writer(str(self.folder / part))
        return self._writers[part]


def withdraw(folder: Path, step: int) -> None:
    """Tell TensorBoard to forget what files before this one in `folder` say of this step and those after it.

    That is what a session that starts at a step means to it.
    """
    with tf.Graph().as_default():  # such events have no function for eager execution
        writer = tf.compat.v1.summary.FileWriter(str(folder))
        writer.add_session_log(tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START), step)
        writer.close()
