"""The HTML report: what an analysis or a plan says, as one file that needs nothing else."""

from graphprune.reporting.content import Extras, content_of, content_of_plan
from graphprune.reporting.page import page

__all__ = ["Extras", "content_of", "content_of_plan", "page"]
