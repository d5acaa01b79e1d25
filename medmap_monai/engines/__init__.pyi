from .study_predictor import StudyPredictor as StudyPredictor
from .subset_evaluator import SubsetEvaluator as SubsetEvaluator
from .trainer import ModalityTrainer as ModalityTrainer
from .training_checkpoint import TrainingCheckpoint as TrainingCheckpoint
from .training_checkpoint import load_model as load_model
