"""The service's own metrics: what there is, where it comes from, and how it is put together.

Label values are names of endpoints, statuses, classes and the like, never ids, phones or
texts: a scrape is of bounded size and tells nothing of anybody.
"""

from server.observability.metrics.collector import ServiceCollector
from server.observability.metrics.dispatchers import Totals, samples_of
from server.observability.metrics.families import FAMILIES, Family
from server.observability.metrics.samples import Samples

__all__ = ["FAMILIES", "Family", "Samples", "ServiceCollector", "Totals", "samples_of"]
