"""The report on a checkpoint's returns, world model, curiosity and memory."""

from worldmodel.analysis.report.report import REPORT_SECTIONS, evaluate
from worldmodel.analysis.report.result import CheckpointResult

__all__ = ["REPORT_SECTIONS", "CheckpointResult", "evaluate"]
