from .contribution import expected_gain as expected_gain
from .contribution import shapley_values as shapley_values
from .edge_cases import EdgeCases as EdgeCases
from .hausdorff import hausdorff95 as hausdorff95
from .reliability import expected_quality as expected_quality
from .reliability import read_reliability as read_reliability
