"""Puts our own agent through the whole crash matrix: every scenario, backend and kind of fault."""
