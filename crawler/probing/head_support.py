"""What is learned of hosts while they are probed."""

from collections import OrderedDict
from typing import Final

__all__ = ["HeadSupport"]

_ENOUGH: Final = 3  # HEADs that failed where GET passed
_REMEMBERED: Final = 10_000  # hosts of which habits are known


class HeadSupport:
    """Which hosts keep failing HEAD and passing GET: they are asked with GET at once."""

    def __init__(self) -> None:
        self._refusals: OrderedDict[str, int] = OrderedDict()

    def refuses_head(self, host: str) -> bool:
        """Whether HEAD has failed there so often, and GET has not, that HEAD is not worth a request."""
        return self._refusals.get(host, 0) >= _ENOUGH

    def learn(self, host: str, method: str) -> None:
        """Count a GET that passed where HEAD had failed; a HEAD that passes proves the contrary."""
        if method == "HEAD":
            self._refusals.pop(host, None)
        else:
            self._refusals[host] = self._refusals.get(host, 0) + 1
            self._refusals.move_to_end(host)
            if len(self._refusals) > _REMEMBERED:
                self._refusals.popitem(last=False)
