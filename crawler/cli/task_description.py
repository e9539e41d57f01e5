"""A Task in one line of text."""

from crawler.core.task_summary import Summary
from crawler.formats.table import replace_unprintable

__all__ = ["describe_task"]


def describe_task(task: Summary) -> str:
    """Describe the state of a Task in one line."""
    numbers = [f"{number} {outcome.replace('_', ' ')}" for outcome, number in task.counts.by_outcome() if number]
    counts = f" ({', '.join(numbers)})" if numbers else ""
    detail = f" ({replace_unprintable(task.detail)})" if task.detail else ""
    return f"Task {task.id}: {task.status}{detail}, {task.counts.done} of {task.total} done{counts}"
