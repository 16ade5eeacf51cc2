"""What a checkpoint can do and what it knows, one file a part of the report."""

from worldmodel.analysis.report.report import PARTS, Judged, evaluate

__all__ = ["PARTS", "Judged", "evaluate"]
