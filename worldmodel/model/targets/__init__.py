"""Latent targets of the world model, and regularisers against collapse."""

from worldmodel.model.targets.base import Target
from worldmodel.model.targets.codes import Codes
from worldmodel.model.targets.collapse import effective_rank, latent_std
from worldmodel.model.targets.ema import EMA
from worldmodel.model.targets.frozen import Frozen
from worldmodel.model.targets.inverse import Inverse
from worldmodel.model.targets.reconstruction import Reconstruction
from worldmodel.model.targets.sigreg import SIGReg
from worldmodel.model.targets.vicreg import VICReg

__all__ = [
    "EMA",
    "Codes",
    "Frozen",
    "Inverse",
    "Reconstruction",
    "SIGReg",
    "Target",
    "VICReg",
    "effective_rank",
    "latent_std",
]
