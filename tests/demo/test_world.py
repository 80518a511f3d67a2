"""The demo's bank pays once a key; its bell rings every time."""

from __future__ import annotations

from pathlib import Path

from demo.world import Bank, Bell


def test_the_bank_pays_a_key_once_however_often_it_is_asked(tmp_path: Path) -> None:
    bank = Bank(tmp_path / "bank.db")
    assert bank.pay(40, "Anna", key="k1") == bank.pay(40, "Anna", key="k1") == 1
    assert bank.pay(40, "Anna", key="k2") == 2
    books = Bank(tmp_path / "bank.db").books()
    assert books.requests == 3
    assert books.payments == (("k1", "Anna", 40), ("k2", "Anna", 40))


def test_the_bell_rings_again_and_again(tmp_path: Path) -> None:
    bell = Bell(tmp_path / "bell.txt")
    assert bell.heard() == ()
    bell.ring(3)
    bell.ring(3)
    assert Bell(tmp_path / "bell.txt").heard() == (3, 3)
