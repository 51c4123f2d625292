"""Learning-rate schedules, callbacks and optimisers for any Keras 3 project, on the TensorFlow and JAX backends."""

from callbacks.alarms import Alarms
from callbacks.batch_size import BatchSizeSchedule, linear_scaling, square_root_scaling
from callbacks.checkpoint import Checkpoint
from callbacks.combinators import CyclicMomentum, Paced, Scale, Sequence, WarmUp
from callbacks.curves import one_cycle
from callbacks.cyclic_schedules import (
    ExpRangeSchedule,
    OneCycleSchedule,
    Triangular2Schedule,
    TriangularSchedule,
    WarmRestartsSchedule,
)
from callbacks.deadline import Deadline
from callbacks.diagnosis import Diagnosis, diagnose
from callbacks.divergence import TerminateOnDivergence
from callbacks.early_stopping import EarlyStopping
from callbacks.filters import filter_roughness, first_layer_filters, plot_filters
from callbacks.freeze import Freeze
from callbacks.gradient_noise import GradientNoise
from callbacks.groups import NO_DECAY, ParameterGroup, discriminative_rates
from callbacks.hardest import ExampleLoss, HardestExamples
from callbacks.json_log import JsonLog, read_log
from callbacks.lr_finder import LRFinder, RangeTest
from callbacks.macro_f1 import MacroF1
from callbacks.monitor import Monitor
from callbacks.objective import Objective
from callbacks.one_training import OneTraining
from callbacks.optimizers import SGD, Adagrad, Adam, AdamW, Muon, MuonSGD, RMSprop, get_optimizer
from callbacks.plateau import ReduceOnPlateau
from callbacks.rate_callbacks import CyclicLR, OneCycle, StepDecay, WarmRestarts
from callbacks.schedules import (
    ConstantSchedule,
    CosineSchedule,
    ExponentialSchedule,
    HalvingSchedule,
    InverseSquareRootSchedule,
    InverseTimeSchedule,
    LinearSchedule,
    PiecewiseConstantSchedule,
    PolynomialSchedule,
    StepDecaySchedule,
)
from callbacks.snapshot_ensemble import SnapshotEnsemble
from callbacks.snapshots import read_snapshot
from callbacks.steps import Steps
from callbacks.throughput import Throughput
from callbacks.training_curves import loss_windows
from callbacks.weight_average import WeightAverage

__all__ = [
    "NO_DECAY",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Alarms",
    "BatchSizeSchedule",
    "Checkpoint",
    "ConstantSchedule",
    "CosineSchedule",
    "CyclicLR",
    "CyclicMomentum",
    "Deadline",
    "Diagnosis",
    "EarlyStopping",
    "ExampleLoss",
    "ExpRangeSchedule",
    "ExponentialSchedule",
    "Freeze",
    "GradientNoise",
    "HalvingSchedule",
    "HardestExamples",
    "InverseSquareRootSchedule",
    "InverseTimeSchedule",
    "JsonLog",
    "LRFinder",
    "LinearSchedule",
    "MacroF1",
    "Monitor",
    "Muon",
    "MuonSGD",
    "Objective",
    "OneCycle",
    "OneCycleSchedule",
    "OneTraining",
    "Paced",
    "ParameterGroup",
    "PiecewiseConstantSchedule",
    "PolynomialSchedule",
    "RMSprop",
    "RangeTest",
    "ReduceOnPlateau",
    "Scale",
    "Sequence",
    "SnapshotEnsemble",
    "StepDecay",
    "StepDecaySchedule",
    "Steps",
    "TerminateOnDivergence",
    "Throughput",
    "Triangular2Schedule",
    "TriangularSchedule",
    "WarmRestarts",
    "WarmRestartsSchedule",
    "WarmUp",
    "WeightAverage",
    "diagnose",
    "discriminative_rates",
    "filter_roughness",
    "first_layer_filters",
    "get_optimizer",
    "linear_scaling",
    "loss_windows",
    "one_cycle",
    "plot_filters",
    "read_log",
    "read_snapshot",
    "square_root_scaling",
]
