"""Which hosts refuse HEAD."""

from collections import OrderedDict
from typing import Final

__all__ = ["HeadSupport"]

_MAX_REFUSALS: Final = 3  # refused HEADs after which a host gets no more of them
_MAX_HOSTS: Final = 10_000  # hosts that are remembered


class HeadSupport:
    """Remembers hosts where HEAD keeps failing while GET works, so that they are asked with GET at once."""

    def __init__(self) -> None:
        self._refusals: OrderedDict[str, int] = OrderedDict()

    def refuses_head(self, host: str) -> bool:
        """Whether HEAD is not worth a request to this host."""
        return self._refusals.get(host, 0) >= _MAX_REFUSALS

    def learn(self, host: str, *, head_works: bool) -> None:
        """Count a GET that worked where HEAD had failed; a HEAD that works clears the count."""
        if head_works:
            self._refusals.pop(host, None)
        else:
            self._refusals[host] = self._refusals.get(host, 0) + 1
            self._refusals.move_to_end(host)
            if len(self._refusals) > _MAX_HOSTS:
                self._refusals.popitem(last=False)
