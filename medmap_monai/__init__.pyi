from .api.evaluate import evaluate as evaluate
from .api.loaded_bundle import LoadedBundle as LoadedBundle
from .api.loaded_bundle import load_bundle as load_bundle
from .api.predict import predict as predict
from .api.segmentation import Segmentation as Segmentation
from .data.studies import find_studies as find_studies
from .engines.trainer import ModalityTrainer as ModalityTrainer
from .inferers.modality_sliding_window import ModalitySlidingWindowInferer as ModalitySlidingWindowInferer
from .inferers.subset_sweep import SubsetSweepInferer as SubsetSweepInferer
from .losses.alignment import AlignmentLoss as AlignmentLoss
from .losses.prototype import PrototypeLoss as PrototypeLoss
from .losses.segmentation import WeightedCEDiceLoss as WeightedCEDiceLoss
from .losses.temperature_kl import TemperatureKLLoss as TemperatureKLLoss
from .methods.baseline import ModalityDropoutBaseline as ModalityDropoutBaseline
from .methods.case_counts import count_cases as count_cases
from .methods.dmaf import DMAF as DMAF
from .methods.medmap import MedMAP as MedMAP
from .methods.passion import Passion as Passion
from .networks.aligned import AlignedNetwork as AlignedNetwork
from .networks.dmafnet import DMAFNet as DMAFNet
from .networks.m2ftrans import M2FTrans as M2FTrans
from .networks.mmformer import MMFormer as MMFormer
from .networks.rfnet import RFNet as RFNet
from .networks.unet import ModalityUNet as ModalityUNet
from .transforms.load_study import LoadStudyd as LoadStudyd
from .transforms.modality_dropout import RandModalityDropoutd as RandModalityDropoutd

__version__: str
