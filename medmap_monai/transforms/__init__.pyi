from .imbalanced_dropout import (
    ImbalancedModalityDropout as ImbalancedModalityDropout,
)
from .imbalanced_dropout import (
    ImbalancedModalityDropoutd as ImbalancedModalityDropoutd,
)
from .intensity_jitter import RandIntensityJitter as RandIntensityJitter
from .intensity_jitter import RandIntensityJitterd as RandIntensityJitterd
from .limit_modalities import LimitModalitiesd as LimitModalitiesd
from .load_study import LoadStudy as LoadStudy
from .load_study import LoadStudyd as LoadStudyd
from .modality_dropout import RandModalityDropout as RandModalityDropout
from .modality_dropout import RandModalityDropoutd as RandModalityDropoutd
from .pipelines import (
    eval_transforms as eval_transforms,
)
from .pipelines import (
    inference_transforms as inference_transforms,
)
from .pipelines import (
    save_transforms as save_transforms,
)
from .pipelines import (
    train_transforms as train_transforms,
)
from .restore import (
    RestoreToOriginal as RestoreToOriginal,
)
from .restore import (
    RestoreToOriginald as RestoreToOriginald,
)
from .restore import (
    SaveLabelMap as SaveLabelMap,
)
from .restore import (
    SaveLabelMapd as SaveLabelMapd,
)
from .small_findings import (
    RemoveSmallFindingsd as RemoveSmallFindingsd,
)
