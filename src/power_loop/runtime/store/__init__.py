"""Is everything durable: sessions, messages, calls and sends, and the transactions that change them."""
