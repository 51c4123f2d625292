"""Learning-rate schedules and callbacks for any Keras 3 project, on any backend."""

from callbacks.checkpoint import Checkpoint
from callbacks.early_stopping import EarlyStopping
from callbacks.schedules import OneCycleSchedule, one_cycle

__all__ = ["Checkpoint", "EarlyStopping", "OneCycleSchedule", "one_cycle"]
