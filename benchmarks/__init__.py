"""How fast the kernel is, beside named references that run the same turns in the same minute."""
