from .aligned import AlignedNetwork as AlignedNetwork
from .base import (
    DecoderOutput as DecoderOutput,
)
from .base import (
    ModalityFeatures as ModalityFeatures,
)
from .base import (
    ModalityNetwork as ModalityNetwork,
)
from .dmafnet import DMAFNet as DMAFNet
from .early_fusion_unet import EarlyFusionUNet as EarlyFusionUNet
from .m2ftrans import M2FTrans as M2FTrans
from .mmformer import MMFormer as MMFormer
from .rfnet import RFNet as RFNet
from .unet import ModalityUNet as ModalityUNet
