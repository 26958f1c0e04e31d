"""The model, opened when it is first asked: what is known from before needs none."""

from __future__ import annotations

import time
from contextlib import ExitStack
from types import TracebackType

from mlops_llm import console
from mlops_llm.eval.plan import Plan
from mlops_llm.inference.engine import Session


class Opened:
    """A session that is opened at the first use and closed at the end of a `with` block."""

    def __init__(self, plan: Plan) -> None:
        """Keep what is to be opened."""
        self._plan, self._stack = plan, ExitStack()
        self._session: Session | None = None
        self.seconds = 0.0
        """Time of opening: loading, and starting a server."""

    @property
    def session(self) -> Session:
        """The session.

        Raises:
            UserError: the model cannot be opened.
        """
        if self._session is None:
            began, found = time.perf_counter(), self._plan.subject
            console.detail(f"opening {self._plan.model}")
            if found and found.session:
                self._session = found.session()
                self.seconds = time.perf_counter() - began
                return self._session
            opened = self._plan.settings.engine.open(
                found.files if found else None,
                self._plan.settings.model_load,
                found.tokenizer if found else None,
                found.window if found else None,
            )
            self._session = self._stack.enter_context(opened)
            self.seconds = time.perf_counter() - began
        return self._session

    @property
    def is_open(self) -> bool:
        """Whether the model was asked."""
        return self._session is not None

    def __enter__(self) -> Opened:
        """Open nothing yet."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the session if there is one."""
        self._stack.__exit__(kind, error, trace)
