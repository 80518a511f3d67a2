"""Names the limits of a workflow: what a spec may be, and what a run may do."""

from __future__ import annotations

#: Values, texts and names in one spec, output schemas included.
MAX_SPEC_VALUES = 100_000
#: Characters of all texts of a spec together.
MAX_SPEC_CHARS = 2_000_000
#: Lists and objects within each other.
MAX_SPEC_DEPTH = 90
#: Bits of a whole number: more than any double has, few enough to print.
MAX_INTEGER_BITS = 2_048
#: Nodes of one workflow.
MAX_NODES = 1_000
#: Nodes within each other.
MAX_NODE_DEPTH = 20
#: Conditions within each other.
MAX_CONDITION_DEPTH = 20
#: Problems that are reported of one spec.
MAX_PROBLEMS = 100

MAX_NAME_CHARS = 64
#: Characters of the path of a step, as a store keeps it: its id, behind those of what repeats around it.
MAX_PATH_CHARS = 255
MAX_DESCRIPTION_CHARS = 1_000
MAX_TEXT_CHARS = 200_000
#: Steps of one `sequence` or `parallel`, cases of one `branch`, parts of one condition.
MAX_STEPS = 500
#: Items of one `foreach`.
MAX_ITEMS = 10_000
MAX_ITERATIONS = 1_000
MAX_ATTEMPTS = 100
MAX_CONCURRENCY = 10_000
#: Steps of one run, those of every iteration and attempt counted, unless its maker says otherwise.
MAX_RUN_STEPS = 100_000
#: A year, in seconds: the longest wait, timeout and backoff.
MAX_SECONDS = 366 * 24 * 3600
