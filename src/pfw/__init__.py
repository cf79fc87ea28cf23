"""Personal Firewall: one readable policy for this machine's traffic."""

__version__ = "0.1.0"
