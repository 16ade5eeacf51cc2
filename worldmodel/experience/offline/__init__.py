"""Experience without an environment: datasets in Minari's format, their files and the stream that reads them."""

from worldmodel.experience.offline.dataset import Dataset
from worldmodel.experience.offline.minari_files import DatasetWriter, read_dataset
from worldmodel.experience.offline.stream import OfflineStream

__all__ = ["Dataset", "DatasetWriter", "OfflineStream", "read_dataset"]
