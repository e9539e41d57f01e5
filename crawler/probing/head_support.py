"""Which hosts answer HEAD as they answer GET."""

from collections import OrderedDict
from enum import Enum
from typing import Final

from crawler.core.results import Hop, HopResult
from crawler.probing.probe_state import ProbeState
from crawler.probing.statuses import REDIRECT_STATUSES, TRANSIENT_STATUSES

__all__ = ["HeadEvidence", "HeadSupport", "compare_answers", "head_evidence"]

_MAX_REFUSALS: Final = 3  # after this many failed HEADs, a host gets only GET
_MAX_HOSTS: Final = 10_000  # hosts that are remembered


class HeadEvidence(Enum):
    """What the answers to HEAD and GET for one URL show about its host."""

    WORKS = "HEAD has a good answer"
    REFUSED = "GET has a good answer, HEAD has not"
    MISLEADS = "HEAD has a good answer, GET has a bad one"


class HeadSupport:
    """Remembers hosts where the answers to HEAD and GET differ. Their probes begin with GET.

    A bad answer to HEAD costs only a second request, so it has to occur a few times. If HEAD has a good answer and GET
    a bad one, HEAD makes a wrong result, so once is enough.
    """

    def __init__(self) -> None:
        self._refusals: OrderedDict[str, int] = OrderedDict()

    def refuses_head(self, host: str) -> bool:
        """Whether probes of this host begin with GET."""
        return self._refusals.get(host, 0) >= _MAX_REFUSALS

    def learn(self, host: str, evidence: HeadEvidence) -> None:
        """Count the evidence of one URL. A HEAD that works clears the count, unless the host gets only GET already."""
        if evidence is HeadEvidence.WORKS:
            if host in self._refusals and not self.refuses_head(host):
                del self._refusals[host]
            return
        refusals = self._refusals.get(host, 0) + 1
        self._refusals[host] = _MAX_REFUSALS if evidence is HeadEvidence.MISLEADS else refusals
        self._refusals.move_to_end(host)
        if len(self._refusals) > _MAX_HOSTS:
            self._refusals.popitem(last=False)


def head_evidence(state: ProbeState, answer: HopResult) -> HeadEvidence | None:
    """Return what the answer to a probe's request shows about HEAD at its host; None for nothing."""
    if state.method == "HEAD":
        is_good = answer.error is None and answer.status is not None and 200 <= answer.status < 300
        return HeadEvidence.WORKS if is_good else None
    for last in reversed(state.hops):
        if (last.method, last.url) == ("HEAD", state.url.href):
            return compare_answers(last, answer)
    return None


def compare_answers(to_head: Hop, to_get: HopResult) -> HeadEvidence | None:
    """Return what the answers of one URL to HEAD and GET show about the host; None for nothing."""
    if to_get.error is not None or to_get.status is None:
        return None
    is_head_good = to_head.status is not None and to_head.status < 400
    if to_get.status >= 400:
        return HeadEvidence.MISLEADS if is_head_good and to_get.status not in TRANSIENT_STATUSES else None
    if is_head_good and (to_head.status in REDIRECT_STATUSES) == (to_get.status in REDIRECT_STATUSES):
        return None
    return HeadEvidence.REFUSED
