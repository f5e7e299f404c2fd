"""Name and shape of every tensor that a manifest's encoders have, read off the architectures without any memory."""

import torch
from torch import nn

from encoders.slide_encoder.encode import build_empty_slide_encoder
