"""Networks: velocity fields and flow maps ``forward(x, t, condition=None, step=None)``."""

from flowmatch.networks.architecture import Architecture, Sizes
from flowmatch.networks.auto import AutoNetwork
from flowmatch.networks.bottleneck import Bottleneck, BottleneckNetwork
from flowmatch.networks.conditioned import ConditionedNetwork
from flowmatch.networks.dropout import Dropout, draw_dropout_from
from flowmatch.networks.flow_maps import CorrectedVelocity, InstantVelocity, TeacherVelocity, start_from_velocity
from flowmatch.networks.masked import MaskedNetwork
from flowmatch.networks.mlp import MLP, ConcatenatedMLP, ModulatedMLP
from flowmatch.networks.transformer import DiffusionTransformer, Transformer
from flowmatch.networks.unet import ConvolutionalUNet, UNet

__all__ = [
    "MLP",
    "Architecture",
    "AutoNetwork",
    "Bottleneck",
    "BottleneckNetwork",
    "ConcatenatedMLP",
    "ConditionedNetwork",
    "ConvolutionalUNet",
    "CorrectedVelocity",
    "DiffusionTransformer",
    "Dropout",
    "InstantVelocity",
    "MaskedNetwork",
    "ModulatedMLP",
    "Sizes",
    "TeacherVelocity",
    "Transformer",
    "UNet",
    "draw_dropout_from",
    "start_from_velocity",
]
