"""Learning-rate schedules, callbacks and optimisers for any Keras 3 project, on the TensorFlow and JAX backends."""

from callbacks.checkpoint import Checkpoint
from callbacks.combinators import CyclicMomentum, Scale, Sequence, WarmUp
from callbacks.curves import one_cycle
from callbacks.early_stopping import EarlyStopping
from callbacks.gradient_noise import GradientNoise
from callbacks.groups import NO_DECAY, ParameterGroup, discriminative_rates
from callbacks.optimizers import SGD, Adagrad, Adam, AdamW, Muon, RMSprop, get_optimizer
from callbacks.schedules import (
    ConstantSchedule,
    CosineSchedule,
    ExponentialSchedule,
    ExpRangeSchedule,
    HalvingSchedule,
    InverseSquareRootSchedule,
    InverseTimeSchedule,
    LinearSchedule,
    OneCycleSchedule,
    PiecewiseConstantSchedule,
    PolynomialSchedule,
    StepDecaySchedule,
    Triangular2Schedule,
    TriangularSchedule,
    WarmRestartsSchedule,
)
from callbacks.steps import Steps
