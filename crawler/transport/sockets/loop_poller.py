"""Watch sockets through the event loop, which knows the selector of its platform (kqueue, poll or select).

A selector of our own would not work: those of `selectors` that use poll or select have no descriptor that an event
loop could watch. Each wait registers its socket and removes it again, so an idle socket costs nothing.
"""

from collections.abc import Callable

from crawler.transport.sockets.poller import Poller, SocketReadiness

__all__ = ["LoopPoller"]


class LoopPoller(Poller):
    """Watches a socket while a task waits for it."""

    def watch(self, descriptor: int) -> SocketReadiness:
        """Watch a socket until `forget`."""
        return _LoopReadiness(self, descriptor)

    def forget(self, descriptor: int, readiness: SocketReadiness) -> None:
        """Stop watching a socket."""
        assert isinstance(readiness, _LoopReadiness)
        readiness.unregister()

    def take_all_events(self) -> None:
        """Do nothing: only the event loop can ask its selector."""


class _LoopReadiness(SocketReadiness):
    __slots__ = ("_descriptor", "_remove")

    def __init__(self, poller: Poller, descriptor: int) -> None:
        super().__init__(poller)
        self._descriptor = descriptor
        self._remove: Callable[[int], bool] | None = None  # takes the descriptor out of the loop's selector

    async def _wait(self, deadline: float, *, for_write: bool) -> None:
        loop = self._poller.loop
        # The events of a selector do not tell an error apart, so SO_ERROR is asked after each.
        if for_write:
            loop.add_writer(self._descriptor, self.note, False, True, True)
            self._remove = loop.remove_writer
        else:
            loop.add_reader(self._descriptor, self.note, True, False, True)
            self._remove = loop.remove_reader
        try:
            await super()._wait(deadline, for_write=for_write)
        finally:
            self.unregister()

    def unregister(self) -> None:
        # Only while it is registered: afterwards another socket may have the same number.
        if (remove := self._remove) is not None:
            self._remove = None
            remove(self._descriptor)
