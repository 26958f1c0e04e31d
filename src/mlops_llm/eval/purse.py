"""What judging costs, counted as it goes, and never more than a budget."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path

from mlops_llm.inference.chat import Reply


class Purse:
    """Counts calls, tokens and cost of several threads."""

    def __init__(
        self, price_in: float | None, price_out: float | None, budget: float | None = None, ledger: Path | None = None
    ) -> None:
        """Begin with nothing spent, or with what was spent before.

        Args:
            price_in: of a million tokens that are sent.
            price_out: of a million tokens that are received.
            budget: most that may be spent; it needs both prices.
            ledger: file to which each call is written, so that an evaluation which goes on has what is left of its budget.
        """
        self._prices, self._budget = (price_in or 0.0, price_out or 0.0), budget
        self._lock, self._held = threading.Lock(), 0.0
        self.has_prices = price_in is not None or price_out is not None
        self.calls = self.tokens_in = self.tokens_out = 0
        self.spent = 0.0
        self._ledger = ledger
        for line in ledger.read_text("ascii").splitlines() if ledger and ledger.is_file() else ():
            with contextlib.suppress(ValueError):  # a kill may have cut one off
                self._count(*json.loads(line))
        self.before = self.calls
        """Calls of earlier starts."""

    def bound(self, sent: str, most: int) -> float:
        """The most that a call can cost: no tokenizer in use makes more tokens of a text than it has bytes."""
        return self._cost(len(sent.encode("utf-8", "surrogatepass")) + 64, most)

    def hold(self, amount: float) -> bool:
        """Set an amount aside for a call; return whether the budget allows it."""
        with self._lock:
            if self._budget is not None and self.spent + self._held + amount > self._budget:
                return False
            self._held += amount
            return True

    def release(self, amount: float) -> None:
        """A call came to nothing."""
        with self._lock:
            self._held -= amount

    def pay(self, amount: float, reply: Reply) -> tuple[int, float]:
        """Count an answer in place of what was set aside for it; return its tokens and cost.

        What a server does not count costs all that was set aside, as far as a budget is concerned.
        """
        tokens = (reply.tokens_in or 0, reply.tokens_out or 0)
        cost = self._cost(*tokens)
        if reply.tokens_in is None or reply.tokens_out is None:
            cost = amount if self._budget is not None else cost
        with self._lock:
            self._held -= amount
            self._count(*tokens, cost)
            if self._ledger:
                with self._ledger.open("a", encoding="ascii") as file:
                    file.write("\n" + json.dumps([*tokens, cost]))
        return sum(tokens), cost

    def _count(self, tokens_in: int, tokens_out: int, cost: float) -> None:
        self.calls += 1
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out
        self.spent += cost

    def _cost(self, tokens_in: int, tokens_out: int) -> float:
        return (tokens_in * self._prices[0] + tokens_out * self._prices[1]) / 1e6
