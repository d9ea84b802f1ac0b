"""A tree is found through /proc: by descent, by session, by token; stopped, signalled, killed."""

from __future__ import annotations

import signal

import pytest
from woods import grown, new_mark, tree_spec, wait_gone

from procreactor.transport.hunt import Hunt


@pytest.mark.parametrize("new_session", [False, True])
def test_descendants_are_found_and_killed(new_session: bool) -> None:
    mark = new_mark()
    spec = tree_spec(mark, "broad", 3)
    spec.new_session = new_session
    with grown(spec, mark, 4) as tree:
        hunt = Hunt(tree.pid, leads=new_session)
        assert set(hunt.members()) == tree.living()
        assert hunt.kill(10)
        wait_gone(mark)
        assert hunt.members() == []


def test_a_signal_is_for_each_of_them() -> None:
    mark = new_mark()
    with grown(tree_spec(mark, "broad", 2), mark, 3) as tree:
        assert Hunt(tree.pid).signal(signal.SIGTERM) == 3
        wait_gone(mark)


def test_of_a_leader_that_is_gone_and_without_a_token_nobody_is_found() -> None:
    mark = new_mark()
    with grown(tree_spec(mark, "broad", 1), mark, 2) as tree:
        assert Hunt(None).members() == []
        assert len(tree.living()) == 2
