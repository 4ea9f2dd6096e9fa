"""Everything about a store that would surprise somebody later: pure checks, from facts to findings."""
